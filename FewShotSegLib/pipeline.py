"""The two things that people do: adapt a foundation model to a few supports, segment a query.

Each is the engine's rooms in order; see CONTRIBUTING.md for the way of the data.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .adapter_file import TrainedAdapter, content_hash
from .adapters import ADAPTERS, DEFAULT_METHOD, HEAD
from .annotation import Structure
from .annotation_files import parse_structures, read_annotation
from .atomic import require_writable
from .checkpoint import Checkpoint
from .errors import Cancelled, InputError
from .events import EventSink, ignore, make_event
from .feature_store import DEFAULT_MAX_BYTES, FeatureStore, VolumeFeatures
from .features import FeatureSource, choose_device
from .geometry import Grid, Volume
from .image_training import ImageSource
from .methods import choose_recipe, choose_tuning, default_settings
from .model_files import DEFAULT_MODEL, home_folder
from .model_registry import Model, find_model
from .prediction import (
    model_probabilities,
    original_masks,
    original_probability,
    original_uncertainty,
)
from .preprocessing import Placement, Preprocessing
from .published import require_published
from .query import Query
from .refinement import RefinementSettings, refine
from .report import NAME as REPORT
from .report import make_report, read_reports, write_report
from .result_files import (
    check_output_name,
    write_label_map,
    write_probability,
    write_segments,
)
from .size_prior import PriorChange, SizePrior, field_of_view
from .stopping import stoppable
from .support_set import (
    PreparedSupport,
    Support,
    SupportSet,
    choose_structures,
    prepare_support,
    standardise,
)
from .tiles import select_levels
from .training import TrainingSettings, fit
from .tuned_model import TunedNetwork
from .tunings import TUNINGS
from .volume_files import read_image

PathLike = str | os.PathLike[str]
SupportLike = Support | tuple[PathLike, PathLike]
UNSAFE_IN_NAMES = r'[/\\:*?"<>|\x00-\x1f]'
LOWEST_MR = -200
"""No MR image goes below this; every CT that shows air does."""


@dataclass
class Runtime:
    """Where and how to run; none of it changes a result.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        cache: folder of the feature store; None is ``cache`` in the user's FewShotSeg folder.
        cache_bytes: its size limit.
        events: is told of progress.
        cancel: asked many times a second; true stops the work with :class:`Cancelled`.
    """

    device: str = "auto"
    cache: PathLike | None = None
    cache_bytes: int = DEFAULT_MAX_BYTES
    events: EventSink = ignore
    cancel: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """Raise :class:`Cancelled` if the user stopped the work."""
        if self.cancel():
            raise Cancelled("Stopped. Nothing was written.")

    def source(self, model: Model, preprocessing: Preprocessing) -> FeatureSource:
        """Features of a model, through this runtime's store."""
        store = FeatureStore(Path(self.cache or home_folder() / "cache"), self.cache_bytes)
        device = choose_device(self.device)
        return FeatureSource(model, preprocessing, store, device, self.events, self.check)


@dataclass
class Segmentation:
    """The result on one query.

    Attributes:
        structures: in the adapter's order.
        masks: by structure name, boolean (i, j, k) on the query's original grid.
        unrefined: the masks without transduction; the same where it changed nothing.
        probabilities: by structure name, float32 (i, j, k); empty unless asked for.
        grid: the query's own.
        report: what ``report.json`` says of it.
        uncertainty: (i, j, k) uint8 from 0 to 100, where a probability is one half; None unless
            asked for.
    """

    structures: list[Structure]
    masks: dict[str, np.ndarray]
    unrefined: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    grid: Grid
    report: dict[str, Any] = field(default_factory=dict)
    uncertainty: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """The label map (i, j, k), uint8 or uint16; of overlapping structures the later wins."""
        largest = max(structure.value for structure in self.structures)
        labels = np.zeros(self.grid.shape, np.uint8 if largest < 256 else np.uint16)
        for structure in self.structures:
            labels[self.masks[structure.name]] = structure.value
        return labels


