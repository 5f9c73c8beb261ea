"""The picture of a pre-training: its losses, and Dice by class on the held-out cases, or the part
of the episodes' points that were classified right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..core.atomic import replacing
from ..core.colors import default_color
from .trainer import TERMS

MAX_LEGEND = 20


@rc_context({"text.parse_math": False})  # a name such as $x^{$ is no formula
def draw_curve(history: Sequence[Mapping[str, Any]], classes: Sequence[str], path: Path) -> None:
    """Write a PNG of the epochs' records, as in the ``epoch`` events.

    Raises:
        StorageError: it can't be written.
    """
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    losses, dice = figure.subplots(1, 2)
    for name in TERMS:
        points = [(record["step"], record[name]) for record in history if name in record]
        if points:
            losses.plot(*zip(*points, strict=True), label=name.replace("_", " "))
    losses.set(title="Training losses", xlabel="step", ylim=(0, None))
    validated = [record for record in history if "dice" in record]
    for number, name in enumerate(classes, 1):
        points = [(r["step"], r["dice"][name]) for r in validated if name in r["dice"]]
        if points:
            color = default_color(number)
            dice.plot(*zip(*points, strict=True), marker=".", color=color, label=name)
    dice.set(title="Dice on held-out cases (model grid)", xlabel="step", ylim=(-0.02, 1))
    for axes in (losses, dice):
        axes.grid(alpha=0.3)
        if 0 < len(axes.get_lines()) <= MAX_LEGEND:
            # Beside the lines, which go everywhere in such a picture.
            axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)


@rc_context({"text.parse_math": False})
def draw_episodes(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG of the losses, and of the share of points classified right, over the episodes.

    Raises:
        StorageError: it can't be written.
    """
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    losses, right = figure.subplots(1, 2)
    names = {name for record in history for name in record} - {"episodes", "learning_rate", "right"}
    for axes, shown in ((losses, sorted(names)), (right, ["right"])):
        for name in shown:
            points = [(r["episodes"], r[name]) for r in history if name in r]
            if points and not (name == "loss" and len(names) == 2):  # the one loss is the sum
                axes.plot(*zip(*points, strict=True), label=name)
        axes.grid(alpha=0.3)
        axes.set_xlabel("episodes")
        if len(axes.get_lines()) > 1:
            axes.legend(fontsize=8)
    losses.set_title("Loss")
    right.set_title("Points classified right")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
