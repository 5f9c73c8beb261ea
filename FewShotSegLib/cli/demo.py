"""The whole job on a folder of annotated volumes, or on synthetic patients: what ``demo`` runs.

The first volumes are the supports, the next one is the query. The query's annotation is read only
once the query is segmented, to score the result and to draw it.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..compute.locks import only_one
from ..core.atomic import require_writable, write_json
from ..core.ct_offset import in_hounsfield
from ..core.errors import InputError
from ..core.events import EventSink, make_event
from ..core.json_fields import load_json
from ..core.limits import SUPPORTS
from ..core.options import AdaptOptions, SegmentOptions
from ..core.tables import text_table
from ..evaluation.metrics import Scores, evaluate
from ..io.annotations import read_annotation
from ..io.file_names import require_usable_name
from ..io.pairs import Pair, find_pairs, read_names
from ..io.volumes import read_image
from ..models.registry import ModelEntry, find_model
from ..overlay.picture import Legend, Panel, draw_overlay
from ..phantoms.patients import ORGANS, write_phantoms
from ..pipeline import Runtime, Segmentation, adapt, segment
from ..pipeline.inputs import default_model
from ..pipeline.report import NAME as REPORT
from .describe import range_text

ADAPTER = "adapter.fseft"
OVERLAY = "overlay.png"
_STAGES = (
    ("phantoms", "making patients"),
    ("support features", "features of the supports"),
    ("train", "training the adapter"),
    ("query features", "features of the query"),
    ("segment", "segmenting"),
    ("refine", "transduction"),
    ("score", "scoring"),
    ("draw", "drawing"),
    ("total", "in all"),
)


def run_demo(
    out: Path,
    data: Path | None = None,
    supports: int = 3,
    options: AdaptOptions | None = None,
    *,
    runtime: Runtime | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Adapt to a few annotated volumes, segment the next one, score it and draw it.

    Written to ``out``: ``NAME_seg.nii.gz`` of the query, ``adapter.fseft``, ``report.json`` and
    ``overlay.png``; without ``data`` also synthetic patients in ``phantoms``, kept for the next
    run.

    Args:
        out: a folder; made where it does not exist.
        data: a folder as :func:`.pairs.find_pairs` reads it; None makes synthetic patients.
        supports: how many annotated volumes to learn from, 1 or more.
        options: of the training. Structures that are None are those that the folder names, or
            else all that are annotated; a model that is None is the embedded one for what the
            first image looks like. The seed is that of synthetic patients as well.
        say: takes the text for people, line by line or several lines together. Warnings are among
            it, below the table; whoever shows ``runtime``'s events as well need not show those.

    Returns:
        JSON-ready: ``supports``, ``query``, ``model``, ``structures`` (by name:
        ``reference_ml``, ``expected_ml`` and, with and without transduction, ``ml`` and ``dice``),
        ``mean_dice``, ``paths`` and ``seconds`` by stage. What is not defined is None.

    Raises:
        InputError: the folder has too few pairs, or something in it can't be used.
        ModelError, StorageError, Cancelled: as :func:`.pipeline.adapt`.
    """
    SUPPORTS.check(supports)
    options = options or AdaptOptions()
    if options.model is not None:
        find_model(options.model)  # reported before patients are made
    if data is not None:
        _enough(data, supports)
    out = Path(out)
    require_usable_name(out)  # its patients are read from there
    require_writable(out / ADAPTER)
    busy = f"Another demo is running in {out}; wait for it, or choose another --out."
    with only_one(out / ".demo.lock", busy):
        return _run(out, data, supports, options, runtime or Runtime(), say)


