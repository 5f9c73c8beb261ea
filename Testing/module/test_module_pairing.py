"""Volumes and annotations that were loaded from files find each other; Remove leaves nothing."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk
import slicer
from FewShotSegSlicer.scene import annotations
from FewShotSegSlicer.scene.case_names import ANOTHER, SAME, UNKNOWN, WITHIN, name_fit
from FewShotSegSlicer.scene.pairing import APART, INSIDE, LATTICE, OVERLAPS, geometry_fit
from module_logic import SHAPE, LogicTestCase
from module_scenes import add_segmentation, add_transform, add_volume, affine_of
from panel_case import RealPanel, choose, settle, texts
from watching import scene_changes

from FewShotSegLib.core.errors import InputError

FAR = affine_of(origin=(500.0, 0.0, 0.0))


def box(start: int = 2, size: int = 4, label: int = 1) -> np.ndarray:
    """Labels (i, j, k) with a cube."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[start : start + size, start : start + size, start : start + size] = label
    return mask


def write_file(path: Path, array: np.ndarray, affine: np.ndarray) -> str:
    """An array (i, j, k) as an image file in this place."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return str(path)


def node_ids() -> set[str]:
    scene = slicer.mrmlScene
    return {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}


class PairingTestCase(LogicTestCase):
    """Files of small cases, opened as a person opens them."""

    def volume(self, name: str, affine: np.ndarray | None = None) -> Any:
        array = np.random.default_rng(0).integers(-500, 500, SHAPE).astype(np.int16)
        where = affine_of() if affine is None else affine
        path = write_file(self.folder / f"{name}.nii.gz", array, where)
        return slicer.util.loadVolume(path)

    def segmentation(
        self, name: str, affine: np.ndarray | None = None, labels: np.ndarray | None = None
    ) -> Any:
        where = affine_of() if affine is None else affine
        array = box() if labels is None else labels
        return slicer.util.loadSegmentation(
            write_file(self.folder / f"{name}.nii.gz", array, where)
        )

    def label_map(self, name: str, labels: np.ndarray, **properties: Any) -> Any:
        path = write_file(self.folder / f"{name}.nii.gz", labels, affine_of())
        return slicer.util.loadVolume(path, properties)

    def model(self, name: str, centre: tuple[float, float, float], radius: float = 4.0) -> Any:
        import vtk

        source = vtk.vtkSphereSource()
        source.SetCenter(*centre)
        source.SetRadius(radius)
        source.SetThetaResolution(24)
        source.SetPhiResolution(24)
        source.Update()
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", name)
        node.SetAndObservePolyData(source.GetOutput())
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetColor(0.1, 0.9, 0.3)
        return node

    def paired(self) -> list[tuple[str, str]]:
        return [(row.volume_name, row.segmentation_name) for row in self.logic.supports()]

    def states(self) -> list[str]:
        return [row.state for row in self.logic.supports()]


class NamesTest(unittest.TestCase):
    """What names say."""

    def test_pairs_of_names(self) -> None:
        for volume, annotation, expected in (
            ("case01_image", "case01_seg", SAME),
            ("ct_3", "ct_3_label", SAME),
            ("case01_0000", "case01", SAME),
            ("Case-01.nii.gz", "case 01 Segmentation", SAME),
            ("case01_ct", "case01_liver", WITHIN),
            ("case01_image", "case02_seg", ANOTHER),
            ("pt_2_ct", "pt_13_seg", ANOTHER),
            ("CT", "Segmentation", UNKNOWN),
            ("Thorax", "Liver", UNKNOWN),
            ("CT 1", "Segmentation", UNKNOWN),
        ):
            with self.subTest(volume=volume, annotation=annotation):
                self.assertEqual(name_fit(volume, annotation), expected)


class PairsTest(PairingTestCase):
    """«Add all in scene»."""

    def test_names_tell_where_all_share_one_geometry(self) -> None:
        for case in ("case02", "case01", "case10"):
            self.volume(f"{case}_image")
        for case in ("case10", "case01", "case02"):
            self.segmentation(f"{case}_seg")
        self.assertEqual(self.logic.addSceneSupports(), 3)
        pairs = [(f"{c}_image", f"{c}_seg") for c in ("case02", "case01", "case10")]
        self.assertEqual(self.paired(), pairs)
        self.assertEqual(self.states(), ["ready"] * 3)
        self.assertEqual(self.logic.addSceneSupports(), 0)
        row = self.logic.supports()[0]
        reference = row.segmentation.GetNodeReference(
            row.segmentation.GetReferenceImageGeometryReferenceRole()
        )
        self.assertIs(reference, row.volume, "Segment Editor knows it from now on")

    def test_geometry_tells_where_names_do_not(self) -> None:
        there = self.volume("Thorax", FAR)
        here = self.volume("Abdomen")
        self.segmentation("drawn by A")
        self.segmentation("Segmentation", FAR)
        self.assertEqual(self.logic.addSceneSupports(), 2)
        self.assertEqual(
            {(row.volume, row.segmentation_name) for row in self.logic.supports()},
            {(there, "Segmentation"), (here, "drawn by A")},
        )

    def test_the_reference_comes_before_names_and_geometry(self) -> None:
        first, second = self.volume("case01_image"), self.volume("case02_image")
        drawn = add_segmentation({"liver": box() > 0}, affine_of(), second, "case01_seg")
        self.assertEqual(self.logic.addSceneSupports(), 1)
        (row,) = self.logic.supports()
        self.assertEqual((row.volume, row.segmentation), (second, drawn))
        self.assertIsNot(row.volume, first)

    def test_another_case_is_never_taken_for_want_of_a_better_one(self) -> None:
        self.volume("pt_13_ct")
        self.segmentation("pt_20_seg")
        with scene_changes() as changes:
            self.assertEqual(self.logic.supports(), [])
        self.assertEqual(changes, [])
        before = node_ids()
        self.assertEqual(self.logic.addSceneSupports(), 0)
        self.assertEqual((self.logic.supports(), node_ids()), ([], before))

    def test_a_crop_lies_on_the_voxels_and_a_finer_grid_within(self) -> None:
        volume = self.volume("a")
        crop = self.segmentation("x", affine_of(origin=(4.0, 4.0, 6.0)), box()[:6, :6, :6])
        fine = self.segmentation("y", affine_of((1.0, 1.0, 1.5)))
        partly = self.segmentation("z", affine_of(origin=(-5.0, 0.0, 0.0)))
        self.assertEqual(geometry_fit(crop, volume), LATTICE)
        self.assertEqual(geometry_fit(fine, volume), INSIDE)
        self.assertEqual(geometry_fit(partly, volume), OVERLAPS)
        away = self.segmentation("w", affine_of(origin=(-13.0, 0.0, 0.0)))
        self.assertEqual(geometry_fit(away, volume), APART)
        moved = affine_of(origin=(300.0, 0.0, 0.0))
        add_transform(moved, volume)
        self.assertEqual(geometry_fit(crop, volume), APART)
        add_transform(moved, crop)
        self.assertEqual(geometry_fit(crop, volume), LATTICE)

    def test_the_query_is_left_out_where_another_volume_fits(self) -> None:
        query, other = self.volume("Follow-up"), self.volume("Baseline")
        self.segmentation("Segmentation")
        self.logic.getParameterNode().queryVolume = query
        self.assertEqual(self.logic.addSceneSupports(), 1)
        self.assertIs(self.logic.supports()[0].volume, other)

    def test_results_and_maps_are_no_annotations(self) -> None:
        volume = self.volume("case01_image")
        result = self.segmentation("case01_seg")
        state = self.logic.session.state
        state.refer("resultQuery", "r", volume)
        state.refer("resultRefined", "r", result)
        data = state.read()
        data["results"] = [
            {"id": "r", "table": [], "warnings": [], "seconds": 1.0, "adapter": ""},
        ]
        state.write(data)
        self.assertEqual(self.logic.addSceneSupports(), 0)
        self.assertIsNone(self.logic.proposedSupport(volume), "it has a result")

    def test_add_of_one_volume_finds_its_annotation_too(self) -> None:
        self.volume("case02_image")
        volume = self.volume("case01_image")
        drawn = self.segmentation("case01_seg")
        before = node_ids()
        self.logic.addSupport(volume)
        self.assertIs(self.logic.supports()[0].segmentation, drawn)
        self.assertEqual(node_ids(), before)


class ChoiceTest(PairingTestCase):
    """What is open is chosen, never guessed."""

    def open_case(self) -> tuple[Any, Any]:
        volume = self.volume("Abdomen")
        return volume, [self.segmentation("rater A"), self.segmentation("rater B")]

    def test_two_annotations_of_one_volume(self) -> None:
        _volume, drawn = self.open_case()
        before = node_ids()
        self.assertEqual(self.logic.addSceneSupports(), 0)
        (row,) = self.logic.supports()
        self.assertEqual((row.state, row.ticked, row.segmentation), ("choose", False, None))
        self.assertEqual([c.title for c in row.choices], ["rater A", "rater B"])
        self.assertEqual(node_ids(), before, "no empty segmentation was made")
        self.assertIn("Add an annotated volume", " ".join(self.logic.blockers("train")))
        with self.assertRaisesRegex(InputError, "Choose the annotation"):
            self.logic.prepareEditing(row.id)
        with self.assertRaisesRegex(InputError, "not in the scene any more"):
            self.logic.chooseAnnotation(row.id, "nothing")
        self.logic.chooseAnnotation(row.id, row.choices[1].id)
        (row,) = self.logic.supports()
        self.assertEqual((row.state, row.ticked, row.segmentation), ("ready", True, drawn[1]))
        self.assertEqual(row.choices, ())

    def test_one_annotation_of_two_volumes(self) -> None:
        first, second = self.volume("Arterial"), self.volume("Venous")
        drawn = self.segmentation("Segmentation")
        self.assertEqual(self.logic.addSceneSupports(), 0)
        self.assertEqual(self.states(), ["choose", "choose"])
        row = next(row for row in self.logic.supports() if row.volume is second)
        self.logic.chooseAnnotation(row.id, row.choices[0].id)
        (row,) = self.logic.supports()
        self.assertEqual((row.volume, row.segmentation), (second, drawn))
        self.assertIsNot(row.volume, first)

    def test_none_of_them_is_a_new_one_to_draw(self) -> None:
        volume, _drawn = self.open_case()
        row_id = self.logic.addSupport(volume)
        self.assertEqual(self.states(), ["choose"])
        self.logic.chooseAnnotation(row_id, "")
        (row,) = self.logic.supports()
        self.assertEqual((row.id, row.state), (row_id, "no segments"))
        self.assertEqual(row.segmentation_name, "Abdomen segmentation")

    def test_a_row_that_waits_outlives_saving(self) -> None:
        self.open_case()
        self.logic.addSceneSupports()
        path = str(self.folder / "scene.mrb")
        self.assertTrue(slicer.mrmlScene.WriteToMRB(path))
        slicer_world.clear_scene()
        self.assertTrue(slicer.mrmlScene.ReadFromMRB(path))
        (row,) = self.logic.supports()
        self.assertEqual([c.title for c in row.choices], ["rater A", "rater B"])


class KindsTest(PairingTestCase):
    """Label maps and models."""

    def test_a_label_map_with_the_names_of_its_colours(self) -> None:
        volume = self.volume("case01_ct")
        labels = box(2, 3, 4) + box(6, 2, 7) + box(8, 1, 200)
        node = self.label_map("case01_seg", labels, labelmap=True)
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", "Organs")
        table.SetTypeToUser()
        table.SetNumberOfColors(8)
        table.SetColor(4, "parotid", 0.9, 0.1, 0.2)
        table.SetColor(7, "pouch", 0.1, 0.2, 0.9)
        node.GetDisplayNode().SetAndObserveColorNodeID(table.GetID())
        self.assertEqual(self.logic.addSceneSupports(), 1)
        (row,) = self.logic.supports()
        self.assertEqual(row.structures, ("parotid", "pouch", "Segment_200"))
        segments = row.segmentation.GetSegmentation()
        np.testing.assert_allclose(
            segments.GetSegment(segments.GetSegmentIdBySegmentName("pouch")).GetColor(),
            (0.1, 0.2, 0.9),
            atol=1 / 255,
        )
        for name, label in (("parotid", 4), ("pouch", 7), ("Segment_200", 200)):
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(
                row.segmentation, segments.GetSegmentIdBySegmentName(name), volume
            ).T
            np.testing.assert_array_equal(mask > 0, labels == label)
        self.assertEqual(self.logic.addSceneSupports(), 0, "the label map is not offered again")

    def test_a_file_of_labels_that_was_opened_as_a_volume(self) -> None:
        self.volume("case01_ct")
        node = self.label_map("case01_label", box(2, 3, 3).astype(np.int16))
        self.assertEqual(node.GetClassName(), "vtkMRMLScalarVolumeNode")
        self.assertTrue(annotations.is_label_map(node))
        self.assertEqual(self.logic.addSceneSupports(), 1)
        (row,) = self.logic.supports()
        self.assertEqual((row.volume_name, row.structures), ("case01_ct", ("Segment_3",)))
        with self.assertRaisesRegex(InputError, "holds labels"):
            self.logic.addSupport(node)

    def test_an_image_is_no_label_map_whatever_it_is_called(self) -> None:
        for name, array in (
            ("a_seg", np.full(SHAPE, -3, np.int16)),
            ("b_seg", np.full(SHAPE, 0.5, np.float32)),
            ("c_seg", np.full(SHAPE, 4000, np.int16)),
            ("d", box()),
        ):
            node = add_volume(array, affine_of(), name)
            self.assertFalse(annotations.is_label_map(node), name)

    def test_models_become_the_segments_of_one_segmentation(self) -> None:
        self.volume("Abdomen")
        self.model("liver", (10.0, 10.0, 12.0), 6.0)
        self.model("spleen", (16.0, 12.0, 20.0), 3.0)
        self.model("elsewhere", (900.0, 0.0, 0.0))
        self.assertEqual(self.logic.addSceneSupports(), 1)
        (row,) = self.logic.supports()
        self.assertEqual((row.state, row.structures), ("ready", ("liver", "spleen")))
        self.assertEqual(self.logic.addSceneSupports(), 0)
        self.hand_over(row)

    def hand_over(self, row: Any) -> None:
        """The process gets label maps of the surfaces, of about their volume."""
        from FewShotSegSlicer.jobs.export_nodes import SupportNodes, support_steps

        ids = {s.id: s.name for s in annotations.list_segments(row.segmentation)}
        out: list[Any] = []
        nodes = SupportNodes(row.volume, row.segmentation, ids)
        for _ in support_steps(self.folder, 0, nodes, out):
            pass
        volumes = {}
        for mask in out[0].masks:
            array = np.load(self.folder / mask.labels.file)
            size = abs(np.linalg.det(np.array(mask.labels.affine)[:3, :3]))
            volumes[mask.structure] = np.count_nonzero(array == mask.value) * size
        self.assertLess(abs(volumes["liver"] / (4 / 3 * np.pi * 6.0**3) - 1), 0.25)

    def test_a_segmentation_comes_before_models_of_the_same_volume(self) -> None:
        self.volume("Abdomen")
        drawn = self.segmentation("Segmentation")
        self.model("liver", (10.0, 10.0, 12.0), 6.0)
        self.assertEqual(self.logic.addSceneSupports(), 1)
        self.assertIs(self.logic.supports()[0].segmentation, drawn)

    def test_a_model_in_two_volumes_is_for_choice(self) -> None:
        first = self.volume("Arterial")
        self.volume("Venous")
        self.model("liver", (10.0, 10.0, 12.0), 6.0)
        self.assertEqual(self.logic.addSceneSupports(), 0)
        self.assertEqual(self.states(), ["choose", "choose"])
        row = next(row for row in self.logic.supports() if row.volume is first)
        self.assertEqual(row.choices[0].title, "liver")
        self.logic.chooseAnnotation(row.id, row.choices[0].id)
        (row,) = self.logic.supports()
        self.assertEqual((row.volume, row.structures), (first, ("liver",)))


class RemoveTest(PairingTestCase):
    """What Remove takes away leaves no node behind, and takes nothing of a person's."""

    def test_nothing_is_left_of_what_was_made_for_a_row(self) -> None:
        volume = self.volume("a")
        self.label_map("b_label", box(), labelmap=True)
        self.logic.getParameterNode()
        self.logic.addStructure("liver")
        before = node_ids()
        self.logic.addSceneSupports()
        first = self.logic.supports()[0].id
        self.assertGreater(len(node_ids()), len(before))
        self.logic.removeSupport(first)
        self.assertEqual(node_ids(), before)
        slicer.mrmlScene.RemoveNode(slicer.util.getNode("b_label"))
        before = node_ids()
        row_id = self.logic.addSupport(volume)
        self.assertGreater(len(node_ids()), len(before))
        self.assertEqual(self.logic.supports()[0].state, "nothing drawn")
        self.logic.removeSupport(row_id)
        self.assertEqual(node_ids(), before)

    def test_what_a_person_drew_stays(self) -> None:
        volume = self.volume("a")
        self.label_map("a_label", box(), labelmap=True)
        self.logic.addSceneSupports()
        (row,) = self.logic.supports()
        segments = row.segmentation.GetSegmentation()
        array = np.zeros(SHAPE[::-1], np.uint8)
        array[2:5, 3:6, 4:7] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            array, row.segmentation, segments.GetNthSegmentID(0), volume
        )
        before = node_ids()
        self.logic.removeSupport(row.id)
        self.assertEqual(node_ids(), before)

    def test_what_a_person_loaded_or_renamed_stays(self) -> None:
        self.volume("a")
        drawn = self.segmentation("a_seg")
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
        before = node_ids()
        self.logic.addSceneSupports()
        self.logic.removeSupport(self.logic.supports()[0].id)
        self.assertEqual(node_ids(), before)
        row_id = self.logic.addSupport(slicer.util.getNode("a"), empty)
        self.logic.removeSupport(row_id)
        self.assertEqual(node_ids(), before)
        self.assertTrue(slicer.mrmlScene.IsNodePresent(drawn))


