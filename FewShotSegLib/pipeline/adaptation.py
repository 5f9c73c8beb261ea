"""An adapter trained on a few annotated volumes: the rooms in order (CONTRIBUTING.md: the map)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..compute.interruption import stoppable
from ..core.adapter_header import require_adapter_name
from ..core.annotation import Structure
from ..core.atomic import require_writable
from ..core.ct_offset import in_hounsfield
from ..core.errors import InputError
from ..core.events import make_event
from ..core.geometry import Volume
from ..core.limits import SEED, require_path
from ..core.model_folders import DEFAULT_MODELS
from ..core.settings import TrainingSettings
from ..core.size_prior import PriorChange, override_priors
from ..inference.query_sizes import query_for
from ..inference.tiles import select_levels
from ..methods.adapters import ADAPTERS, DEFAULT_METHOD, HEAD
from ..methods.adapters.base import Adapter
from ..methods.tuned_model import TunedNetwork
from ..methods.tunings import TUNINGS
from ..methods.tunings.base import Tuning
from ..models.preprocessing import Preprocessing
from ..models.registry import Model, find_model
from ..training.checkpoint import Checkpoint
from ..training.image_recipe import ImageSource
from ..training.learner import FeatureLearner, Learner
from ..training.loop import fit
from ..training.published_recipe import require_published
from ..training.recipes import choose_tuning, default_settings, image_learner
from ..training.run import Run
from ..training.size_penalty import SizeTarget
from ..training.support_set import (
    PreparedSupport,
    Support,
    SupportSet,
    choose_structures,
    prepare_support,
)
from .adapter_file import TrainedAdapter, content_hash
from .inputs import (
    PathLike,
    SupportLike,
    as_structures,
    as_supports,
    as_volume,
    choose_modality,
    name_of,
    paths_of,
    require_known,
    require_no_input,
    support_list,
    with_known_values,
)
from .runtime import Clock, Runtime


def adapt(
    supports: Sequence[SupportLike],
    out: PathLike | None = None,
    *,
    structures: str | Sequence[Structure] | None = None,
    model: str | None = None,
    method: str = DEFAULT_METHOD,
    decoder: str | None = None,
    features: str | None = None,
    preset: str = "own",
    modality: str = "auto",
    intensity_offset: float | None = None,
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
        model: id of a foundation model, or the path of a registry entry; None is the embedded one
            for the images' modality, see :data:`model_files.DEFAULT_MODELS`.
        method: ``adapter``, ``linear-probe`` or ``adapter-1x1`` on the frozen backbone; or a
            white-box method, which trains (part of) the backbone as well: see
            :data:`methods.METHODS`.
        decoder: what a white-box method does with the decoder: ``frozen``, ``tuned`` or ``new``.
        features: ``multi`` adapts every level of the backbone, ``last`` the finest alone; None is
            ``multi``, and ``last`` with published settings.
        preset: ``own`` settings, or the ``published`` ones, see :mod:`published`.
        modality: ``CT``, ``MR``, or ``auto`` to tell from the images.
        intensity_offset: added to the values of every image given; None recognises CT that was
            stored 1024 too high, and says so.
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
    SEED.check(seed)
    supports, wanted = support_list(supports), as_structures(structures)
    if out is not None:
        require_adapter_name(require_path(out))
        require_path(f"{os.fspath(out)}.partial")
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
        require_no_input(out, [query, *paths_of(supports)])
        require_writable(out)
    foundation = None if model is None else find_model(model)
    with clock.phase("read", len(supports)):
        pairs = as_supports(supports, wanted)
        if not pairs:
            raise InputError("Give at least one support: an image and its segmentation.")
        pairs = with_known_values(pairs, modality, intensity_offset)
        query_volume = None
        if query is not None:
            query_volume = in_hounsfield(as_volume(query), modality, intensity_offset)
        _tell_notes(pairs, query_volume, runtime)
        chosen = choose_structures(pairs, wanted)
    modality = _modality(modality, pairs, runtime)
    if foundation is None:
        foundation = find_model(DEFAULT_MODELS[modality])
        runtime.events(make_event("model", id=foundation.entry.id, modality=modality))
    require_known(modality, foundation)
    # Of the supports alone, and kept with the adapter: a query has the same spacing.
    preprocessing = foundation.entry.preprocessing[modality].fitted(
        [pair.volume.grid for pair in pairs]
    )
    if preset == "published":
        require_published(features, preprocessing.intensity)
    source = runtime.source(foundation, preprocessing)
    images = ImageSource(foundation, preprocessing) if tuning else None
    if tuning is None:
        source.upcoming = [pair.volume for pair in pairs]
        source.upcoming += [query_volume] if query_volume is not None else []
    with clock.phase("prepare" if tuning else "features", len(pairs)):
        prepared = [prepare_support(pair, chosen, images or source) for pair in pairs]
        support_set = SupportSet(list(chosen), prepared)
        priors = override_priors(support_set.priors(gamma), gamma, priors_ml)
        for message in support_set.unlike_sizes():
            runtime.events(make_event("warning", message=message))
    run = Run(source.device, seed, "train", runtime.events, runtime.check)
    start = _start(
        foundation, tuning, method, features, support_set, settings, preset, preprocessing, run
    )
    joint = None
    if query_volume is not None:
        with clock.phase("features", 1):
            found = source(query_volume, name_of(query) or "query")
            joint = query_for(query_volume, found, source, runtime.check)
    checkpoint = None
    if out is not None:
        recipe_of_run = (
            *([s.name for s in chosen], method, features, settings, seed, priors),
            *(joint.features.key if joint else "", source.device.type),
            *([tuning.decoder, preset] if tuning else []),
        )
        checkpoint = Checkpoint(
            Path(f"{os.fspath(out)}.partial"), _inputs_hash(prepared, *recipe_of_run)
        )
        if not resume:
            checkpoint.remove()
    stopping = stoppable(start.learner.network, runtime.check) if tuning else nullcontext()
    with clock.phase("train", settings.epochs), stopping:
        target = joint and SizeTarget(joint, {s.name: priors[s.name] for s in chosen})
        result = fit(start.learner, replace(run, checkpoint=checkpoint), target)
    trained = TrainedAdapter(
        adapter=start.adapter.cpu(),
        method=method,
        features=features,
        channels=start.channels,
        structures=list(chosen),
        priors=priors,
        model_id=foundation.entry.id,
        model_title=foundation.entry.title,
        weights_sha256=foundation.weights_sha256,
        network=foundation.entry.network(),
        modality=modality,
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
            "started_from_classes": start.from_classes,
            "backbone_passes": source.passes,
            "backbone_seconds": round(source.seconds, 3),
            "seconds": clock.seconds(),
            "device": str(source.device),
        },
        supports=[_provenance(s, p) for s, p in zip(pairs, prepared, strict=True)],
        tuned=start.learner.network.tuned_tensors() if tuning else {},
        decoder=tuning.decoder if method in TUNINGS else None,
    )
    if out is not None:
        trained.save(out)
        checkpoint.remove()
        runtime.events(make_event("result", kind="adapter", path=os.fspath(out)))
    return trained


@dataclass(frozen=True)
class _Start:
    """Where a training begins.

    Attributes:
        learner: what is trained. adapter: its new head, or all of it.
        channels: of every level of the backbone.
        from_classes: the foundation model's class by the structure that began as it.
    """

    learner: Learner
    adapter: Adapter
    channels: tuple[int, ...]
    from_classes: dict[str, str]


def _start(
    foundation: Model,
    tuning: Tuning | None,
    method: str,
    features: str,
    supports: SupportSet,
    settings: TrainingSettings,
    preset: str,
    preprocessing: Preprocessing,
    run: Run,
) -> _Start:
    """An adapter (and the network below it) where its training begins."""
    prepared = supports.supports
    if tuning is None:
        strides = prepared[0].features.strides
        channels = tuple(level.shape[0] for level in prepared[0].features.levels)
    else:
        strides, channels = foundation.backbone.strides, foundation.backbone.channels
    levels = select_levels(strides, features)
    torch.manual_seed(run.seed)
    adapter = ADAPTERS.get(method, HEAD)(
        [channels[level] for level in levels], len(supports.structures), levels
    )
    learner: Learner
    if tuning is None:
        learner = FeatureLearner(adapter, prepared, settings)
    else:
        network = TunedNetwork(foundation, tuning, adapter)
        learner = image_learner(preset)(network, prepared, settings, preprocessing)
    learner.begin(run)
    from_classes = {}
    for k, structure in enumerate(supports.structures):
        head = foundation.class_head(structure.name)
        if head is not None and (tuning is None or tuning.keeps_features):
            adapter.start_from(k, *(tensor.to(adapter.mean0.device) for tensor in head))
            from_classes[structure.name] = foundation.entry.class_named(structure.name)
    return _Start(learner, adapter, channels, from_classes)


def _modality(wanted: str, supports: Sequence[Support], runtime: Runtime) -> str:
    chosen = choose_modality(wanted, [s.volume for s in supports])
    if chosen == "MR" and any(float(s.volume.array.min()) < 0 for s in supports):
        message = "Some supports have negative values; if they are CT, say --modality CT."
        runtime.events(make_event("warning", message=message))
    return chosen


def _tell_notes(supports: Sequence[Support], query: Volume | None, runtime: Runtime) -> None:
    """What was changed about the images while they were read."""
    notes = [(f"Support {n}", s.volume.notes) for n, s in enumerate(supports, 1)]
    notes += [("The query", query.notes)] if query is not None else []
    for name, texts in notes:
        for text in texts:
            runtime.events(make_event("warning", message=f"{name}: {text}"))


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
