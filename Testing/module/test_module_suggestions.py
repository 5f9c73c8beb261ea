"""What to annotate next, asked from the panel: in the real process, and on the panel."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import unittest
from typing import Any

import numpy as np
import slicer
from FewShotSegSlicer.interface.rows import SuggestionRow
from module_scenes import add_patient, add_volume, affine_of
from panel_case import PanelTestCase, settle, texts
from process_case import ProcessTestCase

from FewShotSegLib.core.errors import InputError


class SuggestTest(ProcessTestCase):
    """The real process on a small model."""

    def setUp(self) -> None:
        super().setUp()
        for seed in (8, 9):
            _volume, drawn = add_patient(seed, f"Query {seed}")
            slicer.mrmlScene.RemoveNode(drawn)

    def names(self) -> list[str]:
        return [row.name for row in self.logic.suggestions()]

    def test_volumes_without_annotation_in_order_with_reasons(self) -> None:
        bad = np.full((8, 8, 8), np.nan, np.float32)
        add_volume(bad, affine_of(), "Broken")
        self.logic.startSuggesting()
        end = self.assert_idle()
        self.assertEqual(end.state, "finished", end)
        self.assertEqual(set(self.names()), {"Query", "Query 8", "Query 9", "Broken"})
        self.assertIn(f"«{self.names()[0]}»", end.message)
        rows = self.logic.suggestions()
        self.assertEqual(rows[-1].name, "Broken")
        self.assertTrue(rows[-1].unusable)
        self.assertIn("Broken", rows[-1].reasons[0], "by its name in the scene")
        for row in rows[:-1]:
            self.assertTrue(row.reasons)
            self.assertNotIn("Dice", " ".join(row.reasons), "nothing was trained yet")
        first = rows[0].volume
        self.logic.train(epochs=1)
        self.logic.startSuggesting()
        self.assertEqual(self.assert_idle().state, "finished")
        self.assertRegex(" ".join(self.logic.suggestions()[0].reasons), "Dice|nothing was found")
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        self.logic.addSupport(first, segmentation)
        self.assertIn(first.GetName(), self.names(), "nothing is drawn on it yet")
        slicer.mrmlScene.RemoveNode(first)
        self.assertNotIn(None, [row.volume for row in self.logic.suggestions()])
        self.assertEqual(len(self.names()), 3)
        slicer_world.clear_scene()
        self.assertEqual(self.names(), [])

    def test_fewer_than_two_are_no_question(self) -> None:
        for volume in self.logic.queries()[1:]:
            slicer.mrmlScene.RemoveNode(volume.volume)
        self.assertIn("two or more", self.logic.blockers("suggest")[0])
        with self.assertRaisesRegex(InputError, "two or more"):
            self.logic.startSuggesting()


class PanelTest(PanelTestCase):
    """The button and the table."""

    def show(self, *rows: SuggestionRow) -> Any:
        self.logic.suggestion_rows = list(rows)
        self.logic.changed("supports")
        settle()
        return self.panel.suggestions

    def test_one_press_and_a_table_of_reasons(self) -> None:
        view = self.show()
        self.assertFalse(view.table.widget.isVisibleTo(view.widget), "nothing to show yet")
        view.button.click()
        self.assertIn(("startSuggesting",), self.logic.calls)
        (volume, other) = self.add_volumes(2)
        view = self.show(
            SuggestionRow("v1", volume, "CT 1", ("the most typical of these 2 volumes",)),
            SuggestionRow("v2", other, "CT 2", ("It is damaged.",), unusable=True),
        )
        self.assertTrue(view.table.widget.isVisibleTo(view.widget))
        self.assertEqual(
            texts(view.table.widget),
            [["CT 1", "the most typical of these 2 volumes"], ["CT 2", "It is damaged."]],
        )
        view.table.widget.cellClicked.emit(1, 0)
        settle()
        self.assertIn(("showVolume", other), self.logic.calls)
        self.assertIs(self.ui.volumeSelector.currentNode(), other)
        self.assertEqual(view.status.text, "CT 2: It is damaged.")

    def test_progress_and_end_are_shown_here(self) -> None:
        view = self.show()
        self.logic.task = "suggest"
        self.logic.go_on(0.4, "Comparing the volumes")
        settle()
        self.assertTrue(view.task.bar.isVisibleTo(view.widget))
        self.assertIn("Comparing", view.status.text)
        self.assert_gated(view.button, "running task")
        self.logic.finish(message="Annotate «CT 1» next.")
        settle()
        self.assertFalse(view.task.bar.isVisibleTo(view.widget))
        self.assertEqual(view.status.text, "Annotate «CT 1» next.")


if __name__ == "__main__":
    unittest.main()
