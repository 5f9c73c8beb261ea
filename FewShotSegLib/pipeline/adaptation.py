"""An adapter trained on a few annotated volumes: every step from the files to the ``.fseft``."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
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
from ..core.limits import require_path
from ..core.model_folders import DEFAULT_MODELS
from ..core.options import AdaptOptions
from ..core.size_prior import SizePrior, override_priors
from ..features.extraction import FeatureSource
from ..inference.query_sizes import query_for
from ..inference.tiles import select_levels
from ..methods.adapters import ADAPTERS, HEAD
from ..methods.adapters.base import Adapter
from ..methods.tuned_model import TunedNetwork
from ..methods.tunings.base import Tuning
from ..models.registry import Model, find_model
from ..training.checkpoint import Checkpoint
from ..training.image_recipe import ImageSource
from ..training.learner import FeatureLearner, Learner
from ..training.loop import TrainingResult, fit
from ..training.published_recipe import require_published
from ..training.recipes import choose_tuning, image_learner
from ..training.run import Run
from ..training.size_penalty import SizeTarget
from ..training.support_set import (
    Support,
    SupportSet,
    choose_structures,
    prepare_support,
)
from ..training.validation import Subject
from .adapter_file import TrainedAdapter
from .companion import add_companion
from .continuing import ORIGINAL, continued, rounds_after, tell_missing
from .expectation import WrittenAdapter, before_measuring, measure
from .inputs import (
    PathLike,
    SupportLike,
    as_supports,
    as_volume,
    name_of,
    paths_of,
    require_known,
    require_no_input,
    support_list,
    with_known_values,
)
from .recording import support_record, supports_modality, tell_notes
from .runtime import Clock, Runtime, ends_progress
from .sparse import require_said, sparse_supports, tell_sizes
from .trust import support_evidence


@ends_progress
def adapt(
    supports: Sequence[SupportLike],
    out: PathLike | None = None,
    options: AdaptOptions | None = None,
    *,
    query: PathLike | Volume | None = None,
    resume: bool = False,
    continue_from: TrainedAdapter | PathLike | None = None,
    runtime: Runtime | None = None,
    **changes: Any,
) -> TrainedAdapter:
    """Train an adapter on a few annotated volumes.

    Args:
        supports: 1 to about 10 annotated volumes, or (image, segmentation) paths.
        out: where to write the ``.fseft`` file, if anywhere.
        options: what is trained and how; the recommended where not given.
        query: an unlabelled volume to train for jointly (eq. 3 as published).
        resume: go on from the checkpoint that an interrupted run left beside ``out``.
        continue_from: an adapter to begin with, whose method, model and structures stay: a third
            of the epochs is enough then. Give its supports too, or it may forget them.
        runtime: device, cache, progress, cancelling.
        changes: fields of :class:`AdaptOptions` in place of those of ``options``, and of
            ``TrainingSettings``: ``adapt(pairs, structures="4=liver", epochs=30)``.

    Returns:
        the adapter, ready for :func:`segment`.

    Raises:
        InputError, ModelError, StorageError: see each message. Nothing has been written.
        Cancelled: the user stopped. (Whoever stops once the adapter is complete, while it is
            measured what to expect of it, gets it without.)
        TypeError: there is no option of such a name.
    """
    options, supports = AdaptOptions.of(options, **changes), support_list(supports)
    runtime = runtime or Runtime()
    clock = Clock(runtime.events)
    before, options, whole = continued(continue_from, options)
    tuning = choose_tuning(options.method, options.decoder, options.preset)
    _require_usable(out, query, supports, None if tuning is None else options.method)
    known = None if options.model is None else find_model(options.model)
    known = before.find_model(options.model) if before else known
    with clock.phase("read", len(supports)):
        given = _read(supports, query, options, runtime)
    if before:
        require_said(given.supports, before.supports, options.sparse)
        tell_missing(before, given.supports, runtime.events, options.effort == "best")
    basis = _basis(given, known, tuning, options, runtime, before)
    learned = _prepare(given, basis, clock, runtime)
    run = Run(basis.source.device, options.seed, "train", runtime.events, runtime.check)
    start = _start(basis, learned.supports, run, before)
    target = None
    if given.query is not None:
        with clock.phase("features", 1):
            found = basis.source(given.query, name_of(query) or "query")
            joint = query_for(given.query, found, basis.source, runtime.check)
            target = SizeTarget(joint, learned.priors)
    if out is not None:
        run = replace(run, checkpoint=_checkpoint(out, resume, basis, learned, target, before))
    with clock.phase("train", options.training.epochs), _stoppable(start.learner, run):
        result = fit(start.learner, run, target)
    trained = _trained(given, basis, learned, start, result)
    trained.training["seconds"] = clock.seconds()
    trained.expected = before_measuring(options, len(given.supports), tuning is None)
    if before:
        trained.training[ORIGINAL] = whole.training.to_json()
        trained.rounds = rounds_after(before, trained)
    file = None
    if out is not None:
        file = WrittenAdapter(out, trained)
        trained.name = Path(out).stem
        if run.checkpoint is not None:
            run.checkpoint.remove()
        runtime.events(make_event("result", kind="adapter", path=os.fspath(out)))
    if trained.expected.status == "unfinished":
        # Folds know nothing of what they hold out: they begin anew, and train as the first did.
        epochs = whole.training.epochs if before else result.epochs
        subject = Subject(given.supports, learned.supports, whole.training, epochs)
        fresh = partial(_start_fold, replace(basis, options=whole))
        measure(trained, subject, fresh, basis.source, run, clock)
        if before:
            trained.rounds = rounds_after(before, trained)
        if file is not None:
            file.update(run)
    if options.effort == "best":
        add_companion(trained, partial(_train_companion, given, basis, clock, runtime), run)
        if file is not None:
            file.update(run)
    return trained


def _require_usable(
    out: PathLike | None,
    query: PathLike | Volume | None,
    supports: Sequence[SupportLike],
    method: str | None,
) -> None:
    """Refuse an output that can't be written, and a query that can't be trained for.

    Args:
        method: one that trains the backbone; None for the others.
    """
    if method is not None and query is not None:
        raise InputError(
            "A query is trained for jointly on stored features, which the method "
            f"'{method}' does not have here. Train without it: 'segment' refines what is "
            "on the features."
        )
    if out is not None:
        require_adapter_name(require_path(out))
        require_path(f"{os.fspath(out)}.partial")
        require_no_input(out, [query, *paths_of(supports)])
        require_writable(out)


@dataclass(frozen=True)
class _Given:
    """What was read.

    Attributes:
        supports: with known values. structures: what they teach. query: to train for, or None.
    """

    supports: list[Support]
    structures: list[Structure]
    query: Volume | None


@dataclass(frozen=True)
class _Basis:
    """What a training stands on, but for its volumes.

    Attributes:
        foundation: the model. tuning: what is done to its backbone; None where that is frozen.
        modality: which of its preprocessings. source: of features, with that, as fitted.
    """

    options: AdaptOptions
    foundation: Model
    tuning: Tuning | None
    modality: str
    source: FeatureSource


@dataclass(frozen=True)
class _Learned:
    """The supports as training sees them, and the sizes that they show or a user knows."""

    supports: SupportSet
    priors: dict[str, SizePrior]


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


def _read(
    supports: Sequence[SupportLike],
    query: PathLike | Volume | None,
    options: AdaptOptions,
    runtime: Runtime,
) -> _Given:
    wanted, modality, offset = options.structures, options.modality, options.intensity_offset
    pairs = as_supports(supports, wanted)
    if not pairs:
        raise InputError("Give at least one support: an image and its segmentation.")
    pairs = with_known_values(pairs, modality, offset)
    pairs = sparse_supports(pairs, options.sparse, runtime.events)
    volume = None
    if query is not None:
        volume = in_hounsfield(as_volume(query), modality, offset)
    tell_notes(pairs, volume, runtime)
    return _Given(pairs, choose_structures(pairs, wanted), volume)


def _basis(
    given: _Given,
    known: Model | None,
    tuning: Tuning | None,
    options: AdaptOptions,
    runtime: Runtime,
    before: TrainedAdapter | None,
) -> _Basis:
    """``known``: the model that was asked for, if any."""
    modality = supports_modality(options.modality, given.supports, runtime)
    foundation = known or find_model(DEFAULT_MODELS[modality])
    if known is None:
        runtime.events(make_event("model", id=foundation.entry.id, modality=modality))
    require_known(modality, foundation)
    # Of the supports alone, and kept with the adapter: a query has the same spacing.
    grids = [pair.volume.grid for pair in given.supports]
    fitted = foundation.entry.preprocessing[modality].fitted(grids)
    preprocessing = before.preprocessing if before else fitted
    if options.preset == "published":
        require_published(options.feature_levels, preprocessing.intensity)
    source = runtime.source(foundation, preprocessing)
    return _Basis(options, foundation, tuning, modality, source)


def _prepare(given: _Given, basis: _Basis, clock: Clock, runtime: Runtime) -> _Learned:
    """The supports' features, or images where the backbone is trained; and the expected sizes."""
    options, source = basis.options, basis.source
    images = ImageSource(basis.foundation, source.preprocessing) if basis.tuning else None
    if images is None:
        source.upcoming = [pair.volume for pair in given.supports]
        source.upcoming += [given.query] if given.query is not None else []
    with clock.phase("prepare" if images else "features", len(given.supports)):
        prepared = [prepare_support(s, given.structures, images or source) for s in given.supports]
        supports = SupportSet(given.structures, prepared)
        priors = override_priors(supports.priors(options.gamma), options.gamma, options.priors_ml)
        for message in supports.unlike_sizes():
            runtime.events(make_event("warning", message=message))
        tell_sizes(supports, list(options.priors_ml), runtime.events)
    return _Learned(supports, priors)


