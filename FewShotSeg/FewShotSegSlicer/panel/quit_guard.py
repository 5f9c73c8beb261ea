"""Slicer is about to be closed while a training runs: a person is asked whether to stop it."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from ..interface.protocol import LogicProtocol
from ..messages import agree
from .tools import busy_with

LOST = ("train", "segment")
"""Tasks whose work is lost when they are stopped; others are soon done again."""


class QuitGuard(qt.QWidget):
    """Watches the main window, where there is one, until :meth:`remove` is called.

    A widget that is never shown, as in Slicer's own examples: PythonQt lets those filter events.
    """

    def __init__(self, logic: LogicProtocol) -> None:
        qt.QWidget.__init__(self)
        self.logic: LogicProtocol | None = logic
        self._window = slicer.util.mainWindow()
        if self._window is not None:
            self._window.installEventFilter(self)

    def remove(self) -> None:
        """Watch no more."""
        if self._window is not None:
            self._window.removeEventFilter(self)
        self._window = self.logic = None

    def eventFilter(self, _window: Any, event: Any) -> bool:
        """Qt asks before it hands an event to the window; true keeps it from it."""
        if event.type() != qt.QEvent.Close or self.logic is None or self.may_quit():
            return False
        event.ignore()
        return True

    def may_quit(self) -> bool:
        """Whether nothing would be lost, or a person agrees to that."""
        kind = busy_with(self.logic) if self.logic is not None else ""
        if kind not in LOST:
            return True
        work = _("A training is running.") if kind == "train" else _("A volume is being segmented.")
        question = _("{work} If Slicer is closed, it is stopped, and nothing of it is kept.")
        return agree(question.format(work=work), _("Close Slicer?"))
