"""The page of an overlay picture: places in pixels, the title, and a card of text for each row."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath

from ..core.annotation import Structure
from ..core.colors import default_color
from ..core.geometry import three
from ..core.quantities import ml_text
from ..core.size_prior import as_expected

# The page, in pixels.
WIDTH = 1840
DPI = 100
EDGE = 36
GAP = 8
CARD = 430
CARD_GAP = 16
ROW_GAP = 20
HEADER = 92
FOOTER = 58
_PAD = 22
LEGEND_STEPS = {False: (27, 42), True: (50, 66)}
"""Least and most pixels for a structure in the legend, without and with a prior or a remark."""

PAGE_COLOR = "#0e1116"
_CARD_COLOR = "#171c23"
_RULE_COLOR = "#2b323c"
TEXT_COLOR = "#eceff3"
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
        remarks: by structure name, in a few words, what is not as expected beside its size.
    """

    title: str
    masks: Mapping[str, np.ndarray]
    dice: Mapping[str, float | None] | None = None
    remarks: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Legend:
    """What every row of the picture is given beside.

    Attributes:
        structures: which, in the order of the legend.
        reference: by structure name, (i, j, k) bool; drawn as a dashed white contour.
        prior_ml: by structure name, the expected (lowest, highest) ml. A segmentation outside is
            flagged; the reference's size is a tick beside it.
    """

    structures: Sequence[Structure]
    reference: Mapping[str, np.ndarray] = field(default_factory=dict)
    prior_ml: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class CardPlace:
    """Where a card is, in pixels, and how much of its height each structure has."""

    left: float
    top: float
    height: float
    step: float


def points(pixels: float) -> float:
    """Pixels of the PNG as typographic points."""
    return pixels * 72 / DPI


def number_text(value: float) -> str:
    """Three significant digits at most, with a real minus sign."""
    text = f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")


def legible(color: tuple[float, float, float]) -> tuple[float, float, float]:
    """A structure's colour, lightened where it would be lost on black."""
    red, green, blue = color
    lack = 0.48 - (0.30 * red + 0.59 * green + 0.11 * blue)
    return three(c + (1 - c) * max(lack, 0) for c in color)


def legend_height(count: int, has_mean: bool, step: float) -> float:
    """Pixels that a card takes with this much for each structure."""
    return 94 + count * step + (52 if has_mean else 12)


