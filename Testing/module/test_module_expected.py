"""What Dice to expect of an adapter, on the panel: it comes after the adapter itself."""

from __future__ import annotations

import slicer_world  # noqa: F401 before qt, which it puts in place

# isort: split
import unittest
from typing import Any

from FewShotSegSlicer.interface.rows import AdapterRow, End, Progress
from FewShotSegSlicer.jobs.control import PlainRun
from FewShotSegSlicer.jobs.process import Ended
from FewShotSegSlicer.jobs.task import Task
from FewShotSegSlicer.panel.adapters import adapter_cells
from panel_case import PanelTestCase, choose_row, settle
from process_case import ProcessTestCase

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import DevicesJob


class MeasuringTest(ProcessTestCase):
    """Over the real background process."""

    def test_it_is_in_the_list_once_it_is_measured(self) -> None:
        adapter = self.logic.train(epochs=4)
        (row,) = self.logic.adapters()
        self.assertEqual((row.id, row.metadata["expected"]["status"]), (adapter, "measured"))
        self.assertRegex(adapter_cells(row, {})[1].text, r"^bean \d\.\d\d, pea \d\.\d\d$")
        self.assertIn("bean: expect a Dice of about", adapter_cells(row, {})[0].tip)
        self.assertRegex(self.logic.lastEnd().message, r"Dice to expect on a new volume: bean \d")
        (first,) = (n for n in self.notices if isinstance(n, End))
        self.assertEqual(first.adapter_id, adapter)

    def test_the_adapter_is_there_before_and_stays_when_that_is_stopped(self) -> None:
        seen: list[Any] = []

        def stop(notice: Any) -> None:
            if isinstance(notice, Progress) and notice.phase == "validate" and not seen:
                seen.extend(self.logic.adapters())
                self.logic.cancel()

        self.logic.listen(stop)
        self.start(epochs=4)
        end = self.assert_idle()
        self.assertEqual(end.state, "cancelled")
        self.assertIn("The adapter is complete", end.message)
        (row,) = self.logic.adapters()
        self.assertEqual([r.id for r in seen], [row.id])
        self.assertEqual(row.metadata["expected"]["status"], "unfinished")
        self.assertEqual(self.logic.getParameterNode().adapterId, row.id)

    def test_one_support_says_why_it_is_not_known(self) -> None:
        self.logic.removeSupport(self.logic.supports()[1].id)
        self.logic.train(epochs=1)
        (row,) = self.logic.adapters()
        cells = adapter_cells(row, {})
        self.assertEqual(cells[1].text, "bean, pea")
        self.assertIn("one annotated volume can't tell", cells[0].tip)


class RoundsTest(PanelTestCase):
    """The plot of the Dice to expect against the number of annotated volumes."""

    def row(self, number: int, supports: int, dice: float, **change: Any) -> AdapterRow:
        expected = {
            "status": "measured",
            **{"folds": 2, "epochs": 20, "transductive": False},
            "structures": {"pouch": {"dice": [dice, dice]}},
        }
        metadata = {
            "structures": [{"name": "pouch", "value": 1, "color": [1.0, 0.0, 0.0]}],
            "supports": [{"content": str(n)} for n in range(supports)],
            "training": {},
            "expected": expected,
        }
        usual = {"method": "adapter", "model_id": "small", "modality": "CT"}
        given = usual | change
        return AdapterRow(f"a{number}", f"a{number}", ("pouch",), metadata=metadata, **given)

    def show(self, *rows: AdapterRow) -> Any:
        self.logic.adapter_rows = list(rows)
        self.logic.changed("adapters")
        self.ui.advancedSection.collapsed = self.ui.adapterSection.collapsed = False
        settle()
        return self.panel.adapters.rounds

    def test_trainings_of_one_kind_are_one_line(self) -> None:
        plot = self.show(self.row(0, 2, 0.5))
        self.assertFalse(plot.visible, "one point is no curve")
        other = self.row(1, 4, 0.9, method="lora")
        plot = self.show(self.row(0, 2, 0.5), other, self.row(2, 3, 0.6))
        self.assertTrue(plot.visible)
        self.assertEqual(plot.curves, {"pouch": [(2, 0.55), (3, 0.64)]})
        self.assertIn("from 0.55 with 2 to 0.64 with 3", plot.toolTip)
        (left, low), (right, high) = plot.pixels("pouch", 300, 110)
        self.assertLess(left, right)
        self.assertGreater(low, high, "more is higher")
        image = plot.grab().toImage()
        red = [
            (x, y)
            for x in range(image.width())
            for y in range(image.height())
            if image.pixelColor(x, y).red() > 200 and image.pixelColor(x, y).green() < 60
        ]
        self.assertGreater(len(red), 20, "drawn in the structure's colour")
        choose_row(self.ui.adaptersTable, 1)
        self.assertFalse(plot.visible, "the only one of its kind")


class WordsTest(unittest.TestCase):
    """Without a process."""

    def row(self, metadata: dict[str, Any]) -> AdapterRow:
        return AdapterRow("a0", "first", ("pouch",), "adapter", "small", "CT", metadata=metadata)

    def test_an_adapter_of_before_says_so(self) -> None:
        cells = adapter_cells(self.row({}), {})
        self.assertEqual(cells[1].text, "pouch")
        self.assertIn("before this was measured", cells[0].tip)

    def test_a_measured_one(self) -> None:
        expected = {
            "status": "measured",
            **{"folds": 3, "epochs": 20, "transductive": False},
            "structures": {"pouch": {"dice": [0.55, 0.77, 0.69]}},
        }
        cells = adapter_cells(self.row({"expected": expected}), {})
        self.assertEqual(cells[1].text, "pouch 0.70")
        self.assertIn("0.55 to 0.77 on these 3", cells[0].tip)

    def test_a_crash_while_it_is_measured_tells_that_the_adapter_is_there(self) -> None:
        for kept in ("", "The adapter is there."):
            with self.subTest(kept):
                notices: list[Any] = []
                run = PlainRun("train", DevicesJob(), lambda: End("train", "finished", ""))
                run.kept = lambda kept=kept: kept
                task = Task(run, notices.append)
                task._on_process_end(Ended("crashed"))
                (end,) = (n for n in notices if isinstance(n, End))
                self.assertEqual(end.state, "crashed")
                self.assertEqual("Nothing of the scene was changed" in end.message, not kept)
                self.assertTrue(end.message.endswith(kept or "."), end.message)

    def test_an_adapter_that_can_not_be_taken_yet_comes_with_the_rest(self) -> None:
        notices: list[Any] = []
        run = PlainRun("train", DevicesJob(), lambda: End("train", "finished", ""))

        def refuse(folder: Any) -> None:
            raise InputError("It is damaged.")

        run.take = refuse
        task = Task(run, notices.append)
        task._on_event({"event": "result", "kind": "adapter", "path": "x"})
        self.assertEqual(notices, ["It is damaged."])


if __name__ == "__main__":
    unittest.main()
