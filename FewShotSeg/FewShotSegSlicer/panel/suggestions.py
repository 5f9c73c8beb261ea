"""«What to annotate next»: the volumes of the scene in that order, each with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from ..interface.protocol import LogicProtocol
from ..interface.rows import End, Progress, SuggestionRow
from ..messages import make_plain
from .progress import TaskView
from .tools import Cell, Hint, Table, busy_text, gate, new_table, reporting

VOLUME, REASON = 0, 1
WIDTHS = {VOLUME: 130}


class SuggestionsView:
    """A button, and a table below it once there is something to show.

    ``widget`` can be placed into any layout; :meth:`refresh` is to be called whenever the panel
    refreshes.

    Args:
        choose: takes the volume of a row that was clicked, which is shown then.
    """

    KIND = "suggest"

    def __init__(self, logic: LogicProtocol, choose: Callable[[Any], None]) -> None:
        self.logic, self._choose = logic, choose
        self._rows: list[SuggestionRow] = []
        self.widget = qt.QWidget()
        self.widget.setObjectName("suggestWidget")
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        self.button = qt.QPushButton(_("What to annotate next"))
        self.button.setObjectName("suggestButton")
        self.button.connect("clicked()", self.on_start)
        bar, cancel = qt.QProgressBar(), qt.QPushButton(_("Cancel"))
        bar.setObjectName("suggestProgress")
        bar.setAccessibleName(_("Progress of comparing the volumes"))
        cancel.setObjectName("cancelSuggestButton")
        icon, label = qt.QLabel(), qt.QLabel()
        label.setObjectName("suggestStatus")
        label.setWordWrap(True)
        label.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Minimum)
        self.status = Hint(icon, label)
        self.task = TaskView(bar, cancel, self.status, logic)
        headers = [_("Annotate next"), _("Why")]
        order = _("Volumes in the order in which to annotate them")
        table = new_table("suggestTable", headers, order)
        table.connect("cellClicked(int,int)", self.on_row)
        self.table = Table(table, REASON, WIDTHS)
        running, said = qt.QHBoxLayout(), qt.QHBoxLayout()
        running.addWidget(bar)
        running.addWidget(cancel)
        said.addWidget(icon)
        said.addWidget(label)
        layout.addWidget(self.button)
        layout.addLayout(running)
        layout.addLayout(said)
        layout.addWidget(table)
        make_plain(self.widget)

    def refresh(self) -> None:
        """Show what the logic says."""
        self._rows = self.logic.suggestions()
        self.table.fill([row.id for row in self._rows], [_cells(row) for row in self._rows])
        self.table.widget.setVisible(bool(self._rows))
        running = self.logic.running() == self.KIND
        self.task.refresh(running)
        busy = busy_text(self.logic)
        obstacles = [] if busy else self.logic.blockers(self.KIND)
        tip = _(
            "Rank the volumes that are not annotated by what annotating them would bring, and say "
            "why. No annotation is needed for it."
        )
        gate(self.button, busy or "\n".join(obstacles), tip)

    def on_progress(self, progress: Progress) -> None:
        """The comparing went on."""
        if progress.kind == self.KIND:
            self.task.show(progress)

    def on_end(self, end: End) -> None:
        """It ended, well or not."""
        if end.kind == self.KIND:
            self.task.end(end)

    def on_start(self) -> None:
        """Ask."""
        with reporting():
            self.logic.startSuggesting()

    def on_row(self, row: int, _column: int = 0) -> None:
        """A click on a volume brings it into the slice views, offers it for adding, and says below
        all that speaks for it: the table has not the space."""
        if row < len(self._rows):
            found = self._rows[row]
            with reporting():
                self.logic.showVolume(found.volume)
                self._choose(found.volume)
            self.status.show(f"{found.name}: {'; '.join(found.reasons)}")


def _cells(row: SuggestionRow) -> tuple[Cell, ...]:
    tip = "\n".join([row.name, *row.reasons, _("Click to see it, and to add it above.")])
    warning = qt.QStyle.SP_MessageBoxWarning if row.unusable else None
    return Cell(row.name, tip), Cell("; ".join(row.reasons), tip, icon=warning)
