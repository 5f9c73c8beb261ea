"""«Segment several»: volumes of the scene, a folder, or series of the DICOM database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from ..interface.protocol import LogicProtocol
from ..interface.rows import QueryRow, SeriesRow
from .dialogs import choose_folder
from .tools import Cell, Table, busy_text, current_id, fill_combo, gate, new_table, reporting

WIDTHS = {1: 90}
VOLUME = 0
SCENE, DATABASE = "scene", "database"
"""Where the volumes of the table are."""


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
    """A table of volumes with check boxes, and the buttons below it.

    ``widget`` can be placed into any layout, such as that of the part Advanced; :meth:`refresh` is
    to be called whenever the panel refreshes. Progress and Cancel are those of the one Segment
    button. A volume of the scene that is not ticked by hand is ticked while it has no result yet;
    a series of the database is when a person ticks it.
    """

    def __init__(self, logic: LogicProtocol) -> None:
        self.logic = logic
        self._ticked: dict[str, bool] = {}
        self._rows: Sequence[QueryRow] = ()
        self._series: Sequence[SeriesRow] = ()
        self.widget = qt.QWidget()
        self.widget.setObjectName("severalWidget")
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        self.source = qt.QComboBox()
        self.source.setObjectName("severalSource")
        self.source.setAccessibleName(_("Where the volumes are"))
        places = [(SCENE, _("Volumes of the scene")), (DATABASE, _("Series of the DICOM database"))]
        fill_combo(self.source, places, SCENE)
        self.source.connect("activated(int)", self.on_source)
        headers = [_("Volume"), _("State")]
        table = new_table("severalTable", headers, _("Volumes to segment"))
        self.table = Table(table, VOLUME, WIDTHS)
        self.table.on_edit(self.on_tick)
        self.button = self._button("severalButton", _("Segment the ticked volumes"), self.on_start)
        self.folder_button = self._button(
            "severalFolderButton", _("Segment a folder..."), self.on_folder
        )
        self.report_button = self._button(
            "severalReportButton", _("Open the report"), self.on_report
        )
        row = qt.QHBoxLayout()
        row.addWidget(self.folder_button)
        row.addWidget(self.report_button)
        for part in (self.source, table, self.button):
            layout.addWidget(part)
        layout.addLayout(row)

    def ticked(self) -> list[str]:
        """Ids of the rows that are to be segmented."""
        if self._where() == DATABASE:
            return [row.id for row in self._series if self._ticked.get(row.id)]
        return [row.id for row in self._rows if self._is_ticked(row)]

    def refresh(self) -> None:
        """Show what the logic says."""
        if self._where() == DATABASE:
            ids = [row.id for row in self._series]
            cells = [
                (
                    Cell(row.name, row.problem, checked=bool(self._ticked.get(row.id))),
                    Cell(_("unusable") if row.problem else "–", row.problem),
                )
                for row in self._series
            ]
        else:
            self._rows = self.logic.queries()
            ids = [row.id for row in self._rows]
            cells = [
                (
                    Cell(row.name, checked=self._is_ticked(row)),
                    Cell(state_text(row), row.message),
                )
                for row in self._rows
            ]
        self.table.fill(ids, cells)
        self._refresh_buttons()

    def on_source(self, _index: int = 0) -> None:
        """A person chose where the volumes are. The database is read here alone: it may be big."""
        with reporting():
            self._ticked.clear()
            self._series = self.logic.databaseSeries() if self._where() == DATABASE else ()
        self.refresh()

    def on_tick(self, row_id: str, column: int, item: Any) -> None:
        """A person ticked a row on or off."""
        if column == VOLUME:
            self._ticked[row_id] = item.checkState() == qt.Qt.Checked
            self._refresh_buttons()

    def on_start(self) -> None:
        """Segment them, one after the other."""
        if self._where() == DATABASE:
            self._start_folder([], self.ticked())
            return
        with reporting():
            self.logic.startSeveral(self.ticked())
            self._ticked.clear()
        self.refresh()

    def on_folder(self) -> None:
        """Segment what is in a folder."""
        path = choose_folder(self.widget, _("Folder with the volumes to segment"))
        if path:
            self._start_folder([path], [])

    def on_report(self) -> None:
        """Look at the page of the last folder."""
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(self.logic.report()))

    def _start_folder(self, paths: list[str], series: list[str]) -> None:
        out = choose_folder(self.widget, _("Folder for the results"))
        if not out:
            return
        with reporting():
            self.logic.startFolder(paths, out, series)
            self._ticked.clear()
        self.refresh()

    def _where(self) -> str:
        return current_id(self.source) or SCENE

    def _is_ticked(self, row: QueryRow) -> bool:
        return self._ticked.get(row.id, row.state != "done")

    def _button(self, name: str, text: str, slot: Any) -> Any:
        button = qt.QPushButton(text)
        button.setObjectName(name)
        button.connect("clicked()", slot)
        return button

    def _refresh_buttons(self) -> None:
        busy = busy_text(self.logic)
        if self._where() == DATABASE:
            none = _("Tick the series to segment.")
            if not self._series:
                none = _("There is no CT or MR series in the DICOM database.")
            tip = _("Segment them into a folder, with a report of all.")
        else:
            none = _("Tick the volumes to segment.")
            tip = _(
                "Segment them one after the other, with what was learned last. Cancel stops all."
            )
        gate(self.button, busy or ("" if self.ticked() else none), tip)
        tip = _(
            "Segment every image and DICOM series in a folder, and in its folders, into another "
            "folder, with a report of all. What was done there before is not done again."
        )
        gate(self.folder_button, busy, tip)
        none = "" if self.logic.report() else _("No folder was segmented yet.")
        gate(self.report_button, none, _("Look at the results of the last folder, worst first."))
