"""The published way of training (jusiro/fewshot-finetuning), for ``--preset published``.

Differences from the project's own: Dice alone, by crop, with a softmax over background and
structures where there are several; the last feature level; the backbone runs on every crop, so that
intensities can be shifted; one volume a step; one learning rate for all; single precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.settings import TrainingSettings
from ..inference.tiles import Box
from ..methods.tuned_model import TunedNetwork
from ..models.preprocessing import Preprocessing
from .image_recipe import ImageLearner
from .run import Run
from .sampling import box_around, known_voxel
from .support_set import PreparedSupport

SHIFT, SHIFTED = 0.1, 0.2
"""The most that intensities in [0, 1] are shifted by, and how often."""
SMOOTHED = 10
"""Epochs of the moving average that tells whether the loss has settled."""


class PublishedLearner(ImageLearner):
    """Epochs as the authors' code runs them. Every volume is one step of an epoch.

    Args: as of :class:`ImageLearner`.
    """

    precise = True

    def __init__(
        self,
        network: TunedNetwork,
        supports: Sequence[PreparedSupport],
        settings: TrainingSettings,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__(network, supports, settings, preprocessing)
        self._order: list[int] = []

    def begin(self, run: Run) -> None:
        """Features are not standardised, the classifier starts as PyTorch makes one, and all is
        trained at one rate."""
        self.network.to(run.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        for classifier in self.network.head.classifiers:
            classifier.reset_parameters()
        self.network.tuning.head_factor = 1.0

    def steps(self) -> int:
        """See :meth:`.learner.Learner.steps`."""
        return self.settings.steps_per_epoch * len(self.supports)

    def rate(self, epoch: int) -> float:
        """The warm-up starts at a part ``1 / warm_up`` of the rate, which for one epoch is all."""
        settings = self.settings
        if epoch < settings.warm_up:
            return (epoch + 1) / settings.warm_up
        progress = (epoch - settings.warm_up) / max(1, settings.epochs - settings.warm_up)
        return 0.5 + 0.5 * math.cos(math.pi * progress)

    def settled(self, history: Sequence[dict[str, Any]]) -> bool:
        """Whether the moving average has fallen by less than ``plateau`` in ``patience`` epochs."""
        settings = self.settings
        losses = [record["dice_loss"] for record in history]
        if len(losses) <= settings.patience + SMOOTHED:
            return False
        smooth = np.convolve(losses, np.ones(SMOOTHED) / SMOOTHED, mode="valid")
        return bool(smooth[-settings.patience] - smooth[-1] < settings.plateau)

    def draw(self, rng: np.random.Generator) -> list[tuple[PreparedSupport, Box]]:
        """All crops of a step from one volume, each on a structure or beside one, evenly."""
        settings = self.settings
        if not self._order:
            self._order = [int(n) for n in rng.permutation(len(self.supports))]
        support = self.supports[self._order.pop()]
        inside = [place for place in support.centres if len(place)]
        drawn = []
        for _ in range(settings.crops):
            if inside and rng.random() < 0.5:
                voxels = np.concatenate(inside)
                centre = voxels[rng.integers(len(voxels))]
            else:
                centre = self._beside(rng, support)
            drawn.append((support, box_around(centre, settings.crop_size, support.features.shape)))
        return drawn

    def _beside(self, rng: np.random.Generator, support: PreparedSupport) -> np.ndarray:
        """A voxel known to be of no structure whose image is above 0; anywhere where none is
        found."""
        image, shape, known = support.features.levels[0][0], support.features.shape, support.known
        for _ in range(200):
            drawn = rng.integers(0, shape) if known is None else known_voxel(rng, known)
            place = tuple(int(n) for n in drawn)
            if image[place] > 0 and not bool((support.targets[(slice(None), *place)] > 127).any()):
                break
        return np.array(place)

    def augment(
        self, rng: np.random.Generator, image: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`ImageLearner.augment`; annotations are yes or no, as published."""
        if rng.random() < SHIFTED:
            image = image + rng.uniform(-SHIFT, SHIFT)
        return image, (target > 0.5).float()

    def combine(
        self,
        scores: Sequence[Tensor],
        targets: Sequence[Tensor],
        masks: Sequence[Tensor],
        known: Sequence[Tensor | None] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Soft Dice by crop and class, and no cross-entropy.

        Several structures compete with each other and with the background, whose score is 0: that
        is what the published extra channel comes to, and the most probable class is the same that
        :func:`prediction.original_masks` chooses.
        """
        losses = []
        places = known or [None] * len(scores)
        for score, target, w, seen in zip(scores, targets, masks, places, strict=True):
            if len(score) == 1:
                losses.append(_dice_loss(score.sigmoid(), target, w, seen))
                continue
            probability = torch.cat([torch.zeros_like(score[:1]), score]).softmax(0)
            background = 1 - target.amax(0, keepdim=True)
            # What was not annotated is unknown, and with it what is background.
            weights = torch.cat([w.min()[None], w])
            losses.append(_dice_loss(probability, torch.cat([background, target]), weights, seen))
        loss = torch.stack(losses).mean()
        return loss, torch.zeros_like(loss)


def require_published(features: str, intensity: str) -> None:
    """Refuse what the published settings have no meaning for.

    Raises:
        InputError: several feature levels, or images that are not in [0, 1].
    """
    if features != "last":
        raise InputError("The published settings adapt the last level; use --features last.")
    if intensity == "identity":
        raise InputError(
            "The published settings shift intensities in [0, 1], but this model takes raw values. "
            "Use the project's own settings (without --preset)."
        )


def _dice_loss(
    probability: Tensor,
    target: Tensor,
    w: Tensor,
    known: Tensor | None = None,
    smooth: float = 1.0,
) -> Tensor:
    if known is not None:
        probability, target = probability * known, target * known
    overlap = (probability * target).sum((1, 2, 3))
    total = probability.sum((1, 2, 3)) + target.sum((1, 2, 3))
    loss = 1 - (2 * overlap + smooth) / (total + smooth)
    return (loss * w).sum() / w.sum().clamp(min=1)
