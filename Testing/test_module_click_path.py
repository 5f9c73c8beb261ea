"""The whole way on real CT, from an empty scene to an overlay, against the command line."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import qt
import SimpleITK as sitk
import slicer
from FewShotSegSlicer.engine import engine_parent, python_program
from module_logic import LogicTestCase
from module_scenes import add_transform, affine_of
from shared_data import data_folder

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SUPPORTS, QUERY = (13, 17, 19), 20
NAMES = {4: "parotid_right", 5: "parotid_left"}
EPOCHS = 12
MOVED = affine_of((1, 1, 1), (4, -7, 20), (12.5, -30, 8))
TURNED = affine_of((1, 1, 1), (-10, 3, 35), (-5, 6, 70))


class ClickPathTest(LogicTestCase):
    """Three supports, one under a transform, and a query under another."""

    def setUp(self) -> None:
        super().setUp()
        self.data = data_folder() / "openkbp" / "dev"
        before = {key: qt.QSettings().value(f"FewShotSeg/{key}") for key in ("Model", "Device")}
        for key, value in before.items():
            self.addCleanup(qt.QSettings().setValue, f"FewShotSeg/{key}", value or "")
        self.logic.setModel("standin-small")
        self.logic.setDevice("cpu")

    def paths(self, patient: int) -> tuple[Path, Path]:
        return tuple(self.data / f"pt_{patient}_{kind}.nii.gz" for kind in ("ct", "seg"))

    def open(self, patient: int, matrix: np.ndarray | None) -> tuple[Any, Any]:
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
        if matrix is not None:
            add_transform(matrix, volume, segmentation)
        return volume, segmentation

    def moved_files(self, patient: int, matrix: np.ndarray | None) -> tuple[str, str]:
        """The same patient for the command line: its header moved by SimpleITK, not by us."""
        if matrix is None:
            return tuple(map(str, self.paths(patient)))
        lps = LPS @ matrix @ LPS
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
        for patient in SUPPORTS:
            self.logic.addSupport(*self.open(patient, MOVED if patient == SUPPORTS[1] else None))
        query, drawn = self.open(QUERY, TURNED)
        slicer.mrmlScene.RemoveNode(drawn)
        self.logic.structures()
        slicer_world.process_events_until(lambda: self.logic._sizes._stepper is None)
        shown = {row.name: row for row in self.logic.structures()}
        self.assertEqual(list(shown), list(NAMES.values()))
        self.assertEqual(self.logic.blockers("train"), [])
        self.logic.train(epochs=EPOCHS, seed=3)
        result = self.logic.segment(query)
        for row in self.logic.adapters()[0].metadata["priors"].items():
            self.assertAlmostEqual(row[1]["mean"] / 1000, shown[row[0]].prior.mean_ml, places=3)

        adapter, out = self.folder / "command.fseft", self.folder / "command.nrrd"
        pairs = [self.moved_files(p, MOVED if p == SUPPORTS[1] else None) for p in SUPPORTS]
        moved = self.moved_files(QUERY, TURNED)
        self.command(
            *("adapt", "--out", str(adapter), "--epochs", str(EPOCHS), "--seed", "3"),
            *("--structures", ",".join(f"{v}={n}" for v, n in NAMES.items()), "--device", "cpu"),
            *(text for pair in pairs for text in ("--support", *pair)),
        )
        self.command(
            *("segment", "--adapter", str(adapter), "--out", str(out), "--device", "cpu"),
            *("--seed", "3", moved[0]),
        )
        image = sitk.ReadImage(str(out))
        labels = sitk.GetArrayFromImage(image).T
        truth = sitk.GetArrayFromImage(sitk.ReadImage(moved[1])).T
        node = result.segmentation
        self.assertIs(node.GetParentTransformNode(), query.GetParentTransformNode())
        segments = node.GetSegmentation()
        for number, (value, name) in enumerate(NAMES.items(), 1):
            segment_id = f"Segment_{number}"
            self.assertEqual(segments.GetSegment(segment_id).GetName(), name)
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment_id, query).T > 0
            ours, theirs = (
                2 * np.count_nonzero(m & (truth == value)) / (m.sum() + (truth == value).sum())
                for m in (mask, labels == value)
            )
            different = np.count_nonzero(mask ^ (labels == value))
            print(f"\n{name}: Dice {ours:.4f}, command line {theirs:.4f}, {different} voxels apart")
            self.assertGreater(mask.sum(), 100)
            self.assertEqual(ours, theirs)
            np.testing.assert_array_equal(mask, labels == value)
