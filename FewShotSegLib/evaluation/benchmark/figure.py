"""Results side by side: the reference and the methods on one slice of each of three queries.

The queries are the first of the first draw, whatever their scores are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ...core.annotation import Structure, dice
from ...core.colors import default_color
from ...core.errors import FewShotSegError
from ...core.geometry import Volume
from ...io.pairs import find_pairs
from ...overlay.page import legible
from ...overlay.views import choose_slices, display_window, orientation_of, slice_plane
from ...pipeline.inputs import read_support
from .cells import Cell
from .masks import QUERIES, mask_path, read_masks
from .plan import Plan, Task
from .summary import Summary

PICTURE = "results.png"
SHOWN = ("ft", "linear-probe", "adapter")
"""The methods beside the reference, in the paper's order; others where a plan has none of these."""
FEW = 5
"""Supports: the paper's. Of the numbers of a plan the one is shown that is closest."""
AROUND = 15.0
"""mm around the structures."""
COLUMNS = 6
WIDTH, LINE, OPACITY = 2.4, 0.3, 0.35
"""Inches of a column and of a line of text; of the tint."""


@dataclass(frozen=True)
class _Row:
    """One query: its image, reference, and the masks of each column."""

    name: str
    image: Volume
    reference: dict[str, np.ndarray]
    masks: list[dict[str, np.ndarray]]


@matplotlib.rc_context({"text.parse_math": False})  # a name such as $x^{$ is no formula
def draw_figure(plan: Plan, summary: Summary, out: Path) -> tuple[list[Path], list[str]]:
    """Write a picture a task of which the masks were kept: ``results.png``, ``results-2.png``, ...

    Returns:
        the files, and what could not be drawn, one sentence each.

    Raises:
        StorageError: one can't be written.
    """
    from .plots import save

    written, problems = [], []
    for number, task in enumerate(plan.tasks, 1):
        try:
            found = _rows(task, summary, out)
        except FewShotSegError as error:
            problems.append(f"The picture of {task.name} was not drawn. {error}")
            continue
        name = PICTURE if number == 1 else PICTURE.replace(".", f"-{number}.")
        if found is not None:
            written.append(save(_drawn(task, *found), out / name))
        elif (out / name).exists():
            text = "is of an earlier run: not all that it is drawn from is there any more."
            problems.append(f"{name} {text}")
    return written, problems


def _rows(task: Task, summary: Summary, out: Path) -> tuple[list[str], int, list[_Row]] | None:
    """The columns' names, the number of supports, and the rows; None where no masks were kept."""
    shots = min(summary.shots(task), key=lambda count: (abs(count - FEW), count))
    lines: list[tuple[str, Cell, str]] = []
    for name, method, field in summary.lines():
        cell = summary.cell(task, method, shots)
        if cell is None or method.untrained:
            continue
        queries = cell.draw.queries[:QUERIES]
        if all(mask_path(out, cell, query, field).is_file() for query in queries):
            lines.append((name, cell, field))
    usual = [line for line in lines if line[1].method.method in SHOWN]
    lines = sorted(usual, key=lambda line: SHOWN.index(line[1].method.method)) or lines
    lines = lines[: COLUMNS - 1]
    if not lines:
        return None
    pairs = {pair.name: pair for pair in find_pairs(task.folder)}
    names, rows = [structure.name for structure in task.structures], []
    for query in task.draws[0].queries[:QUERIES]:
        pair = pairs.get(query)
        if pair is None:
            return None
        support = read_support(pair.image, pair.segmentation, task.structures)
        shape = support.volume.grid.shape
        masks = [read_masks(mask_path(out, c, query, f), names, shape) for _, c, f in lines]
        reference = support.annotation.masks
        known = [
            {name: mask for name, mask in one.items() if name in reference}
            for one in masks
            if one is not None
        ]
        if len(known) < len(lines):
            return None
        rows.append(_Row(query, support.volume, dict(reference), known))
    return [name for name, _, _ in lines], shots, rows


@dataclass(frozen=True)
class _Slice:
    """The slice of a query that is shown.

    Attributes:
        of: an array (i, j, k) to what is shown of it (rows, columns). pixel: mm down and across.
        ratio: its height, to its width.
    """

    of: Callable[[np.ndarray], np.ndarray]
    pixel: tuple[float, float]
    ratio: float


def _slice(row: _Row) -> _Slice:
    grid = row.image.grid
    orientation = orientation_of(grid)
    index = choose_slices(list(row.reference.values()), orientation, grid.shape)["axial"]
    pixel = (grid.spacing[orientation.axes[1]], grid.spacing[orientation.axes[0]])
    whole = partial(slice_plane, orientation=orientation, plane="axial", index=index)
    flat = whole(row.image.array)
    rows, columns = _box([whole(mask) for mask in row.reference.values()], pixel, flat.shape)
    height, width = (part.stop - part.start for part in (rows, columns))
    return _Slice(
        lambda array: whole(array)[rows, columns],
        pixel,
        height * pixel[0] / (width * pixel[1]),
    )


def _drawn(task: Task, columns: Sequence[str], shots: int, rows: Sequence[_Row]) -> Figure:
    slices, count = [_slice(row) for row in rows], len(columns) + 1
    heights = [WIDTH * one.ratio + LINE for one in slices]
    figure = Figure(figsize=(WIDTH * count, sum(heights) + 2 * LINE), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), count, squeeze=False, height_ratios=heights)
    for row, one, places in zip(rows, slices, panels, strict=True):
        low, high = display_window(row.image)
        grey = one.of(row.image.array).astype(np.float32)
        aspect = one.pixel[0] / one.pixel[1]
        titled = zip(places, ("Reference", *columns), (row.reference, *row.masks), strict=True)
        for axes, title, masks in titled:
            axes.imshow(grey, "gray", vmin=low, vmax=high, aspect=aspect, interpolation="bilinear")
            for structure in task.structures:
                if structure.name in masks:
                    _draw_mask(axes, one.of(masks[structure.name]), structure, aspect)
            axes.set(xticks=[], yticks=[])
            if row is rows[0]:
                axes.set_title(title, fontsize=10)
            if masks is not row.reference:
                scores = [dice(row.reference[name], masks[name]) for name in row.reference]
                axes.set_xlabel(f"Dice {np.nanmean(scores):.2f}", fontsize=9)
        places[0].set_ylabel(row.name, fontsize=9)
    supports = f"{shots} annotated volume{'s' * (shots != 1)}"
    figure.suptitle(f"{task.name}, learned from {supports}", fontsize=11)
    return figure


def _draw_mask(axes: Axes, mask: np.ndarray, structure: Structure, aspect: float) -> None:
    colour = legible(structure.color or default_color(structure.value))
    tint = np.broadcast_to(colour, (*mask.shape, 3))
    axes.imshow(np.concatenate([tint, mask[..., None] * OPACITY], 2), aspect=aspect)
    if mask.any():
        axes.contour(mask, [0.5], colors=[colour], linewidths=1.2)


def _box(
    masks: Sequence[np.ndarray], pixel: tuple[float, float], shape: tuple[int, ...]
) -> tuple[slice, slice]:
    """The part of a plane with all masks and a margin; all of it where they are empty."""
    together = np.logical_or.reduce(masks)
    box = []
    for axis in range(2):
        used = np.flatnonzero(together.any(axis=1 - axis))
        margin = round(AROUND / pixel[axis])
        first = max(0, int(used[0]) - margin) if used.size else 0
        last = min(shape[axis], int(used[-1]) + 1 + margin) if used.size else shape[axis]
        box.append(slice(first, last))
    return box[0], box[1]
