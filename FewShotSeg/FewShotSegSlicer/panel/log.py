"""The section «Log»: what the background process said, to read and to copy."""

from __future__ import annotations

from typing import Any

import qt

from FewShotSegLib.core.plain_text import printable

from ..interface.protocol import LogicProtocol

MOST_LINES = 5000


class LogSection:
    """The log, collapsed until it is opened."""

    def __init__(self, ui: Any, logic: LogicProtocol) -> None:
        self.ui, self.logic = ui, logic
        ui.logText.setMaximumBlockCount(MOST_LINES)
        ui.logText.setPlainText(printable(logic.log()))
        ui.copyLogButton.connect("clicked()", self.on_copy)

    def add_line(self, text: str) -> None:
        """Append one line."""
        self.ui.logText.appendPlainText(printable(text))

    def on_copy(self) -> None:
        """Put the whole log on the clipboard."""
        qt.QApplication.clipboard().setText(self.logic.log())
