"""The panel over a mock of the logic: training, segmenting, and the result."""

from __future__ import annotations

import unittest
from dataclasses import replace
from typing import Any
from unittest import mock

from panel_case import PanelTestCase, choose, choose_row, settle, texts, type_into

if True:  # after the world is there
    import slicer
    from FewShotSegSlicer.interface.rows import AdapterRow
    from FewShotSegSlicer.panel.tools import current_id
    from mock_rows import make_result

    from FewShotSegLib.core.errors import InputError


class TrainTest(PanelTestCase):
    """Training, from the button to the list."""

    def setUp(self) -> None:
        super().setUp()
        self.volumes = self.add_volumes(4)
        self.logic.fill(self.volumes[:3])
        self.logic.changed()
        settle()

    def test_it_is_watched_and_stopped(self) -> None:
        self.assertFalse(self.ui.cancelTrainButton.visible)
        self.ui.trainButton.click()
        settle()
        self.assertTrue(self.ui.cancelTrainButton.visible)
        self.assert_gated(self.ui.trainButton, "running already")
        self.assert_gated(self.ui.segmentButton, "running already")
        self.assert_gated(self.ui.removeSupportButton, "has ended")
        for number in (1, 2, 3):
            self.logic.epoch(number, 10, 1.0 / number)
        self.logic.go_on(0.3, "Training, epoch 3 of 10", remaining_seconds=21.0)
        self.assertEqual(self.ui.trainProgress.value, 300)
        self.assertEqual(self.ui.trainStatus.text, "Training, epoch 3 of 10, about 20 s left")
        plot = self.panel.adapters.plot
        self.ui.advancedSection.collapsed = self.ui.adapterSection.collapsed = False
        self.assertTrue(plot.visible)
        heights = [y for _x, y in plot.curve(400, 120)]
        self.assertEqual(heights, sorted(heights), "a falling loss goes down")
        self.ui.cancelTrainButton.click()
        self.assertIn("cancel", self.names_called())
        self.assert_gated(self.ui.cancelTrainButton, "Stopping")
        self.logic.finish("cancelled", "Training was stopped. Nothing was changed.")
        settle()
        self.assertFalse(self.ui.cancelTrainButton.visible)
        self.assertTrue(self.ui.trainButton.enabled)
        self.assertIn("was stopped", self.ui.trainStatus.text)

    def test_what_is_done_folds_and_what_comes_next_opens(self) -> None:
        ui = self.ui
        steps = (ui.supportsSection, ui.trainSection, ui.segmentSection)

        def folded() -> list[bool]:
            settle()
            return [section.collapsed for section in steps]

        self.assertEqual(folded(), [False, False, True])
        ui.trainButton.click()
        self.assertEqual(folded(), [True, False, True])
        self.logic.finish("failed", "No memory.")
        self.assertEqual(folded(), [True, False, True])
        ui.supportsSection.collapsed = False
        self.logic.changed()
        self.assertEqual(folded(), [False, False, True], "what a person opened stays open")
        ui.trainButton.click()
        self.logic.adapter_rows = [AdapterRow("a0", "x", ("pouch",), supports=("1", "2", "3"))]
        self.logic.parameters.adapterId = "a0"
        self.logic.finish("finished", "Trained.", adapter_id="a0")
        self.assertEqual(folded(), [True, False, False])
        self.assertEqual(ui.trainSection.text, "2  Train: learned from 3 volumes")
        self.logic.parameters.queryVolume = self.volumes[3]
        self.panel.refresh()
        ui.segmentButton.click()
        self.logic.finish("finished", "Segmented.")
        self.assertEqual(folded(), [True, True, False])

    def test_silence_is_reported(self) -> None:
        self.ui.trainButton.click()
        self.logic.go_on(0.3, "Training", silent_seconds=44.0)
        self.assertIn("nothing heard for 45 s", self.ui.trainStatus.text)

    def test_every_end_is_reported_and_leaves_the_panel_idle(self) -> None:
        for state in ("finished", "cancelled", "failed", "crashed", "not started"):
            with self.subTest(state):
                self.ui.trainButton.click()
                settle()
                self.logic.finish(state, f"It ended: {state}.")
                settle()
                self.assertEqual(self.ui.trainStatus.text, f"It ended: {state}.")
                self.assertTrue(self.ui.trainButton.enabled)
                self.assertFalse(self.ui.trainProgress.visible)

    def test_the_list(self) -> None:
        row = AdapterRow("a0", "first", ("pouch",), "adapter", "small", "CT", ("CT 1 (24 ml)",))
        self.logic.adapter_rows = [row]
        self.logic.changed("adapters")
        settle()
        table = self.ui.adaptersTable
        self.assertEqual(texts(table)[0][:3], ["first", "pouch", "1"])
        self.assertIn("CT 1 (24 ml)", table.item(0, 0).toolTip())
        type_into(table, 0, 0, "second")
        self.assertIn(("renameAdapter", "a0", "second"), self.logic.calls)
        choose_row(table, 0)
        with mock.patch("FewShotSegSlicer.panel.adapters.save_file", return_value="/x.fseft"):
            self.ui.saveAdapterButton.click()
        self.assertIn(("saveAdapter", "a0", "/x.fseft"), self.logic.calls)
        with mock.patch("FewShotSegSlicer.panel.adapters.open_file", return_value="/y.fseft"):
            self.ui.loadAdapterButton.click()
        self.assertIn(("loadAdapter", "/y.fseft"), self.logic.calls)
        choose_row(table, 0)
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=False):
            self.ui.deleteAdapterButton.click()
        self.assertNotIn("deleteAdapter", self.names_called())
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=True):
            self.ui.deleteAdapterButton.click()
        self.assertIn(("deleteAdapter", "a0"), self.logic.calls)

    def test_the_recommended_method_is_up_front_and_every_other_under_advanced(self) -> None:
        ui, parameters = self.ui, self.logic.parameters
        self.assertEqual(ui.methodLabel.text, "Adapter 3x3x3 (recommended)")
        self.assertTrue(ui.advancedBox.collapsed)
        shown = [ui.methodCombo.itemText(n) for n in range(ui.methodCombo.count)]
        self.assertIn("Linear probe [linear-probe]", shown)
        self.assert_gated(ui.decoderCombo, "leaves the whole model frozen")
        self.assertEqual(ui.epochsSpinBox.text, "60, of the method")
        choose(ui.methodCombo, "lora")
        self.assertEqual(parameters.method, "lora")
        self.panel.refresh()
        self.assertEqual(ui.methodLabel.text, "LoRA (chosen under Advanced)")
        self.assertEqual(ui.methodExplanation.text, "Takes longer.")
        self.assertEqual(ui.epochsSpinBox.text, "70, of the method")
        self.assertEqual(ui.decoderCombo.count, 4)
        choose(ui.decoderCombo, "tuned")
        self.assertEqual(parameters.decoder, "tuned")

    def test_a_decoder_that_another_method_lacks_is_given_up(self) -> None:
        parameters = self.logic.parameters
        parameters.method, parameters.decoder = "lora", "frozen"
        self.panel.refresh()
        choose(self.ui.methodCombo, "scratch")
        self.assertEqual((parameters.method, parameters.decoder), ("scratch", "auto"))

    def test_published_settings_adapt_the_finest_level(self) -> None:
        choose(self.ui.presetCombo, "published")
        self.assertEqual(self.logic.parameters.preset, "published")
        self.panel.refresh()
        self.assertEqual(current_id(self.ui.featuresCombo), "last")
        self.assert_gated(self.ui.featuresCombo, "finest level")
        choose(self.ui.presetCombo, "own")
        self.panel.refresh()
        self.assertEqual(current_id(self.ui.featuresCombo), "multi")
        self.assertTrue(self.ui.featuresCombo.enabled)


