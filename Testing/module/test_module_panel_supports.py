"""The panel over a mock of the logic: the support set and its structures."""

from __future__ import annotations

import unittest
from unittest import mock

from panel_case import PanelTestCase, choose, choose_row, settle, texts, tick, type_into

if True:  # after the world is there
    import slicer
    from FewShotSegSlicer.panel import supports as widget_supports

    from FewShotSegLib.core.errors import InputError


class SupportsTest(PanelTestCase):
    """The support set."""

    def test_add_a_volume(self) -> None:
        first, second = self.add_volumes(2)
        self.ui.volumeSelector.setCurrentNode(second)
        self.ui.addSupportButton.click()
        settle()
        self.assertIn(("addSupport", second, None), self.logic.calls)
        self.assertEqual(texts(self.ui.supportsTable)[0][0], "CT 2")
        self.assertTrue(self.ui.showSupportButton.enabled, "the new row is selected")

    def test_the_volume_on_screen_is_offered(self) -> None:
        first, second = self.add_volumes(2)
        slicer.util.setSliceViewerLayers(background=second)
        self.logic.parameters.queryVolume = first
        self.panel.enter()
        self.assertIs(self.ui.volumeSelector.currentNode(), second)
        self.logic.parameters.queryVolume = None
        self.panel.enter()
        self.assertIs(self.logic.parameters.queryVolume, second)
        self.assertIsNot(self.ui.volumeSelector.currentNode(), second, "it is the query")

    def test_a_support_on_screen_is_not_offered_as_query(self) -> None:
        (volume,) = self.add_volumes(1)
        slicer.util.setSliceViewerLayers(background=volume)
        self.logic.fill([volume])
        self.panel.enter()
        self.assertIsNone(self.logic.parameters.queryVolume)

    def test_tick_show_edit_remove(self) -> None:
        self.logic.fill(self.add_volumes(3))
        self.logic.changed()
        settle()
        tick(self.ui.supportsTable, 1, 0, False)
        self.assertIn(("tickSupport", "s1", False), self.logic.calls)
        choose_row(self.ui.supportsTable, 2)
        self.ui.showSupportButton.click()
        self.assertIn(("showSupport", "s2"), self.logic.calls)
        with mock.patch.object(widget_supports, "open_segment_editor") as opened:
            self.ui.editSupportButton.click()
        self.assertEqual(self.logic.calls[-2:], [("prepareEditing", "s2"), ("showSupport", "s2")])
        opened.assert_called_once()
        choose_row(self.ui.supportsTable, 0, 2)
        self.assert_gated(self.ui.showSupportButton, "one row alone")
        self.ui.removeSupportButton.click()
        settle()
        self.assertEqual([row[0] for row in texts(self.ui.supportsTable)], ["CT 2"])

    def test_slices_that_were_drawn_on(self) -> None:
        """A tick, and where it is set which slices they are."""
        parameters, combo = self.logic.parameters, self.ui.drawnPlaneCombo
        self.assertEqual(
            self.ui.drawnSlicesCheckBox.property("SlicerParameterName"), "onlyDrawnSlices"
        )
        self.panel.refresh()
        self.assertFalse(combo.isVisible())
        parameters.onlyDrawnSlices = True
        self.panel.refresh()
        self.assertTrue(combo.isVisible())
        self.assertEqual(combo.currentData, "auto")
        choose(combo, "sagittal")
        self.assertEqual(parameters.drawnPlane, "sagittal")
        parameters.drawnPlane = "axial"
        self.panel.refresh()
        self.assertEqual(combo.currentData, "axial")

    def test_sample_data_on_their_way_are_shown(self) -> None:
        ui = self.ui
        self.assertFalse(ui.phantomsTask.visible)
        self.logic.startPhantoms("/x")
        settle()
        self.assertTrue(ui.phantomsTask.visible)
        self.assert_gated(ui.addFolderButton, "has ended")
        self.logic.go_on(0.5, "Making patients, 50%")
        self.assertEqual(ui.phantomsProgress.value, 500)
        self.assertEqual(ui.phantomsStatus.text, "Making patients, 50%")
        ui.cancelPhantomsButton.click()
        self.assertIn("cancel", self.names_called())
        self.logic.finish("cancelled", "Stopped.")
        settle()
        self.assertFalse(ui.phantomsTask.visible)

    def test_a_folder(self) -> None:
        with mock.patch.object(widget_supports, "choose_folder", return_value="/data"):
            self.ui.addFolderButton.click()
        self.assertIn(("addFolder", "/data"), self.logic.calls)

    def test_a_refusal_is_one_sentence(self) -> None:
        self.ui.volumeSelector.setCurrentNode(self.add_volumes(1)[0])
        self.logic.error = InputError("This volume is in the table already.")
        with mock.patch.object(slicer.util, "errorDisplay") as shown:
            self.ui.addSupportButton.click()
        self.assertEqual(shown.call_args.args, ("This volume is in the table already.",))

    def test_a_fault_of_the_module_is_reported_with_its_trace(self) -> None:
        self.ui.volumeSelector.setCurrentNode(self.add_volumes(1)[0])
        self.logic.error = KeyError("x")
        with mock.patch.object(slicer.util, "errorDisplay") as shown:
            self.ui.addSupportButton.click()
        self.assertIn("Traceback", shown.call_args.kwargs["detailedText"])