class Page:
    """The figure, and a layer over it whose coordinates are pixels from the upper left."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(self.figure)
        self.layer = self.figure.add_axes((0, 0, 1, 1), zorder=2)
        self.layer.set_xlim(0, WIDTH)
        self.layer.set_ylim(height, 0)
        self.layer.axis("off")

    def add_pane(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes for a picture, given in pixels."""
        axes = self.figure.add_axes(
            (
                left / WIDTH,
                1 - (top + height) / self.height,
                width / WIDTH,
                height / self.height,
            ),
            facecolor=PAGE_COLOR,
            zorder=1,
        )
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_edgecolor(_RULE_COLOR)
        return axes

    def write(
        self, x: float, y: float, text: str, size: float, color: str = TEXT_COLOR, **how: Any
    ) -> None:
        """Text of this many pixels; ``y`` is its baseline."""
        self.layer.text(x, y, text, fontsize=points(size), color=color, **how)

    def write_header(self, title: str, subtitle: str) -> None:
        """The title's line and the subtitle's."""
        width = WIDTH - 2 * EDGE
        self.write(EDGE, 48, _fit(title, 27, width, "bold"), 27, weight="bold")
        self.write(EDGE, 75, _fit(subtitle, 16, width), 16, _MUTED_COLOR)

    def write_footer(self, notes: list[str], has_reference: bool, has_prior: bool) -> None:
        """How to read the picture."""
        y = self.height - 22
        self.write(EDGE, y, "   ·   ".join(notes), 14.5, _MUTED_COLOR)
        x: float = WIDTH - EDGE
        keys = []
        if has_prior:
            keys.append(("prior", "expected size"))
            if has_reference:
                keys.append(("size", "reference size"))
        if has_reference:
            keys.append(("reference", "reference"))
        for kind, text in keys:
            self.write(x, y, text, 14.5, _MUTED_COLOR, ha="right")
            x -= _width(text, 14.5) + 48
            if kind == "prior":
                self._bar(x, x + 34, y - 5, _MUTED_COLOR, 5)
            elif kind == "size":
                x += 16
                self._tick(x + 17, y - 5)
            else:
                self.layer.plot(
                    [x, x + 34], [y - 5, y - 5], color="#ffffff", linewidth=points(1.6),
                    linestyle=(0, (3.2, 2.4)),
                )  # fmt: skip
            x -= 30

    def _bar(self, left: float, right: float, y: float, color: str, thick: float) -> None:
        """A horizontal bar with round ends."""
        half = thick / 2
        self.layer.plot(
            [left + half, max(right - half, left + half)], [y, y], color=color,
            linewidth=points(thick), solid_capstyle="round",
        )  # fmt: skip

    def _tick(self, x: float, y: float) -> None:
        """The mark of the reference's size on a bar."""
        (line,) = self.layer.plot(
            [x, x], [y - 7, y + 7], color="#ffffff", linewidth=points(2), solid_capstyle="butt",
            zorder=4,
        )  # fmt: skip
        line.set_path_effects([withStroke(linewidth=points(5), foreground=_CARD_COLOR)])

    def write_card(self, place: CardPlace, panel: Panel, legend: Legend, voxel_ml: float) -> None:
        """A panel's title and its legend: swatch, name, ml, Dice, and the prior as a bar.

        Args:
            voxel_ml: the volume of a voxel of its masks.
        """
        left, top, height, step = place.left, place.top, place.height, place.step
        self.layer.add_patch(
            FancyBboxPatch(
                (left + 8, top + 8), CARD - 16, height - 16,
                boxstyle="round,pad=8,rounding_size=10", facecolor=_CARD_COLOR, edgecolor="none",
            )
        )  # fmt: skip
        right = left + CARD - _PAD
        has_dice = panel.dice is not None
        dice_at, ml_at = right, right - 78 if has_dice else right
        wide = CARD - 2 * _PAD
        self.write(left + _PAD, top + 40, _fit(panel.title, 20, wide, "bold"), 20, weight="bold")
        y = top + 74
        self.write(ml_at, y, "ml", 14, _MUTED_COLOR, ha="right")
        if has_dice:
            self.write(dice_at, y, "Dice", 14, _MUTED_COLOR, ha="right")
        self.layer.plot(
            [left + _PAD, right], [y + 10, y + 10], color=_RULE_COLOR, linewidth=points(1)
        )
        size = 17 if step >= 36 else 15
        for number, structure in enumerate(legend.structures):
            name = structure.name
            prior, remark = legend.prior_ml.get(name), (panel.remarks or {}).get(name, "")
            ml, reference_ml = (
                np.count_nonzero(masks[name]) * voxel_ml if name in masks else None
                for masks in (panel.masks, legend.reference)
            )
            middle = y + 12 + (number + 0.5) * step
            base = middle + 6 - (8 if prior or remark else 0)
            color = legible(structure.color or default_color(structure.value))
            self._swatch(left + _PAD, base - 13, 14, color)
            text_left = left + _PAD + 26
            volume = "\N{EN DASH}" if ml is None else ml_text(ml)
            width = ml_at - _width(volume, size) - text_left - 30
            shown = name.replace("_", " ")
            faint = _MUTED_COLOR if not ml else TEXT_COLOR
            self.write(text_left, base, _fit(shown, size, width), size, faint)
            outside = ml is not None and prior is not None and not as_expected(ml, *prior)
            ml_color = _WARN_COLOR if outside or remark else faint
            self.write(ml_at, base, volume, size, ml_color, ha="right")
            if has_dice:
                dice = (panel.dice or {}).get(name)
                known = dice is not None and np.isfinite(dice)
                text = f"{dice:.2f}" if known else "\N{EN DASH}"
                tone = TEXT_COLOR if known else _MUTED_COLOR
                self.write(dice_at, base, text, size, tone, ha="right")
            if remark:  # in place of the range: that the size is within it says little then
                line = _fit(remark, 14, right - text_left)
                self.write(text_left, base + 22, line, 14, _WARN_COLOR)
            elif prior is not None:
                self._prior(text_left, right, base + 17, (ml, reference_ml), prior, color)
        known = [(panel.dice or {}).get(structure.name) for structure in legend.structures]
        known = [dice for dice in known if dice is not None and np.isfinite(dice)]
        if len(known) > 1:
            y = top + height - 24
            self.layer.plot(
                [left + _PAD, right], [y - 25, y - 25], color=_RULE_COLOR, linewidth=points(1)
            )
            self.write(left + _PAD, y, "mean Dice", 14, _MUTED_COLOR)
            self.write(dice_at, y, f"{np.mean(known):.2f}", 17, weight="bold", ha="right")

    def _swatch(
        self, left: float, top: float, size: float, color: tuple[float, float, float]
    ) -> None:
        self.layer.add_patch(
            FancyBboxPatch(
                (left + 3, top + 3), size - 6, size - 6, boxstyle="round,pad=3,rounding_size=4",
                facecolor=(*color, 0.35), edgecolor=color, linewidth=points(1.8),
            )
        )  # fmt: skip

    def _prior(
        self,
        left: float,
        right: float,
        y: float,
        sizes: tuple[float | None, float | None],
        prior: tuple[float, float],
        color: tuple[float, float, float],
    ) -> None:
        """The expected range on a track from nothing to well above it.

        ``sizes`` in ml are the segmentation's, a dot, and the reference's, a tick.
        """
        (low, high), (ml, reference_ml) = prior, sizes
        text = f"{ml_text(low)}\N{EN DASH}{ml_text(high)} ml"
        if low <= 0:
            text = f"{ml_text(high)} ml"
        tone = _MUTED_COLOR
        if ml is not None and not as_expected(ml, low, high):
            tone = _WARN_COLOR
            text = f"{'below' if ml < low else 'above'} {text}"
        elif low <= 0:
            text = f"up to {text}"
        self.write(right, y + 5, text, 14, tone, ha="right")
        length = 150
        scale = length / max(high * 1.4, 1e-6)
        self._bar(left, left + length, y, _RULE_COLOR, 5)
        self._bar(left + low * scale, left + high * scale, y, _MUTED_COLOR, 5)
        if reference_ml is not None:
            self._tick(left + min(reference_ml * scale, length), y)
        if ml is not None:
            self.layer.plot(
                [left + min(ml * scale, length)], [y], marker="o", markersize=points(12),
                color=color, markeredgecolor=_CARD_COLOR, markeredgewidth=points(2.5), zorder=5,
            )  # fmt: skip


def _width(text: str, size: float, weight: str = "normal") -> float:
    """Pixels that a line of text takes."""
    if not text.strip():
        return 0.0
    return float(TextPath((0, 0), text, size, prop=FontProperties(weight=weight)).get_extents().x1)


def _fit(text: str, size: float, width: float, weight: str = "normal") -> str:
    """The text, or as much of its start as fits the width (pixels), with an ellipsis."""
    if _width(text, size, weight) <= width:
        return text
    kept = bisect_right(
        range(len(text)),
        width,
        key=lambda count: _width(text[:count] + "\N{HORIZONTAL ELLIPSIS}", size, weight),
    )
    text = text[: max(kept - 1, 0)]
    return text.rstrip() + "\N{HORIZONTAL ELLIPSIS}"
