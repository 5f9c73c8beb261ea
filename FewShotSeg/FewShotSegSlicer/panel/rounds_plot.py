"""The Dice to expect against the number of annotated volumes, in the colours of the structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from FewShotSegLib.core.rounds import changes_text

from ..messages import tooltip

LEFT, TOP, RIGHT, BOTTOM = 40, 8, 12, 20
"""Margins in pixels, for the axes' labels."""
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
        width, height = self.width, self.height
        palette = self.palette
        painter.fillRect(self.rect, palette.color(qt.QPalette.Base))
        text = palette.color(qt.QPalette.Text)
        faint = qt.QColor(text.red(), text.green(), text.blue(), 60)
        bottom = height - BOTTOM
        right = int(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        for part in (0.0, 0.5, 1.0) if self.curves else ():
            y = bottom - round((bottom - TOP) * part)
            painter.setPen(faint)
            painter.drawLine(LEFT, y, width - RIGHT, y)
            painter.setPen(text)
            painter.drawText(qt.QRect(0, y - 8, LEFT - 6, 16), right, f"{part:g}")
        if self.curves:
            counts = self._counts()
            row = qt.QRect(LEFT, bottom + 2, width - LEFT - RIGHT, BOTTOM - 2)
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
            points = self.pixels(name, width, height)
            for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
                painter.drawLine(x0, y0, x1, y1)
            for x, y in points:
                painter.drawEllipse(x - MARK, y - MARK, 2 * MARK, 2 * MARK)
        painter.end()
