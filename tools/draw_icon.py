"""Draws the module's icon: ``python tools/draw_icon.py`` writes the PNG that ships.

Three annotated slices, one behind the other, and the structure that they teach.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch, Polygon

ICON = Path(__file__).resolve().parents[1] / "FewShotSeg" / "Resources" / "Icons" / "FewShotSeg.png"
SLICE, EDGE, STRUCTURE, CONTOUR = "#2b3f5c", "#dfe6ee", "#f2a03d", "#ffffff"


def kidney(x: float, y: float, size: float) -> np.ndarray:
    """Corners (n, 2) of a bean around a point."""
    angle = np.linspace(0, 2 * np.pi, 200)
    radius = size * (1 - 0.42 * np.exp(-(((angle - np.pi) / 0.55) ** 2)))
    points = np.stack([0.78 * radius * np.cos(angle), 1.08 * radius * np.sin(angle)], 1)
    turn = np.radians(-18)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ rotation.T + (x, y)


def draw(path: Path, pixels: int = 128) -> None:
    """Write the icon, square, with a transparent ground."""
    figure = plt.figure(figsize=(1, 1), dpi=pixels)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 128), ylim=(0, 128))
    axes.axis("off")
    for offset, shade in ((32, "#8fa3bd"), (16, "#5d7698"), (0, SLICE)):
        corner = (5 + offset, 5 + offset)
        axes.add_patch(
            FancyBboxPatch(
                corner,
                86,
                86,
                boxstyle="round,pad=0,rounding_size=12",
                facecolor=shade,
                edgecolor=EDGE,
                linewidth=1.6,
            )
        )
    axes.add_patch(
        Polygon(
            kidney(50, 48, 31), closed=True, facecolor=STRUCTURE, edgecolor=CONTOUR, linewidth=2.2
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, transparent=True)
    plt.close(figure)


if __name__ == "__main__":
    draw(ICON)
