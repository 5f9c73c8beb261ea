"""The panel over a mock of the logic: what it shows, what it asks for, and what it says."""

from __future__ import annotations

import sys
import unittest
from dataclasses import replace
from unittest import mock

import slicer_world
from panel_case import PanelTestCase, choose, choose_row, settle, texts, tick, type_into

if True:  # after the world is there
    import qt
    import slicer
    from FewShotSegSlicer import reloading
    from FewShotSegSlicer.interface.rows import AdapterRow, DeviceRow, SupportRow
    from FewShotSegSlicer.panel import supports as widget_supports
    from FewShotSegSlicer.panel.navigation import volume_on_screen
    from FewShotSegSlicer.panel.tools import current_id
    from mock_logic import make_result

    from FewShotSegLib.core.errors import InputError


class MissingTest(PanelTestCase):
    """Each section says what is missing before the next can start."""

    def test_an_empty_scene(self) -> None:
        self.assertIn("Add the volumes that you annotated", self.ui.supportsHint.text)
        self.assertIn("once a support has segments", self.ui.structuresHint.text)
        self.assertIn("at least one annotated volume", self.ui.adapterHint.text)
        self.assertIn("Train or load an adapter", self.ui.segmentHint.text)
        self.assert_gated(self.ui.trainButton, "at least one annotated volume")
        self.assert_gated(self.ui.segmentButton, "Train or load an adapter")
        self.assert_gated(self.ui.addSupportButton, "Load a volume first")
        self.assert_gated(self.ui.showSupportButton, "Select a row")
        self.assert_gated(self.ui.mergeButton, "two or more rows")
        self.assert_gated(self.ui.saveAdapterButton, "Select an adapter")
        self.assertTrue(self.ui.addFolderButton.enabled)
        self.assertTrue(self.ui.loadAdapterButton.enabled)

    def test_a_full_one(self) -> None:
        volumes = self.add_volumes(3)
        self.logic.fill(volumes[:2])
        self.logic.changed()
        settle()
        self.assertFalse(self.ui.supportsHint.visible)
        self.assertFalse(self.ui.structuresHint.visible)
        self.assertFalse(self.ui.adapterHint.visible)
        self.assertTrue(self.ui.trainButton.enabled)
        self.assertIn("40 s and 1.1 GB", self.ui.trainButton.toolTip)
        self.assertIn("40 s and 1.1 GB", self.ui.estimateLabel.text)
        self.assertEqual(self.ui.supportsSection.text, "Support set: 2 of 2 ready")

    def test_a_support_that_is_not_ready(self) -> None:
        (volume,) = self.add_volumes(1)
        problem = "Draw the structures in Segment Editor."
        self.logic.support_rows = [
            SupportRow("s", volume, None, "CT 1", "", state="no segments", problem=problem)
        ]
        self.logic.changed()
        settle()
        self.assertEqual(self.ui.supportsHint.text, f"CT 1: {problem}")
        self.assertEqual(self.ui.supportsTable.item(0, 3).toolTip(), problem)

    def test_a_conflict_is_shown(self) -> None:
        self.logic.fill(self.add_volumes(2))
        conflict = "«pouch» has two segments in CT 1. Split it or delete one."
        row = self.logic.structure_rows[1]
        self.logic.structure_rows[1] = replace(row, conflict=conflict)
        self.logic.changed("structures")
        settle()
        self.assertEqual(self.ui.structuresHint.text, conflict)

    def test_weights_that_are_not_here(self) -> None:
        choose(self.ui.modelCombo, "abdomen")
        self.assertIn("Press Download", self.ui.modelHint.text)
        self.assertEqual(self.ui.downloadButton.text, "Download (3.6 MB)")
        self.assertIn("Heinrich", self.ui.modelCombo.toolTip)
        self.assertIn("MIT", self.ui.modelLicence.text)
        self.assert_gated(self.ui.removeModelButton, "no weights")
        choose(self.ui.modelCombo, "small")
        self.assert_gated(self.ui.downloadButton, "here already")
        self.assert_gated(self.ui.importButton, "here already")
        self.assert_gated(self.ui.removeModelButton, "part of FewShotSeg")

    def test_packages_that_are_not_here(self) -> None:
        self.assertFalse(self.ui.packagesFrame.visible)
        self.logic.missing = ["torch>=2.10", "monai>=1.4"]
        self.logic.changed("models")
        settle()
        self.assertIn("Press Install", self.ui.modelHint.text)
        self.assertIn("monai", self.ui.packagesLabel.text)

    def test_the_models_section_opens_where_something_is_missing(self) -> None:
        self.assertTrue(self.ui.modelSection.collapsed)
        self.logic.missing = ["torch>=2.10"]
        self.panel.open_what_needs_attention()
        self.assertFalse(self.ui.modelSection.collapsed)


