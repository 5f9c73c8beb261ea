"""Segmentation losses that honour what was annotated: eq. (1) of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_dice_loss(
    scores: Sequence[Tensor],
    targets: Sequence[Tensor],
    annotated: Sequence[Tensor],
    smooth: float = 1.0,
    known: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """Soft Dice loss by structure over all crops of a step together.

    Args:
        scores: for each crop, (K, i, j, k) before the sigmoid.
        targets: for each crop, (K, i, j, k) in [0, 1].
        annotated: for each crop, the task mask w (K,), 1 where the structure was annotated in it.
        known: for each crop, (i, j, k) 1 where its annotation is known and 0 elsewhere, which adds
            nothing and has no gradient; None where all of it is known.

    Returns:
        the mean over the structures that were annotated in some crop (eq. 1); 0 if none was.
    """
    overlap: Tensor | int = 0
    total: Tensor | int = 0
    places = known or [None] * len(scores)
    for score, target, w, seen in zip(scores, targets, annotated, places, strict=True):
        probability = score.sigmoid()
        if seen is not None:
            probability, target = probability * seen, target * seen
        overlap = overlap + w * (probability * target).sum((1, 2, 3))
        total = total + w * (probability.sum((1, 2, 3)) + target.sum((1, 2, 3)))
    loss = torch.as_tensor(1 - (2 * overlap + smooth) / (total + smooth))
    return masked_mean(loss, torch.stack(list(annotated)).amax(0))


def cross_entropy_loss(
    scores: Sequence[Tensor],
    targets: Sequence[Tensor],
    annotated: Sequence[Tensor],
    known: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """Binary cross-entropy, the mean over known voxels, then over annotated structures (eq. 1).

    Arguments are those of :func:`soft_dice_loss`.
    """
    losses = []
    places = known or [None] * len(scores)
    for score, target, w, seen in zip(scores, targets, annotated, places, strict=True):
        voxels = F.binary_cross_entropy_with_logits(score, target, reduction="none")
        if seen is None:
            means = voxels.mean((1, 2, 3))
        else:
            means = (voxels * seen).sum((1, 2, 3)) / seen.sum().clamp(min=1)
        losses.append(masked_mean(means, w))
    return torch.stack(losses).mean()


def masked_mean(values: Tensor, w: Tensor) -> Tensor:
    """``sum_k w_k values_k / sum_k w_k``; 0 where nothing was annotated."""
    return (values * w).sum() / w.sum().clamp(min=1)
