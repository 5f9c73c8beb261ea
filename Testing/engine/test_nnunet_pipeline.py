"""The whole job on a model of nnU-Net's: thick voxels, strides by axis, zeros cropped and added."""

from __future__ import annotations

import unittest

import nnunet_files
import numpy as np
from tiny_model import STRUCTURES, TinyWorld, write_array

from FewShotSegLib import adapt, add_model, segment
from FewShotSegLib.core.annotation import parse_structures
from FewShotSegLib.evaluation.metrics import evaluate_files
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter

QUICK = {"epochs": 40, "steps_per_epoch": 2, "crops": 2, "crop_size": 12, "learning_rate": 0.02}
TRAINED = {"epochs": 2, "steps_per_epoch": 1, "crops": 1, "crop_size": 12}


class PipelineTest(TinyWorld):
    """Phantoms that differ in brightness, of which a random network's features tell."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        plans = nnunet_files.plans()
        # Larger windows than the phantoms: zeros are put around them.
        plans["configurations"]["3d_fullres"]["patch_size"] = [16, 48, 48]
        # Of random networks this small, one that brightness gets through, both ways.
        weights = nnunet_files.checkpoint(nnunet_files.network(seed=23).state_dict())
        written = nnunet_files.write(cls.world / "nnU-Net", plans, weights=weights)
        cls.id = add_model(written, modality="CT").id
        entry = find_model(cls.id).entry
        shape = entry.preprocessing["CT"].placement(read_image(cls.query.image)).shape
        assert shape >= (16, 48, 48), shape

    def trained(self, method: str, **settings: object) -> TrainedAdapter:
        return adapt(
            [support.paths for support in self.supports],
            self.folder / "a.fseft",
            structures=STRUCTURES,
            model=self.id,
            method=method,
            modality="CT",
            validate=False,
            runtime=self.runtime,
            **settings,
        )

    def dice(self, adapter: TrainedAdapter, **options: object) -> list[float]:
        out = self.folder / "seg.nii.gz"
        segment(adapter, self.query.image, out, runtime=self.runtime, **options)
        scores = evaluate_files(self.query.segmentation, out, parse_structures(STRUCTURES))
        return [score.dice for score in scores.values()]

    def test_adapters_learn_and_segment(self) -> None:
        for method in ("adapter", "adapter-1x1", "linear-probe"):
            with self.subTest(method):
                adapter = self.trained(method, **QUICK)
                found = self.dice(adapter, transductive=False)
                self.assertGreater(max(found), 0.6)
                if method != "linear-probe":  # little of the brighter one comes through
                    self.assertGreater(min(found), 0.3)
                loaded = TrainedAdapter.load(self.folder / "a.fseft")
                self.assertEqual(loaded.preprocessing.least, (16, 48, 48))
                self.assertEqual(loaded.preprocessing.resampling, "nnunet")

    def test_transduction_and_probabilities(self) -> None:
        adapter = self.trained("adapter", **QUICK)
        self.assertGreater(min(self.dice(adapter, probabilities=True)), 0.5)

    def test_the_backbone_is_trained(self) -> None:
        for method in ("bias", "affine", "lora", "cnn-adapter", "ft-last", "ft", "scratch"):
            with self.subTest(method):
                adapter = self.trained(method, **TRAINED)
                found = self.dice(adapter, transductive=False)
                self.assertEqual(len(found), 2)
                self.assertTrue(np.isfinite(found).all())

    def test_what_is_cropped_is_background(self) -> None:
        """Zeros around a patient are not seen, and not segmented."""
        volume = read_image(self.query.image)
        array = volume.array.copy()
        array[array == 0] = 1
        array[:8] = 0
        path = write_array(self.folder / "cropped.nii.gz", array, volume.grid)
        adapter = self.trained("linear-probe", **QUICK)
        result = segment(adapter, path, transductive=False, runtime=self.runtime)
        placement = adapter.preprocessing.placement(read_image(path))
        self.assertEqual(placement.box[0].start, 8)
        for mask in result.masks.values():
            self.assertFalse(mask[:8].any())
            self.assertTrue(mask[8:].any())


if __name__ == "__main__":
    unittest.main()
