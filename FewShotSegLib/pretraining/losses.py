"""Eq. (1) over the classes, and the losses of the auxiliary targets."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..training.losses import masked_mean, soft_dice_loss
from .settings import Targets
from .targets import Sample


def class_losses(
    scores: Tensor, masks: Tensor, w: Tensor, least_part: float
) -> tuple[Tensor, Tensor]:
    """Soft Dice and cross-entropy of one crop by eq. (1).

    Each is ``sum_k w_k loss_k / sum_k w_k``: a class that was not annotated is unknown, and gets no
    gradient.

    Args:
        scores: (K, i, j, k) before the sigmoid. masks: (K, i, j, k) in [0, 1].
        w: (K,), 1 where the class was annotated.
        least_part: see :class:`.settings.Targets`.
    """
    dice = soft_dice_loss([scores], [masks], [w])
    voxels = F.binary_cross_entropy_with_logits(scores, masks, reduction="none").sum((1, 2, 3))
    # Over the class's voxels, not the crop's: else the other targets drown out a small organ.
    least = least_part * math.prod(masks.shape[1:])
    entropy = voxels / masks.sum((1, 2, 3)).clamp(min=least)
    return dice, masked_mean(entropy, w)


def voxel_loss(scores: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of every voxel among the annotated classes and none of them, whose score is 0.

    Of one class this is the sigmoid's cross-entropy. Unlike :func:`class_losses` it grows with the
    voxels of a class, so that large ones are learned quickly.

    Args:
        scores: (K, i, j, k) of the annotated classes. labels: (i, j, k) int64, classes from 1.
        known: (K,) the numbers of these classes, from 0.
    """
    place = torch.zeros(256, dtype=torch.long, device=labels.device)
    place[known + 1] = torch.arange(1, len(known) + 1, device=labels.device)
    among = torch.cat([torch.zeros_like(scores[:1]), scores])
    return F.cross_entropy(among[None], place[labels][None])


def crop_losses(
    outputs: dict[str, Tensor], sample: Sample, targets: Targets, stride: int
) -> dict[str, Tensor]:
    """Every loss of one crop on one feature level, and ``loss``, their weighted sum.

    Args:
        outputs: for each target, (channels, i, j, k) on the level.
        stride: crop voxels that one voxel of the level spans.
    """
    # The others count for nothing: of a large template most need not even be looked at.
    known = sample.annotated.nonzero()[:, 0]
    masks = (sample.labels == known[:, None, None, None] + 1).float()
    if stride > 1:
        masks = F.avg_pool3d(masks[:, None], stride)[:, 0]
    dice, entropy = class_losses(
        outputs["classes"][known], masks, sample.annotated[known], targets.least_part
    )
    losses = {"dice_loss": dice, "cross_entropy": entropy}
    loss = dice + targets.cross_entropy * entropy
    if targets.voxels and len(known):
        wanted = _thinned(sample.labels, stride)
        losses["voxels"] = voxel_loss(outputs["classes"][known], wanted, known)
        loss = loss + targets.voxels * losses["voxels"]
    if targets.tissue and sample.tissue is not None:
        wanted = _thinned(sample.tissue, stride)
        losses["tissue"] = F.cross_entropy(outputs["tissue"][None], wanted[None])
        loss = loss + targets.tissue * losses["tissue"]
    if targets.position and bool(sample.position_known.any()):
        losses["position"] = _position_loss(outputs["position"], sample, stride)
        loss = loss + targets.position * losses["position"]
    if targets.distance and bool(sample.distance_known.any()):
        losses["distance"] = _distance_loss(outputs["distance"], sample, stride)
        loss = loss + targets.distance * losses["distance"]
    if targets.clean and sample.clean is not None:
        wanted = _thinned(sample.clean, stride)
        losses["clean"] = F.l1_loss(outputs["clean"][0], wanted)
        loss = loss + targets.clean * losses["clean"]
    return losses | {"loss": loss}


def _position_loss(output: Tensor, sample: Sample, stride: int) -> Tensor:
    wanted, body = _thinned(sample.position, stride), _thinned(sample.body, stride).float()
    error = F.smooth_l1_loss(output, wanted, reduction="none", beta=0.1)
    by_anchor = (error * body).sum((1, 2, 3)).unflatten(0, (-1, 3)).sum(1)
    return masked_mean(by_anchor / (3 * body.sum() + 1), sample.position_known)


def _distance_loss(output: Tensor, sample: Sample, stride: int) -> Tensor:
    wanted, body = _thinned(sample.distance, stride), _thinned(sample.body, stride).float()
    error = F.smooth_l1_loss(output, wanted, reduction="none", beta=0.1)
    by_landmark = (error * body).sum((1, 2, 3)) / (body.sum() + 1)
    return masked_mean(by_landmark, sample.distance_known)


def _thinned(tensor: Tensor, stride: int) -> Tensor:
    """Every ``stride``-th voxel along the last three axes, from the middle of each cell."""
    every = slice(stride // 2, None, stride)
    return tensor[..., every, every, every]


def mean_losses(crops: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each loss over the crops that have it; of ``loss`` over all."""
    names = {name: None for crop in crops for name in crop}
    return {
        name: torch.stack([crop[name] for crop in crops if name in crop]).mean() for name in names
    }