def read_support(
    image: PathLike, segmentation: PathLike, structures: Sequence[Structure] | None = None
) -> Support:
    """One annotated volume from files. ``structures``: which ones, or None for all found.

    Raises:
        InputError: either can't be read or used, or their grids differ.
    """
    volume = read_image(image)
    annotation = read_annotation(segmentation, volume.grid, structures)
    return Support(volume, annotation, Path(image).name)


def adapt(
    supports: Sequence[SupportLike],
    out: PathLike | None = None,
    *,
    structures: str | Sequence[Structure] | None = None,
    model: str = DEFAULT_MODEL,
    method: str = DEFAULT_METHOD,
    decoder: str | None = None,
    features: str | None = None,
    preset: str = "own",
    modality: str = "auto",
    seed: int = 0,
    settings: TrainingSettings | None = None,
    gamma: float | None = None,
    priors_ml: Mapping[str, float | PriorChange | None] | None = None,
    exclusive: bool = True,
    query: PathLike | Volume | None = None,
    resume: bool = False,
    runtime: Runtime | None = None,
) -> TrainedAdapter:
    """Train an adapter on a few annotated volumes.

    Args:
        supports: 1 to about 10 annotated volumes, or (image, segmentation) paths.
        out: where to write the ``.fseft`` file, if anywhere.
        structures: which to learn, as ``"4=parotid_right,5=parotid_left"`` or a list; None for all.
        model: id of a foundation model, or the path of a registry entry.
        method: ``adapter``, ``linear-probe`` or ``adapter-1x1`` on the frozen backbone; or a
            white-box method, which trains (part of) the backbone as well: see
            :data:`methods.METHODS`.
        decoder: what a white-box method does with the decoder: ``frozen``, ``tuned`` or ``new``.
        features: ``multi`` adapts every level of the backbone, ``last`` the finest alone; None is
            ``multi``, and ``last`` with published settings.
        preset: ``own`` settings, or the ``published`` ones, see :mod:`published`.
        modality: ``CT``, ``MR``, or ``auto`` to tell from the images.
        settings: of the training; those of :func:`methods.default_settings` where not given.
        gamma: tolerance of the size priors; None takes it from the sizes' spread.
        priors_ml: by structure name, a known volume in ml in place of the supports' mean, None
            to switch its prior off, or what else to change about it.
        exclusive: False lets structures overlap.
        query: an unlabelled volume to train for jointly (eq. 3 as published).
        resume: go on from the checkpoint that an interrupted run left beside ``out``.
        runtime: device, cache, progress, cancelling.

    Returns:
        the adapter, ready for :func:`segment`.

    Raises:
        InputError, ModelError, StorageError: see each message. Nothing has been written.
        Cancelled: the user stopped.
    """
    runtime = runtime or Runtime()
    clock = Clock(runtime.events)
    tuning = choose_tuning(method, decoder, preset)
    settings = settings or default_settings(method, preset, decoder)
    features = features or ("last" if preset == "published" else "multi")
    if tuning is not None and query is not None:
        raise InputError(
            f"A query is trained for jointly on stored features, which the method '{method}' does "
            "not have here. Train without it: 'segment' refines what is on the features."
        )
    if out is not None:
        require_no_input(out, [query, *(path for s in supports for path in _paths(s))])
        require_writable(out)
    wanted = parse_structures(structures) if isinstance(structures, str) else structures
    foundation = find_model(model)
    with clock.phase("read", len(supports)):
        pairs = [
            s if isinstance(s, Support) else read_support(*s, structures=wanted) for s in supports
        ]
        if not pairs:
            raise InputError("Give at least one support: an image and its segmentation.")
        query_volume = _read(query) if query is not None else None
        chosen = choose_structures(pairs, wanted)
    chosen_modality = choose_modality(modality, foundation, [s.volume for s in pairs])
    if chosen_modality == "MR" and any(float(s.volume.array.min()) < 0 for s in pairs):
        message = "Some supports have negative values; if they are CT, say --modality CT."
        runtime.events(make_event("warning", message=message))
    preprocessing = foundation.entry.preprocessing[chosen_modality]
    if preset == "published":
        require_published(features, preprocessing.intensity)
    source = runtime.source(foundation, preprocessing)
    images = ImageSource(foundation, preprocessing) if tuning else None
    if tuning is None:
        volumes = [*(pair.volume for pair in pairs), query_volume]
        source.upcoming = [volume for volume in volumes if volume is not None]
    with clock.phase("prepare" if tuning else "features", len(pairs)):
        prepared = [prepare_support(pair, chosen, images or source) for pair in pairs]
        support_set = SupportSet(list(chosen), prepared)
        priors = override_priors(support_set.priors(gamma), gamma, priors_ml)
    if tuning is None:
        strides = prepared[0].features.strides
        channels = tuple(level.shape[0] for level in prepared[0].features.levels)
    else:
        strides, channels = foundation.backbone.strides, foundation.backbone.channels
    levels = select_levels(strides, features)
    used = [channels[level] for level in levels]
    torch.manual_seed(seed)
    adapter = ADAPTERS.get(method, HEAD)(used, len(chosen))
    learner, recipe = adapter, None
    if tuning is None:
        standardise(adapter, prepared, levels)
    else:
        learner = TunedNetwork(foundation, tuning, adapter, levels)
        recipe = choose_recipe(preset, max(strides), preprocessing)
        recipe.begin(learner, prepared, settings, seed, source.device, runtime.check)
    started_from = {}
    for k, structure in enumerate(chosen):
        head = foundation.class_head(structure.name)
        if head is not None and (tuning is None or tuning.keeps_features):
            adapter.start_from(k, *(tensor.to(adapter.mean0.device) for tensor in head))
            started_from[structure.name] = foundation.entry.class_named(structure.name)
    transductive = None
    if query_volume is not None:
        with clock.phase("features", 1):
            found = source(query_volume, "query")
            transductive = _make_query(query_volume, found, source, levels, runtime)
    checkpoint = None
    if out is not None:
        inputs = _inputs_hash(
            prepared,
            [s.name for s in chosen],
            method,
            features,
            settings,
            seed,
            priors,
            transductive.features.key if transductive else "",
            source.device.type,
            *([tuning.decoder, preset] if tuning else []),
        )
        checkpoint = Checkpoint(Path(f"{os.fspath(out)}.partial"), inputs)
        if not resume:
            checkpoint.remove()
    stopping = stoppable(learner, runtime.check) if tuning else nullcontext()
    with clock.phase("train", settings.epochs), stopping:
        result = fit(
            learner,
            levels,
            prepared,
            settings,
            source.device,
            seed,
            transductive,
            [priors[s.name] for s in chosen],
            "train",
            runtime.events,
            runtime.check,
            checkpoint,
            [s.name for s in chosen],
            recipe,
        )
    trained = TrainedAdapter(
        adapter=adapter.cpu(),
        method=method,
        features=features,
        channels=channels,
        structures=list(chosen),
        priors=priors,
        model_id=foundation.entry.id,
        model_title=foundation.entry.title,
        weights_sha256=foundation.weights_sha256,
        modality=chosen_modality,
        preprocessing=preprocessing,
        exclusive=exclusive,
        training={
            "settings": settings.to_json(),
            **({} if preset == "own" else {"preset": preset}),
            "seed": seed,
            "epochs": result.epochs,
            "stopped_early": result.stopped_early,
            "final": result.history[-1] if result.history else {},
            "joint_query": query_volume is not None,
            "started_from_classes": started_from,
            "backbone_passes": source.passes,
            "backbone_seconds": round(source.seconds, 3),
            "seconds": clock.seconds(),
            "device": str(source.device),
        },
        supports=[_provenance(s, p) for s, p in zip(pairs, prepared, strict=True)],
        tuned=learner.tuned_tensors() if tuning else {},
        decoder=tuning.decoder if method in TUNINGS else None,
    )
    if out is not None:
        trained.save(out)
        checkpoint.remove()
        runtime.events(make_event("result", kind="adapter", path=os.fspath(out)))
    return trained


