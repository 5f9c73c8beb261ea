"""The connected pieces of a mask: how many, how large, how far from the largest, and which of them
reach the border of the field of view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from ..core.geometry import Grid, three
from ..core.size_prior import touches_border

TOGETHER = np.ones((3, 3, 3))
"""Voxels that touch at a corner are of one piece: thin structures hang together by corners."""
SPECK_VOXELS = 10
"""A piece of fewer voxels, and less than ``SPECK_PART`` of the largest, is no piece worth a word:
thresholds leave some beside nearly every structure."""
SPECK_PART = 0.05
OWN_PART = 0.1
"""What an annotation shows in pieces, such as left and right, has pieces of at least this part of
the largest; smaller ones are slips of the pen."""


@dataclass(frozen=True)
class Pieces:
    """What a mask falls into.

    Attributes:
        volumes: mm^3 of each piece that is no speck, the largest first.
        distances: mm from the largest to each, voxel centre to nearest voxel centre; 0 at first.
        places: RAS mm of a voxel of each, near its middle.
    """

    volumes: tuple[float, ...] = ()
    distances: tuple[float, ...] = ()
    places: tuple[tuple[float, float, float], ...] = ()

    @property
    def own(self) -> int:
        """How many pieces an annotation shows: those that are not far smaller than the largest."""
        return sum(volume >= OWN_PART * self.volumes[0] for volume in self.volumes)

    @property
    def apart(self) -> float:
        """mm from the largest to the farthest of its own pieces."""
        return max(self.distances[: self.own], default=0.0)


def find_pieces(mask: np.ndarray, grid: Grid) -> Pieces:
    """The pieces of a boolean mask (i, j, k) on a grid."""
    labels, counts, order = _labelled(mask)
    if not len(order):
        return Pieces()
    largest = order[0]
    order = [n for n in order if counts[n] >= min(SPECK_VOXELS, SPECK_PART * counts[largest])]
    volumes = tuple(float(counts[n]) * grid.voxel_volume for n in order)
    places = _places(labels, order, _box(mask), grid)
    if len(order) == 1:
        return Pieces(volumes, (0.0,), places)
    step = grid.affine[:3, :3]
    inside = labels == largest
    # The surface is as near as any voxel, and has fewer.
    tree = cKDTree(np.argwhere(inside & ~ndimage.binary_erosion(inside)) @ step.T)
    others = np.argwhere((labels > 0) & ~inside)
    away = tree.query(others @ step.T)[0]
    nearest = ndimage.minimum(away, labels[tuple(others.T)], order[1:])
    return Pieces(volumes, (0.0, *map(float, nearest)), places)


def _places(
    labels: np.ndarray, order: Sequence[int], box: Sequence[slice] | None, grid: Grid
) -> tuple[tuple[float, float, float], ...]:
    """RAS mm of a voxel of each piece, the one that is nearest to the piece's middle.

    Args:
        labels: within ``box`` of the mask. order: their numbers.
    """
    assert box is not None  # there are pieces
    parts, found = ndimage.find_objects(labels), []
    for number in order:
        part = parts[number - 1]
        voxels = np.argwhere(labels[part] == number)
        voxel = voxels[np.argmin(((voxels - voxels.mean(0)) ** 2).sum(1))]
        starts = [whole.start + own.start for whole, own in zip(box, part, strict=True)]
        place = grid.affine @ [*(voxel + starts), 1.0]
        found.append(three(float(x) for x in place[:3]))
    return tuple(found)


def reaches_border(
    mask: np.ndarray,
    view: tuple[slice, slice, slice] | None = None,
    at_least: int = 1,
    count: int | None = 1,
) -> bool:
    """Whether the field of view cuts off what a mask (i, j, k) shows, false islands aside.

    Args:
        view: the field of view. at_least: voxels in one of its faces that count.
        count: how many of the largest pieces are the structure's; None for all that are not far
            smaller than the largest.
    """
    if not touches_border(mask, view, at_least):
        return False
    labels, counts, order = _labelled(mask)
    if count is None:
        count = sum(counts[n] >= OWN_PART * counts[order[0]] for n in order)
    own = order[: max(1, count)]
    if len(own) == len(order):
        return True
    start, whole = _box(mask), np.zeros(mask.shape, bool)
    whole[start] = np.isin(labels, own)
    return touches_border(whole, view, at_least)


def _labelled(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Pieces numbered from 1 within the mask's box, voxels by number, numbers by falling size."""
    box = _box(mask)
    if box is None:
        return np.zeros((0, 0, 0), np.int32), np.zeros(1, int), []
    labels, found = ndimage.label(mask[box], TOGETHER)
    counts = np.bincount(labels.ravel(), minlength=found + 1)
    counts[0] = 0
    return labels, counts, [int(n) for n in np.argsort(-counts, kind="stable")[:found]]


def _box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    box = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not len(used):
            return None
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return three(box)
