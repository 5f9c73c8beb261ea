"""Training on synthetic features: what is learnt, where it looks, and what is reported."""

from __future__ import annotations

import json
import unittest
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from tiny import OneThread, random_features
from training_case import (
    LEVELS,
    NAMES,
    SETTINGS,
    SHAPE,
    THOROUGH,
    WIDTHS,
    Training,
    make_adapter,
    make_query,
    make_support,
    weights,
)

from FewShotSegLib.compute.precision import fast_dtype
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.size_prior import SizePrior
from FewShotSegLib.inference.query_sizes import Query
from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.training.loop import TrainingSettings
from FewShotSegLib.training.sampling import draw_crops, known_voxel
from FewShotSegLib.training.support_set import PreparedSupport, standardise


class Learning(Training):
    """What comes of it."""

    def test_the_loss_falls_with_every_adapter(self) -> None:
        for method in ADAPTERS:
            with self.subTest(method):
                adapter = make_adapter(self.supports, method)
                result = self.train(adapter)
                losses = [record["loss"] for record in result.history]
                self.assertEqual((result.epochs, len(losses)), (8, 8))
                self.assertFalse(result.stopped_early)
                self.assertLess(losses[-1], 0.7 * losses[0])
                self.assertFalse(adapter.training)

    def test_structures_are_found(self) -> None:
        adapter = make_adapter(self.supports)
        self.train(adapter, THOROUGH)
        unseen = make_support(3)
        size = make_query(unseen).sweep(adapter).sizes
        before = make_query(unseen).sweep(make_adapter(self.supports)).sizes
        for k, name in enumerate(NAMES):
            true = unseen.sizes[name]
            self.assertLess(abs(float(size[k]) - true), 0.25 * true)
            self.assertLess(abs(float(size[k]) - true), abs(float(before[k]) - true))

    def test_the_seed_decides_everything(self) -> None:
        for method in ADAPTERS:
            first, second, other = (make_adapter(self.supports, method) for _ in range(3))
            results = [
                self.train(adapter, replace(SETTINGS, epochs=3), seed=seed)
                for adapter, seed in ((first, 7), (second, 7), (other, 8))
            ]
            with self.subTest(method):
                self.assert_equal(first, second)
                self.assertEqual(results[0].history, results[1].history)
                self.assertTrue(self.differ(first, other))

    def test_the_machines_own_precision_repeats_as_well(self) -> None:
        first, second = (make_adapter(self.supports, "adapter") for _ in range(2))
        with mock.patch("FewShotSegLib.compute.precision.fast_dtype", fast_dtype):
            for adapter in (first, second):
                self.train(adapter, replace(SETTINGS, epochs=3))
        self.assert_equal(first, second)

    def test_statistics_are_not_trained(self) -> None:
        adapter = make_adapter(self.supports)
        before = weights(adapter)
        self.train(adapter)
        for name, tensor in adapter.state_dict().items():
            kept = name.startswith(("mean", "deviation"))
            self.assertEqual(torch.equal(tensor, before[name]), kept, name)

    def test_training_stops_where_the_loss_has_settled(self) -> None:
        settings = replace(SETTINGS, plateau=1e6, patience=2)
        result = self.train(make_adapter(self.supports), settings)
        self.assertEqual((result.epochs, result.stopped_early), (4, True))
        result = self.train(make_adapter(self.supports), replace(settings, plateau=0.0))
        self.assertEqual((result.epochs, result.stopped_early), (8, False))

    def test_the_adapters_own_rate_is_the_default(self) -> None:
        own, given, other = (make_adapter(self.supports) for _ in range(3))
        settings = replace(SETTINGS, epochs=2)
        self.train(own, replace(settings, learning_rate=None))
        self.train(given, replace(settings, learning_rate=own.learning_rate))
        self.train(other, replace(settings, learning_rate=2 * own.learning_rate))
        self.assert_equal(own, given)
        self.assertTrue(self.differ(own, other))

    def test_settings_that_mean_nothing_are_refused(self) -> None:
        for change in (
            {"epochs": 0},
            {"steps_per_epoch": 0},
            {"crops": 0},
            {"crop_size": 0},
            {"patience": 0},
            {"warm_up": -1},
            {"size_weight": -0.1},
            {"size_from": 1.5},
        ):
            with self.subTest(change), self.assertRaises(InputError):
                replace(SETTINGS, **change)
        self.assertEqual(TrainingSettings(**json.loads(json.dumps(SETTINGS.to_json()))), SETTINGS)


