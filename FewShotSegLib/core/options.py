"""What a training and a segmentation are asked to do: two values, each checked once, without torch.

The Python API, the flags of the command, the jobs of the Slicer module and the lines of a benchmark
all become these; what a checkpoint, a row of results and an adapter file say of a training is made
from them. A new option is a field here, and a flag or a row of the panel where people set it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from .annotation import Structure, as_structures
from .errors import InputError
from .limits import GAMMA, OFFSET, PRIOR_ML, SEED, SPREAD_ML
from .method_catalog import (
    COMPANION_METHOD,
    DEFAULT_METHOD,
    EFFORTS,
    METHODS,
    PRESETS,
    method_named,
)
from .modality import MODALITIES
from .settings import RefinementSettings, TrainingSettings, default_settings
from .size_prior import PriorChange
from .sparse import WORDS

AUTO = "auto"
FEATURES = ("multi", "last")
COMPANION_SETTINGS: Mapping[str, Any] = {}
"""What of its training differs from that method's own."""
Sparse = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
"""What of the supports is known, as :class:`AdaptOptions` takes it: for all, or for each."""
Priors = Mapping[str, float | PriorChange | None]
"""By structure name, what is known better than the supports show: a volume in ml, None to switch
the prior off, or what else to change about it."""
_WITH_THE_INPUTS = (
    *("structures", "model", "modality", "intensity_offset", "gamma", "priors_ml", "sparse"),
)
"""Options that act on what a training begins with, which a fingerprint covers itself."""
_AFTER_TRAINING = ("exclusive", "validate", "effort")


def _model_name(model: Any) -> str | None:
    """A model's id or path as a text.

    Raises:
        InputError: it is neither.
    """
    model = os.fspath(model) if isinstance(model, os.PathLike) else model
    if model is not None and not isinstance(model, str):
        raise InputError(f"A model is the text of its id or its entry's path, not {model!r:.60}.")
    return model


