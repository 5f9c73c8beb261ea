"""The section «Structures»: what is one class over all supports, and how large it should be."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import qt
from slicer.i18n import tr as _

from ..interface.protocol import LogicProtocol
from ..interface.rows import StructureRow
from ..text import ml_text, number, range_text
from .dialogs import choose_color
from .tools import Cell, Hint, Table, busy_text, gate, reporting, section_title

TICK, NAME, SUPPORTS, MEAN, SPREAD, GAMMA, PRIOR = range(7)
WIDTHS = {TICK: 44, SUPPORTS: 44, MEAN: 48, SPREAD: 44, GAMMA: 44, PRIOR: 30}


class StructuresSection:
    """Classes, their colours and their priors."""

    def __init__(self, ui: Any, logic: LogicProtocol) -> None:
        self.ui, self.logic = ui, logic
        self.hint = Hint(ui.structuresHintIcon, ui.structuresHint)
        self.table = Table(ui.structuresTable, NAME, WIDTHS)
        self.table.on_edit(self.on_edit)
        ui.structuresTable.connect("itemSelectionChanged()", self.refresh_buttons)
        ui.structuresTable.connect("cellDoubleClicked(int,int)", self.on_double_click)
        for button, slot in (
            (ui.addStructureButton, self.on_add),
            (ui.mergeButton, self.on_merge),
            (ui.splitButton, self.on_split),
            (ui.resetPriorButton, self.on_reset),
        ):
            button.connect("clicked()", slot)

    def refresh(self) -> None:
        """Show what the logic says."""
        rows = self.logic.structures()
        used = [row.id for row in self.logic.supports() if row.ticked and row.state == "ready"]
        self.table.fill([row.id for row in rows], [self._cells(row, used) for row in rows])
        ticked = sum(row.ticked for row in rows)
        more = _("{ticked} of {count}").format(ticked=ticked, count=len(rows)) if rows else ""
        section_title(self.ui.structuresSection, _("Structures"), more)
        self.hint.show(*self._obstacle(rows, ticked))
        self.refresh_buttons()

    def _cells(self, row: StructureRow, used: Collection[str]) -> list[Cell]:
        prior = row.prior
        where = "\n".join(f"{s.volume_name}: {s.segment_name}" for s in row.segments)
        drawn = len({segment.support_id for segment in row.segments} & set(used))
        allowed = _("Tolerated: {range} ml").format(
            range=range_text(prior.lower_ml, prior.upper_ml)
        )
        measured = _("Measured on {count} annotated volumes.").format(count=prior.count)
        if not prior.count:
            measured = _(
                "Not measured. Where some slices alone were drawn on, training estimates it."
            )
        if prior.edited:
            measured = _("Typed by you; Measure again goes back to what was measured.")
        gamma = "–" if prior.gamma is None else f"{100 * prior.gamma:.0f} %"
        warning = qt.QStyle.SP_MessageBoxWarning if row.conflict else None
        return [
            Cell(tip=_("Double-click to choose a colour"), checked=row.ticked, color=row.color),
            Cell(row.name, row.conflict or row.terminology, icon=warning, editable=True),
            Cell(f"{drawn} / {len(used)}", where or _("Nobody has drawn it yet.")),
            Cell(ml_text(prior.mean_ml), measured, editable=True, bold=prior.edited),
            Cell(ml_text(prior.sd_ml), measured, editable=True, bold=prior.edited),
            Cell(gamma, allowed, editable=True, bold=prior.gamma_edited),
            Cell(tip=_("Whether the expected volume is used"), checked=prior.enabled),
        ]

    def _obstacle(self, rows: list[StructureRow], ticked: int) -> tuple[str, str]:
        if not rows:
            return (
                _("Structures appear here once a volume is annotated; or add one to draw."),
                "missing",
            )
        doubtful = [row.conflict for row in rows if row.conflict and row.ticked]
        if doubtful:
            return doubtful[0], "warning"
        if not ticked:
            return _("Tick at least one structure."), "missing"
        return "", "missing"

    def refresh_buttons(self) -> None:
        """Enable what makes sense for the selection."""
        busy = busy_text(self.logic)
        count = len(self.table.selected())
        none = _("Select a row of the table first.") if count == 0 else ""
        two = _("Select two or more rows that are the same structure.") if count < 2 else ""
        one = none or (_("Select one row alone.") if count > 1 else "")
        ui = self.ui
        gate(ui.addStructureButton, busy, _("Add a structure that nobody has drawn yet."))
        gate(ui.mergeButton, busy or two, _("Make the selected rows one structure."))
        gate(ui.splitButton, busy or one, _("Undo a merge."))
        gate(ui.resetPriorButton, busy or none, _("Back to what the annotated volumes say."))

    def on_edit(self, row_id: str, column: int, item: Any) -> None:
        """A person changed a cell."""
        with reporting():
            if column == TICK:
                self.logic.tickStructure(row_id, item.checkState() == qt.Qt.Checked)
            elif column == PRIOR:
                self.logic.setPrior(row_id, enabled=item.checkState() == qt.Qt.Checked)
            elif column == NAME:
                self._rename(row_id, item.text().strip())
            else:
                self._set_number(row_id, column, number(item.text()))

    def _rename(self, row_id: str, name: str) -> None:
        if name:
            self.logic.renameStructure(row_id, name)
        self.refresh()

    def _set_number(self, row_id: str, column: int, value: float | None) -> None:
        """Take a typed number over; anything else leaves the cell as it was."""
        if value is not None and (value > 0 or column == SPREAD):
            if column == MEAN:
                self.logic.setPrior(row_id, mean_ml=value)
            elif column == SPREAD:
                self.logic.setPrior(row_id, sd_ml=value)
            elif column == GAMMA:
                self.logic.setPrior(row_id, gamma=value / 100)
        self.refresh()

    def on_double_click(self, row: int, column: int) -> None:
        """A double click on the swatch chooses a colour."""
        if column != TICK:
            return
        row_id = self.table.ids()[row]
        known = next((r for r in self.logic.structures() if r.id == row_id), None)
        if known is None:
            return
        color = choose_color(self.ui.structuresSection, known.color)
        if color is not None:
            with reporting():
                self.logic.colorStructure(row_id, color)

    def on_add(self) -> None:
        """Add an empty structure and let its name be typed."""
        names = {row.name for row in self.logic.structures()}
        name = next(
            n for n in map(_("Structure {number}").format_map, _numbers()) if n not in names
        )
        with reporting():
            row_id = self.logic.addStructure(name)
            self.refresh()
            self.table.select([row_id])
            if row_id in self.table.ids():
                item = self.ui.structuresTable.item(self.table.ids().index(row_id), NAME)
                self.ui.structuresTable.editItem(item)

    def on_merge(self) -> None:
        """Make the selected rows one."""
        with reporting():
            merged = self.logic.mergeStructures(self.table.selected())
            self.refresh()
            self.table.select([merged])

    def on_split(self) -> None:
        """Undo a merge."""
        with reporting():
            for row_id in self.table.selected():
                self.logic.splitStructure(row_id)

    def on_reset(self) -> None:
        """Back to the measured priors."""
        with reporting():
            for row_id in self.table.selected():
                self.logic.resetPrior(row_id)


def _numbers() -> Any:
    """Mappings for a name's number: 1, 2, ..."""
    return ({"number": number} for number in range(1, 1000))