def _run(
    out: Path,
    data: Path | None,
    supports: int,
    options: AdaptOptions,
    runtime: Runtime,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """:func:`run_demo`, alone in its folder."""
    start = time.perf_counter()
    warnings: list[str] = []
    runtime = replace(runtime, events=_noting(runtime.events, warnings))
    seconds: dict[str, float] = {}
    folder = data
    if folder is None:
        folder = out / "phantoms"
        _make_patients(folder, supports + 1, options.seed, say)
        seconds["phantoms"] = time.perf_counter() - start
    pairs = _enough(folder, supports)
    model = options.model or default_model(pairs[0].image)
    entry = find_model(model).entry
    wanted = options.structures or (read_names(folder) if data else list(ORGANS))
    *support_pairs, query = pairs
    segmentation = out / f"{query.name}_seg.nii.gz"
    _require_apart(out, segmentation, pairs)
    _introduce(entry, support_pairs, query, data is None, say)

    trained = adapt(
        [(pair.image, pair.segmentation) for pair in support_pairs],
        out / ADAPTER,
        replace(options, structures=wanted, model=model),
        runtime=runtime,
    )
    how = SegmentOptions(model=model, seed=options.seed)
    result = segment(trained, query.image, segmentation, how, runtime=runtime)
    training = trained.training["seconds"]
    seconds |= {"support features": training["features"], "train": training["train"]}
    seconds["query features"] = result.report["seconds"]["features"]
    seconds |= {key: result.report["seconds"].get(key, 0.0) for key in ("segment", "refine")}

    scoring = time.perf_counter()
    reference = read_annotation(
        query.segmentation, result.grid, result.structures, may_be_empty=True
    ).masks
    before = evaluate(reference, result.unrefined, result.grid)
    after = evaluate(reference, result.masks, result.grid)
    drawing = time.perf_counter()
    runtime.check()
    image = in_hounsfield(read_image(query.image), trained.modality)
    image = replace(image, modality=trained.modality)
    panels = [
        Panel("Adapter", result.unrefined, _dice(before)),
        Panel("Adapter + transduction", result.masks, _dice(after), _remarks(result)),
    ]
    count = len(support_pairs)
    draw_overlay(
        out / OVERLAY,
        image,
        panels,
        Legend(result.structures, reference, _expected(result)),
        title=query.name,
        subtitle=f"Learned from {count} annotated volume{'s' if count > 1 else ''}"
        f"   ·   {entry.title}"
        f"{'   ·   transduction changed nothing' * _unchanged(result)}",
    )
    runtime.events(make_event("result", kind="overlay", path=str(out / OVERLAY)))
    end = time.perf_counter()
    seconds |= {"score": drawing - scoring, "draw": end - drawing, "total": end - start}
    summary = _summary(result, before, after)
    summary |= {
        "supports": [pair.name for pair in support_pairs],
        "query": query.name,
        "model": entry.id,
        "paths": {
            "segmentation": str(segmentation),
            "adapter": str(out / ADAPTER),
            "report": str(out / REPORT),
            "overlay": str(out / OVERLAY),
        },
        "seconds": {key: round(value, 2) for key, value in seconds.items()},
    }
    say(_table(summary, after))
    say("")
    for note in dict.fromkeys([*warnings, *_notes(result, summary)]):
        say(textwrap.fill(note, 100))
    say("\n" + _places(summary))
    return summary


def _enough(folder: Path, supports: int) -> list[Pair]:
    """The supports and the query.

    Raises:
        InputError: there are fewer annotated volumes than that.
    """
    pairs = find_pairs(folder)[: supports + 1]
    if len(pairs) <= supports:
        raise InputError(
            f"{folder} has {len(pairs)} annotated volume(s), but {supports} support(s) and a query "
            f"are {supports + 1}. Add volumes, or take fewer supports."
        )
    return pairs


def _make_patients(folder: Path, count: int, seed: int, say: Callable[[str], None]) -> None:
    """Write synthetic patients, unless these very ones are there already."""
    marker = folder / "made.json"
    wanted = {"seed": seed, "count": count, "version": __version__}
    try:
        made = load_json(marker, "record")
        if made == wanted and len(list(folder.glob("phantom_*.nii.gz"))) >= 2 * count:
            return
    except InputError:
        pass
    say(f"Making {count} synthetic patients in {folder}")
    write_phantoms(folder, count, seed, varied_grid=True)
    write_json(marker, wanted)


def _require_apart(out: Path, segmentation: Path, pairs: Sequence[Pair]) -> None:
    """Never write over what a user drew.

    Raises:
        InputError: the result would replace one of the annotations.
    """
    taken = {path.resolve() for pair in pairs for path in (pair.image, pair.segmentation)}
    if segmentation.resolve() in taken:
        raise InputError(
            f"The result would replace {segmentation}, which belongs to the data. Choose another "
            f"output folder than {out}."
        )


def _introduce(
    entry: ModelEntry,
    supports: Sequence[Pair],
    query: Pair,
    synthetic: bool,
    say: Callable[[str], None],
) -> None:
    """What the demo is about to do."""
    kind = "  (synthetic patients)" if synthetic else ""
    say(f"Supports  {', '.join(pair.name for pair in supports)}{kind}")
    say(f"Query     {query.name}")
    say(f"Model     {entry.title} [{entry.id}]")
    say("")


def _dice(scores: Mapping[str, Scores]) -> dict[str, float | None]:
    return {name: score.dice for name, score in scores.items()}


def _remarks(result: Segmentation) -> dict[str, str]:
    """What is not as expected beside the sizes, in a few words by structure."""
    found = result.report["structures"].items()
    return {name: ", ".join(entry["remarks"]) for name, entry in found if entry["remarks"]}


def _expected(result: Segmentation) -> dict[str, tuple[float, float]]:
    """The plausible range in ml, by name, of the structures that have one."""
    ranges = {}
    for name, found in result.report["structures"].items():
        prior = found["prior"]
        if prior["enabled"] and prior["upper_ml"] is not None:
            ranges[name] = (prior["lower_ml"] or 0.0, prior["upper_ml"])
    return ranges


def _summary(
    result: Segmentation, before: Mapping[str, Scores], after: Mapping[str, Scores]
) -> dict[str, Any]:
    """The numbers of the table, JSON-ready."""
    expected = _expected(result)
    rows: dict[str, dict[str, Any]] = {}
    for structure in result.structures:
        plain, refined = before[structure.name].to_json(), after[structure.name].to_json()
        rows[structure.name] = {
            "reference_ml": plain["reference_ml"],
            "expected_ml": list(expected[structure.name]) if structure.name in expected else None,
            "adapter": {"ml": plain["volume_ml"], "dice": plain["dice"]},
            "transduction": {"ml": refined["volume_ml"], "dice": refined["dice"]},
        }
    means = {}
    for way in ("adapter", "transduction"):
        known = [row[way]["dice"] for row in rows.values() if row[way]["dice"] is not None]
        means[way] = round(float(np.mean(known)), 4) if known else None
    return {"structures": rows, "mean_dice": means}


def _table(summary: Mapping[str, Any], after: Mapping[str, Scores]) -> str:
    """The demo's table, ASCII but for the structures' names."""
    rows = []
    for name, row in summary["structures"].items():
        rows.append(
            [
                name,
                _number(row["reference_ml"], 2),
                range_text(*(row["expected_ml"] or (None, None))),
                _number(row["adapter"]["ml"], 2),
                _number(row["adapter"]["dice"], 3),
                _number(row["transduction"]["ml"], 2),
                _number(row["transduction"]["dice"], 3),
                after[name].note,
            ]
        )
    means = summary["mean_dice"]
    mean = ["mean", "", "", "", _number(means["adapter"], 3), ""]
    rows.append([*mean, _number(means["transduction"], 3), ""])
    header = ["structure", "reference ml", "expected ml", "adapter ml", "Dice"]
    lines = text_table([*header, "transduction ml", "Dice", "note"], rows, " >>>>>>").splitlines()
    lines.insert(-1, lines[1])
    return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _unchanged(result: Segmentation) -> bool:
    """Whether transduction left every mask as it was."""
    return all(np.array_equal(mask, result.unrefined[name]) for name, mask in result.masks.items())


def _noting(events: EventSink, warnings: list[str]) -> EventSink:
    """A sink that passes every event on, and keeps the warnings' messages."""

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "warning":
            warnings.append(event["message"])
        events(event)

    return note


def _notes(result: Segmentation, summary: Mapping[str, Any]) -> list[str]:
    """What a reader should know before believing the table, beside the warnings."""
    notes, unlike = [], []
    for name, row in summary["structures"].items():
        size, expected = row["reference_ml"], row["expected_ml"]
        if size and expected and not expected[0] <= size <= expected[1]:
            unlike.append(f"{name} ({size:.1f} ml)")
    if unlike:
        notes.append(
            "In the reference, outside the expected range that transduction aims for: "
            f"{', '.join(unlike)}."
        )
    if _unchanged(result):
        notes.append("Transduction changed nothing.")
    notes.append("Dice of one query is an example, not a measurement.")
    return notes


def _places(summary: Mapping[str, Any]) -> str:
    """Where the files are, and what took how long."""
    paths = summary["paths"]
    lines = [f"{kind.capitalize():<13} {paths[kind]}" for kind in paths]
    seconds = summary["seconds"]
    stages = [(text, seconds[key]) for key, text in _STAGES if key in seconds]
    lines += ["", "Seconds"]
    lines += [f"  {text:<26}{value:>8.1f}" for text, value in stages]
    return "\n".join(lines)
