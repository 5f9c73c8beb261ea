"""A query segmented with a trained adapter: the steps in order, and the result."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
import torch

from .. import __version__
from ..compute.transaction import Transaction, recover
from ..core.atomic import require_writable
from ..core.ct_offset import in_hounsfield
from ..core.errors import InputError
from ..core.events import EventSink, ignore, make_event
from ..core.geometry import Volume
from ..core.limits import require_path
from ..core.model_folders import own_folder
from ..core.options import SegmentOptions
from ..core.settings import RefinementSettings, TrainingSettings
from ..core.size_prior import override_priors
from ..inference.prediction import (
    model_probabilities,
    original_masks,
    original_probability,
    original_uncertainty,
)
from ..inference.query_sizes import query_for
from ..io.queries import DicomSeries
from ..io.results import (
    DICOM,
    SEGMENTS,
    check_output_name,
    probability_names,
    write_label_map,
    write_probability,
    write_segments,
)
from ..models.preprocessing import Placement
from ..training.run import Run
from ..training.size_penalty import SizeTarget
from ..training.support_set import Support, prepare_support
from ..training.transduction import refine
from .adapter_file import TrainedAdapter, content_hash
from .companion import averaged, companion_probabilities
from .inputs import (
    PathLike,
    SupportLike,
    as_supports,
    as_volume,
    name_of,
    paths_of,
    require_no_input,
    support_list,
    with_known_values,
)
from .recording import is_support, query_warnings
from .report import NAME as REPORT
from .report import Basis, commit_with_report, make_report, read_reports
from .result import Segmentation as Segmentation
from .runtime import Clock, Runtime, ends_progress
from .sparse import require_said, sparse_supports
from .trust import find_signals

if TYPE_CHECKING:
    from .outcomes import Outcomes


@overload
def segment(
    adapter: TrainedAdapter | PathLike,
    query: PathLike | Volume,
    out: PathLike | None = None,
    options: SegmentOptions | None = None,
    *,
    supports: Sequence[SupportLike] = (),
    runtime: Runtime | None = None,
    **changes: Any,
) -> Segmentation: ...


@overload
def segment(
    adapter: TrainedAdapter | PathLike,
    query: Sequence[PathLike | Volume],
    out: PathLike | None = None,
    options: SegmentOptions | None = None,
    *,
    supports: Sequence[SupportLike] = (),
    runtime: Runtime | None = None,
    **changes: Any,
) -> Outcomes: ...


@ends_progress
def segment(
    adapter: TrainedAdapter | PathLike,
    query: PathLike | Volume | Sequence[PathLike | Volume],
    out: PathLike | None = None,
    options: SegmentOptions | None = None,
    *,
    supports: Sequence[SupportLike] = (),
    runtime: Runtime | None = None,
    **changes: Any,
) -> Segmentation | Outcomes:
    """Segment a query, or several, with a trained adapter, which stays as it was.

    Args:
        adapter: from :func:`adapt`, or the path of its file.
        query: an image file, DICOM folder or volume; or a list of these, see
            :func:`.outcomes.segment_list`: ``out`` is a folder then, one that fails costs no
            other, and an outcome for each comes back.
        out: where to write the result, if anywhere: a label map, or named segments for
            ``.seg.nrrd`` and, of a DICOM query, ``.dcm``; ``report.json`` and any probabilities go
            beside it.
        options: how; with transduction and no extras where not given.
        supports: the training's supports, if at hand: their loss then holds the refinement.
        runtime: device, cache, progress, cancelling.
        changes: fields of :class:`SegmentOptions` in place of those of ``options``, and of
            ``RefinementSettings``: ``segment(adapter, path, transductive=False)``.

    Raises:
        InputError, ModelError, StorageError: see each message. Nothing has been written.
        Cancelled: the user stopped.
        TypeError: there is no option of such a name.
    """
    if isinstance(query, (list, tuple)):
        from .outcomes import segment_list

        shared = {"supports": supports, "runtime": runtime}
        return segment_list(adapter, query, out, options, **shared, **changes)
    query = cast("PathLike | Volume", query)
    options, supports = SegmentOptions.of(options, **changes), support_list(supports)
    runtime = runtime or Runtime()
    clock = Clock(runtime.events, name_of(query))
    if out is not None:
        _require_name(out, [query, *paths_of(supports)])
    trained = adapter if isinstance(adapter, TrainedAdapter) else TrainedAdapter.load(adapter)
    if out is not None:
        _require_fitting(out, query, trained, options)
        _require_place(out)  # last: it makes the folder
    priors = override_priors(trained.priors, options.gamma, options.priors_ml)
    foundation = trained.find_model(options.model)
    with clock.phase("read", 1):
        offset = options.intensity_offset
        volume = in_hounsfield(as_volume(query), trained.modality, offset)
        pairs = _read_supports(supports, trained, options, runtime.events)
    learned_from = is_support(trained, volume)
    warnings = query_warnings(trained, volume, learned_from)
    for warning in warnings:  # now, while stopping still saves something
        runtime.events(make_event("warning", message=warning))
    source = runtime.source(trained.tuned_model(foundation), trained.preprocessing)
    source.upcoming = [volume, *(pair.volume for pair in pairs)]
    with clock.phase("features", 1 + len(pairs)):
        features = source(volume, name_of(query) or "query")
        prepared = [prepare_support(pair, trained.structures, source) for pair in pairs]
    with clock.phase("segment", None):
        scores = model_probabilities(trained.adapter, features, source.device, _on_tile(runtime))
        second = companion_probabilities(trained, foundation, volume, source, runtime)
        mean = averaged(scores, second)
        unrefined = _masks(mean, volume, trained, options)
    masks, refinement, first = unrefined, None, scores
    if options.transductive:
        with clock.phase("refine", None):
            target = query_for(volume, features, source, runtime.check)
            names = [structure.name for structure in trained.structures]
            assert isinstance(options.refinement, RefinementSettings)  # whatever it was given as
            refined, refinement = refine(
                trained.adapter,
                scores,
                SizeTarget(target, {name: priors[name] for name in names}),
                options.refinement,
                Run(source.device, options.seed, "refine", runtime.events, runtime.check),
                prepared,
                _settings_of(trained),
            )
            if refined is not scores:
                scores = refined
                mean = averaged(scores, second)
                masks = _masks(mean, volume, trained, options)
    with clock.timed("judge"):
        both = (first, scores)
        signals = find_signals(trained, features, both, source.device, runtime.check)
    placement = trained.preprocessing.placement(volume)
    result = Segmentation(
        structures=trained.structures,
        masks=masks,
        unrefined=unrefined,
        probabilities=_probabilities(mean, placement, trained) if options.probabilities else {},
        grid=volume.grid,
        uncertainty=original_uncertainty(mean, placement) if options.uncertainty else None,
        image=replace(volume, modality=trained.modality),
    )
    runtime.check()
    like = None if isinstance(query, Volume) else query
    work = _work_key(trained, volume, pairs, options)
    known = (refinement, warnings, signals, work, learned_from)
    basis = Basis(priors, foundation, options, source, *known)
    _finish(result, trained, basis, (out, like) if out else None, clock, runtime)
    return result


def work_key(
    trained: TrainedAdapter,
    query: PathLike | Volume,
    options: SegmentOptions,
    supports: Sequence[SupportLike] = (),
) -> str:
    """What a result's report has as ``work``: the same adapter, voxels and options give the same,
    and the same result.

    Raises:
        InputError: the query or a support can't be read.
    """
    offset = options.intensity_offset
    volume = in_hounsfield(as_volume(query), trained.modality, offset)
    pairs = _read_supports(supports, trained, options, ignore)
    return _work_key(trained, volume, pairs, options)


def _read_supports(
    supports: Sequence[SupportLike],
    trained: TrainedAdapter,
    options: SegmentOptions,
    events: EventSink,
) -> list[Support]:
    """The supports of the training, of which the same is known as there.

    Raises:
        InputError: as of :func:`as_supports`; or one of which only a part was known is given as
            a whole.
    """
    pairs = as_supports(supports, trained.structures)
    pairs = with_known_values(pairs, trained.modality, options.intensity_offset)
    require_said(pairs, trained.supports, options.sparse)
    return sparse_supports(pairs, options.sparse, events)


def _work_key(
    trained: TrainedAdapter, volume: Volume, pairs: Sequence[Support], options: SegmentOptions
) -> str:
    kept = trained.metadata().get("evidence")  # what verdicts hang on
    parts = [__version__, trained.content_sha256(), repr(kept), repr(options)]
    for one in (volume, *(pair.volume for pair in pairs)):
        parts += [repr(one.grid), content_hash(one)]
    for pair in pairs:
        known = pair.annotation.known
        masks = dict(pair.annotation.masks) | ({} if known is None else {"": known})
        for name, mask in sorted(masks.items()):
            parts += [name, hashlib.sha256(np.ascontiguousarray(mask)).hexdigest()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _require_name(out: PathLike, inputs: Sequence[Any]) -> None:
    """Refuse what a result can't be written as, before the work."""
    require_path(out)
    check_output_name(out)
    require_no_input(out, inputs)