@dataclass(frozen=True)
class AdaptOptions:
    """How an adapter is trained. What is None or empty is chosen by the method or the images.

    Attributes:
        structures: which to learn, as ``"4=parotid_right,5=parotid_left"`` or a list; None for all
            that are annotated.
        model: id of a foundation model, or the path of a registry entry; None is the embedded one
            for the images' modality, see :data:`.model_folders.DEFAULT_MODELS`.
        method: ``adapter``, ``linear-probe`` or ``adapter-1x1`` on the frozen backbone; or a
            white-box method, which trains (part of) the backbone as well: see
            :data:`.method_catalog.METHODS`.
        decoder: what a white-box method does with the decoder: ``frozen``, ``tuned`` or ``new``.
        features: ``multi`` adapts every level of the backbone, ``last`` the finest alone; None is
            ``multi``, and ``last`` with published settings.
        preset: ``own`` settings, or the ``published`` ones.
        modality: ``CT``, ``MR``, or ``auto`` to tell from the images.
        intensity_offset: added to the values of every image given; None recognises CT that was
            stored 1024 too high, and says so.
        seed: of everything that is drawn.
        settings: of the training: all of them, or those that differ from the method's, by name.
        gamma: tolerance of the size priors; None takes it from the sizes' spread.
        priors_ml: see :data:`Priors`.
        exclusive: False lets structures overlap.
        sparse: of supports that were annotated in part: ``axial``, ``coronal`` or ``sagittal``
            where only the slices with something on them were drawn on, ``auto`` to tell along
            which axis slices were left out, ``whole`` where nothing was; or the path of a mask of
            what is known. One for all supports, or one for each. Elsewhere it is unknown whether a
            voxel is of a structure. None takes every support as it is.
        validate: measure after the training what Dice new volumes can be expected to have, by
            holding each support out once: see :mod:`.expected`. It takes as long again at most.
        effort: ``quick`` trains the adapter and measures nothing; ``default`` measures what to
            expect; ``best`` trains the same network from random parameters after that, and
            averages the probabilities of both: see :mod:`FewShotSegLib.pipeline.companion`.

    Raises:
        InputError: a value is none that the option can have.
    """

    structures: str | Sequence[Structure] | None = None
    model: str | os.PathLike[str] | None = None
    method: str = DEFAULT_METHOD
    decoder: str | None = None
    features: str | None = None
    preset: str = PRESETS[0]
    modality: str = AUTO
    intensity_offset: float | None = None
    seed: int = 0
    settings: TrainingSettings | Mapping[str, Any] = field(default_factory=dict)
    gamma: float | None = None
    priors_ml: Priors = field(default_factory=dict)
    exclusive: bool = True
    sparse: Sparse = None
    validate: bool = True
    effort: str = "default"

    def __post_init__(self) -> None:
        wanted = as_structures(self.structures)
        _set(self, structures=None if wanted is None else tuple(wanted))
        _set(self, model=_model_name(self.model))
        require_method(self.method, self.decoder, self.preset)
        if self.features is not None:
            _require_choice("The features are", self.features, FEATURES)
        _require_choice("The effort is", self.effort, EFFORTS)
        if self.effort == "best" and method_named(self.method).runs_on_images(self.preset):
            raise InputError(
                "The best effort adds a network that is trained from random parameters to an "
                f"adapter on stored features, which '{self.method}' with these settings is not. "
                "Choose another method or effort."
            )
        _set(self, sparse=_checked_sparse(self.sparse))
        _require_choice("The modality is", self.modality, (AUTO, *MODALITIES))
        if self.intensity_offset is not None:
            OFFSET.check(self.intensity_offset)
        SEED.check(self.seed)
        _require_names(TrainingSettings, self.settings or {})
        if not isinstance(self.settings, TrainingSettings):
            _set(self, settings=dict(self.settings or {}))
        _ = self.training  # refuses what is out of range
        _set(self, priors_ml=_checked_priors(self.gamma, self.priors_ml))

    @classmethod
    def of(cls, options: AdaptOptions | None = None, **changes: Any) -> AdaptOptions:
        """Options with some in place of others.

        Args:
            options: the others; the defaults where not given.
            changes: fields of this class, and of ``TrainingSettings`` by their own names, such as
                ``epochs``; one of these that is None stays the method's.

        Raises:
            TypeError: there is no such option. InputError: as for a new value.
        """
        return _changed(cls, options, "settings", TrainingSettings, changes)

    @property
    def training(self) -> TrainingSettings:
        """The settings of the training, every one."""
        if isinstance(self.settings, TrainingSettings):
            return self.settings
        return replace(default_settings(self.method, self.preset, self.decoder), **self.settings)

    @property
    def measures(self) -> bool:
        """Whether it is to be measured what Dice to expect."""
        return self.validate and self.effort != EFFORTS[0]

    @property
    def companion(self) -> AdaptOptions | None:
        """How the second network is trained; None but for the best effort."""
        if self.effort != EFFORTS[-1]:
            return None
        own: dict[str, Any] = {"method": COMPANION_METHOD, "settings": dict(COMPANION_SETTINGS)}
        return replace(self, decoder=None, effort="default", **own)

    @property
    def feature_levels(self) -> Literal["multi", "last"]:
        """``features``, as chosen here or by the preset."""
        chosen = self.features or ("last" if self.preset == "published" else "multi")
        return "last" if chosen == "last" else "multi"

    @property
    def chosen_decoder(self) -> str | None:
        """``decoder``, as chosen here or by the method; None where that trains no backbone."""
        record = method_named(self.method)
        return (self.decoder or record.decoders[0]) if record.trains_backbone else None

    def provenance(self) -> dict[str, Any]:
        """What an adapter file says of its training beside how it went, JSON-ready."""
        preset = {} if self.preset == PRESETS[0] else {"preset": self.preset}
        return {"settings": self.training.to_json(), **preset, "seed": self.seed}

    def fingerprint(self) -> dict[str, Any]:
        """All options that decide what a training comes to beside its inputs, JSON-ready.

        Every new option is among them unless it is named above as one that is not.
        """
        left_out = (*_WITH_THE_INPUTS, *_AFTER_TRAINING)
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left_out}
        return own | {
            "settings": self.training.to_json(),
            "features": self.feature_levels,
            "decoder": self.chosen_decoder,
        }


@dataclass(frozen=True)
class SegmentOptions:
    """How a query is segmented with a trained adapter.

    Attributes:
        transductive: refine a copy of the adapter until the sizes on the query are plausible.
        probabilities: keep (and write) each structure's probability.
        uncertainty: keep (without writing it) how undecided each voxel is.
        model: another installation of the adapter's foundation model.
        gamma, priors_ml: in place of the adapter's, as of :class:`AdaptOptions`.
        refinement: how a copy is refined: all settings, or those that differ from the defaults.
        largest_component: keep only the largest connected component of each structure.
        intensity_offset: added to the values of every image given; None recognises CT that was
            stored 1024 too high, and says so.
        seed: of everything that is drawn.
        sparse: of the supports that are given, as of :class:`AdaptOptions`.

    Raises:
        InputError: a value is none that the option can have.
    """

    transductive: bool = True
    probabilities: bool = False
    uncertainty: bool = False
    model: str | os.PathLike[str] | None = None
    gamma: float | None = None
    priors_ml: Priors = field(default_factory=dict)
    refinement: RefinementSettings | Mapping[str, Any] = field(default_factory=dict)
    largest_component: bool = False
    intensity_offset: float | None = None
    seed: int = 0
    sparse: Sparse = None

    def __post_init__(self) -> None:
        _set(self, model=_model_name(self.model))
        _set(self, sparse=_checked_sparse(self.sparse))
        _set(self, priors_ml=_checked_priors(self.gamma, self.priors_ml))
        given = {} if self.refinement is None else self.refinement
        _require_names(RefinementSettings, given)
        if not isinstance(given, RefinementSettings):
            given = RefinementSettings(**given)
        _set(self, refinement=given)
        if self.intensity_offset is not None:
            OFFSET.check(self.intensity_offset)
        SEED.check(self.seed)

    @classmethod
    def of(cls, options: SegmentOptions | None = None, **changes: Any) -> SegmentOptions:
        """Options with some in place of others; as :meth:`AdaptOptions.of`, with the fields of
        ``RefinementSettings``."""
        return _changed(cls, options, "refinement", RefinementSettings, changes)


