"""Handing over: every voxel arrives where it lies in the patient, whatever transforms say."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer_world
import vtk
from FewShotSegSlicer.interface.rows import TrustRow
from FewShotSegSlicer.jobs.export_nodes import SupportNodes, support_steps, volume_steps
from FewShotSegSlicer.jobs.result_loader import load_steps
from FewShotSegSlicer.scene.exporting import (
    ALGORITHM_NAME,
    ALGORITHM_TYPE,
    UNSPECIFIC_TERMINOLOGY,
    mark_as_corrected,
    put_beside,
)
from FewShotSegSlicer.scene.geometry import volume_affine
from FewShotSegSlicer.scene.results import (
    delete_result,
    list_results,
    show_result,
    show_uncertainty,
)
from FewShotSegSlicer.scene.segments import list_segments, tag_of, terminology_of
from FewShotSegSlicer.scene.state import SceneState
from FewShotSegSlicer.scene.supports import add_support, remove_support
from module_scenes import COLOR_STEP, add_segmentation, add_transform, add_volume, affine_of, ball

from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import SegmentFiles, SupportFiles, array_steps, make_private
from FewShotSegLib.training.support_set import Support
from FewShotSegLib.worker.inputs import read_support

SHAPE = (34, 30, 22)
CENTRE = (31.0, 29.0, 33.0)
RADIUS = 14.0
STRUCTURES = [Structure("ball", 1)]


class HandoverTestCase(slicer_world.SceneTestCase):
    """With a job folder."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def hand_over(self, volume: Any, segmentation: Any) -> Support:
        """What the engine reads of a support."""
        classes = {
            segmentation.GetSegmentation().GetNthSegmentID(n): "ball"
            for n in range(segmentation.GetSegmentation().GetNumberOfSegments())
        }
        files: list[SupportFiles] = []
        for _ in support_steps(self.folder, 0, SupportNodes(volume, segmentation, classes), files):
            pass
        return read_support(self.folder, files[0], STRUCTURES, "Support 1")

    def assert_ball(self, support: Support, centre: Any = CENTRE, radius: float = RADIUS) -> None:
        """The mask is the ball, in world coordinates, to within its voxels."""
        grid = support.volume.grid
        mask = support.annotation.masks["ball"]
        expected = ball(grid.shape, grid.affine, centre, radius)
        dice = 2 * np.count_nonzero(mask & expected) / (mask.sum() + expected.sum())
        self.assertGreater(dice, 0.93)
        index = np.argwhere(mask)
        middle = (index @ grid.affine[:3, :3].T + grid.affine[:3, 3]).mean(0)
        np.testing.assert_allclose(middle, centre, atol=0.35)
        size = mask.sum() * grid.voxel_volume
        self.assertAlmostEqual(size / (4 / 3 * np.pi * radius**3), 1, delta=0.06)


