"""Estimates of time against what was recorded, on volumes of four sizes: within a factor of two."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import json
from typing import Any

import numpy as np
import qt
from FewShotSegSlicer.machine.estimates import Plan, Training, estimate, workload
from FewShotSegSlicer.machine.timing import remember, speed
from module_logic import LogicTestCase

RECORDED = slicer_world.ROOT / "Testing" / "support" / "recorded_times.json"
MODELS = slicer_world.ROOT / "FewShotSegLib" / "Resources" / "Models"
FACTOR = 2.5


class RecordedTest(LogicTestCase):
    """``Testing/benchmarks/times.py`` recorded the phases of real segmentations."""

    def setUp(self) -> None:
        super().setUp()
        self.recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
        name = f"{self.recorded['model']}.json"
        self.entry = json.loads((MODELS / name).read_text(encoding="utf-8"))

    def about(self, run: dict[str, Any], **more: Any) -> dict[str, Any]:
        affine = np.diag([*run["spacing"], 1.0])
        return {
            "shapes": [(run["shape"], affine)],
            "entry": self.entry,
            "modality": "CT",
            "structures": self.recorded["structures"],
            "device": "cpu",
            "warm": True,
            **more,
        }

    def factors(self) -> dict[str, float]:
        """Of each size: what would be said over what it took."""
        return {
            " x ".join(map(str, run["shape"])): estimate(Plan(**self.about(run))).seconds
            / sum(run["phases"].values())
            for run in self.recorded["segmentations"]
        }

    def test_four_sizes_after_one_of_them_ran(self) -> None:
        runs = self.recorded["segmentations"]
        self.assertEqual(len(runs), 4)
        sizes = [np.prod(run["shape"]) for run in runs]
        self.assertGreater(max(sizes), 20 * min(sizes))
        for run in runs:
            with self.subTest(learned_from=run["shape"]):
                qt.QSettings().remove("FewShotSeg/Speed")
                workload(Plan(**self.about(run))).learn(run["phases"])
                factors = self.factors()
                print(f"\nlearned from {run['shape']}: {factors}")
                for shape, factor in factors.items():
                    self.assertLess(factor, FACTOR, shape)
                    self.assertGreater(factor, 1 / FACTOR, shape)

    def test_four_sizes_once_all_of_them_ran(self) -> None:
        for run in self.recorded["segmentations"]:
            workload(Plan(**self.about(run))).learn(run["phases"])
            self.assertTrue(estimate(Plan(**self.about(run))).measured)
        for shape, factor in self.factors().items():
            self.assertLess(factor, FACTOR, shape)
            self.assertGreater(factor, 1 / FACTOR, shape)

    def test_what_a_large_volume_takes_before_anything_ran(self) -> None:
        """512 x 512 x 220 took 51 s on two cores, in the application, where 10 s were said."""
        run = {"shape": (512, 512, 220), "spacing": (0.8, 0.8, 1.5)}
        seconds = estimate(Plan(**self.about(run, structures=1, warm=False))).seconds
        self.assertGreater(seconds, 51 / FACTOR)
        self.assertLess(seconds, 51 * FACTOR)

    def test_features_that_were_there_already_teach_nothing(self) -> None:
        run = self.recorded["segmentations"][0]
        load = workload(Plan(**self.about(run)))
        load.learn({**run["phases"], "features": 0.2}, cached=True)
        self.assertIsNone(speed(self.recorded["model"], "cpu", "features"))
        self.assertIsNotNone(speed(self.recorded["model"], "cpu", "segment"))

    def test_a_start_counts_only_where_no_process_waits(self) -> None:
        run = self.recorded["segmentations"][0]
        warm, cold = (estimate(Plan(**self.about(run, warm=w))).seconds for w in (True, False))
        self.assertGreater(cold, warm + 3)

    def test_a_training_counts_what_it_measures_on_supports_held_out(self) -> None:
        shape = ((128, 128, 64), np.diag([1.6, 1.6, 3.0, 1.0]))
        about = {
            **self.about(self.recorded["segmentations"][0]),
            "training": Training("adapter", epochs=60),
        }
        alone, two = (estimate(Plan(**{**about, "shapes": [shape] * n})).seconds for n in (1, 2))
        self.assertGreater(two, alone + 5)
        recorded = self.recorded["training"]
        training = Training("adapter", epochs=recorded["epochs"])
        shapes = [(s, np.diag([*spacing, 1.0])) for s, spacing in recorded["shapes"]]
        now = {**about, "shapes": shapes, "training": training, "warm": False}
        workload(Plan(**now)).learn(recorded["phases"])
        factor = estimate(Plan(**now)).seconds / sum(recorded["phases"].values())
        self.assertLess(factor, FACTOR)
        self.assertGreater(factor, 1 / FACTOR)


class SpeedTest(LogicTestCase):
    """What is kept of earlier runs."""

    def test_the_last_runs_count_most_and_large_ones_more(self) -> None:
        remember("m", "cuda:0", "segment", 10.0, 1.0)
        remember("m", "cuda:0", "segment", 400.0, 100.0)
        found = speed("m", "cuda:0", "segment")
        self.assertGreater(found, 4.0)
        self.assertLess(found, 4.1)
        for _ in range(10):
            remember("m", "cuda:0", "segment", 100.0, 100.0)
        self.assertAlmostEqual(speed("m", "cuda:0", "segment"), 1.0, delta=0.01)

    def test_what_older_versions_kept_and_what_is_damaged(self) -> None:
        settings = qt.QSettings()
        for text, expected in (("2.5", 2.5), (2.5, 2.5), ("x", None), ("", None), ("1 0", None)):
            with self.subTest(text=text):
                settings.setValue("FewShotSeg/Speed/m/cpu/features", text)
                self.assertEqual(speed("m", "cpu", "features"), expected)


if __name__ == "__main__":
    import unittest

    unittest.main()
