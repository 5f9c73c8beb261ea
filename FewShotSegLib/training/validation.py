"""How good an adapter can be expected to be: each support segmented by one trained without it.

The folds train on stored features with the adapter's own method and settings, for fewer epochs, so
that all of them take as long as the adapter itself. No backbone runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..core.annotation import Structure, dice
from ..core.events import make_event
from ..core.expected import Expected, ExpectedDice
from ..core.geometry import Volume
from ..core.settings import TrainingSettings
from ..features.store import VolumeFeatures
from ..methods.adapters.base import Adapter
from .learner import FeatureLearner
from .loop import fit
from .run import Run
from .support_set import Support, SupportSet

MOST_ALONE = 3
"""Of more supports than these, halves are held out in place of each alone: with a fifth of the
epochs some adapters have not begun to find a structure, and with half of them they have."""
TRAINING_COST = 3
"""How many times longer a voxel takes that is trained on than one that is segmented."""
PHASE = "validate"

Start = Callable[[SupportSet, int, Run], FeatureLearner]
"""Gives a fresh adapter where its training on these supports for so many epochs begins."""
Predict = Callable[[Adapter, VolumeFeatures, Volume], Sequence[np.ndarray]]
"""Gives the masks (i, j, k) of all structures on a volume's original grid."""


@dataclass(frozen=True)
class Subject:
    """What is validated: a training.

    Attributes:
        read: its supports as they were read. learned: as it saw them.
        settings: of it. epochs: how many it ran.
    """

    read: Sequence[Support]
    learned: SupportSet
    settings: TrainingSettings
    epochs: int


def held_out(count: int) -> list[tuple[int, ...]]:
    """The supports that each fold leaves out: every one once, alone or in halves."""
    folds = count if count <= MOST_ALONE else 2
    return [tuple(range(first, count, folds)) for first in range(folds)]


def fold_epochs(subject: Subject, folds: int) -> int:
    """Epochs of a fold, so that all together, and the segmenting of what they left out, take as
    long as the training did; half of that at least, where the volumes are very large."""
    settings = subject.settings
    epoch = settings.steps_per_epoch * settings.crops * settings.crop_size**3
    voxels = sum(math.prod(support.features.shape) for support in subject.learned.supports)
    # A voxel that is trained on is computed forwards, and backwards twice.
    left = subject.epochs - voxels / (TRAINING_COST * epoch)
    return max(1, int(max(left, subject.epochs / 2) / folds))


def cross_validate(
    subject: Subject,
    start: Start,
    predict: Predict,
    run: Run,
    keep: Callable[[Adapter], None] = lambda adapter: None,
) -> Expected:
    """Measure what Dice new volumes like the supports can be expected to have.

    Args:
        subject: two supports at least. start, predict: how an adapter is trained and used.
        run: its events get ``progress`` of the phase ``validate``.
        keep: gets each fold's adapter once it is trained.

    Raises:
        InputError: a fold's training diverged.
    """
    learned, read = subject.learned, subject.read
    folds = held_out(len(read))
    epochs = fold_epochs(subject, len(folds))
    found: dict[str, dict[int, float]] = {s.name: {} for s in learned.structures}
    progress = _Progress(run, len(folds) * epochs + len(read))
    fold = replace(run, phase=PHASE, events=progress.on_event, checkpoint=None)
    for left_out in folds:
        training = [s for n, s in enumerate(learned.supports) if n not in left_out]
        taught = [any(len(s.centres[k]) for s in training) for k in range(len(found))]
        if not any(taught):  # nothing is drawn in the others
            progress.advance(epochs + len(left_out))
            continue
        learner = start(SupportSet(learned.structures, training), epochs, fold)
        progress.advance(epochs - fit(learner, fold).epochs)  # one that settled earlier
        keep(learner.network)
        for number in left_out:
            run.check()
            features, support = learned.supports[number].features, read[number]
            masks = predict(learner.network, features, support.volume)
            for structure, mask, known in zip(learned.structures, masks, taught, strict=True):
                value = _dice(support, structure, mask)
                if value is not None and known:
                    found[structure.name][number] = value
            progress.advance(1)
    structures = {
        name: ExpectedDice(tuple(round(scores[n], 4) for n in sorted(scores)))
        for name, scores in found.items()
    }
    sparse = sum(support.annotation.known is not None for support in read)
    return Expected("measured", len(folds), epochs, False, structures, sparse)


class _Progress:
    """Counts the epochs of all folds and the supports that were segmented."""

    def __init__(self, run: Run, total: int) -> None:
        self._run, self._done, self._total = run, 0, total

    def on_event(self, event: dict[str, Any]) -> None:
        """An event of a fold's training: an epoch is a step; nobody asked for its curve."""
        if event["event"] == "epoch":
            self.advance(1)

    def advance(self, steps: int) -> None:
        """Tell of so many more."""
        self._done += steps
        event = make_event("progress", phase=PHASE, done=self._done, total=self._total)
        self._run.events(event)


def _dice(support: Support, structure: Structure, mask: np.ndarray) -> float | None:
    """Of a mask with a support's own, where that is known; None where the support does not annotate
    the structure, or where it is neither there nor predicted."""
    truth, known = support.annotation.mask(structure.name), support.annotation.known
    if truth is not None and known is not None:
        truth, mask = truth & known, mask & known
    value = math.nan if truth is None else float(dice(truth, mask))
    return None if math.isnan(value) else value
