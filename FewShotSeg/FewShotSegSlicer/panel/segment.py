"""The section «Segment»: which volume, with which adapter; start, watch, stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from ..interface.protocol import LogicProtocol
from ..interface.rows import End, Progress
from ..scene.results import hide_result
from ..scene.verdict import kind_of
from ..scene.views import volume_on_screen
from .progress import TaskView
from .results import ResultView
from .tools import Hint, busy_with, current_id, fill_combo, gate, reporting


class SegmentSection:
    """Segment a query with a trained adapter."""

    KINDS = ("segment", "folder")

    def __init__(self, ui: Any, logic: LogicProtocol, accepted: Callable[[], None]) -> None:
        self.ui, self.logic = ui, logic
        self.parameters: Any = None
        self.proposal_due = False
        self._proposed: Any = None
        self.hint = Hint(ui.segmentHintIcon, ui.segmentHint)
        self.status = Hint(ui.segmentStatusIcon, ui.segmentStatus)
        self.task = TaskView(ui.segmentProgress, ui.cancelSegmentButton, self.status, logic)
        self.results = ResultView(ui, logic, self.status, accepted)
        ui.adapterCombo.connect("activated(int)", self.on_adapter)
        ui.segmentButton.connect("clicked()", self.on_segment)

    def take_volume_on_screen(self) -> None:
        """Where no query is chosen yet, take one that is there to be segmented, on screen first.

        So it is where one was taken that has become an annotated volume since. The views stay.
        """
        self.proposal_due = False
        if self.parameters is None:
            return
        query = self.parameters.queryVolume
        learned = query is self._proposed and any(
            row.volume is query for row in self.logic.supports()
        )
        if query is not None and not learned:
            return
        node = self.logic.proposedQuery(volume_on_screen())
        if node is not None and node is not query:
            self._proposed = node
            self.results.settle()
            self.parameters.queryVolume = node

    def refresh(self) -> None:
        """Show what the logic says."""
        if self.proposal_due and self.results.result is None:
            self.take_volume_on_screen()
        ui, running, rows = self.ui, busy_with(self.logic), self.logic.adapters()
        if self.parameters is not None:
            entries = [(row.id, row.name) for row in rows]
            fill_combo(ui.adapterCombo, entries, self.parameters.adapterId)
            several = len(rows) > 1 or (bool(rows) and self.parameters.adapterId != rows[0].id)
            ui.adapterCombo.setVisible(several)
            ui.adapterComboLabel.setVisible(several)
        obstacles = self.logic.blockers("segment") if not running else []
        if obstacles:
            self.hint.show(obstacles[0])
        else:
            self.hint.show("" if running else self.logic.doubt("segment"), "warning")
        estimate = self.logic.estimate("segment") if not obstacles and not running else None
        busy = _("A task is running already.") if running else ""
        gate(
            ui.segmentButton,
            busy or "\n".join(obstacles),
            estimate.text
            if estimate
            else _("Segment this volume by what was learned (with the trained adapter)."),
        )
        self.task.refresh(running in self.KINDS)
        query = self.parameters.queryVolume if self.parameters is not None else None
        self.results.refresh(query)

    def on_progress(self, progress: Progress) -> None:
        """Segmenting went on."""
        if progress.kind in self.KINDS:
            self.task.show(progress)

    def on_end(self, end: End) -> None:
        """Segmenting ended, well or not."""
        if end.kind not in self.KINDS:
            return
        self.task.end(end)
        if end.result is not None:  # which is on screen already; see ResultView.refresh
            self.status.show(end.message, kind_of(end.result))
            if self.parameters is not None and end.result.query is not self.parameters.queryVolume:
                hide_result(end.result)  # a person looks at another volume meanwhile

    def on_adapter(self, _index: int = 0) -> None:
        """A person chose an adapter."""
        self.parameters.adapterId = current_id(self.ui.adapterCombo)

    def on_segment(self) -> None:
        """Start."""
        with reporting():
            self.logic.startSegmentation()
