"""Where training looks: crops around every annotated structure, and the background."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..core.errors import InputError
from ..core.geometry import three
from ..inference.tiles import Box
from .support_set import PreparedSupport

TRIES = 100
"""How often a place is drawn in the hope that something is known of it."""


def draw_crops(
    rng: np.random.Generator, supports: Sequence[PreparedSupport], crops: int, size: int
) -> list[tuple[PreparedSupport, Box]]:
    """The crops of one step, alternately on a structure and anywhere (1:1, as published); of a
    volume that was annotated in part, anywhere that is known.

    Structures take turns, so that a small or rarely annotated one is seen as often as a large one;
    among the supports that annotate it, one is drawn.

    Args:
        crops: how many. size: model voxels a side; less where a volume is smaller.

    Raises:
        InputError: no support annotates any structure.
    """
    taught = [
        k for k in range(len(supports[0].centres)) if any(len(s.centres[k]) for s in supports)
    ]
    if not taught:
        raise InputError("No support annotates a structure of this adapter; give one that does.")
    first = int(rng.integers(len(taught)))
    drawn = []
    for number in range(crops):
        if number % 2 == 0:
            structure = taught[(first + number // 2) % len(taught)]
            having = [support for support in supports if len(support.centres[structure])]
            support = having[rng.integers(len(having))]
            voxels = support.centres[structure]
            # Off-centre, so that a structure's surroundings are learned on every side.
            centre = voxels[rng.integers(len(voxels))] + rng.integers(-size // 4, size // 4 + 1, 3)
        else:
            support = supports[int(rng.integers(len(supports)))]
            if support.known is None:
                centre = rng.integers(0, support.features.shape)
            else:
                centre = known_voxel(rng, support.known)
        drawn.append((support, box_around(centre, size, support.features.shape)))
    return drawn


def known_voxel(rng: np.random.Generator, known: Tensor) -> np.ndarray:
    """One of the known voxels (3,) of a volume; (i, j, k) bool, of which some are."""
    flat = known.reshape(-1)
    # Slices and boxes are a fair part of a volume: listing all voxels would take longer.
    for _ in range(TRIES):
        place = int(rng.integers(len(flat)))
        if flat[place]:
            break
    else:
        places = flat.nonzero()[:, 0]
        place = int(places[int(rng.integers(len(places)))])
    return np.array(np.unravel_index(place, tuple(known.shape)))


def box_around(centre: np.ndarray, size: int, shape: Sequence[int]) -> Box:
    """A box of ``size`` voxels a side around a voxel, moved to lie within a volume."""
    box = []
    for middle, extent in zip(centre, shape, strict=True):
        side = min(size, extent)
        start = int(np.clip(middle - side // 2, 0, extent - side))
        box.append(slice(start, start + side))
    return three(box)