class HandoverTest(HandoverTestCase):
    """Volumes and segmentations on their way to the engine."""

    def world(self, affine: np.ndarray, matrix: np.ndarray) -> tuple[Any, Any]:
        """A ball at CENTRE in the world, drawn on a volume under a transform."""
        placed = matrix @ affine
        mask = ball(SHAPE, placed, CENTRE, RADIUS)
        rng = np.random.default_rng(0)
        volume = add_volume(
            rng.integers(-900, 900, SHAPE).astype(np.int16) + 1000 * mask.astype(np.int16),
            affine,
            "v",
        )
        return volume, add_segmentation({"ball": mask}, affine, volume)

    def test_without_transforms_voxels_are_copied_exactly(self) -> None:
        for angles in ((0, 0, 0), (12, -20, 33)):
            affine = affine_of((2.0, 2.1, 3.0), angles, (0, -2, 1))
            volume, segmentation = self.world(affine, np.eye(4))
            support = self.hand_over(volume, segmentation)
            np.testing.assert_allclose(support.volume.grid.affine, affine, atol=1e-9)
            np.testing.assert_array_equal(
                support.volume.array, slicer.util.arrayFromVolume(volume).T
            )
            mask = ball(SHAPE, affine, CENTRE, RADIUS)
            np.testing.assert_array_equal(support.annotation.masks["ball"], mask)
            shutil.rmtree(self.folder)
            self.folder.mkdir()

    def test_a_support_under_a_linear_transform(self) -> None:
        matrix = affine_of((1, 1, 1), (25, -40, 80), (40, -10, 7))
        affine = np.linalg.inv(matrix) @ affine_of((2, 2, 3))
        volume, segmentation = self.world(affine, matrix)
        add_transform(matrix, volume, segmentation)
        support = self.hand_over(volume, segmentation)
        np.testing.assert_allclose(support.volume.grid.affine, matrix @ affine, atol=1e-6)
        np.testing.assert_array_equal(
            support.annotation.masks["ball"], ball(SHAPE, matrix @ affine, CENTRE, RADIUS)
        )
        self.assert_ball(support)

    def test_nested_transforms_with_scaling_and_a_mirror(self) -> None:
        outer = affine_of((1, 1, 1), (0, 0, 90), (10, 0, 0))
        inner = np.diag([-1.2, 1.2, 1.2, 1.0])
        matrix = outer @ inner
        affine = np.linalg.inv(matrix) @ affine_of((2, 2, 3))
        volume, segmentation = self.world(affine, matrix)
        first = add_transform(inner, volume, segmentation)
        add_transform(outer, first)
        support = self.hand_over(volume, segmentation)
        np.testing.assert_allclose(support.volume.grid.affine, matrix @ affine, atol=1e-6)
        self.assert_ball(support)

    def test_a_volume_alone_under_the_transform(self) -> None:
        """The segmentation was drawn in the world; the volume was moved onto it."""
        matrix = affine_of((1, 1, 1), (8, 5, -30), (5, 5, 5))
        affine = np.linalg.inv(matrix) @ affine_of((2, 2, 3))
        volume, _unused = self.world(affine, matrix)
        fine = affine_of((1.3, 1.1, 1.7), (0, 0, 0), (-2, -3, -4))
        shape = (60, 62, 48)
        segmentation = add_segmentation({"ball": ball(shape, fine, CENTRE, RADIUS)}, fine, None)
        add_transform(matrix, volume)
        self.assert_ball(self.hand_over(volume, segmentation))

    def test_another_spacing_orientation_and_reference_geometry(self) -> None:
        affine = affine_of((2, 2, 3))
        volume, _unused = self.world(affine, np.eye(4))
        for spacing, angles in (((1.0, 1.4, 2.2), (0, 0, 0)), ((1.5, 1.5, 1.5), (30, 10, -45))):
            own = affine_of(spacing, angles)
            shape = (70, 66, 60)
            own[:3, 3] = np.asarray(CENTRE) - own[:3, :3] @ (np.asarray(shape) / 2)
            mask = ball(shape, own, CENTRE, RADIUS)
            other = add_volume(np.zeros(shape, np.int16), own, "other")
            self.assert_ball(self.hand_over(volume, add_segmentation({"ball": mask}, own, other)))
            shutil.rmtree(self.folder)
            self.folder.mkdir()

    def test_a_cropped_labelmap_that_slicer_made(self) -> None:
        affine = affine_of((2, 2, 3), (10, 20, 30))
        affine[:3, 3] = np.asarray(CENTRE) - affine[:3, :3] @ (np.asarray(SHAPE) / 2)
        mask = ball(SHAPE, affine, CENTRE, RADIUS)
        volume = add_volume(np.zeros(SHAPE, np.int16), affine, "v")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        for number in range(2):  # two segments, so that they share a label map
            segment_id = node.GetSegmentation().AddEmptySegment(f"s{number}")
            part = mask.copy()
            part[:, :, SHAPE[2] // 2 :] = part[:, :, SHAPE[2] // 2 :] & bool(number)
            part[:, :, : SHAPE[2] // 2] = part[:, :, : SHAPE[2] // 2] & (not number)
            slicer.util.updateSegmentBinaryLabelmapFromArray(
                np.ascontiguousarray(part.T.astype(np.uint8)), node, segment_id, volume
            )
        node.GetSegmentation().CollapseBinaryLabelmaps(False)
        support = self.hand_over(volume, node)
        np.testing.assert_array_equal(support.annotation.masks["ball"], mask)

    def test_segments_that_are_surfaces(self) -> None:
        affine = affine_of((2, 2, 2))
        volume = add_volume(np.zeros((40, 40, 40), np.int16), affine, "v")
        sphere = vtk.vtkSphereSource()
        sphere.SetRadius(RADIUS)
        sphere.SetCenter(*CENTRE)
        sphere.SetThetaResolution(64)
        sphere.SetPhiResolution(64)
        sphere.Update()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        node.GetSegmentation().SetSourceRepresentationName("Closed surface")
        segment = slicer.vtkSegment()
        segment.SetName("ball")
        segment.AddRepresentation("Closed surface", sphere.GetOutput())
        node.GetSegmentation().AddSegment(segment)
        self.assert_ball(self.hand_over(volume, node))
        self.assertFalse(node.GetSegmentation().ContainsRepresentation("Binary labelmap"))

    def test_what_can_not_be_used_is_reported_in_a_sentence(self) -> None:
        volume = add_volume(np.zeros((5, 6, 7), np.int16), np.eye(4), "Scan 7")
        grid = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
        warp = vtk.vtkThinPlateSplineTransform()
        points = vtk.vtkPoints()
        for corner in ((0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9)):
            points.InsertNextPoint(*corner)
        warp.SetSourceLandmarks(points)
        warp.SetTargetLandmarks(points)
        grid.SetAndObserveTransformToParent(warp)
        volume.SetAndObserveTransformNodeID(grid.GetID())
        with self.assertRaisesRegex(InputError, "Scan 7.*Warp.*not linear.*Harden"):
            volume_affine(volume)
        sheared = np.eye(4)
        sheared[0, 1] = 0.3
        volume.SetAndObserveTransformNodeID(None)
        add_transform(sheared, volume)
        with self.assertRaisesRegex(InputError, "Scan 7.*sheared"):
            volume_affine(volume)
        for node, words in (
            (add_volume(np.zeros((5, 6, 1), np.int16), np.eye(4), "Flat"), "single slice"),
            (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Hole"), "no voxels"),
        ):
            with self.assertRaisesRegex(InputError, words):
                list(volume_steps(self.folder, "x.npy", node, []))


class ResultTest(HandoverTestCase):
    """Results on their way back."""

    def load(self, query: Any, mask: np.ndarray, uncertainty: np.ndarray) -> Any:
        """A result with a refined and another unrefined mask, loaded."""
        import json
        from dataclasses import asdict

        from FewShotSegSlicer.scene.parameter_node import FewShotSegParameterNode

        results = make_private(self.folder / "results")
        box = tuple(slice(a.min(), a.max() + 1) for a in np.nonzero(mask))
        offset = tuple(int(part.start) for part in box)
        for name, array in (("a.npy", mask[box].astype(np.uint8)), ("u.npy", uncertainty)):
            for _ in array_steps(results / name, np.asfortranarray(array)):
                pass
        one = np.zeros((1, 1, 1), np.uint8, order="F") + 1
        for _ in array_steps(results / "b.npy", one):
            pass
        structure = Structure("ball", 7, (0.1, 0.2, 0.3), "Cat~SCT^1^a~SCT^2^b~^^~A~^^~^^")
        nothing = Structure("nothing", 9, (1, 0, 0))
        files = [
            SegmentFiles(structure, "a.npy", offset, "b.npy", (1, 2, 3), False),
            SegmentFiles(nothing, None, (0, 0, 0), None, (0, 0, 0), True),
        ]
        prior = {
            **{"mean_ml": 11.0, "sd_ml": 1.0, "supports": 3, "gamma": 0.3, "lower_ml": 7.7},
            **{"upper_ml": 14.3, "lower_bound_trusted": True, "upper_bound_trusted": True},
            "enabled": True,
        }
        line = {
            **{"volume_ml": 11.0, "prior": prior, "within_prior": True, "as_expected": True},
            "transduction": {"volume_before_ml": 0.1},
        }
        reported = ["No voxel was found to be nothing.", "Transduction more than halved nothing."]
        unexpected = {**line, "as_expected": False, "warnings": reported}
        reasons = ["what was found looks unlike the structure in the supports"]
        line["trust"] = {"verdict": "look at this", "reasons": reasons, "dice": 0.61}
        line["trust"] |= {"lower": 0.45, "upper": 0.77}
        report = {
            "transductive": True,
            "warnings": reported,
            "structures": {"ball": line, "nothing": unexpected},
        }
        (results / "result.json").write_text(
            json.dumps(
                {
                    "format": 1,
                    "kind": "segment",
                    "segments": [asdict(f) for f in files],
                    "uncertainty": {"file": "u.npy", "offset": [2, 1, 3]},
                    "report": report,
                    "seconds": 1.5,
                }
            )
        )
        from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

        logic = ScriptedLoadableModuleLogic()
        logic.moduleName = "FewShotSeg"
        state = SceneState(FewShotSegParameterNode(logic.getParameterNode()))
        into: list[str] = []
        for _ in load_steps(self.folder, query, state, "adapter", into):
            pass
        self.state = state
        return list_results(state)[0]

    def test_slicer_can_export_a_result_to_dicom(self) -> None:
        """What the exporters of QuantitativeReporting and SlicerRT look for."""
        affine = affine_of((2, 2.5, 3), (5, 10, 15), (-7, 8, 9))
        query = add_volume(np.zeros(SHAPE, np.int16), affine, "Query")
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        study = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), "P"), "S")
        tree.SetItemParent(self.item_of(query), study)
        mask = ball(SHAPE, affine, (affine @ [16, 14, 11, 1])[:3], RADIUS)
        result = self.load(query, mask, np.ones((2, 2, 2), np.uint8))
        node = result.segmentation
        reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        self.assertIs(reference, query)
        wanted = {
            "Segment_7": ("Cat~SCT^1^a~SCT^2^b~^^~A~^^~^^", True),
            "Segment_9": (UNSPECIFIC_TERMINOLOGY, False),
        }
        for name, (terminology, drawn) in wanted.items():
            segment = node.GetSegmentation().GetSegment(name)
            tags = [tag_of(segment, tag) for tag in (ALGORITHM_TYPE, ALGORITHM_NAME)]
            self.assertEqual(tags, ["AUTOMATIC", "FewShotSeg"])
            self.assertEqual(terminology_of(segment), terminology)
            data = segment.GetRepresentation("Binary labelmap").GetPointData()
            array = data.GetArray("ImageScalars")
            self.assertEqual(array is not None and array.GetValueRange() == (0, 1), drawn)
        # A segment of nothing in particular stays one of which nothing is known.
        segments = {s.id: s.terminology for s in list_segments(node)}
        self.assertEqual(segments["Segment_9"], "")
        self.item_of(node)
        put_beside(node, query)
        self.assertEqual(tree.GetItemParent(tree.GetItemByDataNode(node)), study)
        mark_as_corrected(node)
        segment = node.GetSegmentation().GetSegment("Segment_7")
        self.assertEqual(tag_of(segment, ALGORITHM_TYPE), "SEMIAUTOMATIC")

    def item_of(self, node: Any) -> int:
        """A node's item in the subject hierarchy, which only the application makes by itself."""
        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        found = tree.GetItemByDataNode(node)
        if found == tree.GetInvalidItemID():
            found = tree.CreateItem(tree.GetSceneItemID(), node)
        return found

    def test_segments_lie_where_the_query_lies(self) -> None:
        matrix = affine_of((1, 1, 1), (15, 5, 60), (3, 2, 1))
        affine = affine_of((2, 2.5, 3), (5, 10, 15), (-7, 8, 9))
        query = add_volume(np.zeros(SHAPE, np.int16), affine, "Query")
        add_transform(matrix, query)
        centre = (matrix @ affine @ [16, 14, 11, 1])[:3]
        mask = ball(SHAPE, matrix @ affine, centre, RADIUS)
        rng = np.random.default_rng(0)
        uncertain = rng.integers(0, 101, (6, 5, 4)).astype(np.uint8)
        result = self.load(query, mask, uncertain)
        node = result.segmentation
        self.assertIs(node.GetParentTransformNode(), query.GetParentTransformNode())
        found = slicer.util.arrayFromSegmentBinaryLabelmap(node, "Segment_7", query).T
        np.testing.assert_array_equal(found > 0, mask)
        segment = node.GetSegmentation().GetSegment("Segment_7")
        self.assertEqual(segment.GetName(), "ball")
        np.testing.assert_allclose(segment.GetColor(), (0.1, 0.2, 0.3), atol=COLOR_STEP)
        self.assertEqual(terminology_of(segment), "Cat~SCT^1^a~SCT^2^b~^^~A~^^~^^")
        self.assertIsNotNone(node.GetSegmentation().GetSegment("Segment_9"))
        # handed over again, it is what it was
        self.assert_ball(self.hand_over(query, node), centre)
        before = slicer.util.arrayFromSegmentBinaryLabelmap(result.unrefined, "Segment_7", query).T
        self.assertEqual(np.argwhere(before).tolist(), [[1, 2, 3]])
        self.assertFalse(result.unrefined.GetDisplayNode().GetVisibility())
        self.assertTrue(node.GetDisplayNode().GetVisibility())
        image = result.uncertainty
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(image).T, uncertain)
        shift = np.eye(4)
        shift[:3, 3] = (2, 1, 3)
        np.testing.assert_allclose(volume_affine(image), matrix @ affine @ shift, atol=1e-9)
        self.assertEqual([row.within for row in result.rows], [True, False])
        self.assertEqual(
            result.rows[1].note,
            "No voxel was found to be nothing.\n"
            "The adjustment to the expected volume more than halved nothing.",
        )
        # A size within its range is not as expected for all that: flagged, and each sentence once.
        from FewShotSegSlicer.panel.results import REMARK, remarks, result_cells

        judged = "what was found looks unlike the structure in the annotated volumes"
        self.assertEqual(
            [row.trust for row in result.rows],
            [TrustRow("look at this", (judged,), 0.61, 0.45, 0.77), TrustRow()],
        )
        dice = "Expected Dice: 0.61 (0.45 to 0.77, 4 times in 5)"
        first = f"ball: look at this: {judged}."
        moved = "ball: adjusted to the expected volume, from 0.10 to 11.0 ml."
        self.assertEqual(remarks(result), f"{first}\n{moved}\n{result.rows[1].note}")
        self.assertEqual(remarks(result, ["ball"]), f"{first} {dice}.\n{moved}")
        cells = result_cells(result.rows[1])
        self.assertIsNotNone(cells[REMARK].icon)
        self.assertEqual(cells[REMARK].text, "was 0.10 ml")
        self.assertIn(result.rows[1].note, cells[REMARK].tip)
        self.assertEqual((result.rows[0].prior.lower_ml, result.rows[0].unrefined_ml), (7.7, 0.1))

    def visible(self, *results: Any) -> list[bool]:
        return [bool(r.segmentation.GetDisplayNode().GetVisibility()) for r in results]

    def test_earlier_results_stay_out_of_sight_until_one_is_chosen(self) -> None:
        query = add_volume(np.zeros(SHAPE, np.int16), affine_of(), "Query")
        mask = np.zeros(SHAPE, bool)
        mask[3:6, 4:8, 2:9] = True
        first = self.load(query, mask, np.ones((2, 2, 2), np.uint8))
        shutil.rmtree(self.folder / "results")
        second = self.load(query, mask, np.ones((2, 2, 2), np.uint8))
        self.assertIsNot(first.segmentation, second.segmentation)
        self.assertIsNotNone(first.segmentation.GetScene())
        self.assertEqual(self.visible(first, second), [False, True])
        every = list_results(self.state)
        self.assertEqual([result.id for result in every], [second.id, first.id])
        show_uncertainty(second, True)
        show_result(first, "unrefined", every)
        self.assertEqual(self.visible(first, second), [False, False])
        self.assertTrue(first.unrefined.GetDisplayNode().GetVisibility())
        shown = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        self.assertFalse(any(c.GetForegroundVolumeID() for c in shown))
        show_result(first, "refined", every)
        self.assertEqual(self.visible(first, second), [True, False])

    def test_a_deleted_result_takes_its_nodes_along_but_never_a_support(self) -> None:
        query = add_volume(np.zeros(SHAPE, np.int16), affine_of(), "Query")
        mask = np.zeros(SHAPE, bool)
        mask[3:6, 4:8, 2:9] = True
        result = self.load(query, mask, np.ones((2, 2, 2), np.uint8))
        nodes = (result.segmentation, result.unrefined, result.uncertainty)
        row_id = add_support(self.state, query, result.segmentation)
        with self.assertRaisesRegex(InputError, "Remove its row"):
            delete_result(self.state, result)
        self.assertTrue(all(node.GetScene() for node in nodes))
        remove_support(self.state, row_id)
        delete_result(self.state, result)
        self.assertFalse(any(node.GetScene() for node in nodes))
        self.assertIsNotNone(query.GetScene())
        self.assertEqual((list_results(self.state), self.state.read()["results"]), ([], []))
