"""A small picture of a result: three planes with the structures' contours, for a contact sheet."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.image import imsave
from scipy import ndimage

from ..core.annotation import Structure
from ..core.colors import default_color
from ..core.geometry import Volume
from .page import legible
from .views import View, display_window, make_views, orientation_of, slice_plane

WIDTH = 720
"""Pixels of all three planes side by side."""
GAP = 6
_STEEPNESS = 0.3
_QUALITY = 82
_COMMENT = b"\xff\xfe"


def with_comment(picture: bytes, comment: str) -> bytes:
    """A JPEG with a comment in its header, which no program shows."""
    data, start = comment.encode("utf-8", "replace"), _header_end(picture)
    segment = _COMMENT + (len(data) + 2).to_bytes(2, "big") + data
    return picture[:start] + segment + picture[start:]


def comment_of(picture: bytes) -> str:
    """The comment that :func:`with_comment` put there; empty where there is none."""
    start = _header_end(picture)
    if picture[start : start + 2] != _COMMENT:
        return ""
    length = int.from_bytes(picture[start + 2 : start + 4], "big")
    return picture[start + 4 : start + 2 + length].decode("utf-8", "replace")


def _header_end(picture: bytes) -> int:
    """Where a JPEG's other segments begin: after the one that every JFIF file has first."""
    if picture[2:4] != b"\xff\xe0":
        return 2
    return 4 + int.from_bytes(picture[4:6], "big")


def draw_thumbnail(
    image: Volume,
    masks: Mapping[str, np.ndarray],
    structures: Sequence[Structure],
    kind: str = "jpg",
) -> bytes:
    """A picture of the slices that show most of most structures, as a radiologist reads them.

    Args:
        masks: by structure name, (i, j, k) bool on the image's grid. kind: ``jpg`` or ``png``.
    """
    orientation = orientation_of(image.grid)
    views = make_views(image, list(masks.values()), orientation, _STEEPNESS)
    scale = (WIDTH - 2 * GAP) / sum(view.width for view in views)
    low, high = display_window(image)
    panes = []
    for view in views:
        grey = slice_plane(image.array, orientation, view.plane, view.index).astype(np.float32)
        shown = np.clip((grey - low) / (high - low), 0, 1)
        pane = np.repeat(_placed(shown, view, scale, 0.0)[..., None], 3, 2)
        for structure in structures:
            if structure.name not in masks:
                continue
            mask = slice_plane(masks[structure.name], orientation, view.plane, view.index)
            # Voxels are coarser than pixels: their smoothed border is what a person would draw.
            inside = _placed(mask.astype(np.float32), view, scale, 0.0) > 0.5
            edge = inside & ~ndimage.binary_erosion(inside, iterations=2)
            pane[edge] = legible(structure.color or default_color(structure.value))
        panes.append(pane)
    gap = np.zeros((panes[0].shape[0], GAP, 3), np.float32)
    row = np.concatenate([panes[0], gap, panes[1], gap, panes[2]], 1)
    stream = io.BytesIO()
    picture = (row * 255).round().astype(np.uint8)
    how: dict[str, Any] = {"pil_kwargs": {"quality": _QUALITY}} if kind == "jpg" else {}
    imsave(stream, picture, format=kind, **how)
    return stream.getvalue()


def _placed(plane: np.ndarray, view: View, scale: float, beyond: float) -> np.ndarray:
    """The part of a plane (rows, columns) that a view shows, in pixels of ``1 / scale`` mm."""
    places = []
    for start, length, pixel in (
        (view.top, view.height, view.pixel[0]),
        (view.left, view.width, view.pixel[1]),
    ):
        count = max(1, round(length * scale))
        # A voxel's centre is half its size from its beginning.
        places.append((start + (np.arange(count) + 0.5) / scale) / pixel - 0.5)
    grid = np.meshgrid(*places, indexing="ij")
    return ndimage.map_coordinates(plane, grid, order=1, mode="constant", cval=beyond)
