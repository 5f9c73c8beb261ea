"""Classes over the supports, their priors, the support rows; saved with the scene and read back."""

from __future__ import annotations

import numpy as np
import slicer
import slicer_world
from FewShotSegSlicer.interface.protocol import LogicProtocol
from FewShotSegSlicer.scene.segments import terminology_key
from module_logic import SHAPE, LogicTestCase
from module_scenes import (
    COLOR_STEP,
    adapter_bytes,
    add_segmentation,
    add_transform,
    add_volume,
    affine_of,
    terminology,
)

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.size_prior import prior_from_sizes

LIVER = terminology("10200004", "Liver")
SPLEEN = terminology("78961009", "Spleen")


class MatchingTest(LogicTestCase):
    """Which segments are one class."""

    def test_by_name_whatever_its_order_and_punctuation(self) -> None:
        self.support(left_kidney=2, liver=3)
        self.support(**{"Kidney, left": 4})
        rows = self.classes()
        self.assertEqual(set(rows), {"left_kidney", "liver"})
        self.assertEqual(len(rows["left_kidney"].segments), 2)
        self.assertEqual(rows["left_kidney"].conflict, "")
        self.assertEqual([s.structures for s in self.logic.supports()][1], ("left_kidney",))

    def test_by_terminology_before_names(self) -> None:
        self.support({"Leber": LIVER}, Leber=2)
        self.support({"liver": LIVER}, liver=3)
        self.support(leber=3)
        rows = self.classes()
        self.assertEqual(set(rows), {"Leber"})
        self.assertEqual(len(rows["Leber"].segments), 3)
        self.assertIn("several names", rows["Leber"].conflict)

    def test_slicers_default_terminology_says_nothing(self) -> None:
        tissue = terminology("85756007", "Tissue")
        self.assertEqual(terminology_key(tissue), ())
        self.assertEqual(terminology_key("nonsense"), ())
        self.support({"a": tissue, "b": tissue}, a=1, b=2)
        self.assertEqual(set(self.classes()), {"a", "b"})

    def test_one_name_under_two_terminologies_is_shown_and_can_be_merged(self) -> None:
        self.support({"organ": LIVER}, organ=2)
        self.support({"organ": SPLEEN}, organ=3)
        rows = self.logic.structures()
        self.assertEqual(len(rows), 2)
        self.assertTrue(all("same name" in row.conflict for row in rows))
        merged = self.logic.mergeStructures([row.id for row in rows])
        (row,) = self.logic.structures()
        self.assertEqual((row.id, len(row.segments), row.conflict), (merged, 2, ""))
        self.assertEqual(len(self.logic.splitStructure(merged)), 2)
        self.assertEqual(len(self.logic.structures()), 2)

    def test_two_segments_of_one_support_in_one_class(self) -> None:
        self.support(**{"kidney left": 2, "left kidney": 3})
        (row,) = self.logic.structures()
        self.assertIn("two segments", row.conflict)

    def test_a_new_name_keeps_the_segments(self) -> None:
        self.support(liver=2)
        row = self.classes()["liver"]
        self.logic.renameStructure(row.id, "Leber")
        self.logic.colorStructure(row.id, (1, 0, 0))
        self.support(liver=3)
        rows = self.classes()
        self.assertEqual(len(rows["Leber"].segments), 1)
        self.assertEqual(rows["Leber"].color, (1.0, 0.0, 0.0))

    def test_classes_without_segments_go_unless_a_user_made_them(self) -> None:
        first = self.support(liver=2)
        self.logic.addStructure("spleen")
        self.logic.removeSupport(first)
        self.assertEqual([row.name for row in self.logic.structures()], ["spleen"])
        with self.assertRaises(InputError):
            self.logic.addStructure("  ")