class ProposalTest(PairingTestCase):
    """What the panel offers."""

    def test_the_one_on_screen_but_never_the_query(self) -> None:
        first, second = self.volume("a", FAR), self.volume("b")
        self.assertIs(self.logic.proposedSupport(second), second)
        self.assertIsNone(self.logic.proposedQuery(second), "nothing was annotated yet")
        self.segmentation("a_seg", FAR)
        self.assertIs(self.logic.proposedQuery(first), second)
        self.logic.getParameterNode().queryVolume = second
        self.assertIs(self.logic.proposedSupport(second), first)
        self.logic.addSupport(first)
        self.assertIsNone(self.logic.proposedSupport(second))
        self.label_map("c_label", box(), labelmap=True)
        self.assertIsNone(self.logic.proposedSupport(None), "a label map is no image")


class PanelTest(PairingTestCase):
    """By hand, on the panel over the real logic."""

    def setUp(self) -> None:
        super().setUp()
        self.panel = RealPanel()
        self.addCleanup(self.panel.close)
        self.ui = self.panel.ui
        self.panel.enter()

    def annotations(self) -> list[str]:
        """What the table says on hovering its rows."""
        table = self.ui.supportsTable
        return [table.item(row, 0).toolTip() for row in range(table.rowCount)]

    def test_nodes_that_are_loaded_while_it_is_open_count(self) -> None:
        volume = self.volume("a")
        settle()
        self.assertIs(self.ui.volumeSelector.currentNode(), volume)
        other = self.volume("b", FAR)
        slicer.util.setSliceViewerLayers(background=other)
        self.panel.logic.getParameterNode().queryVolume = volume
        settle()
        self.assertIs(self.ui.volumeSelector.currentNode(), other)
        slicer.mrmlScene.StartState(slicer.mrmlScene.BatchProcessState)
        self.segmentation("b_seg", FAR)
        slicer.mrmlScene.EndState(slicer.mrmlScene.BatchProcessState)
        self.ui.addSceneButton.click()
        settle()
        self.assertEqual(self.annotations(), ["b\nAnnotated in: b_seg"])
        self.assertIsNone(self.ui.volumeSelector.currentNode())

    def test_a_batch_is_heard_of_once_it_is_over(self) -> None:
        volume = self.volume("a")
        self.panel.logic.addSupport(volume)
        settle()
        self.assertEqual(len(texts(self.ui.supportsTable)), 1)
        heard: list[Any] = []
        self.panel.logic.listen(heard.append)
        slicer.mrmlScene.StartState(slicer.mrmlScene.BatchProcessState)
        slicer.mrmlScene.RemoveNode(volume)
        self.assertEqual(heard, [])
        slicer.mrmlScene.EndState(slicer.mrmlScene.BatchProcessState)
        settle()
        self.assertTrue(heard)
        self.assertEqual(texts(self.ui.supportsTable)[0][2], "deleted")

    def test_choosing_on_the_panel(self) -> None:
        self.volume("Abdomen")
        self.segmentation("rater A")
        self.segmentation("rater B")
        with mock.patch("FewShotSegSlicer.panel.supports.tell") as said:
            self.ui.addSceneButton.click()
        said.assert_not_called()
        settle()
        chooser = self.panel.supports.chooser
        self.assertTrue(chooser.widget.isVisibleTo(self.ui.supportsSection))
        self.assertIn("Abdomen", chooser.label.text)
        self.assertIn(
            "Several annotations could be of «Abdomen»: rater A, rater B.",
            self.ui.supportsHint.text,
        )
        choice = self.panel.logic.supports()[0].choices[0]
        choose(chooser.combo, choice.id)
        settle()
        self.assertEqual(self.annotations(), ["Abdomen\nAnnotated in: rater A"])
        self.assertFalse(chooser.widget.isVisibleTo(self.ui.supportsSection))
        with mock.patch("FewShotSegSlicer.panel.supports.tell") as said:
            self.ui.addSceneButton.click()
        said.assert_called_once()


if __name__ == "__main__":
    unittest.main()
