"""What tests of the clinician's way share: the panel over the real process, and what they check."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import slicer_world
from panel_case import RealPanel, settle, texts
from walkthrough import Walkthrough

if True:  # after the world is there
    import slicer
    import views
    import vtk
    from FewShotSegSlicer.scene.results import is_in_3d
    from FewShotSegSlicer.scene.views import volume_on_screen
    from vtk.util.numpy_support import vtk_to_numpy


class WalkTestCase(slicer_world.SceneTestCase):
    """A panel in an empty scene, with a home of its own; ``way`` is the hands that use it."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder, True)
        home = mock.patch.dict(os.environ, FEWSHOTSEG_HOME=str(self.folder / "home"))
        home.start()
        self.addCleanup(home.stop)
        self.panel = RealPanel()
        self.panel.enter()
        self.way = Walkthrough(self.panel)
        self.ui, self.logic = self.panel.ui, self.panel.logic
        slicer_world.turns.longest = 0.0

    def tearDown(self) -> None:
        print(f"\nlongest stall of the GUI thread on the way: {slicer_world.turns.text()}")
        self.panel.close()
        super().tearDown()

    def train_once_more_after_cancelling(self, epochs: int) -> None:
        """Train, cancel, and train again to the end; the panel tells each."""
        way, ui = self.way, self.ui
        way.set_epochs(epochs)
        self.assertEqual(self.logic.getParameterNode().epochs, epochs)
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
        self.assertEqual(len(self.panel.adapters.plot.points), epochs)

    def segment(self, names: list[str], refine: bool = True) -> Any:
        """Segment the query with or without refinement; the newest result."""
        self.way.set_refinement(refine)
        end = self.way.press_segment()
        self.assertEqual(end.state, "finished", end.message)
        self.assertEqual(self.ui.segmentStatus.text, end.message)
        self.assertTrue(self.ui.resultFrame.visible)
        self.assertEqual([row[0] for row in texts(self.ui.resultsTable)], names)
        return self.logic.results()[0]

    def check_overlay(self, result: Any, in_3d: bool = True) -> None:
        """What is on screen without further ado: the displayable managers draw the result in every
        slice view and in 3D, and no longer draw it once it is hidden.

        Args:
            in_3d: whether to look at the 3D view, which takes longest.
        """
        if slicer_world.REAL and slicer.app.layoutManager() is None:
            return  # started without a main window
        segmentation = result.segmentation
        self.assertGreater(max(row.volume_ml for row in result.rows), 0)
        self.assertIs(volume_on_screen(), result.query)
        shown, hidden = self.folder / "shown.png", self.folder / "hidden.png"
        for name in ("Green", "Yellow", "Red"):
            views.save_slice(name, shown)
            self.assertGreater(coloured(shown), 20, name)
        slicer_world.process_events_until(lambda: is_in_3d(result), 60.0)
        settle()
        self.assertTrue(self.ui.show3DButton.checked)
        if not in_3d:
            return
        before, after = self.folder / "before.png", self.folder / "after.png"
        views.save_3d(after)
        segmentation.GetDisplayNode().SetVisibility(False)
        views.save_slice("Red", hidden)
        if not slicer_world.REAL:  # Slicer draws coloured corner annotations as well
            self.assertEqual(coloured(hidden), 0)
        views.save_3d(before)
        segmentation.GetDisplayNode().SetVisibility(True)
        self.assertGreater(np.abs(pixels(after) - pixels(before)).sum(), 1000)

    def check_reload(self) -> None:
        """The session comes back with the scene."""
        ui = self.ui
        tables = (ui.supportsTable, ui.structuresTable, ui.adaptersTable, ui.resultsTable)
        before = [texts(table) for table in tables]
        in_3d = ui.show3DButton.checked
        title, epochs = ui.supportsSection.text, ui.epochsSpinBox.value
        masks = masks_of(self.logic.results()[0])
        path = self.folder / "scene.mrb"
        self.assertTrue(slicer.mrmlScene.WriteToMRB(str(path)))
        slicer_world.clear_scene()
        settle()
        self.assertEqual(ui.supportsTable.rowCount, 0)
        self.assertFalse(ui.resultFrame.visible)
        self.assertTrue(slicer.mrmlScene.ReadFromMRB(str(path)))
        self.way.wait_for_sizes()
        self.assertEqual([texts(table) for table in tables], before)
        self.assertEqual((ui.supportsSection.text, ui.epochsSpinBox.value), (title, epochs))
        self.assertTrue(ui.segmentButton.enabled, ui.segmentButton.toolTip)
        self.assertEqual(ui.show3DButton.checked, in_3d)
        for name, mask in masks_of(self.logic.results()[0]).items():
            np.testing.assert_array_equal(mask, masks[name])


def masks_of(result: Any, refined: bool = True) -> dict[str, np.ndarray]:
    """A result's masks (i, j, k) on the query's grid, by structure."""
    node = result.segmentation if refined else result.unrefined
    segments = node.GetSegmentation()
    return {
        row.name: slicer.util.arrayFromSegmentBinaryLabelmap(
            node, segments.GetSegmentIdBySegmentName(row.name), result.query
        ).T
        > 0
        for row in result.rows
    }


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