class StructuresTest(PanelTestCase):
    """Classes and priors."""

    def setUp(self) -> None:
        super().setUp()
        self.logic.fill(self.add_volumes(3))
        self.logic.changed()
        settle()
        self.table = self.ui.structuresTable

    def test_what_is_shown(self) -> None:
        self.assertEqual(
            texts(self.table)[0], ["", "gland_right", "3 / 3", "24.5", "2.25", "30 %", ""]
        )
        self.assertIn("CT 1: gland_right", self.table.item(0, 2).toolTip())
        self.assertIn("17.2 to 31.9 ml", self.table.item(0, 5).toolTip())

    def test_editing_the_prior(self) -> None:
        for column, text, expected in (
            (3, "30,5 ml", {"mean_ml": 30.5}),
            (4, "3", {"sd_ml": 3.0}),
            (5, "40 %", {"gamma": 0.4}),
        ):
            type_into(self.table, 0, column, text)
            self.assertEqual(self.logic.calls[-1], ("setPrior", "c0", expected))
        tick(self.table, 0, 6, False)
        self.assertEqual(self.logic.calls[-1], ("setPrior", "c0", {"enabled": False}))
        self.assertTrue(self.table.item(0, 3).font().bold(), "typed values stand out")

    def test_nonsense_leaves_the_cell_as_it_was(self) -> None:
        for text in ("", "many", "-3", "0", "nan", "inf"):
            type_into(self.table, 0, 3, text)
            self.assertNotIn("setPrior", self.names_called(), text)
            self.assertEqual(self.table.item(0, 3).text(), "24.5")

    def test_names_colours_ticks(self) -> None:
        type_into(self.table, 1, 1, "bladder")
        self.assertIn(("renameStructure", "c1", "bladder"), self.logic.calls)
        type_into(self.table, 1, 1, "  ")
        self.assertEqual(self.table.item(1, 1).text(), "bladder")
        tick(self.table, 0, 0, False)
        self.assertIn(("tickStructure", "c0", False), self.logic.calls)
        with mock.patch(
            "FewShotSegSlicer.panel.structures.choose_color", return_value=(1.0, 0.0, 0.0)
        ):
            self.panel.structures.on_double_click(0, 0)
        self.assertEqual(self.logic.calls[-1], ("colorStructure", "c0", (1.0, 0.0, 0.0)))

    def test_merge_split_reset_add(self) -> None:
        choose_row(self.table, 0, 1)
        self.ui.mergeButton.click()
        settle()
        self.assertIn(("mergeStructures", ["c0", "c1"]), self.logic.calls)
        self.assertEqual(self.table.rowCount, 1)
        self.ui.splitButton.click()
        self.ui.resetPriorButton.click()
        self.assertEqual(self.logic.calls[-2:], [("splitStructure", "c0"), ("resetPrior", "c0")])
        self.ui.addStructureButton.click()
        self.assertEqual(self.logic.calls[-1], ("addStructure", "Structure 1"))


if __name__ == "__main__":
    unittest.main()
