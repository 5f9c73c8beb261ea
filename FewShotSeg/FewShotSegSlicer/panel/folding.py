"""The three steps of the work: what is done folds, what comes next opens."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from ..interface.protocol import LogicProtocol
from ..interface.rows import AdapterRow, End
from .tools import section_title


class Steps:
    """Sections 1 to 3 of the panel. A section that a person opened or closed stays so, until
    another step of the work is done."""

    def __init__(self, ui: Any, logic: LogicProtocol) -> None:
        self.ui, self.logic = ui, logic
        self._trained = False
        self._running = ""

    def arrange(self) -> None:
        """Another scene: open what is still to be done in it."""
        self._trained = bool(self.logic.adapters())
        self.ui.supportsSection.collapsed = self._trained
        self.ui.trainSection.collapsed = bool(self.logic.results())
        self.ui.segmentSection.collapsed = not self._trained

    def refresh(self) -> None:
        """Say in the headers how far each step is, and fold by what has begun."""
        adapters = self.logic.adapters()
        if adapters and not self._trained:
            self.ui.segmentSection.collapsed = False
        self._trained = bool(adapters)
        running = self.logic.running() or ""
        if running != self._running:
            self._running = running
            if running == "train":
                self.ui.supportsSection.collapsed = True
        section_title(self.ui.trainSection, _("2  Train"), self._learned(adapters))

    def _learned(self, adapters: list[AdapterRow]) -> str:
        chosen = self.logic.getParameterNode().adapterId
        row = next((row for row in adapters if row.id == chosen), None)
        if row is None:
            return ""
        return learned_text(len(row.supports))

    def on_end(self, end: End) -> None:
        """A task ended: go on to the next step where it ended well."""
        if end.state != "finished":
            return
        if end.kind == "train":
            self.ui.supportsSection.collapsed = True
            self.ui.segmentSection.collapsed = False
        elif end.kind == "segment":
            self.ui.supportsSection.collapsed = self.ui.trainSection.collapsed = True
            self.ui.segmentSection.collapsed = False

    def on_accepted(self) -> None:
        """The support set grew by a result: a training comes next."""
        self.ui.trainSection.collapsed = False


def learned_text(volumes: int) -> str:
    """From how many annotated volumes a training learned."""
    if volumes == 1:
        return _("learned from 1 volume")
    return _("learned from {count} volumes").format(count=volumes)
