"""``segment`` and ``evaluate``: queries segmented, and what that is worth."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.atomic import write_json
from ...core.errors import FewShotSegError, InputError
from ...core.events import EventSink, make_event
from .common import make_runtime, say, segment_options

if TYPE_CHECKING:
    from ...core.annotation import Structure
    from ...io.queries import Found
    from ...pipeline.adapter_file import TrainedAdapter
    from ...pipeline.batch import Outcome
    from ...pipeline.listing import Listing


def segment_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Segment every query; one that fails does not cost the others."""
    from ...core.size_prior import override_priors
    from ...io.queries import find_queries
    from ...pipeline import segment
    from ...pipeline.adapter_file import TrainedAdapter
    from ...pipeline.batch import Outcome, result_paths
    from ...pipeline.inputs import read_support, require_no_input

    trained = TrainedAdapter.load(args.adapter)
    found = find_queries(args.query)
    single = _single_output([f.query for f in found], args.out, args.format)
    given = [f.query for f in found if not Path(f.query).is_dir()]
    inputs = [*given, *(path for pair in args.support or () for path in pair)]
    many = () if single else result_paths(found, args.out, trained.exclusive, args.format)
    for out in many or [args.out]:
        require_no_input(out, inputs)
    trained.find_model(args.model)  # reported before any query is read
    options, runtime = segment_options(args), make_runtime(args, sink)
    override_priors(trained.priors, options.gamma, options.priors_ml)
    shared: dict[str, Any] = {
        "options": options,
        "supports": [
            read_support(image, labels, structures=trained.structures)
            for image, labels in args.support or ()
        ],
        "runtime": runtime,
    }
    if single and args.dask is not None:
        raise InputError(f"--dask is for a folder of results, and --out {args.out} is one file.")
    if single:
        (one,) = found
        result = segment(trained, one.query, args.out, **shared)
        _tell(args, Outcome(one.query, args.out, result))
        return 0
    return _segment_many(args, sink, trained, found, shared)


def _segment_many(
    args: argparse.Namespace,
    sink: EventSink,
    trained: TrainedAdapter,
    found: Sequence[Found],
    shared: Mapping[str, Any],
) -> int:
    """Into a folder, with a table and a page of all where there are several.

    Raises:
        InputError: some failed; the others are done.
    """
    from ...pipeline.batch import summary
    from ...pipeline.listing import Listing

    listing = Listing(args.out, args.pictures) if len(found) > 1 else None
    failed: list[Outcome] = []
    done: dict[str, Any] = {}
    try:
        for outcome in _each(args, trained, found, shared):
            if listing is not None:
                listing.add(outcome, trained, shared["runtime"])
            if outcome.error is None:
                if outcome.result is None:  # of before: reported as one of now
                    sink(make_event("result", kind="segmentation", path=outcome.out))
                _tell(args, outcome)
                assert outcome.report is not None
                done[outcome.name] = outcome.report["structures"]
            elif listing is None:
                raise outcome.error
            else:
                # One bad file must not cost a night's batch.
                failed.append(outcome)
                text = f"{outcome.query} was left out: {outcome.error}"
                sink(make_event("warning", message=text))
    except BaseException:
        # What is done is worth its page however the run ended; how, is reported first.
        with suppress(FewShotSegError, OSError):
            if listing is not None and done:
                _list(args, sink, listing, done)
        raise
    if listing is not None:
        _list(args, sink, listing, done)
    if failed:
        raise InputError(summary(failed, len(found)))
    return 0


def _each(
    args: argparse.Namespace,
    trained: TrainedAdapter,
    found: Sequence[Found],
    shared: Mapping[str, Any],
) -> Iterator[Outcome]:
    """An outcome for each query: here one after the other, or on a cluster as they are done."""
    how = {"resume": not args.again, "format": args.format}
    if args.dask is None:
        from ...pipeline.batch import segment_each

        yield from segment_each(trained, found, args.out, **how, **shared)
        return
    from ...compute.cluster import connect
    from ...pipeline.cluster import segment_on

    runtime, options = shared["runtime"], shared["options"]
    how |= {"supports": args.support or (), "pictures": args.pictures and len(found) > 1}
    with connect(args.dask, runtime.events) as cluster:
        yield from segment_on(
            cluster, args.adapter, found, args.out, options, runtime=runtime, **how
        )


