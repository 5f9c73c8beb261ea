"""What the panel's plots share: margins, and an axis of values in the colours of Slicer's theme."""

from __future__ import annotations

from typing import Any

import qt

LEFT, TOP, BOTTOM = 40, 8, 20
"""Margins in pixels, for the axes' labels."""


def draw_values_axis(painter: Any, widget: Any, right: int, highest: float | None) -> None:
    """Fill a plot's background and draw lines at 0, a half and the highest value, with their
    labels; the pen is that of texts then.

    Args:
        right: the margin on that side, in pixels. highest: at the axis's upper end; None where
            there is nothing to be drawn yet.
    """
    palette = widget.palette
    painter.fillRect(widget.rect, palette.color(qt.QPalette.Base))
    if highest is None:
        return
    text = palette.color(qt.QPalette.Text)
    faint = qt.QColor(text.red(), text.green(), text.blue(), 60)
    bottom = widget.height - BOTTOM
    for part in (0.0, 0.5, 1.0):
        y = bottom - round((bottom - TOP) * part)
        painter.setPen(faint)
        painter.drawLine(LEFT, y, widget.width - right, y)
        painter.setPen(text)
        painter.drawText(
            qt.QRect(0, y - 8, LEFT - 6, 16),
            int(qt.Qt.AlignRight | qt.Qt.AlignVCenter),
            f"{highest * part:g}",
        )


def label_row(widget: Any, right: int) -> Any:
    """The rectangle below a plot's other axis."""
    width = widget.width - LEFT - right
    return qt.QRect(LEFT, widget.height - BOTTOM + 2, width, BOTTOM - 2)
