"""The clinician's way on real CT, click by click from an empty scene, against the command line."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import os
import subprocess
import unittest
from pathlib import Path
from typing import Any

import numpy as np
import qt
import SimpleITK as sitk
import slicer
from FewShotSegSlicer.machine.engine import engine_parent, python_program
from module_scenes import add_transform, affine_of
from panel_case import settle, texts
from shared_data import data_folder
from walk_case import WalkTestCase, masks_of

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SUPPORTS, QUERY = (13, 17, 19), 20
NAMES = {4: "parotid_right", 5: "parotid_left"}
MODEL, EPOCHS, SEED = "embedded-ct", 4, 3
MOVED = affine_of((1, 1, 1), (4, -7, 20), (12.5, -30, 8))
TURNED = affine_of((1, 1, 1), (-10, 3, 35), (-5, 6, 70))
PLACES = {SUPPORTS[1]: MOVED, QUERY: TURNED}
"""Patients that lie under a transform."""


class ClickPathTest(WalkTestCase):
    """Three supports, one under a transform, and a query under another."""

    def setUp(self) -> None:
        self.data = data_folder() / "openkbp" / "dev"
        super().setUp()
        before = {key: qt.QSettings().value(f"FewShotSeg/{key}") for key in ("Model", "Device")}
        for key, value in before.items():
            self.addCleanup(qt.QSettings().setValue, f"FewShotSeg/{key}", value or "")

    def paths(self, patient: int) -> tuple[Path, Path]:
        return tuple(self.data / f"pt_{patient}_{kind}.nii.gz" for kind in ("ct", "seg"))

    def open(self, patient: int) -> tuple[Any, Any]:
        """A patient as a person would open and name it."""
        image, labels = self.paths(patient)
        volume = slicer.util.loadVolume(str(image))
        segmentation = slicer.util.loadSegmentation(str(labels))
        segments = segmentation.GetSegmentation()
        for number in reversed(range(segments.GetNumberOfSegments())):
            segment = segments.GetNthSegment(number)
            if segment.GetLabelValue() in NAMES:
                segment.SetName(NAMES[segment.GetLabelValue()])
            else:
                segments.RemoveSegment(segments.GetNthSegmentID(number))
        if patient in PLACES:
            add_transform(PLACES[patient], volume, segmentation)
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

    def command(self, *arguments: str) -> None:
        """The command line, in a process of its own."""
        environment = {**os.environ, "PYTHONPATH": str(engine_parent())}
        subprocess.run(
            [python_program(), "-m", "FewShotSegLib", *arguments],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )

    def test_from_an_empty_scene_to_an_overlay_as_the_command_line_gives(self) -> None:
        way, ui = self.way, self.ui
        way.choose_model(MODEL, "cpu")
        for patient in SUPPORTS:
            way.add_support(*self.open(patient))
        way.query, drawn = self.open(QUERY)
        slicer.mrmlScene.RemoveNode(drawn)
        way.wait_for_sizes()
        self.assertEqual(ui.supportsSection.text, "1  Annotated volumes: 3 of 3 ready")
        names = [row[1] for row in texts(ui.structuresTable)]
        self.assertEqual(names, list(NAMES.values()))
        way.choose_colors()
        ui.seedSpinBox.value = SEED
        settle()
        shown = {row.name: row.prior.mean_ml for row in self.logic.structures()}
        self.train_once_more_after_cancelling(EPOCHS)
        for name, prior in self.logic.adapters()[0].metadata["priors"].items():
            self.assertAlmostEqual(prior["mean"] / 1000, shown[name], places=3)

        way.choose_query()
        first = masks_of(self.segment(names, refine=False))
        self.assertIsNone(self.logic.results()[0].unrefined)
        result = self.segment(names, refine=True)
        if result.unrefined is not None:
            for name, mask in masks_of(result, refined=False).items():
                np.testing.assert_array_equal(mask, first[name])
        self.check_overlay(result)
        self.check_reload()
        result = self.logic.results()[0]
        self.check_overlay(result)
        self.compare(result)

    def compare(self, result: Any) -> None:
        """The panel's result is the command line's, voxel by voxel and in Dice."""
        node, adapter, out = result.segmentation, self.folder / "c.fseft", self.folder / "c.nrrd"
        self.assertIs(node.GetParentTransformNode(), result.query.GetParentTransformNode())
        self.assertIsNotNone(node.GetParentTransformNode())
        supports = [text for p in SUPPORTS for text in ("--support", *self.moved_files(p))]
        image, truth_file = self.moved_files(QUERY)
        self.command(
            *("adapt", "--out", str(adapter), "--model", MODEL, "--device", "cpu"),
            *("--epochs", str(EPOCHS), "--seed", str(SEED), "--no-validate"),
            *("--structures", ",".join(f"{v}={n}" for v, n in NAMES.items()), *supports),
        )
        self.command(
            *("segment", "--adapter", str(adapter), "--out", str(out), "--device", "cpu"),
            *("--seed", str(SEED), image),
        )
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