class PartialLabels(Training):
    """Supports that do not annotate everything (eq. 1)."""

    def test_a_structure_learns_only_where_it_is_annotated(self) -> None:
        """The other support may hold anything there, and even show another image."""
        partial = make_support(2, annotated=(1, 0))
        changed = make_support(5, annotated=(1, 0))
        changed = replace(changed, centres=partial.centres, targets=changed.targets.flip(1))
        self.assertFalse(torch.equal(partial.targets[1], changed.targets[1]))
        adapters = []
        for other in (partial, changed):
            adapter = make_adapter(self.supports)
            self.train(adapter, supports=[self.supports[0], other])
            adapters.append(adapter)
        for classifiers in zip(*(adapter.classifiers for adapter in adapters), strict=True):
            one, other = (torch.cat([c.weight.flatten(1), c.bias[:, None]], 1) for c in classifiers)
            torch.testing.assert_close(one[1], other[1], atol=1e-6, rtol=1e-5)
            self.assertFalse(torch.allclose(one[0], other[0], atol=1e-3))

    def test_it_does_learn_from_the_support_that_annotates_it(self) -> None:
        supports = [self.supports[0], make_support(2, annotated=(1, 0))]
        adapter = make_adapter(supports)
        query = make_query(self.supports[0])
        before = query.sweep(adapter).sizes
        self.train(adapter, THOROUGH, supports=supports)
        true = self.supports[0].sizes["bar"]
        error = abs(float(query.sweep(adapter).sizes[1]) - true)
        self.assertLess(error, 0.3 * true)
        self.assertLess(error, abs(float(before[1]) - true))

    def test_one_that_is_never_annotated_stays_as_it_was(self) -> None:
        supports = [make_support(n, annotated=(1, 0)) for n in (1, 2)]
        # Sampling needs somewhere to look.
        supports = [replace(s, centres=(s.centres[0], s.centres[0])) for s in supports]
        adapter = make_adapter(supports)
        before = weights(adapter)
        self.train(adapter, supports=supports)
        for level in LEVELS:
            for part in ("weight", "bias"):
                name = f"classifiers.{level}.{part}"
                after = adapter.state_dict()[name]
                self.assertTrue(torch.equal(after[1], before[name][1]))
                self.assertFalse(torch.equal(after[0], before[name][0]))


class SparseLabels(Training):
    """Supports of which only some slices are known."""

    def sparse(self, seed: int) -> PreparedSupport:
        support = make_support(seed)
        known = torch.zeros(support.features.shape, dtype=torch.bool)
        known[..., [6, 9]] = True
        places = tuple(c[np.isin(c[:, 2], (6, 9))] for c in support.centres)
        return replace(support, known=known, centres=places)

    def test_what_is_unknown_changes_nothing(self) -> None:
        """To the bit, whatever the targets hold there."""
        support = self.sparse(1)
        noise = torch.randint(0, 256, support.targets.shape, dtype=torch.uint8)
        changed = replace(support, targets=torch.where(support.known, support.targets, noise))
        self.assertFalse(torch.equal(support.targets, changed.targets))
        adapters = []
        for own in (support, changed):
            adapter = make_adapter(self.supports)
            self.train(adapter, supports=[own, self.supports[1]])
            adapters.append(adapter)
        self.assert_equal(*adapters)
        seen = replace(support, known=None)
        whole = make_adapter(self.supports)
        self.train(whole, supports=[seen, self.supports[1]])
        self.assertTrue(self.differ(adapters[0], whole))

    def test_a_few_slices_teach_a_structure(self) -> None:
        supports = [self.sparse(1), self.sparse(2)]
        adapter = make_adapter(supports)
        query = make_query(self.supports[0])
        self.train(adapter, THOROUGH, supports=supports)
        for name, size in zip(NAMES, query.sweep(adapter).sizes.tolist(), strict=True):
            true = self.supports[0].sizes[name]
            self.assertLess(abs(size - true), 0.35 * true, name)

    def test_training_looks_where_something_is_known(self) -> None:
        support = self.sparse(1)
        for _, box in draw_crops(np.random.default_rng(0), [support], 200, 4):
            self.assertTrue(support.known[box].any())
        few = torch.zeros(5, 5, 5, dtype=torch.bool)
        few[3, 1, 4] = True
        with mock.patch("FewShotSegLib.training.sampling.TRIES", 1):
            found = known_voxel(np.random.default_rng(0), few)
        self.assertEqual(found.tolist(), [3, 1, 4])


class Sampling(Training):
    """Where training looks."""

    def draw(self, supports: Sequence[PreparedSupport], crops: int, size: int = 6):
        return draw_crops(np.random.default_rng(0), supports, crops, size)

    def test_crops_lie_within_the_volume_and_have_the_size_asked_for(self) -> None:
        for size in (6, 18, 40):
            for support, box in self.draw(self.supports, 200, size):
                for part, n in zip(box, support.features.shape, strict=True):
                    self.assertGreaterEqual(part.start, 0)
                    self.assertLessEqual(part.stop, n)
                    self.assertEqual(part.stop - part.start, min(size, n))

    def test_every_other_crop_is_on_a_structure_and_structures_take_turns(self) -> None:
        drawn = self.draw(self.supports, 400)
        hit = np.array(
            [
                (support.targets[(slice(None), *box)] > 0).flatten(1).any(1).tolist()
                for support, box in drawn
            ]
        )
        on_structure, anywhere = hit[::2], hit[1::2]
        self.assertTrue(on_structure.any(1).all())
        self.assertFalse(anywhere.any(1).all())
        first, second = on_structure[::2], on_structure[1::2]
        turns = [(first[:, k].mean(), second[:, 1 - k].mean()) for k in range(2)]
        self.assertEqual(max(turns), (1.0, 1.0))

    def test_a_structure_is_looked_for_where_it_is_annotated(self) -> None:
        partial = make_support(2, annotated=(1, 0))
        drawn = self.draw([self.supports[0], partial], 400)
        first, second = drawn[0::4], drawn[2::4]
        shares = [
            np.mean([support is partial for support, _ in crops]) for crops in (first, second)
        ]
        self.assertEqual(min(shares), 0)
        self.assertGreater(max(shares), 0.3)
        self.assertTrue(any(support is partial for support, _ in drawn[1::2]))


