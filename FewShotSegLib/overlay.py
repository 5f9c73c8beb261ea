"""The picture of a result: three planes, contours, and a legend with sizes and Dice.

Planes are shown as a radiologist reads them: the patient's right is on the left of axial and
coronal pictures, the front on the left of sagittal ones. An oblique grid is shown along its own
axes, each named after the direction in the patient that is closest; nothing is resampled but for
display.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from .annotation import Structure
from .annotation_files import default_color
from .atomic import replacing
from .geometry import Grid, Volume

PLANES = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
"""Plane -> the patient's axes (0 right, 1 front, 2 up) along its normal, down its rows and along
its columns. Rows and columns start at the right, front or upper end."""

CT_WINDOW = (-160.0, 240.0)
"""HU shown black and white: soft tissue."""

_ENDS = (("R", "L"), ("A", "P"), ("S", "I"))
_OBLIQUE_DEGREES = 3.0

# The page, in pixels.
_WIDTH = 1840
_DPI = 100
_EDGE = 36
_GAP = 8
_CARD = 430
_CARD_GAP = 16
_ROW_GAP = 20
_HEADER = 92
_FOOTER = 58
_PAD = 22
_LEGEND_STEPS = {False: (27, 42), True: (50, 66)}
"""Least and most pixels for a structure in the legend, without and with a prior."""

_PAGE_COLOR = "#0e1116"
_CARD_COLOR = "#171c23"
_RULE_COLOR = "#2b323c"
_TEXT_COLOR = "#eceff3"
_MUTED_COLOR = "#98a2ae"
_WARN_COLOR = "#ffb347"


@dataclass(frozen=True)
class Panel:
    """One row of the picture: one way of segmenting the same volume.

    Attributes:
        title: what the row shows, as "Adapter + transduction".
        masks: by structure name, (i, j, k) bool on the image's grid; a structure may be missing.
        dice: by structure name, 0..1, where there is something to compare with; None values and
            NaN are shown as a dash.
    """

    title: str
    masks: Mapping[str, np.ndarray]
    dice: Mapping[str, float | None] | None = None


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
class _View:
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
        tuple(int(axis) for axis in axes),
        tuple(bool(cosine > 0) for cosine in cosines),
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


def draw_overlay(
    path: str | Path,
    image: Volume,
    panels: Sequence[Panel],
    structures: Sequence[Structure],
    *,
    reference: Mapping[str, np.ndarray] | None = None,
    prior_ml: Mapping[str, tuple[float, float]] | None = None,
    title: str = "",
    subtitle: str = "",
    window: tuple[float, float] | None = None,
) -> None:
    """Draw a result and write it as a PNG, about 1800 pixels wide.

    Args:
        path: of the PNG; replaced only once it is complete.
        image: the segmented volume.
        panels: the rows, top to bottom; all show the same slices.
        structures: which structures, in the order of the legend.
        reference: by structure name, (i, j, k) bool; drawn as a dashed white contour.
        prior_ml: by structure name, the expected (lowest, highest) ml. A segmentation outside is
            flagged.
        title, subtitle: over the picture; left out where empty.
        window: the intensities shown black and white; for CT soft tissue, otherwise the
            volume's 1st to 99th percentile.

    Raises:
        ValueError: no panel, no structure, or a mask on another grid than the image's.
        StorageError: the place can't be written to, or the disk is full.
    """
    reference, prior_ml = reference or {}, prior_ml or {}
    if not panels or not structures:
        raise ValueError("an overlay needs at least one panel and one structure")
    for masks in (reference, *(panel.masks for panel in panels)):
        for name, mask in masks.items():
            if mask.shape != image.array.shape:
                raise ValueError(f"the mask of {name!r} is {mask.shape}, not {image.array.shape}")
    names = [structure.name for structure in structures]
    sources = [reference, *(panel.masks for panel in panels)]
    shown = [masks[name] for name in names for masks in sources if name in masks]
    orientation = orientation_of(image.grid)
    low, high = window or _window(image)
    has_prior = any(name in prior_ml for name in names)
    has_mean = len(names) > 1 and any(panel.dice for panel in panels)

    panes_width = _WIDTH - 2 * _EDGE - _CARD - _CARD_GAP - 2 * _GAP
    legend = _legend_height(len(names), has_mean, _LEGEND_STEPS[has_prior][0])
    views = _make_views(image, shown, orientation, min(legend / panes_width, 0.42))
    scale = panes_width / sum(view.width for view in views)
    pane_height = views[0].height * scale
    row_height = round(max(pane_height, legend))
    room = row_height - _legend_height(len(names), has_mean, 0)
    step = float(np.clip(room / len(names), *_LEGEND_STEPS[has_prior]))
    header = _HEADER if subtitle else 70 if title else _EDGE
    height = header + len(panels) * (row_height + _ROW_GAP) - _ROW_GAP + _FOOTER
    page = _Page(height)
    page.write_header(title, subtitle)
    for number, panel in enumerate(panels):
        top = header + number * (row_height + _ROW_GAP)
        left = float(_EDGE)
        for view in views:
            axes = page.add_pane(left, top, view.width * scale, pane_height)
            _draw_view(axes, view, image, orientation, (low, high), scale)
            for structure in structures:
                _draw_structure(axes, view, panel, reference, structure, orientation, scale)
            _letter(axes, view, scale)
            left += view.width * scale + _GAP
        card_left = _WIDTH - _EDGE - _CARD
        page.write_card(card_left, top, row_height, step, panel, structures, image, prior_ml)
    unit = " HU" if image.modality == "CT" else ""
    notes = [f"Window {_number(low)} to {_number(high)}{unit}"]
    if orientation.degrees > _OBLIQUE_DEGREES:
        notes.append(f"oblique scan, shown along its own axes ({orientation.degrees:.0f}° off)")
    page.write_footer(notes, any(name in reference for name in names), has_prior)
    with replacing(path) as temporary:
        page.figure.savefig(temporary, format="png", dpi=_DPI, facecolor=_PAGE_COLOR)


# --- what to show -----------------------------------------------------------------------------


def _extent(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The box of a mask's voxels, or None where it is empty."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero(mask.any(axis=others))
        if not found.size:
            return None
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def _thinned(array: np.ndarray, most: int = 96) -> tuple[np.ndarray, tuple[int, ...]]:
    """Every n-th voxel, for at most ``most`` along each axis (a view), and the three n."""
    steps = tuple(-(-n // most) for n in array.shape)
    return array[tuple(slice(None, None, step) for step in steps)], steps


def _window(image: Volume) -> tuple[float, float]:
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


def _make_views(
    image: Volume, masks: Sequence[np.ndarray], orientation: Orientation, steepness: float
) -> list[_View]:
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
        pixel = tuple(float(grid.spacing[orientation.axes[d]]) for d in (row, column))
        views.append(
            _View(
                plane, slices[plane], pixel, corner[1], corner[0],
                float(size[column]), float(size[row]), float(place[normal]),
            )
        )  # fmt: skip
    return views


# --- a pane -----------------------------------------------------------------------------------


def _cropped(plane: np.ndarray, view: _View) -> tuple[np.ndarray, float, float]:
    """The part of a plane that a view shows and a little more, and its left and top in mm."""
    parts = []
    starts = []
    ends = ((view.top, view.height), (view.left, view.width))
    for length, pixel, (start, size) in zip(plane.shape, view.pixel, ends, strict=True):
        first = int(np.clip(np.floor(start / pixel) - 3, 0, length - 1))
        last = int(np.clip(np.ceil((start + size) / pixel) + 3, first + 1, length))
        parts.append(slice(first, last))
        starts.append(first * pixel)
    return plane[tuple(parts)], starts[1], starts[0]


def _draw_view(
    axes: Axes,
    view: _View,
    image: Volume,
    orientation: Orientation,
    window: tuple[float, float],
    scale: float,
) -> None:
    """The grey picture of a pane, in mm."""
    plane = slice_plane(image.array, orientation, view.plane, view.index)
    part, left, top = _cropped(plane, view)
    low, high = window
    grey = np.clip((part.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    rows, columns = part.shape
    extent = (left, left + columns * view.pixel[1], top + rows * view.pixel[0], top)
    enlarged = min(view.pixel) * scale > 1.0
    axes.imshow(
        grey, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto",
        interpolation="bicubic" if enlarged else "antialiased",
    )  # fmt: skip
    axes.set_xlim(view.left, view.left + view.width)
    axes.set_ylim(view.top + view.height, view.top)


def _draw_structure(
    axes: Axes,
    view: _View,
    panel: Panel,
    reference: Mapping[str, np.ndarray],
    structure: Structure,
    orientation: Orientation,
    scale: float,
) -> None:
    """One structure in one pane: translucent fill, crisp contour, dashed reference."""
    color = _legible(structure.color or default_color(structure.value))
    dark = "#000000"
    for masks, is_reference in ((panel.masks, False), (reference, True)):
        if structure.name not in masks:
            continue
        plane = slice_plane(masks[structure.name], orientation, view.plane, view.index)
        part, left, top = _cropped(plane, view)
        if not part.any():
            continue
        x, y, level = _smoothed(part, view.pixel, scale)
        x, y = x + left, y + top
        if is_reference:
            lines = axes.contour(
                x, y, level, [0.5], colors="#ffffff", linewidths=_points(1.5),
                linestyles=[(0, (3.2, 2.4))], zorder=5,
            )  # fmt: skip
            lines.set_path_effects([withStroke(linewidth=_points(3), foreground=dark, alpha=0.45)])
        else:
            axes.contourf(x, y, level, [0.5, 2], colors=[color], alpha=0.26, zorder=3)
            lines = axes.contour(
                x, y, level, [0.5], colors=[color], linewidths=_points(2.2), zorder=4
            )
            lines.set_path_effects([withStroke(linewidth=_points(4), foreground=dark, alpha=0.4)])


def _smoothed(
    part: np.ndarray, pixel: tuple[float, float], scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A mask whose 0.5 level is a smooth outline at display resolution.

    Returns:
        x and y of the samples in mm from the part's upper left corner, and the field, (y, x).
    """
    # The padding closes outlines at the border of the volume.
    field = np.pad(part.astype(np.float32), 2)
    zoom = [float(np.clip(mm * scale / 1.5, 1, 10)) for mm in pixel]
    if max(zoom) > 1.5:
        blurred = ndimage.gaussian_filter(field, 0.6)
        # Blurring would take away a piece that is only a voxel wide.
        pieces, count = ndimage.label(field)
        lost = np.append(False, ndimage.maximum(blurred, pieces, range(1, count + 1)) < 0.6)
        field = np.where(lost[pieces], field, blurred)
        field = ndimage.zoom(field, zoom, order=3, mode="nearest", grid_mode=True)
    shape = np.asarray(part.shape) + 4
    y, x = (
        ((np.arange(n) + 0.5) / n * voxels - 2) * mm
        for n, voxels, mm in zip(field.shape, shape, pixel, strict=True)
    )
    return x, y, field


