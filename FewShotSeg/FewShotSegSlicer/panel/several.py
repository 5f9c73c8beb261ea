"""«Segment several»: the volumes of the scene with their state, and one button."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from ..interface.protocol import LogicProtocol
from ..interface.rows import QueryRow
from .tools import Cell, Table, busy_with, gate, reporting

WIDTHS = {1: 90}
VOLUME = 0


def state_text(row: QueryRow) -> str:
    """The state in the table."""
    return {
        "open": "–",
        "waiting": _("waiting"),
        "running": _("running"),
        "done": _("done"),
        "failed": _("failed"),
        "stopped": _("stopped"),
    }[row.state]


class SeveralView:
    """A table of volumes with check boxes, and the button below it.

    ``widget`` can be placed into any layout, such as that of the part Advanced; :meth:`refresh` is
    to be called whenever the panel refreshes. Progress and Cancel are those of the one Segment
    button. A row that is not ticked by hand is ticked while its volume has no result yet.
    """

    def __init__(self, logic: LogicProtocol) -> None:
        self.logic = logic
        self._ticked: dict[str, bool] = {}
        self._rows: Sequence[QueryRow] = ()
        self.widget = qt.QWidget()
        self.widget.setObjectName("severalWidget")
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        table = qt.QTableWidget()
        table.setObjectName("severalTable")
        table.setColumnCount(2)
        table.setHorizontalHeaderLabels([_("Volume"), _("State")])
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.setAccessibleName(_("Volumes to segment"))
        table.verticalHeader().setVisible(False)
        self.table = Table(table, VOLUME, WIDTHS)
        self.table.on_edit(self.on_tick)
        self.button = qt.QPushButton(_("Segment the ticked volumes"))
        self.button.setObjectName("severalButton")
        self.button.connect("clicked()", self.on_start)
        layout.addWidget(table)
        layout.addWidget(self.button)

    def ticked(self) -> list[str]:
        """Ids of the rows that are to be segmented."""
        return [row.id for row in self._rows if self._is_ticked(row)]

    def refresh(self) -> None:
        """Show what the logic says."""
        self._rows = self.logic.queries()
        self.table.fill(
            [row.id for row in self._rows],
            [
                (
                    Cell(row.name, checked=self._is_ticked(row)),
                    Cell(state_text(row), row.message),
                )
                for row in self._rows
            ],
        )
        self._refresh_button()

    def on_tick(self, row_id: str, column: int, item: Any) -> None:
        """A person ticked a row on or off."""
        if column == VOLUME:
            self._ticked[row_id] = item.checkState() == qt.Qt.Checked
            self._refresh_button()

    def on_start(self) -> None:
        """Segment them, one after the other."""
        with reporting():
            self.logic.startSeveral(self.ticked())
            self._ticked.clear()
        self.refresh()

    def _is_ticked(self, row: QueryRow) -> bool:
        return self._ticked.get(row.id, row.state != "done")

    def _refresh_button(self) -> None:
        busy = _("Wait until the running task has ended.") if busy_with(self.logic) else ""
        none = "" if self.ticked() else _("Tick the volumes to segment.")
        tip = _("Segment them one after the other, with what was learned last. Cancel stops all.")
        gate(self.button, busy or none, tip)
