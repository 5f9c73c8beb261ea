"""Light augmentation of image crops for training on few supports; each a function of its generator.

Nothing mirrors a crop: which side an organ is on is part of what it is.

Rotation, gamma, gain and noise are those of pre-training too. What ``pretraining.augmentation``
does besides is not wanted on few supports: a bias field, coarser slices, a narrow field of view,
and crops that are cut from the whole volume already turned, which is worth its memory only where
the next crop is of another volume; here a small crop that is there already is turned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

OFTEN, SOMETIMES = 0.5, 0.3
"""How often a crop is bent, and disturbed in each of the other ways."""
ROTATION = 10.0
"""Degrees about each axis, at most, either way; small, so that sides stay sides."""
ZOOM = 0.15
"""By how much larger or smaller a crop is shown, at most (as a logarithm)."""
GAIN, SHIFT, GAMMA, NOISE = 0.1, 0.1, 0.15, 0.04
"""The most that intensities are scaled, shifted, curved and made noisy by, as parts of [0, 1]."""


def bend(
    rng: np.random.Generator, image: Tensor, target: Tensor, spacing: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """A crop turned and scaled a little about its centre, and its targets with it.

    Args:
        image: (i, j, k). target: (K, i, j, k) in [0, 1].
        spacing: mm of a voxel, so that turning keeps shapes.
    """
    matrix = random_matrix(rng)
    if rng.random() >= OFTEN:
        return image, target
    # affine_grid's coordinates run from -1 to 1 along axes k, j, i, whatever these span in mm.
    extent = torch.tensor([n * s for n, s in zip(image.shape, spacing, strict=True)]).flip(0)
    turn = torch.from_numpy(matrix[::-1, ::-1].copy()).float()
    theta = turn * extent / extent[:, None]
    both = torch.cat([image[None], target])[None]
    grid = F.affine_grid(F.pad(theta, (0, 1))[None], [1, 1, *image.shape], align_corners=False)
    moved = F.grid_sample(both, grid, padding_mode="border", align_corners=False)[0]
    return moved[0], moved[1:]


def random_matrix(rng: np.random.Generator) -> np.ndarray:
    """A small rotation and zoom in mm (3, 3); its determinant is positive: no mirror image."""
    zoom = math.exp(rng.uniform(-ZOOM, ZOOM))
    return zoom * random_rotation(rng, ROTATION)


def random_rotation(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """A (3, 3) turn about each axis in order, by up to so many degrees either way."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(rng.uniform(-1, 1, 3) * degrees)):
        a, b = (i for i in range(3) if i != axis)
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    return matrix


def disturb(rng: np.random.Generator, image: Tensor, normalised: bool = True) -> Tensor:
    """Gain, shift, gamma and noise on an image (i, j, k).

    Args:
        normalised: its values are in [0, 1]; others, such as HU, are changed by parts of the
            crop's own range.
    """
    start, span = 0.0, 1.0
    if not normalised:
        start = float(image.min())
        span = max(float(image.max()) - start, 1e-3)
    values = (image - start) / span
    if rng.random() < SOMETIMES:
        values = random_gamma(rng, values, GAMMA)
    if rng.random() < OFTEN:
        values = random_gain(rng, values, GAIN, SHIFT)
    if rng.random() < SOMETIMES:
        values = random_noise(rng, values, NOISE)
    return values * span + start


def random_gamma(rng: np.random.Generator, image: Tensor, spread: float) -> Tensor:
    """An image, clipped to [0, 1], to a power around 1; ``spread``: of its logarithm."""
    return image.clamp(0, 1) ** math.exp(rng.normal(0, spread))


def random_gain(rng: np.random.Generator, image: Tensor, gain: float, shift: float) -> Tensor:
    """An image scaled and shifted by up to ``gain`` and ``shift``, either way."""
    return image * (1 + rng.uniform(-1, 1) * gain) + rng.uniform(-1, 1) * shift


def random_noise(rng: np.random.Generator, image: Tensor, most: float) -> Tensor:
    """An image (i, j, k) with normal noise, its deviation up to ``most``."""
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), np.float32))
    return image + noise * rng.uniform(0, most)
