"""How much is done for an adapter: quick, default, and best with a second network beside it."""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from adapter_files import rewrite
from pipeline_case import PipelineTestCase
from tiny_model import run

from FewShotSegLib.core import options
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.expected import Expected
from FewShotSegLib.core.options import AdaptOptions
from FewShotSegLib.pipeline import adaptation
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter, read_metadata

SHORT = {"epochs": 2, "steps_per_epoch": 2, "crops": 2, "crop_size": 16}


class Options(unittest.TestCase):
    """What can be asked for."""

    def test_the_best_is_for_adapters_on_stored_features(self) -> None:
        for given in ({"method": "ft"}, {"method": "scratch"}, {"preset": "published"}):
            with self.assertRaisesRegex(InputError, "Choose another method or effort"):
                AdaptOptions(effort="best", **given)
        for method in ("adapter", "linear-probe", "adapter-1x1"):
            self.assertEqual(AdaptOptions(effort="best", method=method).effort, "best")

    def test_others_are_refused(self) -> None:
        with self.assertRaisesRegex(InputError, "'quick' or 'default' or 'best', not 'most'"):
            AdaptOptions(effort="most")

    def test_a_quick_one_measures_nothing(self) -> None:
        self.assertFalse(AdaptOptions(effort="quick").measures)
        self.assertTrue(AdaptOptions(effort="best").measures)
        self.assertFalse(AdaptOptions(effort="best", validate=False).measures)


