"""What a training loop trains: one protocol for adapters on stored features and for backbones.

:func:`.loop.fit` knows nothing else of either. ``FeatureLearner`` is the first; ``image_recipe``
and ``published_recipe`` have the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..compute.parallel import differentiable_in_parallel
from ..compute.precision import at_speed
from ..core.settings import TrainingSettings
from ..inference.tiles import Box, box_scores
from ..methods.adapters.base import Adapter
from ..methods.tuned_model import TunedNetwork
from .losses import cross_entropy_loss, soft_dice_loss
from .run import Run
from .sampling import draw_crops
from .support_set import PreparedSupport, standardise


class Learner(Protocol):
    """A network with what it learns from, and what an epoch of that is made of.

    Attributes:
        network: what is trained, in place.
        supports: what it learns from; may be empty where a query's sizes alone move the network.
        settings: of the training.
    """

    @property
    def network(self) -> Adapter | TunedNetwork: ...

    @property
    def supports(self) -> Sequence[PreparedSupport]: ...

    @property
    def settings(self) -> TrainingSettings: ...

    def begin(self, run: Run) -> None:
        """Bring a new network to where its training begins: its first feature statistics."""
        ...

    def steps(self) -> int:
        """Optimiser steps on the supports in an epoch."""
        ...

    def rate(self, epoch: int) -> float:
        """The part of the learning rate that an epoch has."""
        ...

    def settled(self, history: Sequence[dict[str, Any]]) -> bool:
        """Whether training has come to its end before the last epoch.

        Args:
            history: the records of the epochs so far.
        """
        ...

    def losses(self, rng: np.random.Generator, run: Run) -> tuple[Tensor, Tensor]:
        """Soft Dice and cross-entropy over the crops of one step, drawn by ``rng``."""
        ...


class ScheduledLearner:
    """What the learners with the project's own schedule share: a warm-up, half a cosine, a plateau.

    Args: as the attributes of :class:`Learner`.
    """

    def __init__(
        self,
        network: Adapter | TunedNetwork,
        supports: Sequence[PreparedSupport],
        settings: TrainingSettings,
    ) -> None:
        self.network, self.supports, self.settings = network, supports, settings

    def steps(self) -> int:
        """See :meth:`Learner.steps`."""
        return self.settings.steps_per_epoch

    def rate(self, epoch: int) -> float:
        """Linear warm-up, then half a cosine."""
        settings = self.settings
        if epoch < settings.warm_up:
            return (epoch + 1) / (settings.warm_up + 1)
        progress = (epoch - settings.warm_up) / max(1, settings.epochs - settings.warm_up)
        return 0.5 + 0.5 * math.cos(math.pi * progress)

    def settled(self, history: Sequence[dict[str, Any]]) -> bool:
        """Whether the smoothed support loss has stopped moving (the published rule)."""
        losses = [record["dice_loss"] for record in history]
        window = self.settings.patience
        if len(losses) < 2 * window:
            return False
        now, before = np.mean(losses[-window:]), np.mean(losses[-2 * window : -window])
        return bool(abs(now - before) < self.settings.plateau)


class FeatureLearner(ScheduledLearner):
    """An adapter on stored features: nothing of the backbone is run."""

    network: Adapter

    def begin(self, run: Run) -> None:
        """Give the adapter the supports' feature statistics."""
        standardise(self.network, self.supports)

    def losses(self, rng: np.random.Generator, run: Run) -> tuple[Tensor, Tensor]:
        """See :meth:`Learner.losses`."""
        drawn = draw_crops(rng, self.supports, self.settings.crops, self.settings.crop_size)

        def scores_of(place: tuple[PreparedSupport, Box]) -> Tensor:
            support, box = place
            with at_speed(run.device):
                return box_scores(self.network, support.features, box, run.device)

        run.check()  # here: it may be a caller's that only the main thread is allowed to call
        parameters = list(self.network.parameters())
        scores = differentiable_in_parallel(scores_of, drawn, parameters, run.device)
        targets, masks, known = [], [], []
        for support, box in drawn:
            target = support.targets[(slice(None), *box)].to(run.device)
            targets.append(target.float() / 255)
            masks.append(support.annotated.to(run.device))
            seen = support.known
            known.append(None if seen is None else seen[box].to(run.device).float())
        return (
            soft_dice_loss(scores, targets, masks, known=known),
            cross_entropy_loss(scores, targets, masks, known),
        )