def _letter(axes: Axes, view: _View, scale: float) -> None:
    """A pane's name and place, the letters at its ends, and the bar for scale."""
    normal, row, column = PLANES[view.plane]
    # A dark plate keeps letters readable on bone and on fat.
    plate = {"boxstyle": "round,pad=0.22", "facecolor": "#000000", "alpha": 0.5, "linewidth": 0}
    width, height = view.width * scale, view.height * scale

    def put(x: float, y: float, text: str, size: float, color: str, **at: str) -> None:
        axes.text(
            x / width, 1 - y / height, text, transform=axes.transAxes, color=color,
            fontsize=_points(size), bbox=plate, zorder=10, **at,
        )  # fmt: skip

    end = _ENDS[normal][0 if view.position >= 0 else 1]
    name = f"{view.plane.capitalize()}  {end} {abs(view.position):.0f} mm"
    put(12, 12, name, 15, _TEXT_COLOR, ha="left", va="top")
    ends = {"size": 16, "color": "#ffd98a"}
    put(12, height / 2, _ENDS[column][0], ha="left", va="center", **ends)
    put(width - 12, height / 2, _ENDS[column][1], ha="right", va="center", **ends)
    put(width / 2, 12, _ENDS[row][0], ha="center", va="top", **ends)
    put(width / 2, height - 12, _ENDS[row][1], ha="center", va="bottom", **ends)
    if view.plane != "axial":
        return
    # All panes share one scale, so that one bar does for a row.
    bar = next((mm for mm in (50, 20, 10, 5, 2) if mm <= 0.4 * view.width), 1)
    left, bottom = view.left + 14 / scale, view.top + view.height - 18 / scale
    (line,) = axes.plot(
        [left, left + bar], [bottom, bottom], color=_TEXT_COLOR, linewidth=_points(3),
        solid_capstyle="butt", zorder=10,
    )  # fmt: skip
    line.set_path_effects([withStroke(linewidth=_points(6), foreground="#000000", alpha=0.6)])
    label = f"{bar // 10} cm" if bar >= 10 else f"{bar} mm"
    put(15, height - 27, label, 13.5, _TEXT_COLOR, ha="left", va="bottom")


