"""Foundation models on the panel: entries that can't be used, and checkpoints of one's own."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import json
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import qt
import slicer
from panel_case import RealPanel, choose, settle
from tiny_model import write_model

HALF = '{"id": "mine", "weights": "w.pt"}'


class OwnModelsTest(slicer_world.SceneTestCase):
    """The real logic over a user's folder of models."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="kleine Größe ")
        self.addCleanup(folder.cleanup)
        self.models = Path(folder.name) / "home" / "models"
        self.models.mkdir(parents=True)
        self.theirs = Path(folder.name) / "theirs"
        home = mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(self.models.parent)})
        home.start()
        self.addCleanup(home.stop)
        before = qt.QSettings().value("FewShotSeg/Model")
        self.addCleanup(qt.QSettings().setValue, "FewShotSeg/Model", before or "")
        qt.QSettings().setValue("FewShotSeg/Model", "")
        shown = mock.patch.object(slicer.util, "errorDisplay")
        self.reported = shown.start()
        self.addCleanup(shown.stop)

    def open_panel(self) -> None:
        self.panel = RealPanel()
        self.addCleanup(self.panel.close)
        self.ui, self.logic = self.panel.ui, self.panel.logic
        settle()

    def add(self, path: Path) -> None:
        """Press "Add checkpoint" and choose a file."""
        with mock.patch("FewShotSegSlicer.panel.models.open_file", return_value=str(path)):
            self.ui.addCheckpointButton.click()
        settle()

    def items(self) -> list[str]:
        combo = self.ui.modelCombo
        return [combo.itemText(index) for index in range(combo.count)]

    def test_an_entry_that_says_too_little_is_refused_and_nothing_stays_of_it(self) -> None:
        self.theirs.mkdir()
        (self.theirs / "w.pt").write_bytes(b"weights")
        (self.theirs / "mine.json").write_text(HALF)
        self.open_panel()
        before = self.items()
        self.add(self.theirs / "mine.json")
        (message,) = self.reported.call_args.args
        self.assertIn("lacks the field 'title'", message)
        self.assertEqual(list(self.models.iterdir()), [])
        self.assertEqual(self.items(), before)

    def test_one_that_is_there_at_the_start_is_shown_and_the_panel_works(self) -> None:
        (self.models / "mine.json").write_text(HALF)
        (self.models / "broken.json").write_text("{")
        (self.models / "list.json").write_text("[1]")
        write_model(self.models, "good")
        for chosen in ("", "mine", "mine.json", "good", "none"):
            with self.subTest(chosen):
                qt.QSettings().setValue("FewShotSeg/Model", chosen)
                self.open_panel()
                expected = "good" if chosen == "good" else "embedded"
                self.assertEqual(self.logic.model(), expected)
                self.assertEqual(
                    self.items()[-3:],
                    [f"{name}.json (can't be used)" for name in ("broken", "list", "mine")],
                )
                self.logic.blockers("train")
                self.logic.estimate("train")
                self.reported.assert_not_called()
                tip = self.ui.modelCombo.itemData(self.ui.modelCombo.count - 1, qt.Qt.ToolTipRole)
                self.assertIn("lacks the field 'title'", tip)

    def test_one_that_is_chosen_all_the_same_says_why_not(self) -> None:
        (self.models / "mine.json").write_text(HALF)
        self.open_panel()
        choose(self.ui.modelCombo, "mine.json")
        (message,) = self.reported.call_args.args
        self.assertIn("lacks the field 'title'", message)
        self.assertEqual(self.logic.model(), "embedded")
        self.assertEqual(self.ui.modelCombo.itemData(self.ui.modelCombo.currentIndex), "embedded")

    def test_two_checkpoints_of_one_file_name_are_both_there(self) -> None:
        self.open_panel()
        for number, name in enumerate(("one", "two")):
            path = write_model(self.theirs / name, "model", seed=number)
            path.write_text(json.dumps({**json.loads(path.read_text()), "id": name}))
            self.add(path)
            self.assertEqual(self.logic.model(), name)
        self.reported.assert_not_called()
        for name in ("one", "two"):
            entry = next(row for row in self.logic.models() if row.id == name)
            self.assertTrue(entry.installed)
        contents = {path.read_bytes() for path in self.models.glob("*.safetensors")}
        theirs = {path.read_bytes() for path in self.theirs.glob("*/*.safetensors")}
        self.assertEqual(contents, theirs)
        self.assertEqual(len(contents), 2)


if __name__ == "__main__":
    unittest.main()
