"""Which model the panel proposes: by what the first ticked support's values say that it is."""

from __future__ import annotations

import slicer_world  # noqa: F401 - before slicer, which it puts in place

# isort: split
import unittest
from unittest import mock

import numpy as np
from FewShotSegSlicer.scene import supports
from FewShotSegSlicer.scene.supports import likely_modality
from module_logic import LogicTestCase
from module_scenes import add_volume, affine_of

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


if __name__ == "__main__":
    unittest.main()
