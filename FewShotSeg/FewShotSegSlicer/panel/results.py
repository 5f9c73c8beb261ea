"""A result: volumes against the expected ones, and what of it the views show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import qt
from slicer.i18n import tr as _

from FewShotSegLib.core.trust import FINE, LOOK, UNKNOWN, UNUSABLE, VERDICTS

from ..interface.protocol import LogicProtocol
from ..interface.rows import Result, ResultRow
from ..messages import agree
from ..scene.results import is_in_3d
from ..scene.verdict import (
    flags_of,
    judgement_of,
    kind_of,
    mark_of,
    needs_look,
    notes_of,
    out_of_range,
    sentence_of,
    sentences_of,
    verdict_text,
)
from ..scene.views import has_3d_view
from ..text import ml_text, range_text
from .navigation import open_segment_editor
from .tools import Cell, Hint, Table, busy_text, current_id, fill_combo, gate, reporting

MARKS = {FINE: (0.18, 0.6, 0.3), LOOK: (0.93, 0.62, 0.1), UNUSABLE: (0.8, 0.16, 0.16)}
"""Green, amber and red, of the verdicts; the text beside the mark says the same."""
NAME, REMARK = 0, 3
WIDTHS = {1: 56, 2: 92, REMARK: 110}
RESULT_LETTERS = 26
"""Of an entry of the list of results, which has a button beside it."""
MOST_SENTENCES = 2
"""So many are shown of a whole result: a click on a structure shows its own."""


class ResultView:
    """The result of one query; takes no space where there is none.

    Args:
        status: where the result is said in a sentence. accepted: called once it is a support.
    """

    def __init__(
        self, ui: Any, logic: LogicProtocol, status: Hint, accepted: Callable[[], None]
    ) -> None:
        self.ui, self.logic, self.status, self.accepted = ui, logic, status, accepted
        self.result: Result | None = None
        self._newest = ""
        self._query: Any = None
        self._settled = True
        self._in_3d = True
        self.hint = Hint(ui.resultHintIcon, ui.resultHint)
        self.table = Table(ui.resultsTable, NAME, WIDTHS, rows=2)
        ui.resultsTable.connect("cellClicked(int,int)", self.on_row)
        ui.resultCombo.connect("activated(int)", self.on_choice)
        ui.deleteResultButton.connect("clicked()", self.on_delete)
        ui.correctButton.connect("clicked()", self.on_correct)
        ui.acceptButton.connect("clicked()", self.on_accept)
        ui.refinedRadio.connect("clicked()", self.on_kind)
        ui.unrefinedRadio.connect("clicked()", self.on_kind)
        ui.showUncertaintyCheckBox.connect("clicked()", self.on_uncertainty)
        ui.outlineCheckBox.connect("clicked()", self.on_look)
        ui.fillCheckBox.connect("clicked()", self.on_look)
        ui.show3DButton.connect("clicked()", self.on_3d)

    def refresh(self, query: Any) -> None:
        """Show a result of the query, or without a query of all: a new one, else the chosen one.

        What is on screen follows where the query or the result is another than before.
        """
        results = self.logic.results()
        if query is not None:
            results = [result for result in results if result.query is query]
        shown, newest = self.result.id if self.result else "", results[0].id if results else ""
        chosen = {result.id: result for result in results}.get(shown)
        if newest != self._newest or chosen is None:
            chosen = results[0] if results else None
        self._newest = newest
        new = chosen is not None and chosen.id != shown
        moved = query is not self._query
        if chosen is not None:
            chosen = self.logic.measured(chosen)
        self._query, self.result = query, chosen
        if chosen is None:
            self.ui.resultFrame.setVisible(False)
            if moved and query is not None and not self._settled:
                self.logic.showVolume(query)
                self.status.show("")
        else:
            if new:
                self._bring(chosen)
            self._fill(chosen, results)
        self._settled = False

    def settle(self) -> None:
        """The next refresh shows what is there: the scene has its own views."""
        self._settled = True

    def _bring(self, result: Result) -> None:
        """Another result: slices, 3D, status line and buttons change together."""
        self.ui.refinedRadio.setChecked(True)
        self.ui.showUncertaintyCheckBox.setChecked(False)
        self.status.show(sentence_of(result), kind_of(result))
        self.table.select([])
        if self._settled:
            self._in_3d = is_in_3d(result)
            return
        self.logic.showResult(result, "refined")
        self.logic.goTo(result)
        self._in_3d = self._in_3d and has_3d_view()
        if self._in_3d:
            self.logic.show3D(result, True)

    def _fill(self, result: Result, results: Sequence[Result]) -> None:
        """The list of results, and the table of this one."""
        self.ui.resultFrame.setVisible(True)
        names = {row.id: row.name for row in self.logic.adapters()}
        named = self._query is None
        entries = [(r.id, result_text(r, names.get(r.adapter_id, ""), named)) for r in results]
        fill_combo(self.ui.resultCombo, entries, result.id, RESULT_LETTERS)
        busy = busy_text(self.logic)
        gate(self.ui.deleteResultButton, busy, _("Delete this result from the scene."))
        self.table.fill(
            [row.name for row in result.rows], [result_cells(row) for row in result.rows]
        )
        self.show_remarks()
        self._refresh_controls(result)

    def show_remarks(self) -> None:
        """In full what is said of the selected structure; of all where none is selected."""
        if self.result is not None:
            lines = remarks(self.result, self.table.selected()).splitlines()
            more = len(lines) - MOST_SENTENCES
            if more > 0 and not self.table.selected():
                del lines[MOST_SENTENCES:]
                lines.append(_("{count} more: click a structure.").format(count=more))
            self.hint.show("\n".join(lines), "warning")

    def _refresh_controls(self, result: Result) -> None:
        ui = self.ui
        alive = "" if result.segmentation is not None else _("The result's node was deleted.")
        changed = alive or (
            "" if result.unrefined is not None else _("The adjustment was off, or changed nothing.")
        )
        busy = busy_text(self.logic)
        gate(
            ui.correctButton,
            alive or busy,
            _("Draw on this result over its volume, in Segment Editor."),
        )
        gate(
            ui.acceptButton,
            alive or busy,
            _(
                "Add this volume and its result to the annotated volumes (the support set). Look "
                "at it first, and correct it: whatever is wrong is learned, too."
            ),
        )
        gate(ui.refinedRadio, alive, _("The result, adjusted to the expected volumes (refined)."))
        gate(ui.unrefinedRadio, changed, _("The result before it was adjusted (unrefined)."))
        gate(
            ui.showUncertaintyCheckBox,
            "" if result.uncertainty is not None else _("Tick Uncertainty map, and segment again."),
            _("Show over the image where the result is unsure."),
        )
        for control, tip in (
            (ui.outlineCheckBox, _("Contours in the slice views")),
            (ui.fillCheckBox, _("Fill in the slice views")),
            (ui.show3DButton, _("Surfaces in the 3D view, in the box of the volume")),
        ):
            gate(control, alive, tip)
        display = result.segmentation.GetDisplayNode() if result.segmentation else None
        if display is not None:
            ui.outlineCheckBox.setChecked(bool(display.GetVisibility2DOutline()))
            ui.fillCheckBox.setChecked(bool(display.GetVisibility2DFill()))
        ui.show3DButton.setChecked(self._in_3d)

    def on_choice(self, _index: int = 0) -> None:
        """Another result of this query; the others are hidden."""
        chosen = current_id(self.ui.resultCombo)
        found = [result for result in self.logic.results() if result.id == chosen]
        if found and self.result is not None and chosen != self.result.id:
            with reporting():
                self.result = found[0]
                self._bring(found[0])
                self.refresh(self._query)

    def on_row(self, row: int, column: int = 0) -> None:
        """A click on a structure brings it into the slice views, and what is said of it here; on
        its mark, the place that this is about."""
        if self.result is not None and row < len(self.result.rows):
            with reporting():
                self.logic.goTo(self.result, self.result.rows[row].name, column == REMARK)
            self.show_remarks()

    def _what(self) -> Literal["refined", "unrefined"]:
        return "unrefined" if self.ui.unrefinedRadio.checked else "refined"

    def on_correct(self) -> None:
        """Draw on what is shown of this result."""
        if self.result is not None:
            unrefined = self._what() == "unrefined" and self.result.unrefined is not None
            node = self.result.unrefined if unrefined else self.result.segmentation
            with reporting():
                self.logic.goTo(self.result)
                open_segment_editor(self.result.query, node)

    def on_accept(self) -> None:
        """Add what is shown of this result to the annotated volumes, and train again."""
        if self.result is None:
            return
        with reporting():
            self.logic.acceptResult(self.result, self._what())
            self.accepted()
            if self.ui.trainAgainCheckBox.checked:
                self.logic.startTraining(goOn=True)

    def on_delete(self) -> None:
        """Delete after asking; the next newest takes its place."""
        if self.result is None:
            return
        name = self.result.segmentation.GetName()
        question = _("Delete the result {name} from the scene?").format(name=name)
        if agree(question, _("Delete a result")):
            with reporting():
                self.logic.deleteResult(self.result)
                self.refresh(self._query)

    def on_kind(self) -> None:
        """Refined or unrefined."""
        if self.result is not None:
            with reporting():
                self.logic.showResult(self.result, self._what())

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
        self._in_3d = self.ui.show3DButton.checked
        if self.result is not None:
            with reporting():
                self.logic.show3D(self.result, self._in_3d)


def result_text(result: Result, adapter: str, named: bool) -> str:
    """One line for the list. ``named``: with the volume, where there are results of several."""
    name = result.segmentation.GetName() if named else ""
    parts = [result.created.replace("T", " ")[5:16], name, adapter]
    return ", ".join(part for part in parts if part) or result.segmentation.GetName()


def remarks(result: Result, names: Collection[str] = ()) -> str:
    """All that should be looked at, the worst first: cells of the table are short.

    Args:
        names: of the structures that are asked for, in full; empty for all, and the result as a
            whole.
    """
    rows = [row for row in result.rows if (row.name in names if names else needs_look(row))]
    rows.sort(key=lambda row: VERDICTS.index(row.trust.verdict))
    notes = [line for row in rows for line in sentences_of(row, not names).splitlines()]
    return "\n".join(dict.fromkeys([*notes, *(() if names else result.warnings)]))


def result_cells(row: ResultRow) -> tuple[Cell, ...]:
    """One structure's volume against what was expected, and a place for what is to be looked at."""
    volume = ml_text(row.volume_ml)
    before = _("Before it was adjusted: {volume} ml").format(volume=ml_text(row.unrefined_ml))
    expected, tip = "–", _("No expected volume was used.")
    if row.prior is not None and row.prior.enabled:
        expected = range_text(row.prior.lower_ml, row.prior.upper_ml, "–")
        tip = _("Mean of the annotated volumes: {mean} ml").format(mean=ml_text(row.prior.mean_ml))
    judged = judgement_of(row)
    name = _("{name}\nClick to see it in the slice views.").format(name=row.name)
    return (
        Cell(row.name, _lines(name, judged), color=row.color),
        Cell(volume, _lines(before, judged), bold=bool(out_of_range(row)) or needs_look(row)),
        Cell(expected, _lines(tip, judged)),
        _remark(row, judged),
    )


def _remark(row: ResultRow, judged: str) -> Cell:
    """The verdict as a mark and in words, which are never cut, and what else stands out."""
    flags, mark = flags_of(row), mark_of(row)
    # Beside a verdict to be acted on there is no place for more; it is in the tooltip and below.
    acted = row.trust.verdict in (LOOK, UNUSABLE) and row.volume_ml > 0
    text = verdict_text(mark) if acted or (mark == FINE and not flags) else "; ".join(flags)
    warn = mark == UNKNOWN and needs_look(row)
    place = _("Click to go to the place.") if row.trust.place is not None else ""
    return Cell(
        text,
        _lines(*flags, judged, notes_of(row), place),
        mark=MARKS.get(mark),
        icon=qt.QStyle.SP_MessageBoxWarning if warn else None,
    )


def _lines(*texts: str) -> str:
    """The lines of a tooltip, none of them twice."""
    return "\n".join(dict.fromkeys(text for text in texts if text))