class SegmentTest(PanelTestCase):
    """Segmenting, and the result."""

    def setUp(self) -> None:
        super().setUp()
        self.volumes = self.add_volumes(4)
        self.logic.fill(self.volumes[:3])
        self.logic.adapter_rows = [AdapterRow("a0", "first", ("pouch",))]
        self.logic.parameters.queryVolume = self.volumes[3]
        self.logic.parameters.adapterId = "a0"
        self.logic.changed()
        settle()

    def make_segmentation(self) -> object:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.CreateDefaultDisplayNodes()
        return node

    def test_a_support_as_query_is_warned_of(self) -> None:
        self.assertFalse(self.ui.segmentHint.visible)
        self.logic.parameters.queryVolume = self.volumes[0]
        self.logic.changed()
        settle()
        self.assertIn("one of those learned from", self.ui.segmentHint.text)
        self.assertTrue(self.ui.segmentButton.enabled, "a warning, no prohibition")

    def segment(self, **more: Any) -> Any:
        """A result of the query, as if it had just been segmented."""
        self.ui.segmentButton.click()
        settle()
        result = make_result(self.volumes[3], self.make_segmentation(), self.make_segmentation())
        result = replace(result, **more)
        self.logic.result_rows = [result]
        self.logic.finish(message="Segmented in 12 s.", result=result)
        settle()
        return result

    def test_the_result(self) -> None:
        self.assertFalse(self.ui.resultFrame.visible)
        self.ui.segmentButton.click()
        settle()
        self.assertTrue(self.ui.cancelSegmentButton.visible)
        self.logic.finish("cancelled")
        settle()
        result = self.segment()
        self.assertEqual(self.ui.segmentStatus.text, "Segmented in 12 s.")
        shown = texts(self.ui.resultsTable)
        self.assertEqual(shown[0], ["gland_right", "25.1", "17.2–31.9", ""])
        self.assertEqual(shown[1], ["pouch", "48.0", "17.2–31.9", "large"])
        self.assertTrue(self.ui.resultsTable.item(1, 1).font().bold(), "flagged")
        self.assertEqual(self.ui.resultHint.text, "«pouch» is large.")
        self.assertFalse(self.ui.resultsTable.item(0, 1).font().bold())
        self.ui.unrefinedRadio.click()
        self.assertEqual(self.logic.calls[-1], ("showResult", "unrefined"))
        self.ui.refinedRadio.click()
        self.assertEqual(self.logic.calls[-1], ("showResult", "refined"))
        for visible in (False, True):  # it is on from the first
            self.ui.show3DButton.click()
            self.assertEqual(self.logic.calls[-1], ("show3D", visible))
        self.ui.fillCheckBox.click()
        for node in (result.segmentation, result.unrefined):
            self.assertFalse(node.GetDisplayNode().GetVisibility2DFill())
            self.assertTrue(node.GetDisplayNode().GetVisibility2DOutline())
        self.assert_gated(self.ui.showUncertaintyCheckBox, "segment again")

    def test_a_result_comes_into_view_and_a_structure_on_a_click(self) -> None:
        self.segment()
        shown = [("showResult", "refined"), ("goTo", "r0", ""), ("show3D", True)]
        self.assertEqual(self.logic.calls[-3:], shown)
        calls = len(self.logic.calls)
        self.logic.changed()
        settle()
        self.assertEqual(len(self.logic.calls), calls, "a refresh moves nothing")
        table = self.ui.resultsTable
        for row, name, remark in ((0, "gland_right", ""), (1, "pouch", "«pouch» is large.")):
            choose_row(table, row)
            table.cellClicked.emit(row, 0)
            self.assertEqual(self.logic.calls[-1], ("goTo", "r0", name))
            self.assertEqual(self.ui.resultHint.text, remark, "only what is said of this structure")

    def test_a_result_of_a_volume_that_is_no_longer_looked_at_stays_hidden(self) -> None:
        self.ui.segmentButton.click()
        self.logic.parameters.queryVolume = self.volumes[2]
        self.panel.refresh()
        result = make_result(self.volumes[3], self.make_segmentation())
        self.logic.result_rows = [result]
        self.logic.finish(message="«CT 4» is segmented.", result=result)
        settle()
        self.assertFalse(result.segmentation.GetDisplayNode().GetVisibility())
        self.assertEqual(self.ui.segmentStatus.text, "«CT 4» is segmented.")
        self.assertNotIn("goTo", self.names_called())
        self.logic.parameters.queryVolume = self.volumes[3]
        self.panel.refresh()
        self.assertIn(("goTo", "r0", ""), self.logic.calls)

    def test_without_3d_it_stays_so_for_the_next_result(self) -> None:
        self.segment()
        self.ui.show3DButton.click()
        self.logic.calls.clear()
        self.segment(id="r1")
        self.assertFalse(self.ui.show3DButton.checked)
        self.assertNotIn("show3D", self.names_called())

    def test_correct_opens_that_result_over_that_volume(self) -> None:
        result = self.segment()
        with mock.patch("FewShotSegSlicer.panel.results.open_segment_editor") as opened:
            self.ui.correctButton.click()
            opened.assert_called_once_with(self.volumes[3], result.segmentation)
            self.ui.unrefinedRadio.click()
            self.ui.correctButton.click()
            opened.assert_called_with(self.volumes[3], result.unrefined)
        self.assertEqual(self.logic.calls[-1], ("goTo", "r0", ""))

    def test_an_accepted_result_is_trained_on_immediately_or_later(self) -> None:
        self.segment()
        self.assertTrue(self.ui.trainSection.collapsed)
        self.ui.trainAgainCheckBox.click()
        self.ui.acceptButton.click()
        settle()
        self.assertEqual(self.logic.calls[-1], ("acceptResult", "r0", "refined"))
        self.assertFalse(self.ui.trainSection.collapsed, "what comes next is open")
        self.ui.trainAgainCheckBox.click()
        self.ui.unrefinedRadio.click()
        self.ui.acceptButton.click()
        settle()
        self.assertEqual(
            self.logic.calls[-2:],
            [("acceptResult", "r0", "unrefined"), ("startTraining", "goes on")],
        )
        self.assert_gated(self.ui.acceptButton, "has ended")
        self.assert_gated(self.ui.correctButton, "has ended")

    def test_a_refused_result_starts_no_training(self) -> None:
        self.segment()
        self.logic.error = InputError("Nothing is drawn in this result.")
        with mock.patch.object(slicer.util, "errorDisplay") as shown:
            self.ui.acceptButton.click()
        self.assertEqual(shown.call_args.args, ("Nothing is drawn in this result.",))
        self.assertNotIn("startTraining", self.names_called())

    def test_a_volume_with_a_result_is_offered_with_it(self) -> None:
        result = self.segment()
        for number, offered in ((3, result.segmentation), (2, None)):
            self.ui.volumeSelector.setCurrentNode(self.volumes[number])
            self.assertIs(self.ui.segmentationSelector.currentNode(), offered)

    def test_an_adapter_is_to_be_chosen_where_there_are_several(self) -> None:
        combo, section = self.ui.adapterCombo, self.ui.segmentSection
        self.assertFalse(combo.isVisibleTo(section))
        self.logic.adapter_rows = [*self.logic.adapter_rows, AdapterRow("a1", "second", ())]
        self.panel.refresh()
        self.assertTrue(combo.isVisibleTo(section))

    def test_another_query_changes_slices_table_and_status_together(self) -> None:
        self.segment()
        self.logic.calls.clear()
        self.logic.parameters.queryVolume = self.volumes[2]
        self.panel.refresh()
        self.assertEqual(self.logic.calls, [("showVolume", self.volumes[2])])
        self.assertFalse(self.ui.resultFrame.visible)
        self.assertEqual(self.ui.segmentStatus.text, "")
        self.logic.parameters.queryVolume = self.volumes[3]
        self.panel.refresh()
        shown = [("showResult", "refined"), ("goTo", "r0", ""), ("show3D", True)]
        self.assertEqual(self.logic.calls[1:], shown)
        self.assertIn("Look at: pouch.", self.ui.segmentStatus.text)

    def test_a_result_with_something_to_look_at_has_no_green_tick(self) -> None:
        kinds = []
        for change in ({}, {"volume_ml": 0.0, "note": "No voxel was found to be gland_right."}):
            row = replace(make_result(None, None).rows[0], unrefined_ml=25.0, **change)
            self.segment(rows=(row,), id=f"r{len(kinds)}")
            kinds.append(self.panel.segment.status.kind)
        self.assertEqual(kinds, ["done", "warning"])
        self.assertEqual(texts(self.ui.resultsTable)[0][3][:9], "not found")

    def test_what_an_adjustment_moved_by_a_third_is_said_in_the_table(self) -> None:
        row = make_result(None, None).rows[0]
        for before, said in ((38.0, "was 38.0 ml"), (30.0, "")):
            self.segment(rows=(replace(row, unrefined_ml=before),), id=f"r{before}")
            self.assertEqual(texts(self.ui.resultsTable)[0][3], said)

    def test_a_volume_that_misses_its_range_by_a_hair_is_marked(self) -> None:
        row = replace(make_result(None, None).rows[0], volume_ml=17.0, unrefined_ml=17.0)
        self.segment(rows=(row,))
        self.assertEqual(texts(self.ui.resultsTable)[0][3], "slightly small")
        self.assertTrue(self.ui.resultsTable.item(0, 1).font().bold())
        self.assertEqual(self.panel.segment.status.kind, "done")

    def test_every_result_of_a_query_can_be_chosen_and_deleted(self) -> None:
        nodes = [self.make_segmentation() for _ in range(3)]
        for number, node in enumerate(nodes):
            node.SetName(f"Result {number}")
        old, new, other = (
            make_result(self.volumes[query], node, result_id=f"r{number}")
            for number, (query, node) in enumerate(zip((3, 3, 2), nodes, strict=True))
        )
        old = replace(old, created="2025-02-01 09:30:00")
        self.logic.result_rows = [old]
        self.panel.refresh()
        self.assertEqual(self.ui.resultCombo.count, 1)
        self.logic.result_rows = [other, new, old]
        self.panel.refresh()
        combo = self.ui.resultCombo
        shown = [combo.itemText(n) for n in range(combo.count)]
        self.assertEqual(shown, ["01-31 14:05, first", "02-01 09:30, first"])
        self.assertEqual(current_id(combo), "r1", "a new one is shown immediately")
        choose(combo, "r0")
        self.assertEqual(self.logic.calls[-3:-1], [("showResult", "refined"), ("goTo", "r0", "")])
        self.panel.refresh()
        self.assertEqual(current_id(combo), "r0", "what was chosen stays")
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=False):
            self.ui.deleteResultButton.click()
        self.assertEqual(len(self.logic.result_rows), 3)
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=True) as asked:
            self.ui.deleteResultButton.click()
        self.assertIn("Result 0", asked.call_args.args[0])
        self.assertIn(("deleteResult", "r0"), self.logic.calls)
        self.assertEqual(self.logic.calls[-3:-1], [("showResult", "refined"), ("goTo", "r1", "")])
        self.assertEqual(current_id(combo), "r1")

    def test_another_querys_result_is_not_shown(self) -> None:
        self.logic.result_rows = [make_result(self.volumes[2], self.make_segmentation())]
        self.logic.changed("results")
        settle()
        self.assertFalse(self.ui.resultFrame.visible)


if __name__ == "__main__":
    unittest.main()
