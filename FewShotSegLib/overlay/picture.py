"""The picture of a result: three planes, contours, and a legend with sizes and Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from scipy import ndimage

from ..core.annotation import Structure
from ..core.atomic import replacing
from ..core.colors import default_color
from ..core.geometry import Volume
from .page import (
    CARD,
    CARD_GAP,
    DPI,
    EDGE,
    FOOTER,
    GAP,
    HEADER,
    LEGEND_STEPS,
    PAGE_COLOR,
    ROW_GAP,
    TEXT_COLOR,
    WIDTH,
    CardPlace,
    Legend,
    Page,
    Panel,
    legend_height,
    legible,
    number_text,
    points,
)
from .views import (
    CT_WINDOW,
    PLANES,
    Orientation,
    View,
    choose_slices,
    display_window,
    make_views,
    orientation_of,
    slice_plane,
)

__all__ = [
    "CT_WINDOW",
    "PLANES",
    "Legend",
    "Panel",
    "choose_slices",
    "draw_overlay",
    "orientation_of",
    "slice_plane",
]

_ENDS = (("R", "L"), ("A", "P"), ("S", "I"))
_OBLIQUE_DEGREES = 3.0


@rc_context({"text.parse_math": False})  # a name such as $x^{$ is no formula
def draw_overlay(
    path: str | Path,
    image: Volume,
    panels: Sequence[Panel],
    legend: Legend,
    *,
    title: str = "",
    subtitle: str = "",
    window: tuple[float, float] | None = None,
) -> None:
    """Draw a result and write it as a PNG, about 1800 pixels wide.

    Args:
        path: of the PNG; replaced only once it is complete.
        image: the segmented volume.
        panels: the rows, top to bottom; all show the same slices.
        legend: the structures, and what they are compared with.
        title, subtitle: over the picture; left out where empty.
        window: the intensities shown black and white; for CT soft tissue, otherwise the
            volume's 1st to 99th percentile.

    Raises:
        ValueError: no panel, no structure, or a mask on another grid than the image's.
        StorageError: the place can't be written to, or the disk is full.
    """
    structures, reference = legend.structures, legend.reference
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
    low, high = window or display_window(image)
    voxel_ml = image.grid.voxel_volume / 1000
    has_prior = any(name in legend.prior_ml for name in names)
    two_lines = has_prior or any(panel.remarks for panel in panels)
    has_mean = len(names) > 1 and any(panel.dice for panel in panels)

    panes_width = WIDTH - 2 * EDGE - CARD - CARD_GAP - 2 * GAP
    card_height = legend_height(len(names), has_mean, LEGEND_STEPS[two_lines][0])
    views = make_views(image, shown, orientation, min(card_height / panes_width, 0.42))
    scale = panes_width / sum(view.width for view in views)
    pane_height = views[0].height * scale
    row_height = round(max(pane_height, card_height))
    height_left = row_height - legend_height(len(names), has_mean, 0)
    step = float(np.clip(height_left / len(names), *LEGEND_STEPS[two_lines]))
    header = HEADER if subtitle else 70 if title else EDGE
    height = header + len(panels) * (row_height + ROW_GAP) - ROW_GAP + FOOTER
    page = Page(height)
    page.write_header(title, subtitle)
    for number, panel in enumerate(panels):
        top = header + number * (row_height + ROW_GAP)
        left = float(EDGE)
        for view in views:
            axes = page.add_pane(left, top, view.width * scale, pane_height)
            _draw_view(axes, view, image, orientation, (low, high), scale)
            for structure in structures:
                _draw_structure(axes, view, panel, reference, structure, orientation, scale)
            _letter(axes, view, scale)
            left += view.width * scale + GAP
        place = CardPlace(WIDTH - EDGE - CARD, top, row_height, step)
        page.write_card(place, panel, legend, voxel_ml)
    unit = " HU" if image.modality == "CT" else ""
    notes = [f"Window {number_text(low)} to {number_text(high)}{unit}"]
    if orientation.degrees > _OBLIQUE_DEGREES:
        notes.append(f"oblique scan, shown along its own axes ({orientation.degrees:.0f}° off)")
    page.write_footer(notes, any(name in reference for name in names), has_prior)
    with replacing(path) as temporary:
        page.figure.savefig(temporary, format="png", dpi=DPI, facecolor=PAGE_COLOR)


# --- a pane -----------------------------------------------------------------------------------


def _cropped(plane: np.ndarray, view: View) -> tuple[np.ndarray, float, float]:
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
    view: View,
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
    view: View,
    panel: Panel,
    reference: Mapping[str, np.ndarray],
    structure: Structure,
    orientation: Orientation,
    scale: float,
) -> None:
    """One structure in one pane: translucent fill, crisp contour, dashed reference."""
    color = legible(structure.color or default_color(structure.value))
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
                x, y, level, [0.5], colors="#ffffff", linewidths=points(1.5),
                linestyles=[(0, (3.2, 2.4))], zorder=5,
            )  # fmt: skip
            lines.set_path_effects([withStroke(linewidth=points(3), foreground=dark, alpha=0.45)])
        else:
            axes.contourf(x, y, level, [0.5, 2], colors=[color], alpha=0.26, zorder=3)
            lines = axes.contour(
                x, y, level, [0.5], colors=[color], linewidths=points(2.2), zorder=4
            )
            lines.set_path_effects([withStroke(linewidth=points(4), foreground=dark, alpha=0.4)])


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


def _letter(axes: Axes, view: View, scale: float) -> None:
    """A pane's name and place, the letters at its ends, and the bar for scale."""
    normal, row, column = PLANES[view.plane]
    # A dark plate keeps letters readable on bone and on fat.
    plate = {"boxstyle": "round,pad=0.22", "facecolor": "#000000", "alpha": 0.5, "linewidth": 0}
    width, height = view.width * scale, view.height * scale

    def put(x: float, y: float, text: str, size: float, color: str, **at: Any) -> None:
        axes.text(
            x / width, 1 - y / height, text, transform=axes.transAxes, color=color,
            fontsize=points(size), bbox=plate, zorder=10, **at,
        )  # fmt: skip

    end = _ENDS[normal][0 if view.position >= 0 else 1]
    name = f"{view.plane.capitalize()}  {end} {abs(view.position):.0f} mm"
    put(12, 12, name, 15, TEXT_COLOR, ha="left", va="top")
    ends: dict[str, Any] = {"size": 16, "color": "#ffd98a"}
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
        [left, left + bar], [bottom, bottom], color=TEXT_COLOR, linewidth=points(3),
        solid_capstyle="butt", zorder=10,
    )  # fmt: skip
    line.set_path_effects([withStroke(linewidth=points(6), foreground="#000000", alpha=0.6)])
    label = f"{bar // 10} cm" if bar >= 10 else f"{bar} mm"
    put(15, height - 27, label, 13.5, TEXT_COLOR, ha="left", va="bottom")