class Events(Training):
    """What is known of every epoch."""

    def test_loss_terms(self) -> None:
        settings = replace(SETTINGS, epochs=3, cross_entropy=0.5)
        result = self.train(make_adapter(self.supports), settings, phase="train")
        self.assertEqual([e["event"] for e in self.events], ["epoch"] * 3)
        self.assertEqual([(e["epoch"], e["epochs"]) for e in self.events], [(1, 3), (2, 3), (3, 3)])
        for event, record in zip(self.events, result.history, strict=True):
            self.assertEqual(event["phase"], "train")
            self.assertEqual(record, {key: event[key] for key in record})
            expected = event["dice_loss"] + 0.5 * event["cross_entropy"]
            self.assertAlmostEqual(event["loss"], expected)
            self.assertNotIn("sizes_ml", event)
            json.dumps(event, allow_nan=False)

    def test_sizes_against_bounds_once_transduction_has_begun(self) -> None:
        priors = [SizePrior(2000.0, gamma=0.5), SizePrior(1000.0, enabled=False)]
        query = make_query(make_support(3))
        result = self.train(make_adapter(self.supports), query=query, priors=priors)
        for event in self.events[:4]:
            self.assertNotIn("size_loss", event)
        for event in self.events[4:]:
            self.assertEqual(event["bounds_ml"], {"ball": [1.0, 3.0], "bar": [0.0, None]})
            self.assertEqual(list(event["sizes_ml"]), list(NAMES))
            ball = event["sizes_ml"]["ball"]
            penalty = max(0.0, 1.0 - ball, ball - 3.0) / 2.0 / 2
            self.assertAlmostEqual(event["size_loss"], penalty, delta=0.001)
            terms = event["dice_loss"] + event["cross_entropy"] + 0.1 * event["size_loss"]
            self.assertAlmostEqual(event["loss"], terms)
            json.dumps(event, allow_nan=False)
        self.assertEqual(len(result.history), 8)

    def test_a_query_is_measured_anew_every_few_epochs(self) -> None:
        priors = [SizePrior(2000.0, gamma=0.5), SizePrior(1000.0, enabled=False)]
        swept: list[int] = []
        real = Query.sweep

        def sweep(query: Query, *arguments: Any) -> Any:
            swept.append(len(self.events))
            return real(query, *arguments)

        with mock.patch.object(Query, "sweep", sweep):
            settings = replace(SETTINGS, size_from=0.25)
            adapter = make_adapter(self.supports)
            self.train(adapter, settings, query=make_query(make_support(3)), priors=priors)
        self.assertEqual(swept, [2, 5])  # of eight epochs: where the term begins, every fifth

    def test_transduction_draws_the_size_towards_its_range(self) -> None:
        """Joint training (eq. 3) for a query that is said to be larger, and smaller."""
        query = make_support(3)
        sizes = {}
        for name, mean in (("free", None), ("large", 6000.0), ("small", 600.0)):
            adapter = make_adapter(self.supports)
            options = {}
            if mean is not None:
                off = SizePrior(1000.0, enabled=False)
                options = {"query": make_query(query), "priors": [SizePrior(mean, gamma=0.1), off]}
            self.train(adapter, replace(SETTINGS, size_weight=5.0, size_from=0.25), **options)
            sizes[name] = float(make_query(query).sweep(adapter).sizes[0])
        self.assertGreater(sizes["large"], 1.1 * sizes["free"])
        self.assertLess(sizes["small"], 0.9 * sizes["free"])


class Standardising(OneThread):
    """Feature statistics over all supports."""

    def test_mean_and_deviation_by_level(self) -> None:
        supports = []
        for seed in (1, 2):
            features = random_features(SHAPE, WIDTHS, (1, 2), seed)
            arrays = tuple(level * np.float16(seed) + np.float16(1) for level in features.levels)
            scaled = replace(features, levels=arrays, scales=(1.0, 3.0))
            supports.append(
                PreparedSupport(scaled, torch.zeros(1), torch.ones(1), (), {}, frozenset())
            )
        adapter = ADAPTERS["linear-probe"](WIDTHS, 1)
        standardise(adapter, supports)
        for number, scale in enumerate((1.0, 3.0)):
            values = np.concatenate(
                [s.features.levels[number].reshape(WIDTHS[number], -1) for s in supports], 1
            ).astype(np.float32)
            for name, expected in (("mean", values.mean(1)), ("deviation", values.std(1))):
                kept = getattr(adapter, f"{name}{number}").numpy()
                np.testing.assert_allclose(kept, scale * expected, rtol=0.01)


if __name__ == "__main__":
    unittest.main()