class SupportsTest(LogicTestCase):
    """Rows, and what is missing in them."""

    def test_states_with_a_sentence_on_what_to_do(self) -> None:
        self.assertIn("Add an annotated volume", " ".join(self.logic.blockers("train")))
        volume = add_volume(np.zeros(SHAPE, np.int16), affine_of(), "v")
        row_id = self.logic.addSupport(volume)
        self.assertEqual(self.logic.supports()[0].state, "no segments")
        self.assertEqual(self.logic.addSupport(volume), row_id)
        self.logic.addStructure("liver", (0.1, 0.6, 0.3), LIVER)
        _volume, segmentation = self.logic.prepareEditing(row_id)
        (row,) = self.logic.supports()
        self.assertEqual(row.state, "nothing drawn")
        self.assertIn("v: ", self.logic.blockers("train")[0])
        segment = segmentation.GetSegmentation().GetNthSegment(0)
        self.assertEqual(segment.GetName(), "liver")
        np.testing.assert_allclose(segment.GetColor(), (0.1, 0.6, 0.3), atol=COLOR_STEP)
        (structure,) = self.logic.structures()
        self.assertEqual((len(structure.segments), structure.terminology), (1, LIVER))
        array = np.zeros(SHAPE[::-1], np.uint8)
        array[2:5, 3:6, 4:7] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            array, segmentation, segmentation.GetSegmentation().GetNthSegmentID(0), volume
        )
        self.assertEqual(self.logic.supports()[0].state, "ready")
        self.assertEqual(self.logic.blockers("train"), [])
        slicer.mrmlScene.RemoveNode(volume)
        self.assertEqual(self.logic.supports()[0].state, "missing")
        self.logic.tickSupport(row_id, False)
        self.assertFalse(self.logic.supports()[0].ticked)
        self.logic.removeSupport(row_id)
        self.assertEqual(self.logic.supports(), [])

    def test_a_new_segmentation_is_in_its_volumes_place(self) -> None:
        volume = add_volume(np.zeros(SHAPE, np.int16), affine_of((1, 2, 3), (9, 9, 9)), "v")
        add_transform(affine_of((1, 1, 1), (40, 0, 0)), volume)
        row_id = self.logic.addSupport(volume)
        segmentation = self.logic.supports()[0].segmentation
        self.assertIs(segmentation.GetParentTransformNode(), volume.GetParentTransformNode())
        self.assertEqual(self.logic.supports()[0].id, row_id)

    def test_every_volume_of_the_scene_that_has_a_segmentation(self) -> None:
        for number in range(3):
            volume = add_volume(np.zeros(SHAPE, np.int16), affine_of(), f"v{number}")
            if number:
                add_segmentation({"liver": np.ones(SHAPE, bool)}, affine_of(), volume)
        self.assertEqual(self.logic.addSceneSupports(), 2)
        self.assertEqual(self.logic.addSceneSupports(), 0)
        self.assertEqual([row.volume_name for row in self.logic.supports()], ["v1", "v2"])

    def test_a_folder_of_pairs_with_the_names_of_its_labels(self) -> None:
        from FewShotSegLib.phantoms.patients import write_phantoms

        write_phantoms(self.folder / "patients", 2)
        self.assertEqual(self.logic.addFolder(str(self.folder / "patients")), 2)
        rows = self.logic.supports()
        self.assertEqual([row.state for row in rows], ["ready", "ready"])
        self.assertEqual(rows[0].structures, ("gland_right", "gland_left", "pouch"))
        with self.assertRaises(InputError):
            self.logic.addFolder(str(self.folder / "nowhere"))

    def test_showing_a_row(self) -> None:
        first, second = self.support(liver=2), self.support(liver=4)
        self.logic.showSupport(second)
        one, two = (row.segmentation.GetDisplayNode() for row in self.logic.supports())
        self.assertEqual((one.GetVisibility(), two.GetVisibility()), (0, 1))
        composite = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")[0]
        volume = self.logic.supports()[1].volume
        self.assertEqual(composite.GetBackgroundVolumeID(), volume.GetID())
        self.logic.showSupport(first)
        self.assertTrue(one.GetVisibility())


