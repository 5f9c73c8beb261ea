"""A result: volumes against the expected ones, and what of it the views show."""

from __future__ import annotations

from typing import Any

import qt
from slicer.i18n import tr as _

from .logic_protocol import LogicProtocol, Result, ResultRow
from .text_format import ml_text, range_text
from .widget_tools import Cell, Hint, Table, gate, reporting

NAME, REMARK = 0, 3
WIDTHS = {0: 98, 1: 76, 2: 92}


class ResultView:
    """The result of one query; takes no room where there is none."""

    def __init__(self, ui: Any, logic: LogicProtocol) -> None:
        self.ui, self.logic = ui, logic
        self.result: Result | None = None
        self.hint = Hint(ui.resultHintIcon, ui.resultHint)
        self.table = Table(ui.resultsTable, REMARK, WIDTHS, rows=2)
        ui.refinedRadio.connect("clicked()", self.on_kind)
        ui.unrefinedRadio.connect("clicked()", self.on_kind)
        ui.showUncertaintyCheckBox.connect("clicked()", self.on_uncertainty)
        ui.outlineCheckBox.connect("clicked()", self.on_look)
        ui.fillCheckBox.connect("clicked()", self.on_look)
        ui.show3DButton.connect("clicked()", self.on_3d)

    def refresh(self, query: Any) -> None:
        """Show the newest result of the query; without a query, the newest of all."""
        results = self.logic.results()
        if query is not None:
            results = [result for result in results if result.query is query]
        result = results[0] if results else None
        new = result is not None and (
            self.result is None or result.segmentation is not self.result.segmentation
        )
        self.result = result
        self.ui.resultFrame.setVisible(result is not None)
        if result is None:
            return
        self.table.fill(
            [row.name for row in result.rows], [result_cells(row) for row in result.rows]
        )
        self.hint.show(remarks(result), "warning")
        if new:
            self.ui.refinedRadio.setChecked(True)
            self.ui.showUncertaintyCheckBox.setChecked(False)
        self._refresh_controls(result)

    def _refresh_controls(self, result: Result) -> None:
        ui = self.ui
        alive = "" if result.segmentation is not None else _("The result's node was deleted.")
        changed = alive or (
            "" if result.unrefined is not None else _("Refinement was off, or changed nothing.")
        )
        gate(ui.refinedRadio, alive, _("The result, its sizes steadied by the prior volumes."))
        gate(ui.unrefinedRadio, changed, _("The result before the prior volumes were looked at."))
        gate(
            ui.showUncertaintyCheckBox,
            "" if result.uncertainty is not None else _("Tick Uncertainty map, and segment again."),
            _("Show over the image where the result is unsure."),
        )
        for control, tip in (
            (ui.outlineCheckBox, _("Contours in the slice views")),
            (ui.fillCheckBox, _("Fill in the slice views")),
            (ui.show3DButton, _("Surfaces in the 3D view")),
        ):
            gate(control, alive, tip)
        display = result.segmentation.GetDisplayNode() if result.segmentation else None
        if display is not None:
            ui.outlineCheckBox.setChecked(bool(display.GetVisibility2DOutline()))
            ui.fillCheckBox.setChecked(bool(display.GetVisibility2DFill()))

    def on_kind(self) -> None:
        """Refined or unrefined."""
        if self.result is not None:
            what = "unrefined" if self.ui.unrefinedRadio.checked else "refined"
            with reporting():
                self.logic.showResult(self.result, what)

    def on_uncertainty(self) -> None:
        """The uncertainty map over the image, or not."""
        if self.result is not None:
            with reporting():
                self.logic.showUncertainty(self.result, self.ui.showUncertaintyCheckBox.checked)

    def on_look(self) -> None:
        """Contours and fill, of the refined and the unrefined result alike."""
        if self.result is None:
            return
        for node in (self.result.segmentation, self.result.unrefined):
            display = node.GetDisplayNode() if node is not None else None
            if display is not None:
                display.SetVisibility2DOutline(self.ui.outlineCheckBox.checked)
                display.SetVisibility2DFill(self.ui.fillCheckBox.checked)

    def on_3d(self) -> None:
        """Surfaces in 3D, or not."""
        if self.result is not None:
            with reporting():
                self.logic.show3D(self.result, self.ui.show3DButton.checked)


def remarks(result: Result) -> str:
    """All that should be looked at, in full: cells of the table are short."""
    notes = [row.note for row in result.rows if row.note]
    return "\n".join(dict.fromkeys([*notes, *result.warnings]))


def result_cells(row: ResultRow) -> tuple[Cell, ...]:
    """One structure's volume against what was expected."""
    volume = ml_text(row.volume_ml)
    before = _("Without refinement: {volume} ml").format(volume=ml_text(row.unrefined_ml))
    expected, tip = "–", _("No prior was used.")
    if row.prior is not None and row.prior.enabled:
        expected = range_text(row.prior.lower_ml, row.prior.upper_ml)
        tip = _("Mean of the supports: {mean} ml").format(mean=ml_text(row.prior.mean_ml))
    remark = row.note or ("" if row.within else _("outside what was expected"))
    icon = None if row.within else qt.QStyle.SP_MessageBoxWarning
    return (
        Cell(row.name, color=row.color),
        Cell(volume, before, bold=not row.within),
        Cell(expected, tip),
        Cell(remark, icon=icon),
    )