def segment(
    adapter: TrainedAdapter | PathLike,
    query: PathLike | Volume,
    out: PathLike | None = None,
    *,
    transductive: bool = True,
    probabilities: bool = False,
    uncertainty: bool = False,
    supports: Sequence[SupportLike] = (),
    model: str | None = None,
    gamma: float | None = None,
    priors_ml: Mapping[str, float | PriorChange | None] | None = None,
    refinement: RefinementSettings | None = None,
    largest_component: bool = False,
    seed: int = 0,
    runtime: Runtime | None = None,
) -> Segmentation:
    """Segment one query with a trained adapter, which stays as it was.

    Args:
        adapter: from :func:`adapt`, or the path of its file.
        query: an image file, DICOM folder or volume.
        out: where to write the result, if anywhere: a label map, or named segments for
            ``.seg.nrrd``; ``report.json`` and any probabilities go beside it.
        transductive: refine a copy of the adapter until the sizes on the query are plausible.
        probabilities: keep (and write) each structure's probability.
        uncertainty: keep (without writing it) how undecided each voxel is.
        supports: the training's supports, if at hand: their loss then holds the refinement.
        model: another installation of the adapter's foundation model.
        gamma, priors_ml: in place of the adapter's.
        largest_component: keep only the largest connected component of each structure.

    Raises:
        InputError, ModelError, StorageError: see each message. Nothing has been written.
        Cancelled: the user stopped.
    """
    runtime = runtime or Runtime()
    clock = Clock(runtime.events)
    if out is not None:
        check_output_name(out)
        require_no_input(out, [query, *(path for s in supports for path in _paths(s))])
        require_writable(out)
        read_reports(Path(out).parent / REPORT)  # refuses one of somebody else's
    trained = adapter if isinstance(adapter, TrainedAdapter) else TrainedAdapter.load(adapter)
    if out is not None and not trained.exclusive and not os.fspath(out).endswith(".seg.nrrd"):
        raise InputError(
            "This adapter's structures may overlap, which a label map can't hold. End the "
            "output's name with .seg.nrrd."
        )
    priors = override_priors(trained.priors, gamma, priors_ml)
    foundation = trained.find_model(model)
    with clock.phase("read", 1):
        volume = _read(query)
        pairs = [
            s if isinstance(s, Support) else read_support(*s, structures=trained.structures)
            for s in supports
        ]
    warnings = _query_warnings(trained, volume)
    source = runtime.source(trained.tuned_model(foundation), trained.preprocessing)
    source.upcoming = [volume, *(pair.volume for pair in pairs)]
    with clock.phase("features", 1 + len(pairs)):
        features = source(volume, "query")
        prepared = [prepare_support(pair, trained.structures, source) for pair in pairs]
    placement = trained.preprocessing.place(volume.grid)
    names = [structure.name for structure in trained.structures]

    def on_tile(done: int, total: int) -> None:
        runtime.check()
        runtime.events(make_event("progress", phase="segment", done=done, total=total))

    with clock.phase("segment", None):
        scores = model_probabilities(
            trained.adapter, features, trained.levels, source.device, on_tile
        )
        unrefined = _masks(scores, placement, trained, largest_component)
    masks, refined_report = unrefined, None
    if transductive:
        with clock.phase("refine", None):
            target = _make_query(volume, features, source, trained.levels, runtime)
            refined, refined_report = refine(
                trained.adapter,
                trained.levels,
                target,
                priors,
                refinement or RefinementSettings(),
                source.device,
                prepared,
                _settings_of(trained),
                seed,
                runtime.events,
                runtime.check,
            )
            if refined is not trained.adapter:
                scores = model_probabilities(
                    refined, features, trained.levels, source.device, on_tile
                )
                masks = _masks(scores, placement, trained, largest_component)
    result = Segmentation(
        structures=trained.structures,
        masks=dict(zip(names, masks, strict=True)),
        unrefined=dict(zip(names, unrefined, strict=True)),
        probabilities={
            name: original_probability(score, placement)
            for name, score in zip(names, scores, strict=True)
            if probabilities
        },
        grid=volume.grid,
        uncertainty=original_uncertainty(scores, placement) if uncertainty else None,
    )
    runtime.check()
    if out is not None:
        with clock.phase("write", None):
            write_segmentation(result, out, None if isinstance(query, Volume) else query, runtime)
    result.report = make_report(
        result,
        trained,
        priors,
        foundation,
        transductive,
        refined_report,
        warnings,
        clock.times,
        source,
        seed,
    )
    if out is not None:
        path = write_report(out, result.report)
        runtime.events(make_event("result", kind="report", path=str(path)))
    for warning in result.report["warnings"]:
        runtime.events(make_event("warning", message=warning))
    return result


