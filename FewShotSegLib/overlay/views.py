"""What a picture of a volume shows: which slices, which way round, and how much around them.

Planes are seen as a radiologist reads them: the patient's right is on the left of axial and
coronal pictures, the front on the left of sagittal ones. An oblique grid is seen along its own
axes, each named after the direction in the patient that is closest; nothing is resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from ..core.geometry import Grid, Volume, three

PLANES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
"""Plane -> the patient's axes (0 right, 1 front, 2 up) along its normal, down its rows and along
its columns. Rows and columns start at the right, front or upper end."""

CT_WINDOW = (-160.0, 240.0)
"""HU shown black and white: soft tissue."""


@dataclass(frozen=True)
class Orientation:
    """How an array's axes run in the patient, to the closest anatomical direction.

    Attributes:
        axes: the array axis closest to right-left, front-back and up-down.
        ascending: for each of the three, whether the index grows to the right, front or up.
        degrees: the largest angle between an axis and the direction that it is named after.
    """

    axes: tuple[int, int, int]
    ascending: tuple[bool, bool, bool]
    degrees: float


@dataclass(frozen=True)
class View:
    """One plane of the picture: which slice, and which part of it is shown, in mm."""

    plane: str
    index: int
    pixel: tuple[float, float]
    left: float
    top: float
    width: float
    height: float
    position: float


def orientation_of(grid: Grid) -> Orientation:
    """The closest anatomical axes of a grid; every array axis is used once."""
    directions = grid.affine[:3, :3] / np.asarray(grid.spacing)
    _, axes = linear_sum_assignment(-np.abs(directions))
    cosines = directions[range(3), axes]
    return Orientation(
        three(int(axis) for axis in axes),
        three(bool(cosine > 0) for cosine in cosines),
        float(np.degrees(np.arccos(np.clip(np.abs(cosines).min(), 0, 1)))),
    )


def slice_plane(array: np.ndarray, orientation: Orientation, plane: str, index: int) -> np.ndarray:
    """One plane of an (i, j, k) array as it is looked at.

    Args:
        array: (i, j, k), any dtype.
        orientation: of its grid.
        plane: a key of ``PLANES``.
        index: along the array axis that is the plane's normal.

    Returns:
        (rows, columns), a view without a copy. Its first row is the upper (coronal, sagittal) or
        front (axial) end, its first column the patient's right (axial, coronal) or front
        (sagittal).
    """
    normal, row, column = PLANES[plane]
    axes = orientation.axes
    moved = array.transpose(axes[normal], axes[row], axes[column])[index]
    rows = slice(None, None, -1) if orientation.ascending[row] else slice(None)
    columns = slice(None, None, -1) if orientation.ascending[column] else slice(None)
    return moved[rows, columns]


def choose_slices(
    masks: Sequence[np.ndarray], orientation: Orientation, shape: tuple[int, int, int]
) -> dict[str, int]:
    """The slice of each plane that shows most of most structures.

    Args:
        masks: (i, j, k) bool, one or several a structure. Each counts by the part of its own
            largest area, so that a large structure does not hide a small one.
        orientation: of the grid.
        shape: of the grid; its middle is shown where every mask is empty.

    Returns:
        By plane, an index along the plane's normal.
    """
    scores = [np.zeros(n) for n in shape]
    for mask in masks:
        box = _extent(mask)
        if box is None:
            continue
        inner = mask[box]
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            area = np.count_nonzero(inner, axis=others)
            scores[axis][box[axis]] += area / area.max()
    chosen = {}
    for plane, (normal, _, _) in PLANES.items():
        axis = orientation.axes[normal]
        # Smoothing prefers the middle of a structure to a ragged slice near its end.
        score = ndimage.gaussian_filter1d(scores[axis], 1.0, mode="constant")
        chosen[plane] = int(score.argmax()) if score.any() else shape[axis] // 2
    return chosen


def _extent(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The box of a mask's voxels, or None where it is empty."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        if not found.size:
            return None
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return three(box)


def _thinned(array: np.ndarray, most: int = 96) -> tuple[np.ndarray, tuple[int, ...]]:
    """Every n-th voxel, for at most ``most`` along each axis (a view), and the three n."""
    steps = tuple(-(-n // most) for n in array.shape)
    return array[tuple(slice(None, None, step) for step in steps)], steps


def display_window(image: Volume) -> tuple[float, float]:
    """The intensities to show black and white."""
    if image.modality == "CT":
        return CT_WINDOW
    low, high = np.percentile(_thinned(image.array)[0], [1, 99])
    return float(low), float(high if high > low else low + 1)


def _body(image: Volume, axis: int, slab: slice) -> list[tuple[float, float]]:
    """Where the body lies along each array axis, in voxels from the array's start.

    Only what lies within ``slab`` along the vertical ``axis`` counts, so that shoulders do not
    make a head small.
    """
    part = [slice(None)] * 3
    part[axis] = slab
    array = image.array[tuple(part)]
    thin, steps = _thinned(array)
    whole = [(0.0, float(n)) for n in image.array.shape]
    if image.modality == "CT":
        threshold = -300.0
    else:
        low, high = np.percentile(thin, [2, 98])
        threshold = low + 0.12 * (high - low)
    inside = thin > threshold
    # An opening lets go of the table and of what touches it.
    opened = ndimage.binary_opening(inside, iterations=2)
    parts, count = ndimage.label(opened if opened.any() else inside)
    if not count:
        return whole
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    box = ndimage.find_objects(parts)[largest - 1]
    for other in range(3):
        if other != axis:
            start, stop, step = box[other].start, box[other].stop, steps[other]
            whole[other] = float(start * step), float(min(stop * step, array.shape[other]))
    return whole


def make_views(
    image: Volume, masks: Sequence[np.ndarray], orientation: Orientation, steepness: float
) -> list[View]:
    """The three planes' slices and crops.

    All three share one scale and one height, so that a row of them is a strip without holes. The
    strip is at least ``steepness`` times as high as it is wide.
    """
    grid = image.grid
    boxes = [box for box in map(_extent, masks) if box is not None]
    slices = choose_slices(masks, orientation, grid.shape)
    up = orientation.axes[2]
    slab = slice(
        min((box[up].start for box in boxes), default=0),
        max((box[up].stop for box in boxes), default=grid.shape[up]),
    )
    body_box = _body(image, up, slab)
    middle, size, needed = np.zeros(3), np.zeros(3), np.zeros(3)
    whole = np.zeros(3)
    for direction in range(3):
        axis = orientation.axes[direction]
        mm = grid.spacing[axis]
        whole[direction] = grid.shape[axis] * mm
        start, stop = (voxel * mm for voxel in body_box[axis])
        low = min((box[axis].start * mm for box in boxes), default=start)
        high = max((box[axis].stop * mm for box in boxes), default=stop)
        start, stop = min(start, low), max(stop, high)
        body, inside = stop - start, high - low
        needed[direction] = 1.1 * inside + 10
        # Enough around the structures to see where in the body they are.
        context = 0.85 if direction < 2 else 0.5
        most = min(1.06 * body, whole[direction])
        size[direction] = min(max(1.5 * inside + 30, context * body), most)
        centre, half = (low + high) / 2, size[direction] / 2
        if body <= 2 * half:
            centre = (start + stop) / 2
        else:
            centre = np.clip(centre, start + half, stop - half)
        middle[direction] = centre
    across, tall = size[0], max(size[1], size[2])
    across, tall = max(across, 0.8 * tall), max(tall, across / 1.3)
    ratio = 2 * steepness / (1 - steepness)
    across = max(min(across, tall / ratio), min(across, needed[0]))
    size[:] = across, max(tall, across * ratio), max(tall, across * ratio)
    # Rather more of the volume than the emptiness beyond it.
    spare = np.maximum(whole - size, 0) / 2
    middle = np.clip(middle, whole / 2 - spare, whole / 2 + spare)
    views = []
    for plane, (normal, row, column) in PLANES.items():
        corner = []
        for direction in (row, column):
            axis = orientation.axes[direction]
            centre = middle[direction]
            if orientation.ascending[direction]:
                centre = grid.shape[axis] * grid.spacing[axis] - centre
            corner.append(float(centre - size[direction] / 2))
        voxel = (np.asarray(grid.shape) - 1) / 2
        voxel[orientation.axes[normal]] = slices[plane]
        place = grid.affine @ np.append(voxel, 1.0)
        down, right = (float(grid.spacing[orientation.axes[d]]) for d in (row, column))
        views.append(
            View(
                plane, slices[plane], (down, right), corner[1], corner[0],
                float(size[column]), float(size[row]), float(place[normal]),
            )
        )  # fmt: skip
    return views
