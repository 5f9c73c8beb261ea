"""Widths of a table's columns in a panel that people make narrow and wide.

Titles are never cut; texts are, in the middle, where there is not enough space for all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import qt


class Columns:
    """One column takes what the others leave.

    Args:
        widget: the table widget. stretch: the column that takes what is left.
        widths: of the other columns, the most in pixels that they keep for their texts where there
            is not enough space for all.
    """

    def __init__(self, widget: Any, stretch: int, widths: Mapping[int, int]) -> None:
        self.widget, self.stretch, self.widths = widget, stretch, dict(widths)
        self._needed: list[int] = [0] * widget.columnCount
        self._width = -1
        self.header = widget.horizontalHeader()
        for column in range(widget.columnCount):
            stretched = column == stretch
            self.header.setSectionResizeMode(
                column, qt.QHeaderView.Stretch if stretched else qt.QHeaderView.Interactive
            )
        # Not immediately: the header is in the middle of its own layout when it tells of it.
        self._timer = qt.QTimer(widget)
        self._timer.setSingleShot(True)
        self._timer.connect("timeout()", self.lay_out)
        self.lay_out()
        self.header.connect("sectionResized(int,int,int)", self._on_resized)

    def need(self, needed: Sequence[float]) -> None:
        """Tell each column how many pixels its texts take."""
        pixels = [math.ceil(width) for width in needed]
        if pixels != self._needed:
            self._needed = pixels
            self.lay_out()

    def lay_out(self) -> None:
        """Set all widths; those that a person dragged are lost."""
        self._width = self.widget.viewport().width
        title = {c: self.header.sectionSizeHint(c) for c in self.widths}
        full = {c: max(title[c], self._needed[c]) for c in self.widths}
        least = {c: max(title[c], min(self._needed[c], most)) for c, most in self.widths.items()}
        name = max(self.header.sectionSizeHint(self.stretch), self._needed[self.stretch])
        spare = self._width - min(name, self._width // 3) - sum(least.values())
        wanted = sum(full[c] - least[c] for c in full)
        share = min(1.0, max(0.0, spare / wanted)) if wanted > 0 else 0.0
        for column in self.widths:
            extra = int(share * (full[column] - least[column]))
            self.widget.setColumnWidth(column, least[column] + extra)

    def _on_resized(self, column: int, _before: int, _now: int) -> None:
        """The table itself became wider or narrower; a person who drags a border is left alone."""
        if column == self.stretch and self.widget.viewport().width != self._width:
            self._timer.start(0)