def write_segmentation(
    result: Segmentation, out: PathLike, query: PathLike | None, runtime: Runtime
) -> None:
    """Write a result: the segmentation itself last, so that where it is, all of it is.

    Raises:
        InputError: the extension is unknown. StorageError: it can't be written.
    """
    extension = check_output_name(out)
    stem = os.fspath(out)[: -len(extension)]
    image_extension = ".nii.gz" if extension == ".seg.nrrd" else extension
    for name, probability in result.probabilities.items():
        # A segment that was named in Slicer may hold what no file's name can.
        path = f"{stem}_prob_{re.sub(UNSAFE_IN_NAMES, '_', name)}{image_extension}"
        write_probability(path, probability, result.grid, like=query)
        runtime.events(make_event("result", kind="probability", path=path))
    if extension == ".seg.nrrd":
        write_segments(out, result.masks, result.structures, result.grid)
    else:
        write_label_map(out, result.labels, result.grid, like=query)
    runtime.events(make_event("result", kind="segmentation", path=os.fspath(out)))


def choose_modality(wanted: str, model: Model, volumes: Sequence[Volume]) -> str:
    """Which of a model's preprocessings fits the supports.

    ``auto`` believes the file (DICOM says), else calls images with values below -200 CT.

    Raises:
        InputError: the supports are of several kinds, or of one that the model does not know.
    """
    if wanted == "auto":
        kinds = {_looks_like(volume) for volume in volumes}
        if len(kinds) > 1:
            raise InputError(
                "Some supports look like CT and others like MR. Use supports of one kind, or say "
                "which with --modality."
            )
        wanted = kinds.pop()
    if wanted not in model.entry.preprocessing:
        raise InputError(
            f"The model '{model.entry.id}' is for {' and '.join(model.entry.modality)}, but these "
            f"images are {wanted}. Choose another model, or say --modality if that is wrong."
        )
    return wanted


