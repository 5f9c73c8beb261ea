"""Whose grid an annotation lies on: the image's very own, or a part of it where the file says so.

A label map has no way to say that it was cropped: one on another grid is another image's, however
well it would fit. A Slicer segmentation is cropped to what it holds as a matter of course.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.geometry import Grid, three

MOSTLY = 0.5
"""The part of an annotation's voxels of which no more may lie outside the image."""


class OtherGridError(Exception):
    """A file whose grid is not the image's. Its message, if any, says what speaks against it."""

    def __init__(self, path: object, own: Grid, why: str = "") -> None:
        super().__init__(why)
        self.path, self.own, self.why = path, own, why


@dataclass(frozen=True)
class Place:
    """Where an annotation has to lie.

    Attributes:
        grid: the image's.
        may_be_outside: whether a segmentation's voxels outside are dropped; else they are refused.
    """

    grid: Grid
    may_be_outside: bool = True

    def require_same(self, path: object, own: Grid) -> None:
        """A plain label map or mask, which lies on ``own``, has the image's very grid.

        Raises:
            OtherGridError: its size or its place is another.
        """
        if own.same_as(self.grid):
            return
        why = ""
        if own.offset_in(self.grid) is not None:
            why = "a label map doesn't say that it was cropped or padded, only a .seg.nrrd does"
        raise OtherGridError(path, own, why)

    def require_part(self, path: object, own: Grid, inked: np.ndarray) -> None:
        """A segmentation lies on the image's lattice, and mostly inside the image.

        It may be a part of the image, or the image a part of it. Where each sticks out of the
        other, it has to be cropped to its very annotation, as Slicer does; else it belongs to
        another image.

        Args:
            own: the file's grid.
            inked: boolean (i, j, k) on ``own``, whatever is annotated.

        Raises:
            OtherGridError: it is not so.
        """
        offset = own.offset_in(self.grid)
        if offset is None:
            raise OtherGridError(path, own)
        total = int(np.count_nonzero(inked))
        outside = total - int(np.count_nonzero(inked[_overlap(own, self.grid)[0]]))
        if outside > MOSTLY * total or (outside and not self.may_be_outside):
            raise OtherGridError(path, own, f"{outside} of its {total} voxels lie outside")
        ends = list(zip(offset, own.shape, self.grid.shape, strict=True))
        is_part = all(o >= 0 and o + n <= m for o, n, m in ends)
        holds = all(o <= 0 and o + n >= m for o, n, m in ends)
        if not is_part and not holds:
            faces = [inked.take(end, axis).any() for axis in range(3) for end in (0, -1)]
            if not all(faces):
                raise OtherGridError(path, own, "neither is a part of the other")


def paste(array: np.ndarray, own: Grid, grid: Grid) -> np.ndarray:
    """An array (i, j, k) of ``own`` on ``grid``, whose lattice it shares; zero elsewhere."""
    if own.same_as(grid):
        return array
    whole = np.zeros(grid.shape, array.dtype, order="F")
    there, here = _overlap(own, grid)
    whole[here] = array[there]
    return whole


def union(a: Grid, b: Grid) -> Grid | None:
    """The grid that holds both, or None where they share no lattice."""
    offset = b.offset_in(a)
    if offset is None:
        return None
    start = [min(o, 0) for o in offset]
    stop = [max(o + n, m) for o, n, m in zip(offset, b.shape, a.shape, strict=True)]
    step = np.reshape(a.direction, (3, 3)) * np.asarray(a.spacing)
    origin = np.asarray(a.origin) + step @ np.asarray(start, float)
    if not any(start):
        origin = np.asarray(a.origin)
    shape = three(last - first for first, last in zip(start, stop, strict=True))
    return Grid(shape, a.spacing, three(origin.tolist()), a.direction)


def other_grid_text(error: OtherGridError, grid: Grid, what: str, owner: str) -> str:
    """One sentence with both grids, and what to do."""
    own, there = described(error.own), described(grid)
    if own == there:  # distinguished by what is hardly ever given
        own, there = (
            f"{text} with axes {_axes(g)}" for text, g in ((own, error.own), (there, grid))
        )
    advice = f"resample it to the {owner}"
    if owner == "image":
        advice = f"save the {what} with the image as its reference geometry, or {advice}"
    why = f" ({error.why})" if error.why else ""
    return (
        f"The {owner} and {what} have different grids: the {owner} has {there}, the {what}"
        f" {error.path} has {own}{why}; check that they belong together, then {advice}."
    )


def described(grid: Grid) -> str:
    """A grid in words: voxels, spacing, and where the first voxel is."""
    shape = " x ".join(map(str, grid.shape))
    spacing = " x ".join(f"{s:.4g}" for s in grid.spacing)
    origin = ", ".join(f"{x:.4g}" for x in grid.origin)
    return f"{shape} voxels of {spacing} mm from ({origin})"


def _axes(grid: Grid) -> str:
    columns = np.reshape(grid.direction, (3, 3)).T
    return " ".join("(" + ", ".join(f"{x:.6g}" for x in column) + ")" for column in columns)


def _overlap(own: Grid, grid: Grid) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where both lie, in indices of ``own`` and of ``grid``; empty slices where they don't meet."""
    offset = own.offset_in(grid)
    assert offset is not None  # both are on one lattice
    start = [max(o, 0) for o in offset]
    stop = [min(o + n, m) for o, n, m in zip(offset, own.shape, grid.shape, strict=True)]
    stop = [max(a, b) for a, b in zip(start, stop, strict=True)]
    here = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    there = tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, offset, strict=True))
    return there, here