def _require_place(out: PathLike) -> None:
    """Refuse where a result can't be written, before the work. A missing folder is made."""
    require_writable(out)
    own_folder("locks")  # needed at the end: reported before the work
    recover(Path(out).parent)
    read_reports(Path(out).parent / REPORT)  # refuses another program's


def _require_fitting(
    out: PathLike, query: PathLike | Volume, trained: TrainedAdapter, options: SegmentOptions
) -> None:
    """Refuse an output that can't hold this adapter's results on this query."""
    if options.probabilities:
        probability_names(out, trained.structures)  # refuses a name that no file can have
    extension = check_output_name(out)
    if extension == DICOM:
        if isinstance(query, Volume):
            raise InputError(
                f"A volume in memory can't be segmented into {out}: a DICOM segmentation refers to "
                "the images that it belongs to. Give the folder of the series."
            )
        from ..io.dicom_segments import require_source  # loads pydicom

        require_source(query, _uid(query))
    if not trained.exclusive and extension not in SEGMENTS:
        raise InputError(
            "This adapter's structures may overlap, which a label map can't hold. End the "
            "output's name with .seg.nrrd."
        )


def _uid(query: PathLike) -> str | None:
    """Which series of its folder a query is, where that has several."""
    return query.uid if isinstance(query, DicomSeries) else None