def _list(
    args: argparse.Namespace, sink: EventSink, listing: Listing, done: Mapping[str, Any]
) -> None:
    """The table and the page of many results, and the same in words."""
    from ..describe import ranking_text

    paths = [listing.write_table(), listing.write_page()]
    for path, kind in zip(paths, ("table", "page"), strict=True):
        sink(make_event("result", kind=kind, path=str(path)))
    say(args, "\n".join([ranking_text(done), *map(str, paths)]))


def _tell(args: argparse.Namespace, outcome: Outcome) -> None:
    """A result in words."""
    from ..describe import result_text

    assert outcome.report is not None  # failures are reported elsewhere
    structures = outcome.report["structures"]
    before = "" if outcome.before is None else " (done before)"
    say(args, f"{outcome.query}{before}\n{result_text(structures)}\n{outcome.out}\n")


def evaluate_command(args: argparse.Namespace, sink: EventSink) -> int:
    """Score a segmentation."""
    from ...core.annotation import parse_structures
    from ...evaluation.folders import holds_results
    from ...evaluation.metrics import evaluate_files, format_table, scores_json

    structures = parse_structures(args.structures) if args.structures else None
    if args.json and {Path(args.json).resolve()} & {
        Path(path).resolve() for path in (args.reference, args.prediction)
    }:
        raise InputError(f"--json {args.json} is one of the segmentations; give another name.")
    if holds_results(args.prediction):
        return _evaluate_many(args, sink, structures)
    if args.csv:
        raise InputError(
            f"--csv is for a folder of results, which {args.prediction} is not: it has no "
            "report.json. --json takes the scores of one."
        )
    scores = evaluate_files(args.reference, args.prediction, structures, args.tolerance)
    data = scores_json(scores, args.tolerance)
    if args.json:
        write_json(args.json, {"reference": args.reference, "prediction": args.prediction, **data})
    sink(make_event("result", kind="evaluation", path=args.json, **data))
    title = f"{args.prediction} against {args.reference}"
    say(args, f"{title}; surface Dice within {args.tolerance:g} mm\n{format_table(scores)}")
    return 0


def _evaluate_many(
    args: argparse.Namespace, sink: EventSink, structures: Sequence[Structure] | None
) -> int:
    """Score a folder of results.

    Raises:
        InputError: some could not be compared; the others were.
    """
    from ...evaluation.folders import evaluate_folder, folder_text, write_table
    from ...evaluation.metrics import scores_json

    found = list(evaluate_folder(args.reference, args.prediction, structures, args.tolerance))
    data = {
        one.volume: scores_json(one.scores, args.tolerance)
        | {"note": one.note, "is_support": one.is_support}
        for one in found
    }
    if args.json:
        paths = {"reference": args.reference, "prediction": args.prediction}
        write_json(args.json, {**paths, "volumes": data})
    if args.csv:
        write_table(args.csv, found)
    sink(make_event("result", kind="evaluation", path=args.csv or args.json, volumes=data))
    title = f"{args.prediction} against {args.reference}"
    say(args, f"{title}; surface Dice within {args.tolerance:g} mm\n{folder_text(found)}")
    missing = [one for one in found if one.note]
    if missing:
        lines = "\n  ".join(f"{one.volume}: {one.note}" for one in missing)
        raise InputError(f"{len(missing)} of {len(found)} could not be compared:\n  {lines}")
    return 0


def _single_output(queries: Sequence[Any], out: str, format: str | None = None) -> bool:
    """Whether ``--out`` is the result's own file, and no folder for results.

    Raises:
        InputError: several queries for one file, a file of a kind that results can't be written
            as, or of another kind than the format.
    """
    from ...core.result_formats import FORMATS
    from ...io.results import EXTENSIONS, check_output_name

    if Path(out).is_dir() or out.endswith(("/", os.sep)):
        return False
    if Path(out).name.lower().endswith(EXTENSIONS):
        if len(queries) > 1:
            raise InputError(f"--out {out} is one file for {len(queries)} queries; give a folder.")
        if format and check_output_name(out) != check_output_name(f"x{FORMATS[format]}"):
            raise InputError(
                f"--format {format} is for a folder of results, and --out {out} says another "
                "format already; leave --format out."
            )
        return True
    if Path(out).suffix:
        raise InputError(
            f"--out {out}: let a file's name end with {', '.join(EXTENSIONS)}, and a folder's "
            "with /."
        )
    return False