class PriorsTest(LogicTestCase):
    """What sizes are expected."""

    def test_mean_and_spread_are_the_engines(self) -> None:
        for planes in (2, 3, 6):
            self.support(liver=planes)
        row = self.classes()["liver"]
        voxel = 2 * 2 * 3
        expected = prior_from_sizes([25 * n * voxel for n in (2, 3, 6)], [False] * 3)
        self.assertAlmostEqual(row.prior.mean_ml, expected.mean / 1000)
        self.assertAlmostEqual(row.prior.sd_ml, expected.deviation / 1000)
        self.assertAlmostEqual(row.prior.gamma, expected.gamma)
        self.assertEqual((row.prior.count, row.prior.edited), (3, False))
        self.assertAlmostEqual(row.prior.lower_ml, expected.bounds()[0] / 1000)

    def test_ticked_supports_count_and_transforms_scale(self) -> None:
        self.support(liver=2)
        other = self.support(liver=6)
        self.logic.tickSupport(other, False)
        self.assertAlmostEqual(self.classes()["liver"].prior.mean_ml, 0.6)
        self.assertEqual(self.classes()["liver"].prior.gamma, 0.5)
        add_transform(np.diag([2.0, 1, 1, 1]), self.logic.supports()[0].segmentation)
        self.assertAlmostEqual(self.classes()["liver"].prior.mean_ml, 1.2)

    def test_a_few_slices_are_not_measured(self) -> None:
        """The engine estimates from them; a volume that a person knows is shown."""
        self.support(liver=2)
        self.logic.getParameterNode().onlyDrawnSlices = True
        row = self.classes()["liver"].prior
        self.assertEqual((row.mean_ml, row.count), (None, 0))
        self.logic.setPrior(self.logic.structures()[0].id, mean_ml=5.0)
        row = self.classes()["liver"].prior
        self.assertEqual((row.mean_ml, row.edited), (5.0, True))
        self.logic.getParameterNode().onlyDrawnSlices = False
        self.logic.resetPrior(self.logic.structures()[0].id)
        self.assertAlmostEqual(self.classes()["liver"].prior.mean_ml, 0.6)

    def test_drawing_more_is_counted_again(self) -> None:
        self.support(liver=2)
        self.assertAlmostEqual(self.classes()["liver"].prior.mean_ml, 0.6)
        row = self.logic.supports()[0]
        array = np.ones(SHAPE[::-1], np.uint8)
        segment_id = row.segmentation.GetSegmentation().GetNthSegmentID(0)
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            array, row.segmentation, segment_id, row.volume
        )
        self.assertAlmostEqual(self.classes()["liver"].prior.mean_ml, np.prod(SHAPE) * 12 / 1000)

    def test_edits_stay_until_they_are_reset(self) -> None:
        self.support(liver=2)
        self.support(liver=4)
        row_id = self.classes()["liver"].id
        self.logic.setPrior(row_id, mean_ml=2.0)
        self.logic.setPrior(row_id, gamma=0.2)
        self.logic.setPrior(row_id, enabled=False)
        prior = self.classes()["liver"].prior
        self.assertEqual((prior.mean_ml, prior.edited, prior.gamma), (2.0, True, 0.2))
        self.assertEqual((prior.enabled, prior.lower_ml), (False, None))
        self.logic.setPrior(row_id, enabled=True)
        self.assertAlmostEqual(self.classes()["liver"].prior.upper_ml, 2.4)
        for wrong in ({"mean_ml": 0.0}, {"gamma": -0.1}, {"sd_ml": -1.0}):
            with self.assertRaises(InputError):
                self.logic.setPrior(row_id, **wrong)
        self.logic.resetPrior(row_id)
        self.assertAlmostEqual(self.classes()["liver"].prior.mean_ml, 0.9)


class AdaptersTest(LogicTestCase):
    """Adapters in the scene."""

    def test_renamed_saved_loaded_and_deleted(self) -> None:
        content = adapter_bytes()
        path = self.folder / "one.fseft"
        path.write_bytes(content)
        row_id = self.logic.loadAdapter(str(path))
        (row,) = self.logic.adapters()
        self.assertEqual((row.id, row.name, row.structures), (row_id, "one", ("bean", "pea")))
        self.assertIn("4 x 5 x 6", row.supports[0])
        self.assertEqual(self.logic.getParameterNode().adapterId, row_id)
        self.logic.renameAdapter(row_id, "Glands")
        self.assertEqual(self.logic.adapters()[0].name, "Glands")
        self.logic.saveAdapter(row_id, str(self.folder / "two"))
        self.assertEqual((self.folder / "two.fseft").read_bytes(), content)
        self.logic.deleteAdapter(row_id)
        self.assertEqual((self.logic.adapters(), self.logic.getParameterNode().adapterId), ([], ""))

    def test_what_is_no_adapter_is_refused(self) -> None:
        for name, content in (
            ("text.fseft", b"not an adapter"),
            ("short.fseft", adapter_bytes()[:-5]),
            ("newer.fseft", adapter_bytes(format=99)),
        ):
            path = self.folder / name
            path.write_bytes(content)
            with self.assertRaisesRegex(InputError, name.removesuffix(".fseft")):
                self.logic.loadAdapter(str(path))
        with self.assertRaises(InputError):
            self.logic.loadAdapter(str(self.folder / "absent.fseft"))
        self.assertEqual(self.logic.adapters(), [])


