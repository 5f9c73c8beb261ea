"""The clinician's way on real CT, click by click from loaded files, against the command line."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import json
import os
import subprocess
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qt
import SimpleITK as sitk
import slicer
from FewShotSegSlicer.machine.engine import engine_parent, python_program
from module_scenes import add_transform, affine_of
from panel_case import choose, settle, texts
from shared_data import data_folder
from walk_case import WalkTestCase, masks_of

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SUPPORTS, QUERY = (13, 17, 19), 20
NAMES = {4: "parotid_right", 5: "parotid_left"}
MODEL, EPOCHS, SEED = "embedded", 4, 3
MOVED = affine_of((1, 1, 1), (4, -7, 20), (12.5, -30, 8))
TURNED = affine_of((1, 1, 1), (-10, 3, 35), (-5, 6, 70))
COMMANDS = """
import json, sys
from FewShotSegLib.cli.command_line import main
sys.exit(next((code for code in map(main, json.loads(sys.argv[1])) if code), 0))
"""
PLACES = {SUPPORTS[1]: MOVED, QUERY: TURNED}
"""Patients that lie under a transform."""


class ClickPathTest(WalkTestCase):
    """Three supports, one under a transform, and a query under another."""

    def setUp(self) -> None:
        self.data = data_folder() / "openkbp" / "dev"
        super().setUp()
        self.clicks = 0
        if slicer_world.REAL:
            if slicer.util.mainWindow() is None:
                self.skipTest("Slicer was started without a main window")
            module = slicer.util.selectedModule()
            self.addCleanup(slicer.util.selectModule, module)
        else:
            import segment_editor

            self.addCleanup(segment_editor.install())
        before = {key: qt.QSettings().value(f"FewShotSeg/{key}") for key in ("Model", "Device")}
        for key, value in before.items():
            self.addCleanup(qt.QSettings().setValue, f"FewShotSeg/{key}", value or "")

    def paths(self, patient: int) -> tuple[Path, Path]:
        return tuple(self.data / f"pt_{patient}_{kind}.nii.gz" for kind in ("ct", "seg"))

    def open(self, patient: int) -> tuple[Any, Any]:
        """A patient as a person would open and name it: the annotation knows of no volume."""
        image, labels = self.paths(patient)
        volume = slicer.util.loadVolume(str(image))
        segmentation = None
        if patient != QUERY:
            segmentation = slicer.util.loadSegmentation(str(labels))
            segments = segmentation.GetSegmentation()
            for number in reversed(range(segments.GetNumberOfSegments())):
                segment = segments.GetNthSegment(number)
                if segment.GetLabelValue() in NAMES:
                    segment.SetName(NAMES[segment.GetLabelValue()])
                else:
                    segments.RemoveSegment(segments.GetNthSegmentID(number))
        if patient in PLACES:
            add_transform(PLACES[patient], *(node for node in (volume, segmentation) if node))
        return volume, segmentation

    def moved_files(self, patient: int) -> tuple[str, str]:
        """The same patient for the command line: its header moved by SimpleITK, not by us."""
        if patient not in PLACES:
            return tuple(map(str, self.paths(patient)))
        lps = LPS @ PLACES[patient] @ LPS
        found = []
        for path in self.paths(patient):
            image = sitk.ReadImage(str(path))
            direction = lps[:3, :3] @ np.reshape(image.GetDirection(), (3, 3))
            image.SetOrigin(tuple(lps[:3, :3] @ image.GetOrigin() + lps[:3, 3]))
            image.SetDirection(direction.ravel().tolist())
            found.append(str(self.folder / f"moved_{path.name[:-7]}.nrrd"))
            sitk.WriteImage(image, found[-1])
        return tuple(found)

    def commands(self, *lines: Sequence[str]) -> None:
        """The command line, in a process of its own: one for all, which begins but once."""
        environment = {**os.environ, "PYTHONPATH": str(engine_parent())}
        subprocess.run(
            [python_program(), "-c", COMMANDS, json.dumps(lines)],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )

    def press(self, button: Any) -> None:
        """One click on the panel: on a button that is there to be seen."""
        self.clicks += 1
        settle()
        self.assertTrue(button.isVisibleTo(self.panel.uiWidget), button.name)
        self.assertTrue(button.enabled, button.toolTip)
        button.click()
        settle()

    def finish(self) -> None:
        """The running task goes on to a good end."""
        end = self.way.wait_until_idle()
        self.assertEqual(end.state, "finished", end.message)

    def test_three_clicks_to_an_overlay_and_two_to_a_corrected_support(self) -> None:
        way, ui = self.way, self.ui
        way.choose_model(MODEL, "cpu")
        way.set_epochs(EPOCHS)
        choose(ui.effortCombo, "quick")  # what to expect is measured in the walkthrough
        ui.seedSpinBox.value = SEED
        for patient in SUPPORTS:
            self.open(patient)
        way.query, _none = self.open(QUERY)
        settle()

        self.press(ui.addSceneButton)
        self.assertEqual(ui.supportsSection.text, "1  Annotated volumes: 3 of 3 ready")
        self.assertIs(self.logic.getParameterNode().queryVolume, way.query)
        names = [row[1] for row in texts(ui.structuresTable)]
        self.assertEqual(names, list(NAMES.values()))
        way.choose_colors()
        way.wait_for_sizes()
        shown = {row.name: row.prior.mean_ml for row in self.logic.structures()}
        self.press(ui.trainButton)
        self.finish()
        for name, prior in self.logic.adapters()[0].metadata["priors"].items():
            self.assertAlmostEqual(prior["mean"] / 1000, shown[name], places=3)
        self.press(ui.segmentButton)
        self.finish()
        self.assertEqual(self.clicks, 3)
        result = self.logic.results()[0]
        self.assertEqual([row[0] for row in texts(ui.resultsTable)], names)
        self.check_overlay(result)
        self.check_reload()
        result = self.logic.results()[0]
        self.check_overlay(result, in_3d=False)
        self.compare(result)
        self.correct_and_go_on(result, names)

    def correct_and_go_on(self, result: Any, names: list[str]) -> None:
        """Correct the result in Segment Editor, accept it, and see the training begin."""
        ui, before = self.ui, self.clicks
        self.press(ui.correctButton)
        editor = slicer.modules.SegmentEditorWidget.editor
        self.assertIs(editor.segmentationNode(), result.segmentation)
        self.assertIs(editor.sourceVolumeNode(), result.query)
        segments = result.segmentation.GetSegmentation()
        segment_id = segments.GetSegmentIdBySegmentName(names[0])
        where = (result.segmentation, segment_id, result.query)
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(*where)
        drawn = mask.copy()
        planes = np.flatnonzero(mask.any((1, 2)))
        drawn[: planes[len(planes) // 2]] = 0  # half of the structure is rubbed out
        slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, *where)
        np.testing.assert_array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(*where), drawn)
        self.press(ui.acceptButton)
        self.assertEqual(self.clicks - before, 2)
        self.way.wait_for_epoch(1)
        self.assertEqual(self.logic.running(), "train")
        self.assertIs(self.logic.supports()[3].segmentation, result.segmentation)
        self.assertEqual(ui.supportsSection.text, "1  Annotated volumes: 4 of 4 ready")
        self.assertEqual([row[2] for row in texts(ui.structuresTable)], ["4 / 4"] * len(names))
        self.assertEqual(self.way.press_cancel().state, "cancelled")
        self.way.wait_for_sizes()
        slicer_world.process_events_until(
            lambda: "corrected" in texts(ui.resultsTable)[0][3], seconds=60
        )
        voxel = abs(np.prod(result.query.GetSpacing())) / 1000
        sizes = self.logic.session.sizes
        self.assertAlmostEqual(
            sizes.ml(result.segmentation, segment_id), np.count_nonzero(drawn) * voxel, places=3
        )

    def compare(self, result: Any) -> None:
        """The panel's result is the command line's, voxel by voxel and in Dice."""
        node, adapter, out = result.segmentation, self.folder / "c.fseft", self.folder / "c.nrrd"
        self.assertIs(node.GetParentTransformNode(), result.query.GetParentTransformNode())
        self.assertIsNotNone(node.GetParentTransformNode())
        supports = [text for p in SUPPORTS for text in ("--support", *self.moved_files(p))]
        image, truth_file = self.moved_files(QUERY)
        adapt = (
            *("adapt", "--out", str(adapter), "--model", MODEL, "--device", "cpu"),
            *("--epochs", str(EPOCHS), "--seed", str(SEED), "--no-validate"),
            *("--structures", ",".join(f"{v}={n}" for v, n in NAMES.items()), *supports),
        )
        segment = (
            *("segment", "--adapter", str(adapter), "--out", str(out), "--device", "cpu"),
            *("--seed", str(SEED), image),
        )
        self.commands(adapt, segment)
        labels, truth = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(p))).T for p in (out, truth_file)
        )
        ours = masks_of(result)
        for value, name in NAMES.items():
            mask, theirs, true = ours[name], labels == value, truth == value
            scores = [
                2 * np.count_nonzero(m & true) / (m.sum() + true.sum()) for m in (mask, theirs)
            ]
            apart = np.count_nonzero(mask ^ theirs)
            print(f"\n{name}: Dice {scores[0]:.4f}, command line {scores[1]:.4f}, {apart} apart")
            self.assertGreater(mask.sum(), 100)
            self.assertEqual(*scores)
            np.testing.assert_array_equal(mask, theirs)


if __name__ == "__main__":
    assert slicer_world
    unittest.main()
