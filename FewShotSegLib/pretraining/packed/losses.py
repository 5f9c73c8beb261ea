"""What is learned from the points of an episode, from features gathered over all levels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PAIRS = 768
"""Points among which a voxel is distinguished from others."""
TEMPERATURE = 0.1
FARTHEST = 10.0
"""Deviations from the mean at which a feature of the other view is cut off."""
ALIKE = 0.3
"""What another voxel of the same structure counts, where the same voxel counts 1."""


def gather(levels: list[Tensor], points: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
    """Features of voxels on every level, interpolated as an adapter's scores will be.

    Args:
        levels: (B, C, i, j, k). points: (B, N) places in flattened views of ``shape``.

    Returns:
        for each level, (B, N, C) float32.
    """
    k = points % shape[2]
    j = points // shape[2] % shape[1]
    i = points // (shape[1] * shape[2])
    found = []
    for level in levels:
        size = level.shape[2:]
        if tuple(size) == tuple(shape):
            flat = level.flatten(2)
            index = points[:, None].expand(-1, flat.shape[1], -1)
            found.append(flat.gather(2, index).transpose(1, 2).float())
            continue
        place = torch.stack([k, j, i], -1).float()
        extent = torch.tensor([shape[2], shape[1], shape[0]], device=points.device)
        grid = ((2 * place + 1) / extent - 1)[:, :, None, None]
        values = F.grid_sample(level.float(), grid, padding_mode="border", align_corners=False)
        found.append(values[..., 0, 0].transpose(1, 2))
    return found


def ridge_scores(known: Tensor, wanted: Tensor, asked: Tensor, strength: Tensor) -> Tensor:
    """Ridge regression in closed form, applied to other features.

    Args:
        known: (N, D) standardised features. wanted: (N, K), what is regressed from them.
        asked: (M, D). strength: of the ridge, () above 0.

    Returns:
        (M, K).
    """
    middle = wanted.mean(0)
    gram = known.T @ known / len(known)
    gram = gram + strength * torch.eye(gram.shape[0], device=gram.device)
    weights = torch.linalg.solve(gram, known.T @ (wanted - middle) / len(known))
    return asked @ weights + middle


def episode_loss(
    features: Tensor,
    tasks: Tensor,
    places: Tensor | None,
    gains: Tensor,
    strength: Tensor,
    scale: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Structures, and places, of each view found again in the other.

    Args:
        features: (2, N, D). tasks: (2, N). places: (2, N, 3), or None where the views have no
            places in common. gains: (D,), what each standardised feature counts.
        strength: of the ridge. scale: of the scores before the softmax.

    Returns:
        the cross-entropy; the part of points that were classified right; and the mean error of
        places in deviations of the first view's, beyond one its root.
    """
    classes = int(tasks.max()) + 1
    losses, right, errors = [], [], []
    for a, b in ((0, 1), (1, 0)):
        mean, deviation = features[a].mean(0), features[a].std(0).clamp(min=1e-3)
        known, asked = ((features[x] - mean) / deviation for x in (a, b))
        asked = asked.clamp(-FARTHEST, FARTHEST)
        wanted = F.one_hot(tasks[a], classes).float()
        if places is not None:
            middle, spread = places[a].mean(0), places[a].std(0).clamp(min=1)
            here, there = ((places[x] - middle) / spread for x in (a, b))
            wanted = torch.cat([wanted, here], 1)
        found = ridge_scores(known * gains, wanted, asked * gains, strength)
        scores = scale * found[:, :classes]
        # A structure that no point of the first view shows can't be asked for.
        shown = torch.bincount(tasks[a], minlength=classes) > 0
        scores = scores.masked_fill(~shown, -1e4)
        fair = shown[tasks[b]]
        losses.append(F.cross_entropy(scores[fair], tasks[b][fair]))
        right.append((scores.argmax(1) == tasks[b])[fair].float().mean())
        if places is not None:
            errors.append(F.smooth_l1_loss(found[:, classes:], there, beta=1.0))
    error = (errors[0] + errors[1]) / 2 if errors else None
    return (losses[0] + losses[1]) / 2, (right[0] + right[1]) / 2, error


def contrast_loss(projected: Tensor, tasks: Tensor) -> Tensor:
    """Each voxel's other view distinguished from the other voxels'.

    Args:
        projected: (2, N, P), point n of both views being the same place. tasks: (2, N), alike.
    """
    a, b = F.normalize(projected[:, :PAIRS], dim=-1)
    scores = a @ b.T / TEMPERATURE
    task = tasks[0, :PAIRS]
    wanted = ALIKE * ((task[:, None] == task) & (task > 0)).float()
    wanted.fill_diagonal_(1.0)
    wanted = wanted / wanted.sum(1, keepdim=True)
    return (F.cross_entropy(scores, wanted) + F.cross_entropy(scores.T, wanted)) / 2