def _start(
    basis: _Basis, supports: SupportSet, run: Run, before: TrainedAdapter | None = None
) -> _Start:
    """An adapter (and the network below it) where its training begins: as ``before`` is."""
    options, foundation, tuning = basis.options, basis.foundation, basis.tuning
    prepared = supports.supports
    if tuning is None:
        strides = prepared[0].features.strides
        channels = tuple(level.shape[0] for level in prepared[0].features.levels)
    else:
        strides, channels = foundation.backbone.strides, foundation.backbone.channels
    levels = select_levels(strides, options.feature_levels)
    torch.manual_seed(run.seed)
    adapter = ADAPTERS.get(options.method, HEAD)(
        [channels[level] for level in levels], len(supports.structures), levels
    )
    learner: Learner
    if tuning is None:
        learner = FeatureLearner(adapter, prepared, options.training)
    else:
        network = TunedNetwork(foundation, tuning, adapter)
        kind = image_learner(options.preset)
        learner = kind(network, prepared, options.training, basis.source.preprocessing)
    learner.begin(run)
    if before:
        # With the statistics that its parameters are for.
        adapter.load_state_dict(before.adapter.state_dict())
        return _Start(learner, adapter, channels, before.training.get("started_from_classes", {}))
    from_classes = {}
    for k, structure in enumerate(supports.structures):
        head = foundation.class_head(structure.name)
        if head is not None and (tuning is None or tuning.keeps_features):
            adapter.start_from(k, *(tensor.to(adapter.mean0.device) for tensor in head))
            from_classes[structure.name] = foundation.entry.class_named(structure.name)
    return _Start(learner, adapter, channels, from_classes)