def _looks_like(volume: Volume) -> str:
    return volume.modality or ("CT" if float(volume.array.min()) < LOWEST_MR else "MR")


def override_priors(
    priors: Mapping[str, SizePrior],
    gamma: float | None,
    volumes_ml: Mapping[str, float | PriorChange | None] | None,
) -> dict[str, SizePrior]:
    """Priors with another tolerance, known volumes in ml, or (None) switched off.

    Raises:
        InputError: a volume is for a structure that is not there, or not above 0.
    """
    result = dict(priors)
    for name, ml in (volumes_ml or {}).items():
        if name not in result:
            raise InputError(
                f"There is no structure '{name}' to set a prior for. There are: "
                f"{', '.join(result)}."
            )
        if isinstance(ml, PriorChange):
            result[name] = ml.apply(result[name])
        elif ml is None:
            result[name] = replace(result[name], enabled=False)
        else:
            tolerance = result[name].gamma if gamma is None else gamma
            result[name] = SizePrior(ml * 1000, gamma=tolerance)
    if gamma is not None:
        result = {name: replace(prior, gamma=gamma) for name, prior in result.items()}
    return result


class Clock:
    """Times phases and announces them."""

    def __init__(self, events: EventSink) -> None:
        self.events, self.times = events, {}
        self._start = time.perf_counter()

    @contextmanager
    def phase(self, name: str, total: int | None) -> Iterator[None]:
        """One phase; the seconds of phases of one name add up."""
        self.events(make_event("phase", phase=name, total=total))
        start = time.perf_counter()
        yield
        self.times[name] = round(self.times.get(name, 0) + time.perf_counter() - start, 3)

    def seconds(self) -> dict[str, float]:
        """Seconds by phase, and in all."""
        return {**self.times, "total": round(time.perf_counter() - self._start, 3)}


