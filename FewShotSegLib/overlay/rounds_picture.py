"""The picture of an adapter's rounds: the Dice to expect against the number of supports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..core.atomic import replacing


@rc_context({"text.parse_math": False, "svg.fonttype": "none"})  # a name like $x^{$ is no formula
def draw_rounds(
    curves: Mapping[str, Sequence[tuple[int, float]]],
    colors: Mapping[str, tuple[float, float, float]],
    path: Path,
) -> None:
    """Write a PNG, or an SVG by the file's name.

    Args:
        curves: (supports, Dice) by structure. colors: likewise.

    Raises:
        StorageError: it can't be written.
    """
    figure = Figure(figsize=(5.5, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", color=colors.get(name), label=name)
    axes.set(xlabel="annotated volumes", ylabel="Dice to expect", ylim=(0, 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120)
