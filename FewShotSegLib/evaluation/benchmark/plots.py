"""The pictures of a benchmark: Dice against shots and trained parameters; changes by TI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter

from ...core.atomic import replacing
from .plan import Plan, Task
from .summary import Change, Score, Summary, by_network, mean_changes

PICTURES = ("shots.png", "parameters.png", "transduction.png")
MARKERS = "osD^vP*X<>"
BESIDE = 1.1
"""How far to both sides of a number of shots its methods are drawn, as a factor."""
LEAST_MARK, GROWTH = 4.0, 2.0
"""Size in points of a mark of the fewest shots, and how much larger that of the next is."""


@matplotlib.rc_context({"text.parse_math": False})  # a name such as $x^{$ is no formula
def draw_plots(plan: Plan, summary: Summary, folder: Path) -> list[Path]:
    """Write ``shots.png``, ``parameters.png`` and ``transduction.png``.

    What was not run is not drawn; a picture without any result is not written.

    Raises:
        StorageError: one can't be written.
    """
    written = []
    groups = [(task, group) for task in plan.tasks for group in task.groups]
    groups = [place for place in groups if _curves(*place, summary)]
    if groups:
        for name, draw in (
            ("shots", _against_shots),
            ("parameters", _against_parameters),
        ):
            figure, panels = _figure(len(groups))
            for axes, (task, group) in zip(panels, groups, strict=True):
                draw(axes, task, group, summary)
                low, high = axes.get_ylim()
                axes.set(title=group, ylabel="mean Dice", ylim=(max(0, low), min(1, high)))
                axes.grid(alpha=0.3)
            labelled = [axes.get_legend_handles_labels() for axes in panels]
            handles = {
                text: handle for pair in labelled for handle, text in zip(*pair, strict=True)
            }
            figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8)
            written.append(save(figure, folder / f"{name}.png"))
    changes, _ = by_network(summary.changes())
    if changes:
        written.append(save(_transduction(changes), folder / "transduction.png"))
    return written


Curve = list[tuple[int, Score]]


def _curves(task: Task, group: str, summary: Summary) -> dict[str, tuple[int, Curve]]:
    """By line of the table: its number, which its colour follows, and its scores by shots."""
    curves = {}
    for number, (name, method, field) in enumerate(summary.lines()):
        scores = [(k, summary.score(task, group, method, k, field)) for k in summary.shots(task)]
        curve = [(k, score) for k, score in scores if score is not None and score.draws]
        if curve:
            curves[name] = (number, curve)
    return curves


def _style(number: int) -> dict[str, Any]:
    colours = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    return {"color": colours[number % 20], "marker": MARKERS[number % len(MARKERS)], "ms": 6}


def _against_shots(axes: Axes, task: Task, group: str, summary: Summary) -> None:
    curves = _curves(task, group, summary)
    for place, (name, (number, curve)) in enumerate(curves.items()):
        spread = [stdev(score.draws) if len(score.draws) > 1 else 0 for _, score in curve]
        # Beside each other, so that bars of one number of shots can be distinguished.
        x = [k * BESIDE ** (2 * place / max(1, len(curves) - 1) - 1) for k, _ in curve]
        y = [score.mean for _, score in curve]
        axes.errorbar(x, y, spread, label=name, capsize=2, lw=1.2, **_style(number))
    shots = summary.shots(task)
    axes.set_xscale("log")
    axes.set_xticks(shots, [str(k) for k in shots])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("supports (shots)")


def _against_parameters(axes: Axes, task: Task, group: str, summary: Summary) -> None:
    """One mark a method and number of shots, the larger the more shots."""
    shots = summary.shots(task)
    for name, (number, curve) in _curves(task, group, summary).items():
        style = {"ls": "", "alpha": 0.8, **_style(number)}
        axes.plot([], [], label=name, **style)
        for k, score in curve:
            style["ms"] = LEAST_MARK + GROWTH * shots.index(k)
            axes.plot(score.parameters, score.mean, **style)
    axes.set_xscale("log")
    # Not the usual one: it writes formulas, which names may not be taken for.
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    counts = ", ".join(map(str, shots))
    axes.set_xlabel(f"trained parameters\n(the larger the mark, the more supports: {counts})")


def _transduction(changes: Sequence[Change]) -> Figure:
    """Every change as a point by structure, with its mean; and Dice after against before."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    means = mean_changes(changes)
    rng = np.random.default_rng(0)
    for place, (task, structure) in enumerate(means):
        own = [c.change for c in changes if (c.task, c.structure) == (task, structure)]
        left.plot(place + rng.uniform(-0.25, 0.25, len(own)), own, ".", ms=4, alpha=0.5)
        left.plot([place - 0.3, place + 0.3], [means[task, structure]] * 2, "k", lw=2)
        left.annotate(
            f"{means[task, structure]:+.3f}",
            (place, 1.0),
            (0, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    left.axhline(0, color="k", lw=0.8)
    names = [structure.replace("_", " ") for _, structure in means]
    left.set_xticks(range(len(means)), names, rotation=20, ha="right")
    left.set(ylabel="change of Dice by transduction")
    total = mean(change.change for change in changes)
    left.set_title(f"{len(changes)} segmentations, mean {total:+.3f}", pad=16, fontsize=10)
    right.plot([0, 1], [0, 1], "k", lw=0.8)
    for task in dict.fromkeys(change.task for change in changes):
        of_task = [change for change in changes if change.task == task]
        right.plot(
            [c.dice for c in of_task],
            [c.dice_ti for c in of_task],
            ".",
            ms=4,
            alpha=0.5,
            label=task,
        )
    right.set(xlabel="Dice before", ylabel="Dice after", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def _figure(count: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(4.6 * count + 2.2, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


def save(figure: Figure, path: Path) -> Path:
    """Write a picture, in one step.

    Raises:
        StorageError: it can't be written.
    """
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
    return path
