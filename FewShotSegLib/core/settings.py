"""How long and how an adapter is trained, and a copy of it refined; without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .errors import InputError
from .limits import COUNT, EPOCHS, FACTOR, LEARNING_RATE, PART, SIZE_WEIGHT, WARM_UP, WEIGHT
from .method_catalog import PUBLISHED, MethodRecord, method_named

PUBLISHED_DECODER_RATE = 1e-4
"""Of a method of the encoder whose decoder is trained as well, as published; others' rates are in
their records."""


@dataclass(frozen=True)
class TrainingSettings:
    """How an adapter is trained. The defaults are those measured best on the benchmark.

    Attributes:
        epochs, steps_per_epoch: the schedule; one query step an epoch where there is a query.
        crops: crops a step. crop_size: their side in model voxels.
        learning_rate: None takes the adapter's own.
        cross_entropy: its weight beside soft Dice.
        warm_up: epochs of linear warm-up before the cosine.
        plateau, patience: training stops when the smoothed loss has moved by less than
            ``plateau`` in ``patience`` epochs.
        size_weight: lambda of eq. (3). size_from: the part of the epochs after which it acts.
    """

    epochs: int = 60
    steps_per_epoch: int = 4
    crops: int = 4
    crop_size: int = 32
    learning_rate: float | None = None
    weight_decay: float = 0.0
    cross_entropy: float = 1.0
    warm_up: int = 1
    plateau: float = 0.001
    patience: int = 20
    size_weight: float = 0.1
    size_from: float = 0.5

    def __post_init__(self) -> None:
        EPOCHS.check(self.epochs)
        for count in (self.steps_per_epoch, self.crops, self.crop_size, self.patience):
            COUNT.check(count)
        WARM_UP.check(self.warm_up)
        if self.learning_rate is not None:
            LEARNING_RATE.check(self.learning_rate)
        for weight in (self.weight_decay, self.cross_entropy, self.plateau):
            WEIGHT.check(weight)
        SIZE_WEIGHT.check(self.size_weight)
        PART.check(self.size_from)

    def to_json(self) -> dict[str, Any]:
        """The form kept in an adapter file."""
        return asdict(self)


@dataclass(frozen=True)
class RefinementSettings:
    """How a copy is refined.

    Attributes:
        epochs: at most.
        alone_factor, supported_factor: of the learning rate, without supports and with them.
        size_weight: lambda of eq. (3).
    """

    epochs: int = 20
    alone_factor: float = 0.1
    supported_factor: float = 0.5
    size_weight: float = 0.1

    def __post_init__(self) -> None:
        EPOCHS.check(self.epochs)
        FACTOR.check(self.alone_factor)
        FACTOR.check(self.supported_factor)
        SIZE_WEIGHT.check(self.size_weight)


def default_settings(
    method: str, preset: str = "own", decoder: str | None = None
) -> TrainingSettings:
    """How a method is trained where nothing else is asked for.

    Args:
        preset: the project's own settings, or those of the paper: 200 epochs of six crops of 96
            voxels a side from every volume; Dice alone.
        decoder: what the method does with it; None is the method's own choice.

    Raises:
        InputError: there is no such method, or the paper has no settings of it.
    """
    record = method_named(method)
    if preset != "published":
        return TrainingSettings(**asdict(record.schedule(preset)))
    return TrainingSettings(
        **asdict(PUBLISHED),
        learning_rate=_published_rate(record, decoder),
        weight_decay=0.0,
        cross_entropy=0.0,
        warm_up=1,
        plateau=0.001,
        patience=20,
    )


def _published_rate(record: MethodRecord, decoder: str | None) -> float:
    """The learning rate of the authors' code."""
    if record.published_rate is None:
        raise InputError(
            f"There are no published settings of the method '{record.name}'. Use its own (without "
            "--preset)."
        )
    if record.decoders[:1] == ("frozen",) and decoder in ("tuned", "new"):
        return PUBLISHED_DECODER_RATE
    return record.published_rate
