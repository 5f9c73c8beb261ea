"""The Dice to expect against the number of annotated volumes, in the colours of the structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from FewShotSegLib.core.rounds import changes_text

from ..messages import tooltip
from .plot_frame import BOTTOM, LEFT, TOP, draw_values_axis, label_row

RIGHT = 12
"""Margin in pixels."""
MARK = 3
"""Radius of a point."""
Points = Sequence[tuple[int, float]]


class RoundsPlot(qt.QWidget):
    """A line a structure, from the fewest annotated volumes to the most."""

    def __init__(self) -> None:
        qt.QWidget.__init__(self)
        self.setObjectName("roundsPlot")
        self.curves: Mapping[str, Points] = {}
        self._colors: Mapping[str, Sequence[float]] = {}
        self.setMinimumHeight(110)
        self.setAccessibleName(_("Dice to expect against the number of annotated volumes"))

    def show_curves(
        self, curves: Mapping[str, Points], colors: Mapping[str, Sequence[float]]
    ) -> None:
        """Draw these; it is hidden where no structure has two points.

        Args:
            curves: (annotated volumes, Dice) by structure. colors: likewise, 0 to 1.
        """
        self.curves, self._colors = curves, colors
        text = changes_text(curves)
        self.setVisible(bool(text))
        self.setToolTip(tooltip(text))
        self.update()

    def pixels(self, name: str, width: int, height: int) -> list[tuple[int, int]]:
        """A structure's points in a plot of this size; the axis of the Dice is from 0 to 1."""
        counts = self._counts()
        first, span = counts[0], max(1, counts[-1] - counts[0])
        inner_width, inner_height = width - LEFT - RIGHT, height - TOP - BOTTOM
        return [
            (
                LEFT + round(inner_width * (count - first) / span),
                TOP + round(inner_height * (1 - dice)),
            )
            for count, dice in self.curves[name]
        ]

    def _counts(self) -> list[int]:
        return sorted({count for points in self.curves.values() for count, _dice in points})

    def paintEvent(self, event: Any) -> None:
        """Called by Qt."""
        painter = qt.QPainter(self)
        draw_values_axis(painter, self, RIGHT, 1.0 if self.curves else None)
        if self.curves:
            counts, row = self._counts(), label_row(self, RIGHT)
            right = int(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            left = int(qt.Qt.AlignLeft | qt.Qt.AlignVCenter)
            painter.drawText(row, left, str(counts[0]))
            painter.drawText(row, right, str(counts[-1]))
            painter.drawText(row, int(qt.Qt.AlignCenter), _("Dice by annotated volumes"))
        painter.setRenderHint(qt.QPainter.Antialiasing)
        for name in self.curves:
            color = qt.QColor(*(round(255 * c) for c in self._colors.get(name, (0.5, 0.5, 0.5))))
            pen = qt.QPen(color)
            pen.setWidth(2)
            painter.setPen(pen)
            points = self.pixels(name, self.width, self.height)
            for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
                painter.drawLine(x0, y0, x1, y1)
            for x, y in points:
                painter.drawEllipse(x - MARK, y - MARK, 2 * MARK, 2 * MARK)
        painter.end()