class SavingTest(LogicTestCase):
    """A scene that is saved and read brings everything back."""

    def save_and_reload(self) -> None:
        path = str(self.folder / "scene.mrb")
        self.assertTrue(slicer.mrmlScene.WriteToMRB(path))
        slicer_world.clear_scene()
        self.assertEqual(self.logic.supports(), [])
        self.assertEqual(self.logic.adapters(), [])
        self.assertTrue(slicer.mrmlScene.ReadFromMRB(path))
        slicer.app.processEvents()

    def test_supports_classes_priors_adapters_and_settings(self) -> None:
        self.support({"liver": LIVER}, liver=2)
        second = self.support(**{"Leber": 4, "pouch": 3})
        rows = self.classes()
        self.logic.mergeStructures([rows["liver"].id, rows["Leber"].id])
        self.logic.setPrior(rows["liver"].id, mean_ml=1.5, gamma=0.4)
        self.logic.tickSupport(second, False)
        self.logic.tickStructure(rows["pouch"].id, False)
        self.logic.session.adapters.add(adapter_bytes(), "Glänzend", ["v0 (liver 0.6 ml)"])
        parameters = self.logic.getParameterNode()
        parameters.queryVolume = self.logic.supports()[0].volume
        parameters.epochs, parameters.method = 7, "linear-probe"
        parameters.transductive = False
        adapter = self.logic.adapters()[0]
        parameters.adapterId = adapter.id
        supports = [(r.id, r.volume_name, r.ticked, r.structures) for r in self.logic.supports()]
        structures = self.logic.structures()
        content = self.logic.session.adapters.content(adapter.id)
        self.save_and_reload()
        found = [(r.id, r.volume_name, r.ticked, r.structures) for r in self.logic.supports()]
        self.assertEqual(found, supports)
        self.assertEqual([r.state for r in self.logic.supports()], ["ready", "ready"])
        self.classes()
        again = self.logic.structures()
        self.assertEqual(
            [(r.id, r.name, r.color, r.terminology, r.ticked) for r in again],
            [(r.id, r.name, r.color, r.terminology, r.ticked) for r in structures],
        )
        self.assertEqual([r.prior for r in again], [r.prior for r in structures])
        self.assertEqual([len(r.segments) for r in again], [2, 1])
        (row,) = self.logic.adapters()
        self.assertEqual(row, adapter)
        self.assertEqual(self.logic.session.adapters.content(row.id), content)
        parameters = self.logic.getParameterNode()
        self.assertEqual(parameters.queryVolume.GetName(), "v0")
        self.assertEqual((parameters.epochs, parameters.method), (7, "linear-probe"))
        self.assertEqual((parameters.transductive, parameters.adapterId), (False, adapter.id))

    def test_a_cleared_scene_is_a_new_beginning(self) -> None:
        self.support(liver=2)
        self.logic.getParameterNode().epochs = 9
        slicer_world.clear_scene()
        self.assertEqual((self.logic.supports(), self.logic.structures()), ([], []))
        self.assertEqual(self.logic.getParameterNode().epochs, 0)
        self.support(liver=2)
        self.assertEqual(len(self.logic.supports()), 1)


class ProtocolTest(LogicTestCase):
    """The logic is what the panel was written against."""

    def test_every_method_of_the_protocol_is_there(self) -> None:
        import inspect

        for name, member in vars(LogicProtocol).items():
            if name.startswith("_") or not callable(member):
                continue
            own = getattr(self.logic, name)
            wanted = list(inspect.signature(member).parameters)[1:]
            self.assertEqual(list(inspect.signature(own).parameters), wanted, name)

    def test_no_torch_in_this_process_on_account_of_the_module(self) -> None:
        import ast

        for path in sorted(slicer_world.MODULE.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                for name in names:
                    self.assertNotIn(name.split(".")[0], ("torch", "monai"), path.name)
