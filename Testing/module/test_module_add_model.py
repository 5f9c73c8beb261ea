"""Models of other programs, by the panel: what is asked, and what a real process does."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import nnunet_files
import qt
import slicer
from FewShotSegSlicer.interface.rows import ModelAsks, ModelQuestion
from panel_case import PanelTestCase, RealPanel, settle

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.models.registry import find_model

WHERE = "FewShotSegSlicer.panel.models"
ASKS = ModelAsks(
    "/x/trained",
    ("It knows liver.",),
    {"name": "ours"},
    (
        ModelQuestion("modality", "CT or MR?", "MR"),
        ModelQuestion("orientation", "Where do its axes grow?", "RAS"),
    ),
)


class AskingTest(PanelTestCase):
    """The buttons over a mock of the logic."""

    def press_file(self, path: str) -> None:
        with mock.patch(f"{WHERE}.open_file", return_value=path):
            self.ui.addCheckpointButton.click()

    def press_folder(self, path: str) -> None:
        with mock.patch(f"{WHERE}.choose_folder", return_value=path):
            self.ui.addModelFolderButton.click()

    def test_folders_and_files_of_others_and_entries_of_ours(self) -> None:
        self.press_folder("/x/trained")
        self.assertIn(("addModel", "/x/trained", {}), self.logic.calls)
        settle()
        self.assert_gated(self.ui.addCheckpointButton, "has ended")
        self.assert_gated(self.ui.addModelFolderButton, "has ended")
        self.logic.finish()
        settle()
        for path in ("/x/model.pt", "/x/trained/plans.json"):
            self.press_file(path)
            self.assertIn(("addModel", path, {}), self.logic.calls)
            self.logic.finish()
        self.press_file("/x/mine.json")
        self.assertIn(("addCheckpoint", "/x/mine.json"), self.logic.calls)

    def test_second_thoughts(self) -> None:
        self.press_file("")
        self.press_folder("")
        self.assertNotIn("addModel", self.names_called())
        self.assertNotIn("addCheckpoint", self.names_called())

    def answer(self, *answers: str) -> mock.Mock:
        """A model asks, and a person answers; the dialog."""
        self.press_folder("/x/trained")
        self.logic.tell(ASKS)
        with mock.patch(f"{WHERE}.ask_text", side_effect=answers) as dialog:
            self.logic.finish()
            settle()
        return dialog

    def test_what_the_files_do_not_say_is_asked_once_the_task_has_ended(self) -> None:
        dialog = self.answer(" CT ", "LPS")
        first, second = (call.args for call in dialog.call_args_list)
        self.assertIn("It knows liver.", first[2])
        self.assertIn("CT or MR?", first[2])
        self.assertEqual((first[3], second[3]), ("MR", "RAS"))
        answers = {"name": "ours", "modality": "CT", "orientation": "LPS"}
        self.assertEqual(self.logic.calls[-1], ("addModel", "/x/trained", answers))

    def test_no_answer_gives_it_up(self) -> None:
        self.answer("CT", "")
        self.assertEqual(self.names_called().count("addModel"), 1)
        self.assertFalse(self.ui.modelTask.isVisibleTo(self.ui.modelSection))

    def test_a_failure_is_shown(self) -> None:
        self.press_folder("/x/trained")
        self.logic.finish("failed", "It is 2D.")
        settle()
        self.assertEqual(self.ui.modelHint.text, "It is 2D.")
        self.logic.error = InputError("Wait until the running task has ended, or cancel it.")
        with mock.patch.object(slicer.util, "errorDisplay") as shown:
            self.press_folder("/x/trained")
        self.assertIn("Wait until", shown.call_args.args[0])


class AddingTest(slicer_world.SceneTestCase):
    """The whole way, through the real logic and the real background process."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="kleine Größe ")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        home = mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(self.folder / "home")})
        home.start()
        self.addCleanup(home.stop)
        before = qt.QSettings().value("FewShotSeg/Model")
        self.addCleanup(qt.QSettings().setValue, "FewShotSeg/Model", before or "")
        self.panel = RealPanel()
        self.addCleanup(self.panel.close)
        self.ui, self.logic = self.panel.ui, self.panel.logic

    def wait(self) -> None:
        slicer_world.process_events_until(lambda: self.logic.running() is None, 300)

    def test_asked_refused_and_added(self) -> None:
        plans = nnunet_files.plans()
        plans["image_reader_writer"] = "SimpleITKIO"
        trained = nnunet_files.write(self.folder / "their files", plans)
        with (
            mock.patch(f"{WHERE}.choose_folder", return_value=str(trained)),
            mock.patch(f"{WHERE}.ask_text", side_effect=["RAX", "LPS"]) as dialog,
        ):
            self.ui.addModelFolderButton.click()
            self.assertEqual(self.logic.running(), "add", "it returned immediately")
            self.wait()
            settle()
            self.wait()
            settle()
            self.assertIn("three letters", self.ui.modelHint.text)
            self.ui.addModelFolderButton.click()
            self.wait()
            settle()
            self.wait()
            settle()
        self.assertIn("PlainConvUNet of 3 levels", dialog.call_args.args[2])
        end = self.logic.lastEnd()
        self.assertEqual((end.kind, end.state), ("add", "finished"), end.message)
        self.assertIn("«Tiny-3d_fullres» is added", end.message)
        self.assertEqual(self.logic.model(), "Tiny-3d_fullres")
        self.assertIn("nnU-Net 3d_fullres", self.ui.modelCombo.currentText)
        entry = find_model("Tiny-3d_fullres").entry
        self.assertEqual(entry.preprocessing["MR"].orientation, "SPL")


if __name__ == "__main__":
    unittest.main()
