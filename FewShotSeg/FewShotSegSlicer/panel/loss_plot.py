"""The loss of a training, drawn while it runs, in the colours of Slicer's own theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from ..interface.rows import Epoch
from .plot_frame import BOTTOM, LEFT, TOP, draw_values_axis, label_row

RIGHT = 8
"""Margin in pixels."""


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
        draw_values_axis(painter, self, RIGHT, self.highest() if self.points else None)
        if self.points:
            row = label_row(self, RIGHT)
            last = self.points[-1]
            painter.drawText(row, int(qt.Qt.AlignLeft | qt.Qt.AlignVCenter), _("loss"))
            painter.drawText(
                row,
                int(qt.Qt.AlignRight | qt.Qt.AlignVCenter),
                _("epoch {epoch} of {epochs}").format(epoch=last.epoch, epochs=last.epochs),
            )
            pen = qt.QPen(self.palette.color(qt.QPalette.Highlight))
            pen.setWidth(2)
            painter.setPen(pen)
            painter.setRenderHint(qt.QPainter.Antialiasing)
            pixels = self.curve(self.width, self.height)
            for (x0, y0), (x1, y1) in zip(pixels, pixels[1:], strict=False):
                painter.drawLine(x0, y0, x1, y1)
            if len(pixels) == 1:
                painter.drawPoint(*pixels[0])
        painter.end()