class ModelsTest(PanelTestCase):
    """Foundation model and device."""

    def test_download_asks_for_consent_first(self) -> None:
        choose(self.ui.modelCombo, "abdomen")
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=False) as asked:
            self.ui.downloadButton.click()
        question = asked.call_args.args[0]
        for word in ("Abdominal U-Net", "3.6 MB", "MIT", "Heinrich", "example.org"):
            self.assertIn(word, question)
        self.assertNotIn("downloadModel", self.names_called())
        self.ui.modelSection.collapsed = False
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=True):
            self.ui.downloadButton.click()
        self.assertIn(("downloadModel", "abdomen"), self.logic.calls)
        settle()
        self.assertTrue(self.ui.modelTask.isVisibleTo(self.ui.modelSection))

    def test_devices_with_their_free_memory(self) -> None:
        self.logic.device_rows = [
            DeviceRow("auto", "Automatic"),
            DeviceRow("cuda:0", "GPU 0: T4", 15_000_000_000),
        ]
        self.logic.changed("devices")
        settle()
        shown = [self.ui.deviceCombo.itemText(i) for i in range(self.ui.deviceCombo.count)]
        self.assertEqual(shown, ["Automatic", "GPU 0: T4, 15 GB free"])
        choose(self.ui.deviceCombo, "cuda:0")
        self.assertIn(("setDevice", "cuda:0"), self.logic.calls)

    def test_a_checkpoint_of_ones_own(self) -> None:
        with mock.patch("FewShotSegSlicer.panel.models.open_file", return_value="/x/m.json"):
            self.ui.addCheckpointButton.click()
        self.assertIn(("addCheckpoint", "/x/m.json"), self.logic.calls)

    def test_packages_are_installed_after_one_question(self) -> None:
        self.logic.missing = ["torch>=2.10", "monai>=1.4"]
        with (
            mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=True) as asked,
            mock.patch("FewShotSegSlicer.panel.models.install_packages") as install,
        ):
            self.panel.models.on_install()
        asked.assert_called_once()
        self.assertIn("torch>=2.10 (200 MB", asked.call_args.args[0])
        install.assert_called_once_with(["torch>=2.10", "monai>=1.4"])


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
        self.panel.enter()
        self.assertIs(self.ui.volumeSelector.currentNode(), second)
        self.assertIs(self.logic.parameters.queryVolume, second)

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
        self.add_volumes(1)
        self.logic.error = InputError("This volume is in the table already.")
        with mock.patch.object(slicer.util, "errorDisplay") as shown:
            self.ui.addSupportButton.click()
        self.assertEqual(shown.call_args.args, ("This volume is in the table already.",))

    def test_a_fault_of_the_module_is_told_with_its_trace(self) -> None:
        self.add_volumes(1)
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
            texts(self.table)[0], ["", "gland_right", "3 / 3", "24.5", "2.2", "30 %", ""]
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

    def test_silence_is_told(self) -> None:
        self.ui.trainButton.click()
        self.logic.go_on(0.3, "Training", silent_seconds=44.0)
        self.assertIn("nothing heard for 45 s", self.ui.trainStatus.text)

    def test_every_end_is_told_and_leaves_the_panel_idle(self) -> None:
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
        self.assertIn("one of the supports", self.ui.segmentHint.text)
        self.assertTrue(self.ui.segmentButton.enabled, "a warning, no prohibition")

    def test_the_result(self) -> None:
        self.assertFalse(self.ui.resultFrame.visible)
        self.ui.segmentButton.click()
        settle()
        self.assertTrue(self.ui.cancelSegmentButton.visible)
        refined, unrefined = self.make_segmentation(), self.make_segmentation()
        result = make_result(self.volumes[3], refined, unrefined)
        self.logic.result_rows = [result]
        self.logic.finish(message="Segmented in 12 s.", result=result)
        settle()
        self.assertEqual(self.ui.segmentStatus.text, "Segmented in 12 s.")
        shown = texts(self.ui.resultsTable)
        self.assertEqual(shown[0], ["gland_right", "25.1", "17.2 to 31.9", ""])
        self.assertEqual(shown[1], ["pouch", "48.0", "17.2 to 31.9", "larger than expected"])
        self.assertTrue(self.ui.resultsTable.item(1, 1).font().bold(), "flagged")
        self.assertEqual(self.ui.resultHint.text, "larger than expected")
        self.assertFalse(self.ui.resultsTable.item(0, 1).font().bold())
        self.ui.unrefinedRadio.click()
        self.assertEqual(self.logic.calls[-1], ("showResult", "unrefined"))
        self.ui.refinedRadio.click()
        self.assertEqual(self.logic.calls[-1], ("showResult", "refined"))
        self.ui.show3DButton.click()
        self.assertEqual(self.logic.calls[-1], ("show3D", True))
        self.ui.fillCheckBox.click()
        for node in (refined, unrefined):
            self.assertFalse(node.GetDisplayNode().GetVisibility2DFill())
            self.assertTrue(node.GetDisplayNode().GetVisibility2DOutline())
        self.assert_gated(self.ui.showUncertaintyCheckBox, "segment again")

    def test_a_result_is_not_covered_by_the_supports(self) -> None:
        drawn = [self.make_segmentation() for _ in self.logic.support_rows]
        self.logic.support_rows = [
            replace(row, segmentation=node)
            for row, node in zip(self.logic.support_rows, drawn, strict=True)
        ]
        slicer.util.setSliceViewerLayers(background=self.volumes[0])
        self.ui.segmentButton.click()
        result = make_result(self.volumes[3], self.make_segmentation())
        self.logic.result_rows = [result]
        self.logic.finish(result=result)
        self.assertFalse(any(node.GetDisplayNode().GetVisibility() for node in drawn))
        self.assertTrue(result.segmentation.GetDisplayNode().GetVisibility())
        self.assertIs(volume_on_screen(), self.volumes[3])

    def test_every_result_of_a_query_can_be_chosen_and_deleted(self) -> None:
        nodes = [self.make_segmentation() for _ in range(3)]
        for number, node in enumerate(nodes):
            node.SetName(f"Result {number}")
        old, new, other = (
            make_result(self.volumes[query], node, result_id=f"r{number}")
            for number, (query, node) in enumerate(zip((3, 3, 2), nodes, strict=True))
        )
        self.logic.result_rows = [old]
        self.panel.refresh()
        self.assertEqual(self.ui.resultCombo.count, 1)
        self.logic.result_rows = [other, new, old]
        self.panel.refresh()
        combo = self.ui.resultCombo
        shown = [combo.itemText(n) for n in range(combo.count)]
        self.assertEqual(shown, [f"Result {n}, 01-31 14:05, first" for n in (1, 0)])
        self.assertEqual(current_id(combo), "r1", "a new one is shown at once")
        choose(combo, "r0")
        self.assertEqual(self.logic.calls[-1], ("showResult", "refined"))
        self.panel.refresh()
        self.assertEqual(current_id(combo), "r0", "what was chosen stays")
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=False):
            self.ui.deleteResultButton.click()
        self.assertEqual(len(self.logic.result_rows), 3)
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=True) as asked:
            self.ui.deleteResultButton.click()
        self.assertIn("Result 0", asked.call_args.args[0])
        self.assertIn(("deleteResult", "r0"), self.logic.calls)
        self.assertEqual(self.logic.calls[-1], ("showResult", "refined"))
        self.assertEqual(current_id(combo), "r1")

    def test_another_querys_result_is_not_shown(self) -> None:
        self.logic.result_rows = [make_result(self.volumes[2], self.make_segmentation())]
        self.logic.changed("results")
        settle()
        self.assertFalse(self.ui.resultFrame.visible)


