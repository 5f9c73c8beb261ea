"""What of a result is on screen: real slice nodes, displays and models of MRML."""

from __future__ import annotations

import slicer_world  # before slicer, which it puts in place

# isort: split
import unittest
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import slicer
from FewShotSegSlicer.interface.rows import Result, ResultRow
from FewShotSegSlicer.jobs.result_loader import _placed
from FewShotSegSlicer.scene import results, supports, views
from FewShotSegSlicer.scene.views import volume_on_screen
from module_logic import LogicTestCase
from module_scenes import add_segmentation, add_transform, add_volume, affine_of

SHAPE = (40, 30, 20)
AFFINE = affine_of((2, 3, 4), (5, 10, 15), (-7, 8, 9))
MOVED = affine_of((1, 1, 1), (15, 5, 60), (30, 2, 1))


def box(*ranges: tuple[int, int]) -> np.ndarray:
    """A mask (i, j, k) that is one in a box."""
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


class ViewsTest(LogicTestCase):
    """A result of one patient, beside others."""

    def setUp(self) -> None:
        super().setUp()
        self.query = self.add_ct("Query")
        self.horseshoe = box((4, 20), (4, 20), (3, 8)) & ~box((7, 20), (7, 17), (0, 20))
        self.pea = box((30, 33), (22, 26), (14, 17))
        add_transform(MOVED, self.query)
        self.node = self.draw({"horseshoe": self.horseshoe, "pea": self.pea}, self.query, "Result")
        rows = tuple(
            ResultRow(name, (1, 0, 0), float(mask.sum()), 1.0, None, True)
            for name, mask in (("horseshoe", self.horseshoe), ("pea", self.pea))
        )
        self.result = Result(self.query, self.node, None, None, rows, id="r")

    def add_ct(self, name: str) -> Any:
        values = np.linspace(-1000, 1500, np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
        return add_volume(values, AFFINE, name)

    def draw(self, masks: dict[str, np.ndarray], volume: Any, name: str) -> Any:
        node = add_segmentation(masks, AFFINE, volume, name)
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        return node

    def visible(self, node: Any) -> bool:
        return bool(node.GetDisplayNode().GetVisibility())

    def assert_in_view(self, mask: np.ndarray) -> None:
        """Every slice view cuts a structure and has a place of it within its borders."""
        centres = np.argwhere(mask)
        world = (MOVED @ AFFINE @ np.c_[centres, np.ones(len(centres))].T)[:3]
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            to_view = np.linalg.inv(slicer.util.arrayFromVTKMatrix(node.GetXYToRAS()))
            at = (to_view @ np.vstack([world, np.ones(world.shape[1])]))[:3]
            scale = np.linalg.norm(to_view[2, :3])
            here = np.abs(at[2]) / scale < 3
            for axis, size in enumerate(node.GetDimensions()[:2]):
                here &= (at[axis] > 0) & (at[axis] < size)
            self.assertTrue(here.any(), node.GetName())

    def test_a_result_comes_into_view_and_each_structure_of_it(self) -> None:
        other = self.add_ct("Other")
        slicer.util.setSliceViewerLayers(background=other, fit=True)
        results.go_to(self.result)
        self.assertIs(volume_on_screen(), self.query)
        self.assert_in_view(self.horseshoe)
        results.go_to(self.result, "pea")
        self.assert_in_view(self.pea)

    def test_the_place_that_a_verdict_is_about(self) -> None:
        far = box((36, 38), (3, 5), (1, 3))
        world = MOVED @ AFFINE @ [*np.argwhere(far)[0], 1.0]
        trust = {
            **{"verdict": "look at this", "reasons": ["far"], "dice": 0.8},
            **{"lower": 0.7, "upper": 0.9, "place_mm": world[:3].tolist()},
        }
        kept = _placed(trust, self.query)
        row = replace(self.result.rows[0], trust=results._trust(kept))
        result = replace(self.result, rows=(row, self.result.rows[1]))
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            node.SetFieldOfView(20, 20, 1)
        results.go_to(result, "horseshoe", True)
        self.assert_in_view(far)
        results.go_to(result, "horseshoe")
        self.assert_in_view(self.horseshoe)
        results.go_to(result, "pea", True)
        self.assert_in_view(self.pea)
        self.assertIsNone(results._trust({**trust, "place_mm": None}).place)
        old = {key: value for key, value in trust.items() if key != "place_mm"}
        self.assertIsNone(results._trust(_placed(old, self.query)).place)

    def test_where_a_person_zoomed_in_the_view_is_moved(self) -> None:
        results.go_to(self.result)
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            node.SetFieldOfView(20, 20, 1)
        results.go_to(self.result, "pea")
        self.assert_in_view(self.pea)

    def test_the_middle_of_a_horseshoe_is_in_it(self) -> None:
        segments = self.node.GetSegmentation()
        place = views.middle_of(self.node, segments.GetSegmentIdBySegmentName("horseshoe"))
        voxel = np.linalg.solve(MOVED @ AFFINE, [*place, 1])[:3]
        np.testing.assert_allclose(voxel, voxel.round(), atol=1e-3)
        self.assertTrue(self.horseshoe[tuple(voxel.round().astype(int))])

    def test_nothing_drawn_on_other_volumes_stays_visible(self) -> None:
        other = self.add_ct("Other")
        theirs = self.draw({"pea": self.pea}, other, "Theirs")
        loose = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "From a file")
        loose.CreateDefaultDisplayNodes()
        own = self.draw({"pea": self.pea}, self.query, "Drawn by hand")
        older = self.draw({"pea": self.pea}, self.query, "Older result")
        others = [
            Result(other, self.draw({"pea": self.pea}, other, "R"), None, None, (), id="o"),
            Result(self.query, older, None, None, (), id="p"),
        ]
        self.node.GetDisplayNode().SetVisibility(False)
        results.show_result(self.result, "refined", [self.result, *others])
        hidden = (theirs, loose, older, others[0].segmentation)
        self.assertEqual([self.visible(node) for node in hidden], [False] * 4)
        self.assertEqual([self.visible(node) for node in (self.node, own)], [True, True])
        results.show_volume(other, [self.result, *others])
        self.assertFalse(self.visible(self.node))
        self.assertFalse(self.visible(others[0].segmentation))
        self.assertIs(volume_on_screen(), other)

    def test_a_ct_gets_the_window_of_soft_tissue_once(self) -> None:
        display = self.query.GetDisplayNode()
        views.show_volume(self.query)
        self.assertEqual((display.GetWindow(), display.GetLevel()), (400, 40))
        display.SetWindowLevel(1500, 300)
        views.show_volume(self.query)
        self.assertEqual((display.GetWindow(), display.GetLevel()), (1500, 300))

    def test_a_ct_that_was_stored_too_high_and_an_mr(self) -> None:
        positive = slicer.util.arrayFromVolume(self.query) + 1024
        volume = add_volume(positive.T.clip(0).astype(np.int16), AFFINE, "No negative values")
        for offset, level in ((False, None), (True, 1064)):
            volume.GetDisplayNode().SetAutoWindowLevel(True)
            with mock.patch.object(supports, "is_offset_ct", return_value=offset):
                supports._offset_ct.clear()
                views.set_window(volume)
            self.assertEqual(volume.GetDisplayNode().GetAutoWindowLevel(), not offset)
            if level:
                self.assertEqual(volume.GetDisplayNode().GetLevel(), level)
        supports._offset_ct.clear()

    def test_3d_has_the_box_of_the_volume_and_is_centred(self) -> None:
        view = mock.Mock(spec=["resetFocalPoint", "resetCamera"])
        widget = mock.Mock(spec=["visible", "threeDView"], visible=False)
        widget.threeDView.return_value = view
        manager = mock.Mock(spec=["threeDViewCount", "threeDWidget", "setLayout"])
        manager.threeDViewCount, manager.threeDWidget.return_value = 1, widget
        with mock.patch.object(slicer.app, "layoutManager", return_value=manager):
            results.show_3d(self.result, True)
        view.resetFocalPoint.assert_called_once()
        manager.setLayout.assert_called_once_with(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        outline = slicer.mrmlScene.GetSingletonNode(views.OUTLINE, "vtkMRMLModelNode")
        self.assertTrue(self.visible(outline))
        self.assertFalse(outline.GetSaveWithScene())
        self.assertIs(outline.GetParentTransformNode(), self.query.GetParentTransformNode())
        points = slicer.util.arrayFromModelPoints(outline)
        voxels = np.linalg.solve(AFFINE, np.c_[points, np.ones(8)].T)[:3]
        np.testing.assert_allclose(voxels.min(1), (-0.5,) * 3, atol=1e-3)
        np.testing.assert_allclose(voxels.max(1), np.array(SHAPE) - 0.5, atol=1e-3)
        self.assertTrue(results.is_in_3d(self.result))
        results.show_volume(self.add_ct("Other"), [self.result])
        self.assertFalse(self.visible(outline))
        self.assertFalse(results.is_in_3d(self.result))


if __name__ == "__main__":
    assert slicer_world
    unittest.main()
