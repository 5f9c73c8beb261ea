"""A model grid that follows the supports' field of view, from training to a query."""

from __future__ import annotations

import json
import unittest

import numpy as np
from tiny_model import QUICK, TinyWorld, write_model

from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.pipeline import adapt, read_support, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter


class FittedSpacingTest(TinyWorld):
    """Patients of 24 x 19 x 12 voxels, 1.9 x 2.3 x 3.4 mm."""

    def test_the_supports_choose_and_the_query_follows(self) -> None:
        box = {"orientation": "RAS", "spacing": [1.0, 1.0, 1.0], "most_voxels": 10_000}
        model = write_model(
            self.folder / "model",
            "fine",
            preprocessing={
                "CT": {**box, "intensity": "window", "low": -200, "high": 300},
                "MR": {**box, "intensity": "percentiles", "low": 0.5, "high": 99.5},
            },
        )
        supports = [(s.image, s.segmentation) for s in self.supports]
        out = self.folder / "a.fseft"
        adapt(
            supports, out, model=str(model), structures="4=bean,5=pea", settings=QUICK,
            runtime=self.runtime,
        )  # fmt: skip
        trained = TrainedAdapter.load(out)
        # Some 81,000 mm3: 8.1 times too many voxels are 1.01 octaves an axis, the next step 1.25.
        self.assertEqual(trained.preprocessing.spacing, (2.3784, 2.3784, 2.3784))
        self.assertNotIn("most_voxels", trained.metadata()["preprocessing"])
        found = segment(trained, self.query.image, model=str(model), runtime=self.runtime)
        truth = read_support(self.query.image, self.query.segmentation, trained.structures)
        scores = [dice(m, found.masks[n]) for n, m in truth.annotation.masks.items()]
        self.assertGreater(np.mean(scores), 0.5)
        entry = json.loads(model.read_text(encoding="utf-8"))
        self.assertEqual(entry["preprocessing"]["CT"]["spacing"], [1.0, 1.0, 1.0])


if __name__ == "__main__":
    unittest.main()
