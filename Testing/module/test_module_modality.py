"""Which model the panel proposes: by what the first ticked support's values say that it is."""

from __future__ import annotations

import slicer_world  # before slicer, which it puts in place

# isort: split
import unittest
from typing import Any
from unittest import mock

import numpy as np
from FewShotSegSlicer.scene import supports
from FewShotSegSlicer.scene.supports import likely_modality
from module_logic import LogicTestCase
from module_scenes import adapter_bytes, add_segmentation, add_volume, affine_of
from tiny_model import write_model

from FewShotSegLib.core import requirements
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.model_folders import DEFAULT_MODELS
from FewShotSegLib.phantoms.patients import make_phantom


class LikelyModalityTest(LogicTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ct = make_phantom(0, spacing=(6, 6, 6))[0].array.astype(np.int16)
        self.too_high = np.clip(self.ct + 1024, 0, None).astype(np.uint16)

    def modality_of(self, array: np.ndarray) -> str:
        """What a scene with this image as its first support is taken for."""
        volume = add_volume(array, affine_of(), "image")
        self.logic.addSupport(volume)
        return likely_modality(self.logic.session.state)

    def test_a_ct(self) -> None:
        self.assertEqual(self.modality_of(self.ct), "CT")

    def test_a_ct_that_was_stored_too_high(self) -> None:
        self.assertEqual(self.modality_of(self.too_high), "CT")
        self.assertEqual(self.logic.session.model(), DEFAULT_MODELS["CT"])

    def test_an_mr(self) -> None:
        values = np.random.default_rng(0).gamma(2, 150, self.ct.shape)
        self.assertEqual(self.modality_of(values.astype(np.int16)), "MR")
        self.assertEqual(self.logic.session.model(), DEFAULT_MODELS["MR"])

    def test_values_are_read_once(self) -> None:
        with mock.patch.object(supports, "is_offset_ct", return_value=False) as look:
            self.modality_of(self.too_high)
            for _ in range(3):
                likely_modality(self.logic.session.state)
            self.assertEqual(look.call_count, 1)


class ModelsForImagesTest(LogicTestCase):
    """What is known of model and images before Train is pressed."""

    def setUp(self) -> None:
        super().setUp()
        values = np.random.default_rng(0).gamma(2, 150, (12, 11, 10)).astype(np.int16)
        self.arrays = {"CT": values - 1000, "MR": values}
        window = {**{"orientation": "RAS", "spacing": [3, 3, 3]}, "intensity": "window"}
        write_model(
            self.folder / "home" / "models",
            "mine",
            modality=["CT"],
            preprocessing={"CT": {**window, "low": -200, "high": 300}},
        )

    def add(self, kind: str) -> Any:
        """A support of this kind; its volume."""
        mask = np.zeros((12, 11, 10), bool)
        mask[2:8, 2:8, 2:8] = True
        volume = add_volume(self.arrays[kind], affine_of(), f"a {kind}")
        self.logic.addSupport(volume, add_segmentation({"bean": mask}, affine_of(), volume))
        return volume

    def test_a_model_of_the_wrong_modality(self) -> None:
        self.add("MR")
        self.assertEqual(self.logic.blockers("train"), [])
        self.logic.setModel("mine")
        (text,) = self.logic.blockers("train")
        self.assertIn("look like MR, and the foundation model «", text)
        self.assertIn("» is for CT. Under Advanced, choose another model", text)
        with self.assertRaisesRegex(InputError, "look like MR"):
            self.logic.startTraining()
        self.logic.getParameterNode().modality = "CT"
        self.assertEqual(self.logic.blockers("train"), [], "a person's word counts for more")

    def test_images_of_two_kinds(self) -> None:
        self.add("CT")
        self.add("MR")
        (text,) = self.logic.blockers("train")
        self.assertIn("«a CT» looks like CT and «a MR» like MR.", text)
        self.logic.tickSupport(self.logic.supports()[1].id, False)
        self.assertEqual(self.logic.blockers("train"), [])

    def test_a_model_does_not_follow_into_a_scene_that_it_is_not_for(self) -> None:
        self.add("MR")
        self.logic.setModel("mine")
        self.assertEqual(self.logic.model(), "mine")
        slicer_world.clear_scene()
        self.add("MR")
        self.assertEqual(self.logic.model(), DEFAULT_MODELS["MR"])
        self.assertEqual(self.logic.blockers("train"), [])
        slicer_world.clear_scene()
        self.add("CT")
        self.logic.setModel("mine")
        slicer_world.clear_scene()
        self.add("CT")
        self.assertEqual(self.logic.model(), "mine", "it is for this one, too")

    def test_a_query_of_another_kind_is_doubted_not_refused(self) -> None:
        query = self.add("MR")
        self.logic.removeSupport(self.logic.supports()[0].id)
        path = self.folder / "a.fseft"
        path.write_bytes(adapter_bytes())
        self.logic.loadAdapter(str(path))
        self.logic.getParameterNode().queryVolume = query
        self.assertIn("looks like MR, and what was learned is from CT", self.logic.doubt("segment"))
        self.assertEqual(self.logic.blockers("segment"), [])
        self.logic.getParameterNode().queryVolume = self.add("CT")
        self.assertIn("one of those learned from", self.logic.doubt("segment"))
        self.logic.removeSupport(self.logic.supports()[0].id)
        self.assertEqual(self.logic.doubt("segment"), "")

    def test_an_adapter_of_a_model_that_does_not_ship_any_more(self) -> None:
        for name, words in (
            ("embedded-ct", "train the adapter again"),
            ("no", "Add its checkpoint"),
        ):
            path = self.folder / f"{name}.fseft"
            path.write_bytes(
                adapter_bytes(model={"id": name, "title": "", "weights_sha256": "0" * 64})
            )
            self.logic.loadAdapter(str(path))
            self.logic.getParameterNode().queryVolume = self.add("CT")
            (text,) = self.logic.blockers("segment")
            self.assertIn(f"«{name}»", text)
            self.assertIn(words, text)

    def test_packages_that_this_python_lacks_are_named_before(self) -> None:
        self.add("CT")
        with mock.patch.object(requirements, "find_spec", lambda name: name != "einops" or None):
            (text,) = self.logic.blockers("train")
        self.assertIn("(einops>=0.7). Press Install at the top", text)


if __name__ == "__main__":
    unittest.main()