def _read(query: PathLike | Volume) -> Volume:
    return query if isinstance(query, Volume) else read_image(query)


def _paths(support: SupportLike) -> tuple[PathLike, ...]:
    return () if isinstance(support, Support) else support


def require_no_input(out: PathLike, inputs: Sequence[Any]) -> None:
    """Nothing that somebody drew or scanned is ever written over.

    Raises:
        InputError: ``out`` is one of the inputs.
    """
    if os.path.exists(out):
        for path in inputs:
            if isinstance(path, (str, os.PathLike)) and os.path.exists(path):
                if os.path.samefile(out, path):
                    raise InputError(f"{out} is one of the inputs. Give the result another name.")


def _make_query(
    volume: Volume,
    features: VolumeFeatures,
    source: FeatureSource,
    levels: Sequence[int],
    runtime: Runtime,
) -> Query:
    placement = source.preprocessing.place(volume.grid)
    view = placement.box_to_model(field_of_view(volume.array))
    return Query(features, levels, placement.voxel_volume, view, source.device, runtime.check)


def _masks(
    scores: torch.Tensor, placement: Placement, trained: TrainedAdapter, largest: bool
) -> list[np.ndarray]:
    return original_masks(scores, placement, trained.exclusive, largest)


def _settings_of(trained: TrainedAdapter) -> TrainingSettings:
    """How a copy's head is refined on features: as it was trained, if it was trained on them."""
    on_features = trained.decoder is None and "preset" not in trained.training
    return TrainingSettings(**(trained.training.get("settings", {}) if on_features else {}))


def _query_warnings(trained: TrainedAdapter, volume: Volume) -> list[str]:
    warnings = []
    if content_hash(volume) in {support.get("content") for support in trained.supports}:
        warnings.append(
            "This query is one of the adapter's supports: the result says nothing of how well it "
            "works on new images."
        )
    looks = _looks_like(volume)
    if looks != trained.modality:
        warnings.append(
            f"The adapter was trained on {trained.modality}, but this query looks like {looks}."
        )
    return warnings


def _provenance(support: Support, prepared: PreparedSupport) -> dict[str, Any]:
    """What may be told of a support: nothing that names a patient."""
    return {
        "shape": list(support.volume.grid.shape),
        "spacing_mm": [round(s, 4) for s in support.volume.grid.spacing],
        "sizes_mm3": dict(prepared.sizes),
        "cut_off": sorted(prepared.cut_off),
        "content": content_hash(support.volume),
    }


def _inputs_hash(prepared: Sequence[PreparedSupport], *parts: Any) -> str:
    """A hash of everything that a training depends on."""
    digest = hashlib.sha256()
    for support in prepared:
        digest.update(support.features.key.encode())
        digest.update(support.targets.numpy().tobytes())
    digest.update(json.dumps(parts, default=repr, sort_keys=True).encode())
    return digest.hexdigest()