def _start_fold(basis: _Basis, supports: SupportSet, epochs: int, run: Run) -> FeatureLearner:
    """A fresh adapter for some of the supports, to be trained for other epochs but alike."""
    settings = replace(basis.options.training, epochs=epochs)
    shorter = replace(basis, options=replace(basis.options, settings=settings))
    learner = _start(shorter, supports, run).learner
    assert isinstance(learner, FeatureLearner)  # others are not measured
    return learner


def _train_companion(
    given: _Given, basis: _Basis, clock: Clock, runtime: Runtime, run: Run
) -> TrainedAdapter:
    """The second network of an adapter: see :mod:`.companion`."""
    options = basis.options.companion
    assert options is not None  # else nobody asks for one
    tuning = choose_tuning(options.method, options.decoder, options.preset)
    own = replace(basis, options=options, tuning=tuning)
    learned = _prepare(given, own, clock, runtime)
    start = _start(own, learned.supports, run)
    with clock.phase(run.phase, options.training.epochs), _stoppable(start.learner, run):
        result = fit(start.learner, run)
    trained = _trained(given, own, learned, start, result)
    trained.training["seconds"] = clock.seconds()
    return trained


def _stoppable(learner: Learner, run: Run) -> AbstractContextManager[Any]:
    """A backbone's step takes long: it is stopped within; an adapter's is short."""
    if isinstance(learner.network, TunedNetwork):
        return stoppable(learner.network, run.check)
    return nullcontext()


