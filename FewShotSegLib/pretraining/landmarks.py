"""How far each voxel is from what anatomy is found by: the skin, bone, and annotated classes.

Two of them cost no annotation: they are derived from HU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

FROM_HU = ("skin", "bone")
FARTHEST_MM = 60.0
"""Distances end here: what is farther away is another region of the body."""
STEPS_PER_MM = 4
"""Distances are kept as whole numbers of quarter millimetres, 0 to 240."""
OPENING_MM = 6.0
"""Air that leads out of the body through less than twice this is inside: nose, mouth, ears."""


def landmark_distance(
    name: str,
    place: int | None,
    labels: np.ndarray,
    tissue: np.ndarray | None,
    spacing: Sequence[float],
    orientation: str,
) -> np.ndarray | None:
    """Distances of a case's voxels from one landmark.

    Args:
        name: a class, or one of :data:`FROM_HU`. place: the class's number in ``labels``, None
            where it was not annotated.
        labels: (i, j, k), classes from 1. tissue: (i, j, k), air, lung, fat, soft tissue and bone
            from 0 as derived from HU, or None.
        spacing: mm. orientation: of the axes, such as ``"RAS"``.

    Returns:
        (i, j, k) uint8, quarter millimetres up to :data:`FARTHEST_MM`; 0 within the landmark and,
        of the skin, outside the body. None where the landmark is unknown or not there.
    """
    if place is not None:
        landmark = labels == place
    elif name not in FROM_HU or tissue is None:
        return None
    elif name == "bone":
        landmark = tissue == tissue_of("bone")
    else:
        landmark = _outside(tissue == tissue_of("air"), spacing, orientation)
        # The body reaches the edge of a cropped scan: there the skin lies just beyond it.
        width = [0 if letter in "SI" else 1 for letter in orientation]
        padded = np.pad(landmark, [(w, w) for w in width], constant_values=True)
        inner = tuple(slice(w, n - w) for w, n in zip(width, padded.shape, strict=True))
        return _distances(padded, spacing)[inner]
    return _distances(landmark, spacing) if landmark.any() else None


def tissue_of(name: str) -> int:
    """The number of a tissue that is derived from HU."""
    return ("air", "lung", "fat", "soft tissue", "bone").index(name)


def _outside(air: np.ndarray, spacing: Sequence[float], orientation: str) -> np.ndarray:
    """Air outside the body: what reaches the scan's sides through more than a nostril."""
    radius = [int(OPENING_MM / s) for s in spacing]
    ball = ndimage.distance_transform_edt(
        _centre_only([2 * r + 1 for r in radius]), sampling=spacing
    )
    # Around the scan there is air, except up and down, where the body goes on.
    margin = [2 * r + 1 for r in radius]
    for axis, letter in enumerate(orientation):
        width = [(m, m) if a == axis else (0, 0) for a, m in enumerate(margin)]
        beyond = {"mode": "edge"} if letter in "SI" else {"constant_values": True}
        air = np.pad(air, width, **beyond)
    parts, _ = ndimage.label(ndimage.binary_opening(air, ball <= OPENING_MM))
    return (parts == parts[tuple(radius)])[tuple(slice(m, -m) for m in margin)]


def _centre_only(shape: Sequence[int]) -> np.ndarray:
    """True everywhere but in the middle, so that distances grow from there."""
    array = np.ones(shape, bool)
    array[tuple(n // 2 for n in shape)] = False
    return array


def _distances(landmark: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Quarter millimetres to the nearest voxel of the landmark, no farther than is kept."""
    found = np.full(landmark.shape, int(FARTHEST_MM * STEPS_PER_MM), np.uint8)
    # Beyond this box everything is too far away to count, and a brain at 1 mm is large.
    box = tuple(
        slice(max(0, int(extent.start - FARTHEST_MM / s)), int(extent.stop + FARTHEST_MM / s) + 1)
        for extent, s in zip(
            ndimage.find_objects(landmark.astype(np.uint8))[0], spacing, strict=True
        )
    )
    mm = ndimage.distance_transform_edt(~landmark[box], sampling=spacing)
    found[box] = np.rint(np.minimum(mm, FARTHEST_MM) * STEPS_PER_MM).astype(np.uint8)
    return found
