"""Slices that don't make a regular grid, such as of a tilted CT gantry, put onto one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..core.geometry import Grid

MAX_SHIFT = 0.1
"""How far a slice may lie from its place in a regular stack, in slice distances."""
MAX_GAP = 3.0
"""The widest gap that is filled, in usual slice distances; or ``MAX_GAP_MM`` where that is more."""
MAX_GAP_MM = 10.0
MAX_TILT = 45.0
"""Degrees between the slices' normal and the line on which they lie."""
MAX_FINER = 4.0
"""How many times more slices than there were a stack may get."""


class StackError(ValueError):
    """Slices that make no volume. The message is a clause that says why and what to do."""


@dataclass(frozen=True)
class Stack:
    """Parallel slices in the order in which they lie.

    Attributes:
        order: of the slices given, those in ascending place along the normal.
        along: mm from the first slice along the normal, (slices,).
        sideways: mm from the first slice along rows and columns, (slices, 2).
        origin: centre of the first slice's first pixel, LPS mm.
        axes: 3x3, columns: the direction of growing column number, of growing row number, and the
            normal.
        spacing: mm between columns and between rows.
    """

    order: tuple[int, ...]
    along: np.ndarray
    sideways: np.ndarray
    origin: np.ndarray
    axes: np.ndarray
    spacing: tuple[float, float]

    @property
    def steps(self) -> np.ndarray:
        """mm from each slice to the next."""
        return np.diff(self.along)

    @property
    def tilt(self) -> float:
        """Degrees between the normal and the line through first and last slice."""
        return float(np.degrees(np.arctan2(np.linalg.norm(self.sideways[-1]), self.along[-1])))

    @property
    def even(self) -> bool:
        """Whether every slice lies in its place between the first and the last."""
        places = np.linspace(0, self.along[-1], len(self.along))
        step = self.along[-1] / (len(self.along) - 1)
        return bool(np.abs(self.along - places).max() <= MAX_SHIFT * step)

    @property
    def straight(self) -> bool:
        """Whether the slices lie straight above each other."""
        step = self.along[-1] / (len(self.along) - 1)
        return bool(np.linalg.norm(self.sideways, axis=1).max() <= MAX_SHIFT * step)


def stack_of(positions: np.ndarray, cosines: np.ndarray, spacing: tuple[float, float]) -> Stack:
    """Arrange slices.

    Args:
        positions: (slices, 3), two or more: the centre of each one's first pixel, LPS mm.
        cosines: (6,): the direction of growing column number, then that of growing row number.
        spacing: mm between columns and between rows.

    Raises:
        StackError: two are in one place, or one is out of line.
    """
    column, row = np.reshape(cosines, (2, 3))
    normal = np.cross(column, row)
    normal /= np.linalg.norm(normal)
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    offset = positions - positions[0]
    stack = Stack(
        order=tuple(order.tolist()),
        along=offset @ normal,
        sideways=np.stack([offset @ column, offset @ row], axis=1),
        origin=positions[0],
        axes=np.stack([column, row, normal], axis=1),
        spacing=spacing,
    )
    usual = float(np.median(stack.steps))
    if usual <= 0 or stack.steps.min() < 0.01 * usual:
        raise StackError(
            f"has doubled slices ({len(order)} in all); export one phase, echo or reconstruction"
            " only"
        )
    line = stack.along[:, None] / stack.along[-1] * stack.sideways[-1]
    if np.linalg.norm(stack.sideways - line, axis=1).max() > MAX_SHIFT * usual:
        raise StackError(
            "has slices that are shifted against each other; export it again, one series only"
        )
    if stack.tilt > MAX_TILT:
        raise StackError(
            f"has slices that lie {stack.tilt:.0f} degrees askew above each other; resample it to a"
            " regular grid"
        )
    widest = float(stack.steps.max())
    if widest > max(MAX_GAP * usual, MAX_GAP_MM):
        raise StackError(
            f"has a gap of {widest:.4g} mm where slices are missing (they are {usual:.4g} mm"
            " apart elsewhere); export the whole series"
        )
    return stack