def _trained(
    given: _Given, basis: _Basis, learned: _Learned, start: _Start, result: TrainingResult
) -> TrainedAdapter:
    """The adapter with all that its file says of it."""
    options, foundation, source = basis.options, basis.foundation, basis.source
    network = start.learner.network
    pairs = zip(given.supports, learned.supports.supports, strict=True)
    return TrainedAdapter(
        adapter=start.adapter.cpu(),
        method=options.method,
        features=options.feature_levels,
        channels=start.channels,
        structures=list(given.structures),
        priors=learned.priors,
        model_id=foundation.entry.id,
        model_title=foundation.entry.title,
        weights_sha256=foundation.weights_sha256,
        network=foundation.entry.network(),
        modality=basis.modality,
        preprocessing=source.preprocessing,
        exclusive=options.exclusive,
        training={
            **options.provenance(),
            "epochs": result.epochs,
            "stopped_early": result.stopped_early,
            "final": result.history[-1] if result.history else {},
            "joint_query": given.query is not None,
            "started_from_classes": start.from_classes,
            "backbone_passes": source.passes,
            "backbone_seconds": round(source.seconds, 3),
            "device": str(source.device),
        },
        supports=[support_record(support, prepared) for support, prepared in pairs],
        tuned=network.tuned_tensors() if isinstance(network, TunedNetwork) else {},
        decoder=options.chosen_decoder,
        evidence=None if basis.tuning else support_evidence(learned.supports, start.adapter),
    )


def _checkpoint(
    out: PathLike,
    resume: bool,
    basis: _Basis,
    learned: _Learned,
    target: SizeTarget | None,
    before: TrainedAdapter | None,
) -> Checkpoint:
    """The checkpoint of this very training beside its result; one that is there goes, unless it
    is to be gone on from."""
    digest = hashlib.sha256()
    for support in learned.supports.supports:
        digest.update(support.features.key.encode())
        digest.update(support.targets.numpy().tobytes())
        if support.known is not None:
            digest.update(support.known.numpy().tobytes())
    rest = {
        "options": basis.options.fingerprint(),
        "structures": [structure.name for structure in learned.supports.structures],
        "priors": {name: asdict(prior) for name, prior in learned.priors.items()},
        "query": target.query.features.key if target else None,
        "device": basis.source.device.type,
        **({"before": before.content_sha256()} if before else {}),
    }
    digest.update(json.dumps(rest, default=repr, sort_keys=True).encode())
    checkpoint = Checkpoint(Path(f"{os.fspath(out)}.partial"), digest.hexdigest())
    if not resume:
        checkpoint.remove()
    return checkpoint
