"""Each structure of a result has a mark, its verdict in words, and the reasons in full."""

from __future__ import annotations

import unittest
from dataclasses import replace
from typing import Any

from panel_case import PanelTestCase, choose_row, settle, texts

if True:  # after the world is there
    import slicer
    from FewShotSegSlicer.interface.rows import ResultRow, TrustRow
    from FewShotSegSlicer.panel.results import MARKS, REMARK
    from FewShotSegSlicer.scene.verdict import sentence_of
    from mock_rows import make_result

    from FewShotSegLib.core.trust import FINE, LOOK, UNUSABLE

REASONS = (
    "adapters that each lacked some of the annotated volumes find something else (their Dice with "
    "it is 0.41)",
    "its volume is 0.55 times that in the annotated volumes",
)
GOOD = TrustRow(FINE, (), 0.87, 0.8, 0.93)
DOUBTFUL = TrustRow(LOOK, REASONS, 0.6, 0.4, 0.8)
USELESS = replace(DOUBTFUL, verdict=UNUSABLE)


class VerdictTest(PanelTestCase):
    """A result of one structure over a mock of the logic."""

    def setUp(self) -> None:
        super().setUp()
        self.volumes = self.add_volumes(4)
        self.logic.fill(self.volumes[:3])
        self.logic.parameters.queryVolume = self.volumes[3]
        self.logic.changed()
        settle()
        self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Found")
        self.node.CreateDefaultDisplayNodes()
        self.shown = 0

    def show(self, trust: TrustRow, **change: Any) -> ResultRow:
        """Segment; the structure is as expected, but for what is changed."""
        self.shown += 1
        whole = make_result(self.volumes[3], self.node, result_id=f"r{self.shown}")
        usual = {"volume_ml": 25.0, "unrefined_ml": change.get("volume_ml", 25.0)}
        row = replace(whole.rows[0], trust=trust, **(usual | change))
        result = replace(whole, rows=(row,))
        self.ui.segmentButton.click()
        self.logic.result_rows = [result]
        self.logic.finish("finished", sentence_of(result), result=result)
        settle()
        return row

    def said(self) -> str:
        return texts(self.ui.resultsTable)[0][REMARK]

    def mark(self) -> tuple[float, ...] | None:
        """The colour of the disc beside the remark; None where there is no picture."""
        icon = self.ui.resultsTable.item(0, REMARK).icon()
        if icon.isNull():
            return None
        image = icon.pixmap(14, 14).toImage()
        self.assertEqual(image.pixelColor(0, 0).alpha(), 0, "round")
        found = image.pixelColor(7, 7)
        return tuple(round(v / 255, 2) for v in (found.red(), found.green(), found.blue()))

    def assert_shown(self, text: str, verdict: str, kind: str) -> None:
        self.assertEqual(self.said(), text)
        self.assertEqual(self.mark(), MARKS[verdict])
        self.assertEqual(self.panel.segment.status.kind, kind)

    def test_fine(self) -> None:
        self.show(GOOD)
        self.assert_shown("fine", FINE, "done")
        tip = self.ui.resultsTable.item(0, REMARK).toolTip()
        self.assertIn("Expected Dice: 0.87 (0.80 to 0.93, 4 times in 5)", tip)
        self.assertEqual(self.ui.resultHint.text, "")

    def test_fine_is_not_said_beside_something_else_to_look_at(self) -> None:
        self.show(GOOD, unrefined_ml=38.0)
        self.assert_shown("was 38.0 ml", LOOK, "warning")
        self.show(GOOD, volume_ml=17.0)  # which it misses by a hair
        self.assert_shown("slightly small", FINE, "done")

    def test_to_be_looked_at_and_not_to_be_used(self) -> None:
        for trust, sentence in ((DOUBTFUL, "Look at"), (USELESS, "Do not use")):
            with self.subTest(trust.verdict):
                self.show(trust, volume_ml=40.0, within=False)
                self.assert_shown(trust.verdict, trust.verdict, "warning")
                self.assertIn(f"{sentence}: gland_right.", self.ui.segmentStatus.text)
                for column in range(self.ui.resultsTable.columnCount):
                    tip = self.ui.resultsTable.item(0, column).toolTip().splitlines()
                    for reason in REASONS:
                        self.assertIn(f"- {reason}", tip)
                brief = f"gland_right: {trust.verdict}: {REASONS[0]}."
                self.assertEqual(self.ui.resultHint.text.splitlines()[0], brief)
                self.assertIn("40.0 ml is more than", self.ui.resultHint.text)

    def test_the_worst_is_said_first_and_a_click_says_all(self) -> None:
        row = self.show(DOUBTFUL)
        [whole] = self.logic.result_rows
        rows = (row, replace(row, name="pouch", trust=USELESS))
        self.logic.result_rows = [replace(whole, rows=rows)]
        self.logic.changed()
        settle()
        said = [f"pouch: do not use: {REASONS[0]}.", f"gland_right: look at this: {REASONS[0]}."]
        self.assertEqual(self.ui.resultHint.text.splitlines(), said)
        choose_row(self.ui.resultsTable, 1)
        self.ui.resultsTable.cellClicked.emit(1, 0)
        full = f"pouch: do not use: {REASONS[0]}; {REASONS[1]}. Expected Dice: 0.60"
        self.assertIn(full, self.ui.resultHint.text)

    def test_a_click_on_the_mark_goes_to_the_place_that_it_is_about(self) -> None:
        row = self.show(replace(DOUBTFUL, place=(1.0, 2.0, 3.0)))
        tip = self.ui.resultsTable.item(0, REMARK).toolTip()
        self.assertIn("Click to go to the place.", tip)
        self.ui.resultsTable.cellClicked.emit(0, REMARK)
        self.assertEqual(self.logic.calls[-1], ("goTo", "r1", row.name, "flagged"))
        self.ui.resultsTable.cellClicked.emit(0, 0)
        self.assertEqual(self.logic.calls[-1], ("goTo", "r1", row.name))

    def test_the_words_are_never_cut(self) -> None:
        self.panel.parent.resize(400, 728)
        table = self.ui.resultsTable
        for trust in (DOUBTFUL, USELESS):
            self.show(trust, name="a_structure_with_a_long_name_that_needs_the_place")
            needed = table.fontMetrics().boundingRect(self.said()).width() + 20
            self.assertLessEqual(needed, table.columnWidth(REMARK))

    def test_nothing_found(self) -> None:
        self.show(replace(USELESS, reasons=("nothing was found",), dice=None), volume_ml=0.0)
        self.assert_shown("not found", UNUSABLE, "warning")
        self.assertNotIn("Do not use", self.ui.segmentStatus.text, "it is said to be not found")

    def test_nothing_known(self) -> None:
        self.show(TrustRow())
        self.assertEqual((self.said(), self.mark()), ("", None))
        self.assertEqual(self.panel.segment.status.kind, "done")
        self.show(TrustRow(), unrefined_ml=38.0)
        warning = self.ui.resultsTable.item(0, REMARK).icon()
        self.assertFalse(warning.isNull(), "as before there were verdicts")


if __name__ == "__main__":
    unittest.main()
