"""The panel over a mock of the logic: what is missing, models, setting up, closing."""

from __future__ import annotations

import sys
import unittest
from dataclasses import replace
from unittest import mock

import slicer_world
from panel_case import PanelTestCase, choose, settle

if True:  # after the world is there
    import qt
    import slicer
    from FewShotSegSlicer import reloading
    from FewShotSegSlicer.interface.rows import DeviceRow, SupportRow


class MissingTest(PanelTestCase):
    """Each section says what is missing before the next can start."""

    def test_an_empty_scene(self) -> None:
        self.assertIn("Add the volumes that you annotated", self.ui.supportsHint.text)
        self.assertIn("once a volume is annotated", self.ui.structuresHint.text)
        self.assertIn("at least one annotated volume", self.ui.adapterHint.text)
        self.assertIn("Train or load an adapter", self.ui.segmentHint.text)
        self.assert_gated(self.ui.trainButton, "at least one annotated volume")
        self.assert_gated(self.ui.segmentButton, "Train or load an adapter")
        self.assert_gated(self.ui.addSupportButton, "Choose a volume first")
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
        self.assertEqual(self.ui.supportsSection.text, "1  Annotated volumes: 2 of 2 ready")

    def test_a_support_that_is_not_ready(self) -> None:
        (volume,) = self.add_volumes(1)
        problem = "Draw the structures in Segment Editor."
        self.logic.support_rows = [
            SupportRow("s", volume, None, "CT 1", "", state="no segments", problem=problem)
        ]
        self.logic.changed()
        settle()
        self.assertEqual(self.ui.supportsHint.text, f"CT 1: {problem}")
        self.assertEqual(self.ui.supportsTable.item(0, 2).toolTip(), problem)

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
        self.assertTrue(self.ui.advancedSection.collapsed)
        self.assertTrue(self.ui.modelSection.collapsed)
        self.logic.missing = ["torch>=2.10"]
        self.panel.open_what_needs_attention()
        self.assertFalse(self.ui.advancedSection.collapsed)
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

    def test_columns_show_names_first_and_titles_where_there_is_space(self) -> None:
        self.logic.fill(self.add_volumes(2))
        self.logic.changed()
        self.ui.advancedSection.collapsed = self.ui.structuresSection.collapsed = False
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
    unittest.main()