def _on_tile(runtime: Runtime) -> Callable[[int, int], None]:
    def on_tile(done: int, total: int) -> None:
        runtime.check()
        runtime.events(make_event("progress", phase="segment", done=done, total=total))

    return on_tile


def _finish(
    result: Segmentation,
    trained: TrainedAdapter,
    basis: Basis,
    place: tuple[PathLike, PathLike | None] | None,
    clock: Clock,
    runtime: Runtime,
) -> None:
    """Give a result its report, write both, and tell of them.

    Args:
        place: where to, and the file whose header the result's is to be like; None writes nothing.
    """
    written: list[tuple[str, str]] = []
    with Transaction(Path(place[0]).parent) if place else nullcontext() as files:
        if place and files:
            with clock.phase("write", None):
                written = _write(result, *place, files, trained)
        result.report = make_report(result, trained, basis, clock.times)
        if place and files:
            written.append(("report", str(commit_with_report(files, place[0], result.report))))
    for kind, path in written:
        runtime.events(make_event("result", kind=kind, path=path))
    for warning in result.report["warnings"][len(basis.warnings) :]:
        runtime.events(make_event("warning", message=warning))


def _write(
    result: Segmentation,
    out: PathLike,
    query: PathLike | None,
    files: Transaction,
    trained: TrainedAdapter,
) -> list[tuple[str, str]]:
    """Write a result's files; kind and path of each, as they will be.

    Raises:
        InputError: the extension is unknown. StorageError: one can't be written.
    """
    written = []
    if result.probabilities:
        structures = [s for s in result.structures if s.name in result.probabilities]
        for name, file in probability_names(out, structures).items():
            write_probability(files.path(file), result.probabilities[name], result.grid, like=query)
            written.append(("probability", os.fspath(Path(out).with_name(file))))
    path = files.path(Path(out).name)
    extension = check_output_name(out)
    if extension == DICOM:
        assert query is not None  # refused before
        _write_dicom(path, result, query, trained)
    elif extension in SEGMENTS:
        write_segments(path, result.masks, result.structures, result.grid)
    else:
        write_label_map(path, result.labels, result.grid, like=query)
    return [*written, ("segmentation", os.fspath(out))]


def _write_dicom(
    path: Path, result: Segmentation, query: PathLike, trained: TrainedAdapter
) -> None:
    from ..io.dicom_segments import Algorithm, write_dicom_segments  # loads pydicom

    algorithm = Algorithm(trained.name, trained.content_sha256(), trained.model_id)
    where = (result.grid, query, _uid(query))
    write_dicom_segments(path, result.masks, result.structures, *where, algorithm)


def _masks(
    scores: torch.Tensor, volume: Volume, trained: TrainedAdapter, options: SegmentOptions
) -> dict[str, np.ndarray]:
    """By structure name, on the query's original grid."""
    placement = trained.preprocessing.placement(volume)
    masks = original_masks(scores, placement, trained.exclusive, options.largest_component)
    return {s.name: mask for s, mask in zip(trained.structures, masks, strict=True)}


def _probabilities(
    scores: torch.Tensor, placement: Placement, trained: TrainedAdapter
) -> dict[str, np.ndarray]:
    """By structure name, on the query's original grid."""
    pairs = zip(trained.structures, scores, strict=True)
    return {s.name: original_probability(score, placement) for s, score in pairs}


def _settings_of(trained: TrainedAdapter) -> TrainingSettings:
    """How a copy's head is refined on features: as it was trained, if it was trained on them."""
    on_features = trained.decoder is None and "preset" not in trained.training
    return TrainingSettings(**(trained.training.get("settings", {}) if on_features else {}))
