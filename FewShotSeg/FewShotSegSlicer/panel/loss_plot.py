"""The loss of a training, drawn while it runs, in the colours of Slicer's own theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from ..interface.rows import Epoch

LEFT, TOP, RIGHT, BOTTOM = 40, 8, 8, 20
"""Margins in pixels, for the axes' labels."""


class LossPlot(qt.QWidget):
    """A curve over the epochs."""

    def __init__(self) -> None:
        qt.QWidget.__init__(self)
        self.points: list[Epoch] = []
        self.setMinimumHeight(120)
        self.setAccessibleName(_("Loss over the epochs of the training"))

    def show_points(self, points: Sequence[Epoch]) -> None:
        """Draw these epochs instead of the ones before."""
        self.points = list(points)
        if self.points:
            last = self.points[-1]
            self.setToolTip(
                _("Loss {loss:.3f} after epoch {epoch} of {epochs}").format(
                    loss=last.loss, epoch=last.epoch, epochs=last.epochs
                )
            )
        self.update()

    def curve(self, width: int, height: int) -> list[tuple[int, int]]:
        """The epochs as pixels of a plot of this size; the loss's axis starts at zero."""
        if not self.points:
            return []
        epochs = max(2, *(point.epochs for point in self.points))
        top = self.highest()
        inner_width, inner_height = width - LEFT - RIGHT, height - TOP - BOTTOM
        return [
            (
                LEFT + round(inner_width * (point.epoch - 1) / (epochs - 1)),
                TOP + round(inner_height * (1 - min(point.loss, top) / top)),
            )
            for point in self.points
        ]

    def highest(self) -> float:
        """Upper end of the loss's axis: a round number above every loss."""
        largest = max(point.loss for point in self.points)
        for exponent in range(-4, 6):
            for digit in (1, 1.2, 1.6, 2, 3, 4, 6, 8):
                if digit * 10.0**exponent >= largest:
                    return digit * 10.0**exponent
        return largest

    def paintEvent(self, event: Any) -> None:
        """Called by Qt."""
        painter = qt.QPainter(self)
        width, height = self.width, self.height
        palette = self.palette
        painter.fillRect(self.rect, palette.color(qt.QPalette.Base))
        text = palette.color(qt.QPalette.Text)
        faint = qt.QColor(text.red(), text.green(), text.blue(), 60)
        bottom = height - BOTTOM
        if self.points:
            top = self.highest()
            for part in (0.0, 0.5, 1.0):
                y = bottom - round((bottom - TOP) * part)
                painter.setPen(faint)
                painter.drawLine(LEFT, y, width - RIGHT, y)
                painter.setPen(text)
                painter.drawText(
                    qt.QRect(0, y - 8, LEFT - 6, 16),
                    int(qt.Qt.AlignRight | qt.Qt.AlignVCenter),
                    f"{top * part:g}",
                )
            painter.setPen(text)
            row = qt.QRect(LEFT, bottom + 2, width - LEFT - RIGHT, BOTTOM - 2)
            last = self.points[-1]
            painter.drawText(row, int(qt.Qt.AlignLeft | qt.Qt.AlignVCenter), _("loss"))
            painter.drawText(
                row,
                int(qt.Qt.AlignRight | qt.Qt.AlignVCenter),
                _("epoch {epoch} of {epochs}").format(epoch=last.epoch, epochs=last.epochs),
            )
            pen = qt.QPen(palette.color(qt.QPalette.Highlight))
            pen.setWidth(2)
            painter.setPen(pen)
            painter.setRenderHint(qt.QPainter.Antialiasing)
            pixels = self.curve(width, height)
            for (x0, y0), (x1, y1) in zip(pixels, pixels[1:], strict=False):
                painter.drawLine(x0, y0, x1, y1)
            if len(pixels) == 1:
                painter.drawPoint(*pixels[0])
        painter.end()
