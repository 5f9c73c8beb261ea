"""Refinement on a query: what moves into its range, and what is left alone."""

from __future__ import annotations

import unittest
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from training_case import (
    CPU,
    NAMES,
    SETTINGS,
    SHAPE,
    THOROUGH,
    VOXEL,
    Training,
    make_adapter,
    make_query,
    make_support,
    weights,
)

from FewShotSegLib.core.errors import Cancelled, InputError
from FewShotSegLib.core.size_prior import SizePrior, override_priors
from FewShotSegLib.training.run import Run
from FewShotSegLib.training.size_penalty import SizeTarget
from FewShotSegLib.training.transduction import RefinementSettings, refine


class Refinement(Training):
    """Eq. (3) on a copy, for a new query."""

    trained: dict[str, Tensor] | None = None
    RULE = RefinementSettings(epochs=20, alone_factor=0.3, supported_factor=0.5, size_weight=0.5)

    def setUp(self) -> None:
        super().setUp()
        self.adapter = make_adapter(self.supports, "adapter")
        if self.trained is None:
            self.train(self.adapter, replace(THOROUGH, epochs=10))
            Refinement.trained = weights(self.adapter)
        self.adapter.load_state_dict(self.trained)
        self.adapter.eval()
        self.events.clear()
        self.before = weights(self.adapter)
        self.query = make_query(make_support(3))
        self.probability = self.query.probabilities(self.adapter)
        self.kept = self.probability.clone()
        self.sizes = self.query.measure(self.probability).sizes.tolist()

    def tearDown(self) -> None:
        for name, tensor in self.adapter.state_dict().items():
            self.assertTrue(torch.equal(tensor, self.before[name]), f"{name} was changed")
        self.assertTrue(torch.equal(self.probability, self.kept))

    def refine(
        self,
        ball: SizePrior,
        bar: SizePrior,
        rule: RefinementSettings = RULE,
        **options: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        options = {"training": replace(SETTINGS, learning_rate=0.01), **options}
        check = options.pop("check", lambda: None)
        return refine(
            self.adapter,
            self.probability,
            SizeTarget(self.query, {"ball": ball, "bar": bar}),
            rule,
            Run(CPU, events=self.events.append, check=check),
            **options,
        )

    def fitting(self, k: int) -> SizePrior:
        """A prior that the query already meets."""
        return SizePrior(self.sizes[k], gamma=0.2)

    def test_a_plausible_query_is_left_exactly_as_it_was(self) -> None:
        for supports in ((), self.supports):
            refined, report = self.refine(self.fitting(0), self.fitting(1), supports=supports)
            self.assertIs(refined, self.probability)
            self.assertEqual(report["epochs"], 0)
            self.assertEqual(self.events, [])
            for k, name in enumerate(NAMES):
                entry = report["structures"][name]
                self.assertTrue(entry["within_before"])
                self.assertAlmostEqual(entry["soft_size_before_ml"] * 1000, self.sizes[k], places=2)
                self.assertEqual(entry["soft_size_before_ml"], entry["soft_size_after_ml"])
                self.assertAlmostEqual(entry["lower_bound_ml"] * 1000, 0.8 * self.sizes[k])
                self.assertAlmostEqual(entry["upper_bound_ml"] * 1000, 1.2 * self.sizes[k])

    def test_a_size_that_is_out_of_its_range_moves_into_it(self) -> None:
        for factor in (0.6, 1.5):
            with self.subTest(factor):
                prior = SizePrior(factor * self.sizes[0], gamma=0.1)
                self.events.clear()
                refined, report = self.refine(prior, SizePrior(1000.0, enabled=False))
                entry = report["structures"]["ball"]
                low, high = prior.bounds()
                after = float(refined[0].sum(dtype=torch.float32)) * VOXEL
                self.assertAlmostEqual(entry["soft_size_after_ml"] * 1000, after, delta=1)
                self.assertFalse(entry["within_before"])
                self.assertLessEqual(0.99 * low, after)
                self.assertLessEqual(after, 1.01 * high)
                self.assertEqual(len(self.events), report["epochs"])
                self.assertEqual({e["phase"] for e in self.events}, {"refine"})
                self.assertEqual(report["with_supports"], False)

    def test_a_bound_is_reached_and_not_overshot(self) -> None:
        """However large the steps: eq. (2) asks for the nearer bound, and for no more."""
        eager = {"training": replace(SETTINGS, learning_rate=0.05)}
        for factor in (0.6, 1.5):
            prior = SizePrior(factor * self.sizes[0], gamma=0.2)
            nearer = prior.bounds()[1 if factor < 1 else 0]
            with self.subTest(factor):
                refined, report = self.refine(prior, SizePrior(1000.0, enabled=False), **eager)
                after = report["structures"]["ball"]["soft_size_after_ml"] * 1000
                self.assertAlmostEqual(after / nearer, 1, delta=0.04)
                self.assertIsNot(refined, self.probability)

    def test_it_stops_once_the_size_is_in_its_range(self) -> None:
        prior = SizePrior(self.sizes[0] / 1.25, gamma=0.2)
        _, report = self.refine(prior, SizePrior(1000.0, enabled=False))
        self.assertLess(report["epochs"], self.RULE.epochs)
        self.assertEqual(self.events[-1]["size_loss"], 0)
        self.assertTrue(all(e["size_loss"] > 0 for e in self.events[:-1]))

    def test_supports_hold_the_adapter_while_the_size_pulls(self) -> None:
        prior = SizePrior(2 * self.sizes[0], gamma=0.1)
        off = SizePrior(1000.0, enabled=False)
        rule = replace(self.RULE, size_weight=10.0)
        _, report = self.refine(prior, off, rule, supports=self.supports)
        self.assertTrue(report["with_supports"])
        self.assertEqual(report["epochs"], len(self.events))
        entry = report["structures"]["ball"]
        self.assertGreater(entry["soft_size_after_ml"], 1.3 * entry["soft_size_before_ml"])
        self.assertTrue(all(e["dice_loss"] > 0 for e in self.events))

    def test_every_structure_has_its_own_prior(self) -> None:
        """One is said to be larger and the other smaller than they are predicted."""
        larger = SizePrior(1.4 * self.sizes[0], gamma=0.1)
        smaller = SizePrior(0.7 * self.sizes[1], gamma=0.1)
        _, report = self.refine(larger, smaller)
        ball, bar = (report["structures"][name] for name in NAMES)
        self.assertGreater(ball["soft_size_after_ml"], 1.1 * ball["soft_size_before_ml"])
        self.assertLess(bar["soft_size_after_ml"], 0.9 * bar["soft_size_before_ml"])

    def test_what_is_plausible_is_left_exactly_beside_what_is_not(self) -> None:
        larger = SizePrior(1.4 * self.sizes[0], gamma=0.1)
        both, _ = self.refine(larger, SizePrior(0.7 * self.sizes[1], gamma=0.1))
        refined, report = self.refine(larger, self.fitting(1))
        self.assertTrue(torch.equal(refined[1], self.probability[1]))
        self.assertFalse(torch.equal(refined[0], self.probability[0]))
        # And what becomes of one does not depend on the other.
        self.assertTrue(torch.equal(refined[0], both[0]))
        bar = report["structures"]["bar"]
        self.assertEqual(bar["soft_size_before_ml"], bar["soft_size_after_ml"])

    def test_an_adapter_of_one_structure_scores_as_the_whole(self) -> None:
        for k in range(len(NAMES)):
            found = self.query.probabilities(self.adapter.only(k))
            torch.testing.assert_close(found[0], self.probability[k], atol=2e-3, rtol=0)

    def test_a_prior_that_is_switched_off_asks_for_nothing(self) -> None:
        off = SizePrior(100 * self.sizes[0], enabled=False)
        refined, report = self.refine(off, self.fitting(1))
        self.assertIs(refined, self.probability)
        entry = report["structures"]["ball"]
        self.assertTrue(entry["within_before"])
        self.assertIsNone(entry["lower_bound_ml"])
        self.assertIsNone(entry["upper_bound_ml"])

    def test_a_lower_bound_that_is_not_trusted_asks_for_nothing(self) -> None:
        """Because a support was cut off, or because the query is."""
        larger = SizePrior(3 * self.sizes[0], gamma=0.1, cut_off=True)
        refined, report = self.refine(larger, self.fitting(1))
        self.assertIs(refined, self.probability)
        self.assertFalse(report["structures"]["ball"]["lower_bound_trusted"])
        self.assertEqual(report["structures"]["ball"]["lower_bound_ml"], 0)
        trusted = replace(larger, cut_off=False)
        _, report = self.refine(trusted, self.fitting(1))
        self.assertGreater(report["epochs"], 0)
        centre = int(make_support(3).centres[0][:, 0].mean())
        view = (slice(centre, SHAPE[0]), *self.query.view[1:])
        self.query = replace(self.query, view=view)
        refined, report = self.refine(trusted, self.fitting(1))
        self.assertIs(refined, self.probability)
        self.assertTrue(report["structures"]["ball"]["query_cut_off"])

    def test_it_can_be_repeated_and_stopped(self) -> None:
        prior, off = SizePrior(0.6 * self.sizes[0], gamma=0.1), SizePrior(1000.0, enabled=False)
        first, _ = self.refine(prior, off)
        second, _ = self.refine(prior, off)
        self.assertTrue(torch.equal(first, second))
        self.assertFalse(torch.equal(first, self.probability))

        def stop() -> None:
            raise Cancelled("Stopped.")

        with self.assertRaises(Cancelled):
            self.refine(prior, off, supports=self.supports, check=stop)


class Overriding(unittest.TestCase):
    """What a person knows better than the supports, structure by structure."""

    PRIORS = {
        "ball": SizePrior(2000.0, 100.0, 3, 0.3, cut_off=True),
        "bar": SizePrior(1000.0, 50.0, 2, 0.3),
        "ring": SizePrior(500.0, 0.0, 1, 0.3),
    }

    def test_nothing_said_nothing_changed(self) -> None:
        self.assertEqual(override_priors(self.PRIORS, None, None), self.PRIORS)

    def test_a_known_volume_replaces_the_mean_and_is_trusted(self) -> None:
        priors = override_priors(self.PRIORS, None, {"ball": 3.5})
        self.assertEqual(priors["ball"].mean, 3500)
        low, high = priors["ball"].bounds()
        self.assertAlmostEqual(low, 0.7 * 3500)
        self.assertAlmostEqual(high, 1.3 * 3500)
        self.assertEqual(priors["bar"], self.PRIORS["bar"])
        self.assertEqual(list(priors), list(self.PRIORS))

    def test_none_switches_one_off(self) -> None:
        priors = override_priors(self.PRIORS, None, {"bar": None})
        self.assertEqual(priors["bar"].bounds(), (0.0, float("inf")))
        self.assertTrue(priors["ball"].enabled and priors["ring"].enabled)

    def test_gamma_is_for_all(self) -> None:
        priors = override_priors(self.PRIORS, 0.5, {"ring": 0.6})
        self.assertEqual(priors["bar"].bounds(), (500.0, 1500.0))
        self.assertEqual(priors["ring"].bounds(), (300.0, 900.0))
        self.assertEqual(priors["ball"].bounds(), (0.0, 3000.0))

    def test_what_cannot_be_meant_is_refused(self) -> None:
        with self.assertRaisesRegex(InputError, "no structure 'Ball'.*ball, bar, ring"):
            override_priors(self.PRIORS, None, {"Ball": 3.5})
        for ml in (0.0, -1.0):
            with self.assertRaisesRegex(InputError, "above 0 ml"):
                override_priors(self.PRIORS, None, {"bar": ml})


if __name__ == "__main__":
    unittest.main()