_Options = TypeVar("_Options", AdaptOptions, SegmentOptions)


def shared_fields(options: type[Any], holder: Any) -> dict[str, Any]:
    """The options that an object (a job, parsed flags, a line of a plan) has attributes of."""
    names = [f.name for f in fields(options)]
    return {name: getattr(holder, name) for name in names if hasattr(holder, name)}


def require_method(method: str, decoder: str | None, preset: str) -> None:
    """A method, with what is done to the decoder, in a preset.

    Raises:
        InputError: there is no such method or preset, not that choice of decoder, or the preset
            has no settings of the method.
    """
    record = method_named(method)
    if preset not in PRESETS:
        raise InputError(f"There is no preset '{preset}'. Known: {', '.join(PRESETS)}.")
    default_settings(method, preset, decoder)  # refuses a method that was never published
    if record.trains_backbone:
        if decoder is not None and decoder not in record.decoders:
            raise InputError(
                f"With the method '{method}' the decoder is {' or '.join(record.decoders)}, not "
                f"{decoder}."
            )
    elif decoder not in (None, "frozen"):
        others = [name for name, other in METHODS.items() if decoder in other.decoders]
        advice = f" A decoder that is {decoder} goes with {', '.join(others)}." if others else ""
        raise InputError(f"The method '{method}' leaves the whole backbone frozen.{advice}")


def _changed(
    cls: type[_Options],
    options: _Options | None,
    inner: str,
    settings: type[Any],
    changes: dict[str, Any],
) -> _Options:
    """Options with changes; ``inner`` is the field whose own fields may be given by their names."""
    base = cls() if options is None else options
    if not isinstance(base, cls):
        raise TypeError(f"options are {cls.__name__}, not {type(base).__name__}")
    own: list[str] = [field.name for field in fields(cls)]
    within: list[str] = [field.name for field in fields(settings)]
    for name in changes:
        if name not in own and name not in within:
            near = difflib.get_close_matches(name, [*own, *within], 1)
            hint = f"Did you mean '{near[0]}'? " if near else ""
            known = ", ".join([*own, *within])
            raise TypeError(f"There is no option '{name}'. {hint}Known: {known}.")
    given = {name: value for name, value in changes.items() if name in own}
    detail = {k: v for k, v in changes.items() if k in within and v is not None}
    if detail:
        before = given.get(inner, getattr(base, inner))
        whole = isinstance(before, settings)
        given[inner] = replace(before, **detail) if whole else {**(before or {}), **detail}
    return replace(base, **given)


def _set(options: Any, **values: Any) -> None:
    """Give a frozen value its field in the one form that is used afterwards."""
    for name, value in values.items():
        object.__setattr__(options, name, value)


def _require_choice(what: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InputError(f"{what} {' or '.join(map(repr, choices))}, not '{value}'.")


def _require_names(settings: type[Any], given: Any) -> None:
    """Refuse settings by names that there are not."""
    if isinstance(given, settings):
        return
    if not isinstance(given, Mapping):
        raise InputError(f"Settings are {settings.__name__}, or some by name, not {given!r:.60}.")
    known = [f.name for f in fields(settings)]
    for name in given:
        if name not in known:
            raise InputError(f"There is no setting {name!r:.60}. Known: {', '.join(known)}.")


def _checked_sparse(given: Any) -> Sparse:
    """What is known of supports, as texts in a tuple or one for all; whether masks can be used
    shows later."""

    def text(value: Any) -> str:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
        if not isinstance(value, str) or not value.strip():
            raise InputError(
                f"What is known of supports is one of {', '.join(WORDS)}, or the path of a mask; "
                f"for all, or a list with one for each. It is not {value!r:.60}."
            )
        return value

    if given is None or isinstance(given, (str, os.PathLike)):
        return None if given is None else text(given)
    if not isinstance(given, Sequence) or not given:
        return text(given)  # refuses it
    return tuple(map(text, given))


def _checked_priors(gamma: float | None, priors: Priors | None) -> dict[str, Any]:
    """Priors whose numbers can be used; whether there are such structures shows later."""
    if gamma is not None:
        GAMMA.check(gamma)
    if priors is not None and not isinstance(priors, Mapping):
        raise InputError("Prior volumes are a dictionary of ml by structure name.")
    for ml in (priors or {}).values():
        change = ml if isinstance(ml, PriorChange) else PriorChange(mean_ml=ml)
        for limits, value in (
            (PRIOR_ML, change.mean_ml),
            (SPREAD_ML, change.deviation_ml),
            (GAMMA, change.gamma),
        ):
            if value is not None:
                limits.check(value)
    return dict(priors or {})
