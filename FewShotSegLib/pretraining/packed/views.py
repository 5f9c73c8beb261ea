"""Crops of packed volumes: turned, scaled and bent, with the place in the volume of every voxel.

Other than in ``pretraining.augmentation``, crops are bent as well, the places themselves are what
is learned from, and volumes are bytes in memory: labels and image are looked up together, without
a copy in floating point of the part that they lie in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.ranges import PART, require_within
from ...training.augmentation import random_rotation
from .pack import PackedVolume


@dataclass(frozen=True)
class Deformation:
    """How far crops are changed; there are no flips, as left and right differ.

    Attributes:
        rotation: degrees about each axis, at most, either way.
        stretch: the part by which axes differ in scale, at most. shear: off-diagonal, at most.
        bend: the spread of a smooth displacement with ``knots`` knots an axis, as a part of the
            crop's side; ``ripple``: the same with twice as many knots.
        jitter: the part of a crop's side by which its centre is moved off its place.
    """

    rotation: float = 20.0
    stretch: float = 0.15
    shear: float = 0.1
    bend: float = 0.04
    ripple: float = 0.012
    knots: int = 4
    jitter: float = 0.25

    def __post_init__(self) -> None:
        names = ("bend", "ripple", "jitter", "shear")
        require_within(
            self,
            **dict.fromkeys(names, PART),
            rotation=(0, 60),
            stretch=(0, 0.95),
            knots=(2, 64),
        )


@dataclass(frozen=True)
class View:
    """A crop before it has intensities.

    Attributes:
        labels: (I, J, K) int64. place: (I, J, K, 3) float32, in voxels of the volume.
        image: (I, J, K) float32 in [0, 1]; None where it is to be synthesised.
    """

    labels: Tensor
    place: Tensor
    image: Tensor | None


def crop_places(
    rng: np.random.Generator,
    deformation: Deformation,
    crop: Sequence[int],
    centre: np.ndarray,
    spacing: Sequence[float],
    size: float,
    device: torch.device,
) -> Tensor:
    """Where each voxel of a random crop lies in its volume: (I, J, K, 3) float32, in voxels.

    Args:
        centre: (3,) the volume's voxel that the crop lies around, before jitter.
        spacing: mm of the volume's voxels. size: mm of the crop's voxels.
    """
    d, spacing, crop = deformation, np.asarray(spacing, float), np.asarray(crop)
    turn = random_rotation(rng, d.rotation)
    shear = rng.uniform(-1, 1, (3, 3)) * d.shear
    np.fill_diagonal(shear, rng.uniform(-1, 1, 3) * d.stretch)
    matrix = turn @ (np.eye(3) + shear) * size / spacing[:, None]
    centre = np.asarray(centre) + matrix @ (rng.uniform(-1, 1, 3) * d.jitter * crop)
    bent = torch.zeros(3, *crop, device=device)
    for knots, strength in ((d.knots, d.bend), (2 * d.knots, d.ripple)):
        field = rng.normal(0, strength, (3, knots, knots, knots)) * crop[:, None, None, None]
        field = torch.from_numpy(field.astype(np.float32)).to(device)
        bent += F.interpolate(field[None], tuple(crop), mode="trilinear", align_corners=True)[0]
    axes = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in crop]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij")) + bent
    turned = torch.from_numpy(matrix.astype(np.float32)).to(device) @ offsets.flatten(1)
    start = torch.from_numpy(centre.astype(np.float32)).to(device)
    return (turned + start[:, None]).T.reshape(*crop, 3)


def look_up(volume: PackedVolume, place: Tensor) -> View:
    """Labels (nearest) and image (linear) of a volume at places; outside of it both are 0."""
    shape = torch.tensor(volume.labels.shape, device=place.device)
    nearest = place.round().long()
    inside = ((nearest >= 0) & (nearest < shape)).all(-1)
    labels = torch.where(inside, volume.labels.flatten()[_flat(nearest, shape)].long(), 0)
    if volume.image is None:
        return View(labels, place, None)
    values = volume.image.flatten()
    low = place.floor()
    part = place - low
    image = torch.zeros(place.shape[:3], device=place.device)
    for corner in range(8):
        step = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=place.device)
        weight = torch.where(step.bool(), part, 1 - part).prod(-1)
        # The border goes on for the half voxel that the outermost cells reach.
        image += weight * values[_flat(low.long() + step, shape)]
    return View(labels, place, torch.where(inside, image / 255, 0.0))


def _flat(index: Tensor, shape: Tensor) -> Tensor:
    """(..., 3) voxels, moved into the volume, as places in its flattened array."""
    i, j, k = torch.minimum(index.clamp(min=0), shape - 1).unbind(-1)
    return (i * shape[1] + j) * shape[2] + k
