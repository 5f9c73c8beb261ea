"""Weights from a file, by the panel: what is asked, and what a real background process does."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import os
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import qt
import slicer
import torch
from panel_case import PanelTestCase, RealPanel, choose, settle
from safetensors.torch import save_file
from tiny_model import write_model

from FewShotSegLib.core.errors import InputError


@contextmanager
def person(path: str, consent: bool = True) -> Iterator[tuple[mock.Mock, mock.Mock]]:
    """Who chooses a file (an empty path: closes the dialog) and accepts the licence, or not.

    Yields the dialog and the question, to see what they were asked.
    """
    with (
        mock.patch("FewShotSegSlicer.panel.models.open_file", return_value=path) as dialog,
        mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=consent) as question,
    ):
        yield dialog, question


class AskingTest(PanelTestCase):
    """The button over a mock of the logic."""

    def setUp(self) -> None:
        super().setUp()
        choose(self.ui.modelCombo, "abdomen")

    def test_a_file_and_consent_are_asked_for(self) -> None:
        self.assertTrue(self.ui.importButton.enabled)
        with person("/x/model (1).pth") as (dialog, question):
            self.ui.importButton.click()
        self.assertIn("*.pth", dialog.call_args.args[2])
        for word in ("/x/model (1).pth", "Abdominal U-Net", "MIT", "Heinrich"):
            self.assertIn(word, question.call_args.args[0])
        self.assertIn(("importModel", "abdomen", "/x/model (1).pth"), self.logic.calls)
        self.ui.modelSection.collapsed = False
        settle()
        self.assertTrue(self.ui.modelTask.isVisibleTo(self.ui.modelSection))
        self.assert_gated(self.ui.importButton, "has ended")

    def test_second_thoughts(self) -> None:
        with person("") as (_dialog, question):
            self.ui.importButton.click()
        question.assert_not_called()
        with person("/x/model.pth", consent=False):
            self.ui.importButton.click()
        self.assertNotIn("importModel", self.names_called())
        self.assertIn("Press Download or Import", self.ui.modelHint.text)

    def test_what_the_logic_refuses_is_shown(self) -> None:
        self.logic.error = InputError("Wait until the running task has ended, or cancel it.")
        with person("/x/model.pth"), mock.patch.object(slicer.util, "errorDisplay") as shown:
            self.ui.importButton.click()
        self.assertIn("Wait until", shown.call_args.args[0])

    def test_a_model_that_only_a_person_can_fetch(self) -> None:
        self.logic.model_rows[1] = replace(self.logic.model_rows[1], downloadable=False)
        self.logic.changed("models")
        settle()
        self.assertEqual(self.ui.modelCombo.currentText, "Abdominal U-Net (to import)")
        self.assert_gated(self.ui.downloadButton, "by hand from https://example.org/weights")
        self.assertTrue(self.ui.importButton.enabled)

    def test_an_entry_that_cannot_be_read(self) -> None:
        row = replace(
            self.logic.model_rows[1], downloadable=False, importable=False, problem="No entry."
        )
        self.logic.model_rows[1] = row
        self.logic.changed("models")
        settle()
        self.assert_gated(self.ui.importButton, "No entry.")

    def test_a_failure_stays_in_the_panel_until_something_else_is_done(self) -> None:
        for state in ("failed", "crashed", "not started"):
            with self.subTest(state), person("/x/model.pth"):
                self.ui.importButton.click()
                settle()
                self.assertIn("Press Download or Import", self.ui.modelHint.text)
                self.ui.modelSection.collapsed = True
                self.logic.finish(state, f"It {state}.")
                settle()
                self.assertEqual(self.ui.modelHint.text, f"It {state}.")
                self.assertEqual(self.panel.models.hint.kind, "error")
                self.assertFalse(self.ui.modelSection.collapsed)
        choose(self.ui.modelCombo, "small")
        self.assertEqual(self.ui.modelHint.text, "")
        choose(self.ui.modelCombo, "abdomen")
        self.assertIn("Press Download or Import", self.ui.modelHint.text)


class ImportTest(slicer_world.SceneTestCase):
    """The whole way, through the real logic and the real background process."""

    def setUp(self) -> None:
        super().setUp()
        # People's folders have names like this.
        folder = tempfile.TemporaryDirectory(prefix="kleine Größe ")
        self.addCleanup(folder.cleanup)
        self.models = Path(folder.name) / "home" / "models"
        self.theirs = Path(folder.name) / "model (1).safetensors"
        home = mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(self.models.parent)})
        home.start()
        self.addCleanup(home.stop)
        write_model(self.models)
        (self.models / "tiny.safetensors").rename(self.theirs)
        self.content = self.theirs.read_bytes()
        before = qt.QSettings().value("FewShotSeg/Model")
        self.addCleanup(qt.QSettings().setValue, "FewShotSeg/Model", before or "")
        self.panel = RealPanel()
        self.addCleanup(self.panel.close)
        self.ui, self.logic = self.panel.ui, self.panel.logic
        choose(self.ui.modelCombo, "tiny")

    def press(self, path: Path) -> int:
        """Import from a file, to the end; how often the event loop turned meanwhile."""
        with person(str(path)):
            self.ui.importButton.click()
        self.assertEqual(self.logic.running(), "import", "it returned immediately")
        turns: list[int] = []
        timer = qt.QTimer()
        timer.setInterval(20)
        timer.connect("timeout()", lambda: turns.append(1))
        timer.start()
        slicer_world.process_events_until(lambda: self.logic.running() is None, 300)
        timer.stop()
        settle()
        return len(turns)

    def left(self) -> set[str]:
        """What is in the user's models beside locks."""
        return {p.name for p in self.models.iterdir() if not p.name.startswith(".lock-")}

    def test_the_wrong_file_and_then_the_right_one(self) -> None:
        ui = self.ui
        self.assertEqual(ui.modelCombo.currentText, "A small random network (to import)")
        self.assertIn("Get tiny.safetensors from https://example.org/tiny", ui.modelHint.text)
        self.assertIn("weights are not on this machine", " ".join(self.logic.blockers("train")))

        other = self.theirs.with_name("other.safetensors")
        save_file({"conv.weight": torch.zeros(3)}, other)
        content = other.read_bytes()
        self.press(other)
        end = self.logic.lastEnd()
        self.assertEqual((end.kind, end.state), ("import", "failed"))
        self.assertEqual(self.panel.models.hint.text, end.message)
        self.assertRegex(end.message, r"^Nothing was installed\. .*not of the architecture")
        self.assertNotIn("\n", end.message)
        self.assertEqual((self.left(), other.read_bytes()), ({"tiny.json"}, content))
        self.assertTrue(ui.importButton.enabled)

        self.assertGreater(self.press(self.theirs), 0, "the event loop went on")
        end = self.logic.lastEnd()
        self.assertEqual((end.kind, end.state), ("import", "finished"), end.message)
        self.assertEqual((self.models / "tiny.safetensors").read_bytes(), self.content)
        self.assertEqual(self.theirs.read_bytes(), self.content)
        self.assertEqual(self.left(), {"tiny.json", "tiny.safetensors", "SHA256SUMS"})
        self.assertEqual(ui.modelCombo.currentText, "A small random network")
        self.assertEqual(ui.modelHint.text, "")
        self.assertNotIn("weights", " ".join(self.logic.blockers("train")))
        self.assertFalse(ui.importButton.enabled)
        self.assertTrue(ui.removeModelButton.enabled)
        with self.assertRaisesRegex(InputError, "here already"):
            self.logic.importModel("tiny", str(self.theirs))

    def test_another_version_and_a_stopped_import(self) -> None:
        write_model(self.models, sha256="0" * 64)
        (self.models / "tiny.safetensors").unlink()
        self.press(self.theirs)
        self.assertIn("its sha256 differs). Nothing was installed", self.ui.modelHint.text)
        self.assertEqual(self.left(), {"tiny.json"})

        with person(str(self.theirs)):
            self.ui.importButton.click()
        self.ui.cancelModelButton.click()
        slicer_world.process_events_until(lambda: self.logic.running() is None, 300)
        settle()
        self.assertEqual(self.logic.lastEnd().state, "cancelled")
        self.assertEqual(self.left(), {"tiny.json"})
        self.assertEqual(self.theirs.read_bytes(), self.content)
        self.assertTrue(self.ui.importButton.enabled)

    def test_what_the_logic_refuses_immediately(self) -> None:
        with self.assertRaisesRegex(InputError, "no model «none»"):
            self.logic.importModel("none", str(self.theirs))
        with self.assertRaisesRegex(InputError, "here already"):
            self.logic.importModel("embedded", str(self.theirs))
        (self.models / "broken.json").write_text("{")
        with self.assertRaisesRegex(InputError, "is not JSON"):
            self.logic.importModel("broken.json", str(self.theirs))


if __name__ == "__main__":
    unittest.main()