class Efforts(PipelineTestCase):
    """On the tiny world; the second network is trained for a few steps."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        with mock.patch.object(options, "COMPANION_SETTINGS", SHORT):
            cls.best = cls.adapt(effort="best", validate=False)

    def setUp(self) -> None:
        super().setUp()
        short = mock.patch.object(options, "COMPANION_SETTINGS", SHORT)
        short.start()
        self.addCleanup(short.stop)
        self.out = self.folder / "best.fseft"
        self.events: list[dict[str, Any]] = []
        self.listening = replace(self.runtime, events=self.events.append)

    def probabilities(self, adapter: TrainedAdapter, **changes: Any) -> Mapping[str, np.ndarray]:
        return self.segment(adapter=adapter, probabilities=True, **changes).probabilities

    def test_the_result_is_the_mean_of_both(self) -> None:
        alone = self.adapt(method="scratch", settings=SHORT)
        plain = self.adapt(validate=False)
        both = self.probabilities(self.best, transductive=False)
        first, second = (self.probabilities(a, transductive=False) for a in (plain, alone))
        for name, found in both.items():
            self.assertGreater(np.abs(first[name] - second[name]).max(), 0.1)
            pair = np.stack([first[name], second[name]])
            # Where interpolation overshot, each was cut off at 0 or 1 by itself.
            free = ((pair > 0) & (pair < 1)).all(0)
            self.assertGreater(free.mean(), 0.5)
            np.testing.assert_allclose(found[free], pair.mean(0)[free], atol=2e-3)

    def test_masks_before_and_after_transduction_are_of_the_mean(self) -> None:
        result = self.segment(adapter=self.best, probabilities=True)
        for name, mask in result.masks.items():
            others = [p for other, p in result.probabilities.items() if other != name]
            found = result.probabilities[name]
            np.testing.assert_array_equal(mask, (found > 0.5) & (found > np.max(others, 0)))
        plain = self.segment(adapter=self.best, transductive=False)
        for name, mask in plain.masks.items():
            np.testing.assert_array_equal(mask, result.unrefined[name])

    def test_transduction_moves_the_mean(self) -> None:
        small = {name: 0.5 * v.mean_ml for name, v in self._priors().items()}
        before = self.probabilities(self.best, transductive=False)
        after = self.probabilities(self.best, priors_ml=small, gamma=0.05)
        self.assertTrue(any(np.abs(before[k] - after[k]).max() > 0.05 for k in before))

    def _priors(self) -> Mapping[str, Any]:
        return {k: mock.Mock(mean_ml=p.mean / 1000) for k, p in self.trained.priors.items()}

    def test_the_file_holds_both(self) -> None:
        self.best.save(self.out)
        loaded = TrainedAdapter.load(self.out)
        self.assertEqual(loaded.content_sha256(), self.best.content_sha256())
        self.assertEqual(loaded.companion.method, "scratch")
        first, second = (self.probabilities(a) for a in (self.best, loaded))
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
        data = read_metadata(self.out)
        self.assertEqual(data["format"], 5)
        self.assertEqual(data["companion"]["training"]["epochs"], 2)
        self.assertNotEqual(loaded.content_sha256(), self.trained.content_sha256())
        self.assertIn("adapter and scratch", repr(loaded))
        said = run("inspect", str(self.out)).out
        self.assertIn("Measured for the adapter alone", said)
        self.assertRegex(said, r"Averaged with +scratch, [0-9,]+ trained parameters, 2 epochs")

    def test_another_round_says_that_the_second_network_is_not_in_it(self) -> None:
        pairs = [s.paths for s in self.supports]
        given = {"model": str(self.model), "runtime": self.listening, "validate": False}
        new = adaptation.adapt(pairs, continue_from=self.best, **given)
        self.assertIsNone(new.companion)
        said = [e["message"] for e in self.events if e["event"] == "warning"]
        self.assertTrue(any("it is trained anew" in text for text in said), said)
        self.events.clear()
        new = adaptation.adapt(pairs, continue_from=self.best, effort="best", **given)
        self.assertEqual(new.companion.method, "scratch")
        said = [e["message"] for e in self.events if e["event"] == "warning"]
        self.assertFalse(any("second network" in text for text in said), said)

    def test_a_file_without_half_of_it_is_refused(self) -> None:
        self.best.save(self.out)
        whole = self.out.read_bytes()

        def no_record(data: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
            del data["companion"]
            data["format"] = 4

        def no_tensors(data: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
            for name in [n for n in tensors if n.startswith("companion.")]:
                del tensors[name]

        def no_head(data: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
            for name in [n for n in tensors if n.startswith("companion.") and "backbone" not in n]:
                del tensors[name]

        def infinite(data: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
            name = next(
                n for n in tensors if n.startswith("companion.") and n.endswith("conv.weight")
            )
            tensors[name] = torch.full_like(tensors[name], float("inf"))

        def frozen(data: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
            data["companion"]["method"] = "adapter"

        for change in (no_record, no_tensors, no_head, infinite, frozen):
            with self.subTest(change.__name__):
                self.out.write_bytes(whole)
                rewrite(self.out, change)
                with self.assertRaisesRegex(InputError, "damaged"):
                    TrainedAdapter.load(self.out)

    def test_the_adapter_is_there_before_and_stays_when_it_is_stopped(self) -> None:
        stopped = False

        def listen(event: dict[str, Any]) -> None:
            nonlocal stopped
            if event["event"] == "phase" and event["phase"] == "companion":
                self.assertNotIn("companion", read_metadata(self.out))
                self.assertEqual(read_metadata(self.out)["expected"]["status"], "measured")
                stopped = True

        runtime = replace(self.runtime, events=listen, cancel=lambda: stopped)
        trained = self.adapt(out=self.out, effort="best", runtime=runtime)
        self.assertTrue(stopped)
        self.assertIsNone(trained.companion)
        self.assertEqual(
            TrainedAdapter.load(self.out).content_sha256(), self.trained.content_sha256()
        )

    def test_what_goes_wrong_costs_the_second_network_alone(self) -> None:
        with mock.patch.object(
            adaptation, "image_learner", side_effect=InputError("The training diverged.")
        ):
            trained = self.adapt(out=self.out, effort="best", runtime=self.listening)
        self.assertIsNone(trained.companion)
        (warning,) = [e["message"] for e in self.events if e["event"] == "warning"]
        self.assertIn("complete, but not its second network. The training diverged.", warning)

    def test_the_command_takes_it(self) -> None:
        ran = run(*self.adapt_arguments(self.out, "--effort", "best", epochs=1))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertIn("Averaged with", ran.out)
        self.assertEqual(read_metadata(self.out)["training"]["epochs"], 1)
        result = Path(self.folder / "result.nii.gz")
        ran = run(*self.segment_arguments(self.out, result, str(self.query.image)))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertTrue(result.exists())
        ran = run(*self.adapt_arguments(self.out, "--effort", "quick", epochs=1))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(read_metadata(self.out)["expected"], Expected("skipped").to_json())