class LifeTest(PanelTestCase):
    """Setting up, closing the scene, leaving, the log."""

    def test_closing_the_scene_empties_the_panel(self) -> None:
        self.logic.fill(self.add_volumes(2))
        self.logic.changed()
        settle()
        self.logic.support_rows = self.logic.structure_rows = []
        slicer.mrmlScene.Clear(0)
        settle()
        self.assertEqual(self.ui.supportsTable.rowCount, 0)
        self.assertIn("Add the volumes", self.ui.supportsHint.text)

    def test_cleanup_closes_the_logic_and_stops_listening(self) -> None:
        self.panel.cleanup()
        self.assertTrue(self.logic.closed)
        self.assertEqual(self.logic.listeners, [])
        slicer.mrmlScene.Clear(0)
        settle()

    def test_a_reload_tells_of_the_task_that_it_stopped(self) -> None:
        self.panel.tell_of_task("train", "Stopped, because the module was closed.")
        self.assertIn("module was closed", self.ui.trainStatus.text)
        self.assertEqual(self.ui.segmentStatus.text, "")

    def test_what_was_said_of_a_scene_goes_with_it(self) -> None:
        self.panel.tell_of_task("segment", "«CT 1» is segmented.")
        slicer_world.clear_scene()
        self.assertFalse(self.ui.segmentStatus.visible)
        self.assertEqual(self.ui.segmentStatus.text, "")

    def test_a_closed_section_hides_what_is_in_it(self) -> None:
        self.ui.supportsSection.collapsed = True
        self.assertFalse(self.ui.supportsHint.isVisibleTo(self.ui.supportsSection))
        self.logic.fill(self.add_volumes(2))
        self.logic.changed()
        settle()
        self.ui.supportsSection.collapsed = False
        self.assertFalse(self.ui.supportsHint.isVisibleTo(self.ui.supportsSection))
        self.assertTrue(self.ui.supportsTable.isVisibleTo(self.ui.supportsSection))

    def test_columns_show_names_first_and_titles_where_there_is_room(self) -> None:
        self.logic.fill(self.add_volumes(2))
        self.logic.changed()
        self.ui.structuresSection.collapsed = False
        settle()
        table, header = self.ui.structuresTable, self.ui.structuresTable.horizontalHeader()
        needed = table.fontMetrics().boundingRect(table.item(0, 1).text()).width()
        for width in (900, 330, 900):
            table.setFixedWidth(width)
            settle()
            self.assertGreaterEqual(table.columnWidth(1), needed, width)
            self.assertGreaterEqual(
                table.columnWidth(3),
                table.fontMetrics().boundingRect(table.item(0, 3).text()).width(),
            )
        for column in range(table.columnCount):
            self.assertGreaterEqual(table.columnWidth(column), header.sectionSizeHint(column))

    def test_a_border_that_a_person_dragged_stays(self) -> None:
        self.logic.fill(self.add_volumes(2))
        self.logic.changed()
        self.ui.supportsTable.setFixedWidth(700)
        settle()
        self.ui.supportsTable.setColumnWidth(1, 77)
        self.logic.changed()
        settle()
        self.assertEqual(self.ui.supportsTable.columnWidth(1), 77)

    def test_a_reload_reads_the_whole_library_again(self) -> None:
        with mock.patch.dict(sys.modules):
            forgotten = reloading.forget_library()
            self.assertIn("FewShotSegSlicer.panel.tools", forgotten)
            self.assertFalse(set(forgotten) & set(sys.modules))

    def test_the_log_can_be_copied(self) -> None:
        self.assertTrue(self.ui.logSection.collapsed)
        self.logic.log_line("epoch 1")
        self.assertIn("epoch 1", self.ui.logText.plainText)
        self.ui.copyLogButton.click()
        self.assertEqual(qt.QApplication.clipboard().text(), "FewShotSeg started\nepoch 1")

    def test_a_refresh_leaves_an_open_editor_alone(self) -> None:
        self.logic.fill(self.add_volumes(2))
        self.logic.changed()
        settle()
        table = self.ui.structuresTable
        item = table.item(0, 1)
        table.editItem(item)
        self.logic.changed()
        settle()
        self.assertIs(table.item(0, 1), item)
        self.assertTrue(table.isPersistentEditorOpen(item) or table.findChildren(qt.QLineEdit))

    def test_every_control_has_a_name_for_a_screen_reader(self) -> None:
        for widget in vars(self.ui).values():
            if isinstance(widget, (qt.QTableWidget, qt.QComboBox, qt.QProgressBar)):
                self.assertTrue(widget.accessibleName, widget.name)


if __name__ == "__main__":
    assert slicer_world
    unittest.main()