def regular_grid(stack: Stack, shape: tuple[int, int]) -> Grid:
    """A grid of right angles over all slices, which goes through as many of them as can be.

    Its rows and columns are those of the first slice, extended to where tilted ones reach.

    Args:
        shape: columns and rows of a slice.
    """
    total = float(stack.along[-1])
    steps = stack.steps
    least = float(steps[steps <= (1 + 2 * MAX_SHIFT) * steps.min()].mean())
    count = min(round(total / least), int(MAX_FINER * (len(steps) + 1)))
    sizes, first = [], []
    for axis in range(2):
        pixels = stack.sideways[:, axis] / stack.spacing[axis]
        low, high = np.floor(pixels.min() + 1e-3), np.ceil(pixels.max() - 1e-3)
        sizes.append(shape[axis] + int(high - low))
        first.append(low * stack.spacing[axis])
    origin = stack.origin + stack.axes[:, :2] @ first
    return Grid(
        (sizes[0], sizes[1], count + 1),
        (*stack.spacing, total / count),
        tuple(origin.tolist()),
        tuple(stack.axes.ravel().tolist()),
    )


def resample(slices: np.ndarray, stack: Stack, grid: Grid) -> np.ndarray:
    """The slices on the grid: linear within a slice and between neighbours.

    What does not lie between pixels and slices gets the lowest value there is.

    Args:
        slices: (i, j, slice), in the stack's order. grid: from :func:`regular_grid`.

    Returns:
        (i, j, k) in the dtype of the slices.
    """
    lowest = slices.min()
    whole = slices.dtype.kind in "iu"
    first = stack.axes[:, :2].T @ (np.asarray(grid.origin) - stack.origin)
    result = np.full(grid.shape, lowest, slices.dtype, order="F")
    shifted: dict[int, np.ndarray] = {}

    def in_place(number: int) -> np.ndarray:
        """A slice on the grid's rows and columns, float64; NaN where it shows nothing."""
        if number not in shifted:
            # Every slice moves by a part of a pixel and whole pixels along either axis.
            start = (first - stack.sideways[number]) / stack.spacing
            start = np.where(np.abs(start - np.rint(start)) < 1e-3, np.rint(start), start)
            shifted[number] = ndimage.affine_transform(
                slices[..., number].astype(np.float64),
                np.ones(2),
                start,
                output_shape=grid.shape[:2],
                order=1,
                mode="constant",
                cval=np.nan,
            )
        return shifted[number]

    for k in range(grid.shape[2]):
        place = k * grid.spacing[2]
        after = int(np.clip(np.searchsorted(stack.along, place), 1, len(stack.along) - 1))
        before = after - 1
        part = (place - stack.along[before]) / (stack.along[after] - stack.along[before])
        part = min(max(part, 0.0), 1.0)
        for number in [n for n in shifted if n < before]:
            del shifted[number]
        if part < 1e-3:
            plane = in_place(before)
        elif part > 1 - 1e-3:
            plane = in_place(after)
        else:
            plane = (1 - part) * in_place(before) + part * in_place(after)
        plane = np.where(np.isnan(plane), float(lowest), plane)
        result[..., k] = np.rint(plane) if whole else plane
    return result


def described(stack: Stack, grid: Grid) -> str:
    """What was irregular and what was made of it, as the end of a sentence."""
    what = []
    if not stack.straight:
        what.append(f"the slices of a gantry tilted by {stack.tilt:.1f} degrees")
    if not stack.even:
        steps = stack.steps
        what.append(
            f"unevenly spaced or missing slices ({steps.min():.4g} to {steps.max():.4g} mm)"
        )
    size = " x ".join(map(str, grid.shape))
    spacing = " x ".join(f"{s:.4g}" for s in grid.spacing)
    return (
        f"has {' and '.join(what)}; it was resampled to a regular grid of {size} voxels of"
        f" {spacing} mm, on which results lie too"
    )
