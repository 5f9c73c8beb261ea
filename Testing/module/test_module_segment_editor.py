"""«Segment Editor» on a row of the support set: from the panel's button to the editor."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import unittest
from unittest import mock

import qt
import slicer
from FewShotSegSlicer.scene.views import volume_on_screen
from module_scenes import add_patient
from panel_case import choose_row, settle
from walk_case import WalkTestCase


class SegmentEditorTest(WalkTestCase):
    """The real Segment Editor in Slicer, a double of its two setters elsewhere."""

    def setUp(self) -> None:
        super().setUp()
        if slicer_world.REAL:
            if slicer.util.mainWindow() is None:
                self.skipTest("Slicer was started without a main window")
            before = slicer.util.selectedModule()
            self.addCleanup(slicer.util.selectModule, before)
        else:
            import segment_editor

            self.addCleanup(segment_editor.install())
        self.volume, self.segmentation = add_patient(0, "CT 1")
        self.other, nothing = add_patient(1, "CT 2")
        slicer.mrmlScene.RemoveNode(nothing)
        self.way.add_support(self.volume, self.segmentation)
        self.way.add_support(self.other, None)

    def press(self, row: int) -> object:
        """Select a row of the table, and press the button; the editor."""
        choose_row(self.ui.supportsTable, row)
        self.assertTrue(self.ui.editSupportButton.enabled, self.ui.editSupportButton.toolTip)
        with mock.patch.object(slicer.util, "errorDisplay") as shown:
            self.ui.editSupportButton.click()
            settle()
        shown.assert_not_called()
        self.assertEqual(slicer.util.selectedModule(), "SegmentEditor")
        return slicer.modules.SegmentEditorWidget.editor

    def test_it_opens_on_the_row_with_every_class_as_a_segment(self) -> None:
        for row, volume in ((0, self.volume), (1, self.other)):
            editor = self.press(row)
            segmentation = self.logic.supports()[row].segmentation
            self.assertIs(editor.segmentationNode(), segmentation)
            self.assertIs(editor.sourceVolumeNode(), volume)
            self.assertIs(volume_on_screen(), volume)
            segments = segmentation.GetSegmentation()
            names = [
                segments.GetNthSegment(n).GetName() for n in range(segments.GetNumberOfSegments())
            ]
            self.assertEqual(names, ["bean", "pea"])

    def test_without_a_window_it_says_so(self) -> None:
        choose_row(self.ui.supportsTable, 0)
        with (
            mock.patch.object(slicer.util, "mainWindow", return_value=None),
            mock.patch.object(slicer.util, "errorDisplay") as shown,
        ):
            self.ui.editSupportButton.click()
        self.assertIn("Segment Editor can't be opened", shown.call_args.args[0])
        self.assertEqual(shown.call_args.kwargs, {"textFormat": qt.Qt.PlainText})


if __name__ == "__main__":
    unittest.main()
