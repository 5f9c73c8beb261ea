"""The clinician's way, click by click, through the real process; overlays drawn and measured."""

from __future__ import annotations

import os
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import slicer_world
from panel_case import settle, texts
from walkthrough import Walkthrough

if True:  # after the world is there
    import qt
    import slicer
    import views
    import vtk
    from FewShotSegSlicer.widget import PanelWidget
    from vtk.util.numpy_support import vtk_to_numpy

SMALL = {"spacing": (6.0, 6.0, 6.0), "shape": (40, 32, 26)}
"""A phantom that is quick to train on; what comes out need not be good."""


class RealPanel(PanelWidget):
    """The panel over the real logic, in a window of its own."""

    def __init__(self) -> None:
        parent = slicer.qMRMLWidget()
        parent.setLayout(qt.QVBoxLayout())
        parent.setMRMLScene(slicer.mrmlScene)
        super().__init__(parent)
        self.moduleName = "FewShotSeg"
        self.setup()
        parent.show()
        self.enter()


def write_small_phantoms(way: Walkthrough, folder: Path, supports: int) -> None:
    """What ``Walkthrough.make_phantoms`` makes, coarser and without a process."""
    from FewShotSegLib.atomic import write_json
    from FewShotSegLib.phantoms import ORGANS, make_phantom
    from FewShotSegLib.result_files import write_label_map, write_probability

    way.supports_folder = folder / "supports"
    way.supports_folder.mkdir()
    for number in range(supports + 1):
        volume, annotation = make_phantom(number, **SMALL)
        labels = np.zeros(volume.grid.shape, np.uint8)
        for organ in ORGANS:
            labels[annotation.masks[organ.name]] = organ.value
        place = way.supports_folder if number < supports else folder
        image = place / f"phantom_{number:02d}_ct.nii.gz"
        write_probability(image, volume.array.astype(np.float32), volume.grid)
        if number < supports:
            write_label_map(place / f"phantom_{number:02d}_seg.nii.gz", labels, volume.grid)
        way.query_file = image
    names = {str(organ.value): organ.name for organ in ORGANS}
    write_json(way.supports_folder / "labels.json", names)


def pixels(path: Path) -> np.ndarray:
    """A picture as (height, width, 3)."""
    reader = vtk.vtkPNGReader()
    reader.SetFileName(str(path))
    reader.Update()
    image = reader.GetOutput()
    width, height, _ = image.GetDimensions()
    values = vtk_to_numpy(image.GetPointData().GetScalars())
    return values.reshape(height, width, -1)[..., :3].astype(int)


def coloured(path: Path) -> int:
    """How many pixels of a picture are no grey."""
    values = pixels(path)
    return int((values.max(-1) - values.min(-1) > 12).sum())


class WalkthroughTest(slicer_world.SceneTestCase):
    """Add supports, train, cancel once, train again, segment, save, reload."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder, True)
        home = mock.patch.dict(os.environ, FEWSHOTSEG_HOME=str(self.folder / "home"))
        home.start()
        self.addCleanup(home.stop)
        self.panel = RealPanel()
        self.way = Walkthrough(self.panel)
        self.ui, self.logic = self.panel.ui, self.panel.logic

    def tearDown(self) -> None:
        self.panel.cleanup()
        self.panel.parent.deleteLater()
        settle()
        super().tearDown()

    def test_the_way(self) -> None:
        way, ui, logic = self.way, self.ui, self.logic
        write_small_phantoms(way, self.folder, 2)
        way.add_supports()
        self.assertEqual(ui.supportsSection.text, "Support set: 2 of 2 ready")
        names = [row[1] for row in texts(ui.structuresTable)]
        self.assertEqual(names, ["gland_right", "gland_left", "pouch"])
        self.assertFalse(ui.adapterHint.visible)

        way.set_epochs(4)
        self.assertEqual(logic.getParameterNode().epochs, 4)
        way.press_train()
        way.wait_for_epoch(1)
        self.assertEqual(way.press_cancel().state, "cancelled")
        self.assertEqual(ui.adaptersTable.rowCount, 0)
        self.assertTrue(ui.trainButton.enabled)

        way.press_train()
        end = way.wait_until_idle()
        self.assertEqual(end.state, "finished", end.message)
        self.assertEqual(ui.trainStatus.text, end.message)
        self.assertEqual(ui.adaptersTable.rowCount, 1)
        self.assertEqual(len(self.panel.adapters.plot.points), 4)

        way.choose_query()
        end = way.press_segment()
        self.assertEqual(end.state, "finished", end.message)
        self.assertTrue(ui.resultFrame.visible)
        self.assertEqual([row[0] for row in texts(ui.resultsTable)], names)
        if slicer.app.layoutManager() is not None or not slicer_world.REAL:
            self.check_overlay(logic.results()[0])
        self.check_reload(texts(ui.resultsTable))

    def check_overlay(self, result: object) -> None:
        """The displayable managers draw the result, and no longer draw it once it is hidden."""
        segmentation = result.segmentation
        largest = max(result.rows, key=lambda row: row.volume_ml)
        self.assertGreater(largest.volume_ml, 0)
        segments = segmentation.GetSegmentation()
        centre = segmentation.GetSegmentCenterRAS(segments.GetSegmentIdBySegmentName(largest.name))
        slicer.util.setSliceViewerLayers(background=result.query, fit=True)
        slicer.modules.markups.logic().JumpSlicesToLocation(*centre, False)
        shown, hidden = self.folder / "shown.png", self.folder / "hidden.png"
        views.save_slice("Red", shown)
        segmentation.GetDisplayNode().SetVisibility(False)
        views.save_slice("Red", hidden)
        segmentation.GetDisplayNode().SetVisibility(True)
        self.assertGreater(coloured(shown), 20)
        if not slicer_world.REAL:  # Slicer draws coloured corner annotations as well
            self.assertEqual(coloured(hidden), 0)
        before = self.folder / "before.png"
        views.save_3d(before)
        self.ui.show3DButton.click()
        self.assertTrue(segmentation.GetDisplayNode().GetVisibility3D())
        after = self.folder / "after.png"
        views.save_3d(after)
        self.assertGreater(np.abs(pixels(after) - pixels(before)).sum(), 1000)

    def check_reload(self, table: list[list[str]]) -> None:
        """The session comes back with the scene."""
        path = self.folder / "scene.mrb"
        self.assertTrue(slicer.mrmlScene.WriteToMRB(str(path)))
        slicer_world.clear_scene()
        settle()
        self.assertEqual(self.ui.supportsTable.rowCount, 0)
        self.assertFalse(self.ui.resultFrame.visible)
        self.assertTrue(slicer.mrmlScene.ReadFromMRB(str(path)))
        self.way.wait_for_sizes()
        self.assertEqual(self.ui.supportsSection.text, "Support set: 2 of 2 ready")
        self.assertEqual(self.ui.epochsSpinBox.value, 4)
        self.assertEqual(self.ui.adaptersTable.rowCount, 1)
        self.assertEqual(texts(self.ui.resultsTable), table)
        self.assertTrue(self.ui.segmentButton.enabled, self.ui.segmentButton.toolTip)


if __name__ == "__main__":
    unittest.main()
