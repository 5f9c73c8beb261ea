"""Crops turned, scaled and disturbed at random, each a pure function of its random generator.

Nothing here mirrors a crop: which side an organ is on is part of what it is. Each change that
training on few supports makes as well is that of ``training.augmentation``; how strong it is, how
often and in which order is this pre-training's own, and part of what a seed means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.geometry import three
from ..training.augmentation import random_gain, random_gamma, random_noise, random_rotation
from .cases import StoredArray
from .settings import Augmentation

OFTEN, SOMETIMES = 0.5, 0.3
"""How often crops are made noisy, and disturbed in each of the other ways."""
NARROWEST = 0.35
"""The least part of a crop's side that a narrow field of view leaves."""


def crop_index(
    rng: np.random.Generator,
    augmentation: Augmentation,
    crop: Sequence[int],
    centre: np.ndarray,
    spacing: Sequence[float],
) -> np.ndarray:
    """Where each voxel of a rotated and scaled crop lies in its volume.

    Args:
        crop: voxels of the crop. centre: (3,) the voxel of the volume that it lies around.
        spacing: mm of the volume's voxels, so that turning keeps shapes.

    Returns:
        (I, J, K, 3) float32, in voxels of the volume.
    """
    rotation = random_rotation(rng, augmentation.rotation)
    low, high = np.log(augmentation.zoom)
    # Crops that span more of the volume show it smaller.
    span = 1 / math.exp(rng.uniform(low, high))
    scale = span * rng.uniform(1 - augmentation.stretch, 1 + augmentation.stretch, 3)
    spacing = np.asarray(spacing, float)
    matrix = rotation * scale * spacing / spacing[:, None]
    axes = [np.arange(n) - (n - 1) / 2 for n in crop]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)
    return offsets @ matrix.T.astype(np.float32) + np.asarray(centre, np.float32)


def warp(
    volume: np.ndarray | StoredArray, index: np.ndarray, mode: str, fill: float = 0.0
) -> Tensor:
    """A volume (i, j, k) at the places ``index`` of :func:`crop_index`: (I, J, K) float32.

    Args:
        mode: ``"bilinear"``, or ``"nearest"`` for labels. fill: what lies outside the volume.
    """
    # Of a stored volume, only what the crop touches is read: it lies between its corners.
    corners = index[np.ix_([0, -1], [0, -1], [0, -1])].reshape(-1, 3)
    size = np.array(volume.shape)
    start = np.clip(np.floor(corners.min(0)).astype(int) - 1, 0, size - 1)
    stop = np.clip(np.ceil(corners.max(0)).astype(int) + 2, start + 1, size)
    part = volume[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    # A voxel more on every side, so that the volume ends where it does and not where the part does.
    part = np.pad(part.astype(np.float32), 1, constant_values=fill)
    place = (2 * (index - (start - 1)) + 1) / np.array(part.shape, np.float32) - 1
    grid = torch.from_numpy(np.ascontiguousarray(place[..., ::-1], np.float32))
    values = torch.from_numpy(part - np.float32(fill))[None, None]
    return F.grid_sample(values, grid[None], mode, "zeros", align_corners=False)[0, 0] + fill


def remap(rng: np.random.Generator, image: Tensor) -> Tensor:
    """Grey values in [0, 1] through a random piecewise linear curve."""
    knots = torch.from_numpy(rng.uniform(0, 1, 8).astype(np.float32))
    place = image.clamp(0, 1) * 6.999
    left = place.floor().long()
    return knots[left] + (place - left) * (knots[left + 1] - knots[left])


def disturb(rng: np.random.Generator, augmentation: Augmentation, image: Tensor) -> Tensor:
    """Gamma, gain, shift, a bias field, coarser slices and noise on an image (I, J, K)."""
    a, shape = augmentation, tuple(image.shape)
    if rng.random() < SOMETIMES and a.gamma:
        image = random_gamma(rng, image, a.gamma)
    image = random_gain(rng, image, a.gain, a.shift)
    if rng.random() < SOMETIMES and a.bias:
        knots = torch.from_numpy(rng.normal(0, a.bias, (1, 1, 4, 4, 4)).astype(np.float32))
        image = image * F.interpolate(knots, shape, mode="trilinear")[0, 0].exp()
    if rng.random() < SOMETIMES and a.coarsest > 1:
        factors = rng.uniform(1, a.coarsest, 3)
        low = [max(2, round(n / f)) for n, f in zip(shape, factors, strict=True)]
        coarse = F.interpolate(image[None, None], low, mode="trilinear")
        image = F.interpolate(coarse, shape, mode="trilinear")[0, 0]
    if rng.random() < OFTEN and a.noise:
        image = random_noise(rng, image, a.noise)
    return image


def field_of_view(
    rng: np.random.Generator, augmentation: Augmentation, shape: Sequence[int]
) -> tuple[slice, slice, slice]:
    """The box of a crop that is imaged: all of it, or sometimes a narrow one."""
    if rng.random() >= augmentation.narrow:
        return three(slice(0, n) for n in shape)
    sizes = [max(1, round(n * rng.uniform(NARROWEST, 1))) for n in shape]
    starts = [int(rng.integers(n - size + 1)) for n, size in zip(shape, sizes, strict=True)]
    return three(slice(a, a + size) for a, size in zip(starts, sizes, strict=True))