# --- the page ---------------------------------------------------------------------------------


def _points(pixels: float) -> float:
    """Pixels of the PNG as typographic points."""
    return pixels * 72 / _DPI


def _number(value: float) -> str:
    """Three significant digits at most, with a real minus sign."""
    text = f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def _volume_text(ml: float) -> str:
    """ml with three significant digits."""
    if ml >= 99.95:
        return f"{ml:.0f}"
    return f"{ml:.1f}" if ml >= 9.995 else f"{ml:.2f}"


def _legible(color: tuple[float, float, float]) -> tuple[float, float, float]:
    """A structure's colour, lightened where it would be lost on black."""
    red, green, blue = color
    lack = 0.38 - (0.30 * red + 0.59 * green + 0.11 * blue)
    return tuple(c + (1 - c) * max(lack, 0) for c in color)


def _legend_height(count: int, has_mean: bool, step: float) -> float:
    """Pixels that a card takes with this much for each structure."""
    return 94 + count * step + (52 if has_mean else 12)


class _Page:
    """The figure, and a layer over it whose coordinates are pixels from the upper left."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.figure = Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI)
        FigureCanvasAgg(self.figure)
        self.layer = self.figure.add_axes((0, 0, 1, 1), zorder=2)
        self.layer.set_xlim(0, _WIDTH)
        self.layer.set_ylim(height, 0)
        self.layer.axis("off")

    def add_pane(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes for a picture, given in pixels."""
        axes = self.figure.add_axes(
            (
                left / _WIDTH,
                1 - (top + height) / self.height,
                width / _WIDTH,
                height / self.height,
            ),
            facecolor=_PAGE_COLOR,
            zorder=1,
        )
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_edgecolor(_RULE_COLOR)
        return axes

    def write(
        self, x: float, y: float, text: str, size: float, color: str = _TEXT_COLOR, **how: str
    ) -> None:
        """Text of this many pixels; ``y`` is its baseline."""
        self.layer.text(x, y, text, fontsize=_points(size), color=color, **how)

    def write_header(self, title: str, subtitle: str) -> None:
        """The title's line and the subtitle's."""
        room = _WIDTH - 2 * _EDGE
        self.write(_EDGE, 48, _fit(title, 27, room, "bold"), 27, weight="bold")
        self.write(_EDGE, 75, _fit(subtitle, 16, room), 16, _MUTED_COLOR)

    def write_footer(self, notes: list[str], has_reference: bool, has_prior: bool) -> None:
        """How to read the picture."""
        y = self.height - 22
        self.write(_EDGE, y, "   ·   ".join(notes), 14.5, _MUTED_COLOR)
        x = _WIDTH - _EDGE
        keys = []
        if has_prior:
            keys.append(("prior", "expected size"))
        if has_reference:
            keys.append(("reference", "reference"))
        for kind, text in keys:
            self.write(x, y, text, 14.5, _MUTED_COLOR, ha="right")
            x -= _width(text, 14.5) + 48
            if kind == "prior":
                self._bar(x, x + 34, y - 5, _MUTED_COLOR, 5)
            else:
                self.layer.plot(
                    [x, x + 34], [y - 5, y - 5], color="#ffffff", linewidth=_points(1.6),
                    linestyle=(0, (3.2, 2.4)),
                )  # fmt: skip
            x -= 30

    def _bar(self, left: float, right: float, y: float, color: str, thick: float) -> None:
        """A horizontal bar with round ends."""
        half = thick / 2
        self.layer.plot(
            [left + half, max(right - half, left + half)], [y, y], color=color,
            linewidth=_points(thick), solid_capstyle="round",
        )  # fmt: skip

    def write_card(
        self,
        left: float,
        top: float,
        height: float,
        step: float,
        panel: Panel,
        structures: Sequence[Structure],
        image: Volume,
        prior_ml: Mapping[str, tuple[float, float]],
    ) -> None:
        """A panel's title and its legend: swatch, name, ml, Dice, and the prior as a bar."""
        self.layer.add_patch(
            FancyBboxPatch(
                (left + 8, top + 8), _CARD - 16, height - 16,
                boxstyle="round,pad=8,rounding_size=10", facecolor=_CARD_COLOR, edgecolor="none",
            )
        )  # fmt: skip
        right = left + _CARD - _PAD
        has_dice = panel.dice is not None
        dice_at, ml_at = right, right - 78 if has_dice else right
        room = _CARD - 2 * _PAD
        self.write(left + _PAD, top + 40, _fit(panel.title, 20, room, "bold"), 20, weight="bold")
        y = top + 74
        self.write(ml_at, y, "ml", 14, _MUTED_COLOR, ha="right")
        if has_dice:
            self.write(dice_at, y, "Dice", 14, _MUTED_COLOR, ha="right")
        self.layer.plot(
            [left + _PAD, right], [y + 10, y + 10], color=_RULE_COLOR, linewidth=_points(1)
        )
        size = 17 if step >= 36 else 15
        for number, structure in enumerate(structures):
            name = structure.name
            prior = prior_ml.get(name)
            mask = panel.masks.get(name)
            ml = None
            if mask is not None:
                ml = np.count_nonzero(mask) * image.grid.voxel_volume / 1000
            middle = y + 12 + (number + 0.5) * step
            base = middle + 6 - (8 if prior else 0)
            color = _legible(structure.color or default_color(structure.value))
            self._swatch(left + _PAD, base - 13, 14, color)
            text_left = left + _PAD + 26
            ml_text = "\N{EN DASH}" if ml is None else _volume_text(ml)
            room = ml_at - _width(ml_text, size) - text_left - 30
            shown = name.replace("_", " ")
            faint = _MUTED_COLOR if not ml else _TEXT_COLOR
            self.write(text_left, base, _fit(shown, size, room), size, faint)
            outside = ml is not None and prior is not None and not prior[0] <= ml <= prior[1]
            ml_color = _WARN_COLOR if outside else faint
            self.write(ml_at, base, ml_text, size, ml_color, ha="right")
            if has_dice:
                dice = panel.dice.get(name)
                known = dice is not None and np.isfinite(dice)
                text = f"{dice:.2f}" if known else "\N{EN DASH}"
                tone = _TEXT_COLOR if known else _MUTED_COLOR
                self.write(dice_at, base, text, size, tone, ha="right")
            if prior is not None:
                self._prior(text_left, right, base + 17, ml, prior, color)
        known = [(panel.dice or {}).get(structure.name) for structure in structures]
        known = [dice for dice in known if dice is not None and np.isfinite(dice)]
        if len(known) > 1:
            y = top + height - 24
            self.layer.plot(
                [left + _PAD, right], [y - 25, y - 25], color=_RULE_COLOR, linewidth=_points(1)
            )
            self.write(left + _PAD, y, "mean Dice", 14, _MUTED_COLOR)
            self.write(dice_at, y, f"{np.mean(known):.2f}", 17, weight="bold", ha="right")

    def _swatch(
        self, left: float, top: float, size: float, color: tuple[float, float, float]
    ) -> None:
        self.layer.add_patch(
            FancyBboxPatch(
                (left + 3, top + 3), size - 6, size - 6, boxstyle="round,pad=3,rounding_size=4",
                facecolor=(*color, 0.35), edgecolor=color, linewidth=_points(1.8),
            )
        )  # fmt: skip

    def _prior(
        self,
        left: float,
        right: float,
        y: float,
        ml: float | None,
        prior: tuple[float, float],
        color: tuple[float, float, float],
    ) -> None:
        """The expected range on a track from nothing to well above it, the size as a dot."""
        low, high = prior
        text = f"{_number(low)}\N{EN DASH}{_number(high)} ml"
        tone = _MUTED_COLOR
        if ml is not None and not low <= ml <= high:
            tone = _WARN_COLOR
            text = f"{'below' if ml < low else 'above'} {text}"
        self.write(right, y + 5, text, 14, tone, ha="right")
        end = left + 150
        most = max(high * 1.4, 1e-6)
        self._bar(left, end, y, _RULE_COLOR, 5)
        self._bar(left + 150 * low / most, left + 150 * high / most, y, _MUTED_COLOR, 5)
        if ml is None:
            return
        at = left + 150 * min(ml / most, 1.0)
        self.layer.plot(
            [at], [y], marker="o", markersize=_points(12), color=color,
            markeredgecolor=_CARD_COLOR, markeredgewidth=_points(2.5),
        )  # fmt: skip


def _width(text: str, size: float, weight: str = "normal") -> float:
    """Pixels that a line of text takes."""
    if not text.strip():
        return 0.0
    return float(TextPath((0, 0), text, size, prop=FontProperties(weight=weight)).get_extents().x1)


def _fit(text: str, size: float, room: float, weight: str = "normal") -> str:
    """The text, or as much of its start as fits the room (pixels), with an ellipsis."""
    if _width(text, size, weight) <= room:
        return text
    kept = bisect_right(
        range(len(text)),
        room,
        key=lambda count: _width(text[:count] + "\N{HORIZONTAL ELLIPSIS}", size, weight),
    )
    text = text[: max(kept - 1, 0)]
    return text.rstrip() + "\N{HORIZONTAL ELLIPSIS}"
