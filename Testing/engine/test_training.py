"""Training and refinement on made-up features: what is learnt, repeated, resumed and left alone."""

from __future__ import annotations

import copy
import json
import tempfile
import unittest
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from tiny import OneThread, make_features, random_features
from torch import Tensor

from FewShotSegLib.compute.precision import fast_dtype
from FewShotSegLib.core.errors import Cancelled, InputError
from FewShotSegLib.core.size_prior import SizePrior, override_priors
from FewShotSegLib.inference.prediction import model_probabilities
from FewShotSegLib.inference.query_sizes import Query
from FewShotSegLib.inference.tiles import box_scores
from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.methods.adapters.base import Adapter
from FewShotSegLib.training.checkpoint import Checkpoint
from FewShotSegLib.training.loop import TrainingResult, TrainingSettings, fit
from FewShotSegLib.training.sampling import draw_crops
from FewShotSegLib.training.support_set import PreparedSupport, standardise
from FewShotSegLib.training.transduction import RefinementSettings, refine

CPU = torch.device("cpu")
SHAPE = (22, 19, 17)
NAMES = ("ball", "bar")
LEVELS = (0, 1)
WIDTHS = (4, 3)
VOXEL = 8.0
"""mm^3 of a model voxel."""
SETTINGS = TrainingSettings(
    epochs=8,
    steps_per_epoch=2,
    crops=2,
    crop_size=12,
    learning_rate=0.05,
    weight_decay=0.0,
    cross_entropy=1.0,
    warm_up=1,
    plateau=0.0,
    patience=50,
    size_weight=0.1,
    size_from=0.5,
)
THOROUGH = replace(SETTINGS, epochs=30, steps_per_epoch=3)


def made_up(seed: int) -> tuple[Tensor, Tensor]:
    """Targets (2, *SHAPE) of a ball and a bar, and an image-like level that shows both in noise."""
    rng = np.random.default_rng(seed)
    i, j, k = np.ogrid[tuple(slice(n) for n in SHAPE)]
    centre = rng.uniform(7, 9, 3)
    ball = (i - centre[0]) ** 2 + (j - centre[1]) ** 2 + (k - centre[2]) ** 2 <= 4**2
    bar = (abs(i - 18) <= 1) & (abs(j - rng.integers(8, 12)) <= 2) & (k >= 3) & (k <= 13)
    targets = torch.from_numpy(np.stack([ball, bar]))
    level = np.zeros((4, 24, 20, 20), np.float32)
    level[0, :22, :19, :17] = 3 * ball + bar
    level[1, :22, :19, :17] = 3 * bar - ball
    level[2] = level[0] * level[1]
    level += rng.normal(size=level.shape).astype(np.float32) * 0.7
    return targets, torch.from_numpy(level)


def make_support(seed: int, annotated: Sequence[int] = (1, 1)) -> PreparedSupport:
    """One support with features on two levels; what is not annotated has targets of noise."""
    targets, level = made_up(seed)
    coarse = torch.nn.functional.avg_pool3d(level[None, :3], 2)[0]
    w = torch.tensor(annotated, dtype=torch.float32)
    masks = targets.numpy()
    targets = (targets * 255).to(torch.uint8)
    noise = torch.randint(0, 256, targets.shape, dtype=torch.uint8)
    targets = torch.where(w.bool().view(-1, 1, 1, 1), targets, noise)
    having = [k for k in range(2) if annotated[k]]
    return PreparedSupport(
        make_features([level, coarse], (1, 2), SHAPE, key=str(seed)),
        targets,
        w,
        tuple(np.argwhere(masks[k]) if annotated[k] else np.zeros((0, 3), int) for k in range(2)),
        {NAMES[k]: float(masks[k].sum()) * VOXEL for k in having},
        frozenset(),
        f"case {seed}",
    )


def make_adapter(
    supports: Sequence[PreparedSupport], method: str = "linear-probe", seed: int = 0
) -> Adapter:
    torch.manual_seed(seed)
    adapter = ADAPTERS[method](WIDTHS, 2)
    standardise(adapter, supports, LEVELS)
    return adapter


def make_query(support: PreparedSupport) -> Query:
    """The volume of a support, without what was annotated."""
    return Query(support.features, LEVELS, VOXEL, tuple(slice(0, n) for n in SHAPE), CPU)


def weights(adapter: Adapter) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in adapter.state_dict().items()}


class Training(OneThread):
    """With two supports at hand."""

    def setUp(self) -> None:
        torch.manual_seed(0)
        patch = mock.patch("FewShotSegLib.compute.precision.fast_dtype", return_value=None)
        patch.start()
        self.addCleanup(patch.stop)
        self.supports = [make_support(1), make_support(2)]
        self.events: list[dict[str, Any]] = []

    def train(
        self, adapter: Adapter, settings: TrainingSettings = SETTINGS, **options: Any
    ) -> TrainingResult:
        options = {"supports": self.supports, "names": NAMES, **options}
        return fit(
            adapter, LEVELS, settings=settings, device=CPU, events=self.events.append, **options
        )

    def assert_equal(self, one: Adapter, other: Adapter) -> None:
        """Bit for bit."""
        for name, tensor in one.state_dict().items():
            self.assertTrue(torch.equal(tensor, other.state_dict()[name]), name)

    def differ(self, one: Adapter, other: Adapter) -> bool:
        pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        return any(not torch.equal(a, b) for a, b in pairs)


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
        size = make_query(unseen).sweep(adapter)
        before = make_query(unseen).sweep(make_adapter(self.supports))
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
        before = query.sweep(adapter)
        self.train(adapter, THOROUGH, supports=supports)
        true = self.supports[0].sizes["bar"]
        error = abs(float(query.sweep(adapter)[1]) - true)
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


class Resuming(Training):
    """A training that was interrupted is the same training."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "adapter.checkpoint"
        patch = mock.patch("FewShotSegLib.training.checkpoint.SAVE_EVERY_SECONDS", 0.0)
        patch.start()
        self.addCleanup(patch.stop)

    def interrupt(self, adapter: Adapter, after: int, **options: Any) -> None:
        """Stop a training in the middle of an epoch, so many epochs in."""

        def check() -> None:
            done = [e["epoch"] for e in self.events if e["event"] == "epoch"]
            if done and done[-1] >= after:
                raise Cancelled("Stopped.")

        self.events.clear()
        with self.assertRaises(Cancelled):
            self.train(adapter, check=check, checkpoint=Checkpoint(self.path, "r"), **options)
        self.assertEqual(self.events[-1]["epoch"], after)
        self.events.clear()

    def test_resumed_equals_uninterrupted(self) -> None:
        for method in ADAPTERS:
            with self.subTest(method):
                whole = make_adapter(self.supports, method)
                expected = self.train(whole)
                self.interrupt(make_adapter(self.supports, method), after=5)
                resumed = make_adapter(self.supports, method, seed=99)
                self.assertTrue(self.differ(whole, resumed))
                result = self.train(resumed, checkpoint=Checkpoint(self.path, "r"))
                self.assertEqual([e["epoch"] for e in self.events], [6, 7, 8])
                self.assert_equal(resumed, whole)
                self.assertEqual(result.history, expected.history)
                self.assertEqual(result.epochs, 8)
                Checkpoint(self.path, "r").remove()
                self.assertFalse(self.path.exists())

    def test_it_can_be_interrupted_again_and_again(self) -> None:
        whole, resumed = (make_adapter(self.supports) for _ in range(2))
        self.train(whole)
        for after in (2, 3, 6):
            self.interrupt(make_adapter(self.supports), after)
        self.train(resumed, checkpoint=Checkpoint(self.path, "r"))
        self.assert_equal(resumed, whole)

    def test_with_a_query_too(self) -> None:
        """Even where it was last measured some epochs before the interruption."""
        options = {
            "priors": [SizePrior(600.0), SizePrior(900.0)],
            "settings": replace(SETTINGS, size_from=0.25, size_weight=1.0),
        }
        whole = make_adapter(self.supports)
        query = make_support(3)
        # Few boxes matter, so that much is only measured now and then.
        with mock.patch("FewShotSegLib.inference.query_sizes.MAX_VOXELS", 600):
            expected = self.train(whole, query=make_query(query), **options)
            for after in (4, 6, 7):
                with self.subTest(after):
                    self.path.unlink(missing_ok=True)
                    adapter = make_adapter(self.supports)
                    self.interrupt(adapter, after, query=make_query(query), **options)
                    resumed = make_adapter(self.supports)
                    result = self.train(
                        resumed,
                        query=make_query(query),
                        checkpoint=Checkpoint(self.path, "r"),
                        **options,
                    )
                    self.assertEqual(result.history, expected.history)
                    self.assert_equal(resumed, whole)
        self.assertTrue(all(record["size_loss"] > 0 for record in expected.history[2:]))

    def test_a_finished_training_is_not_trained_further(self) -> None:
        for settings in (SETTINGS, replace(SETTINGS, plateau=1e6, patience=2)):
            with self.subTest(settings.plateau):
                self.path.unlink(missing_ok=True)
                adapter = make_adapter(self.supports)
                first = self.train(adapter, settings, checkpoint=Checkpoint(self.path, "r"))
                self.events.clear()
                again = make_adapter(self.supports)
                second = self.train(again, settings, checkpoint=Checkpoint(self.path, "r"))
                self.assertEqual(self.events, [])
                self.assert_equal(again, adapter)
                self.assertEqual(second.history, first.history)
                self.assertEqual(second.stopped_early, first.stopped_early)

    def test_it_is_not_written_at_every_epoch(self) -> None:
        with mock.patch("FewShotSegLib.training.checkpoint.SAVE_EVERY_SECONDS", 1e9):
            checkpoint = Checkpoint(self.path, "r")
            checkpoint._last = -1e10
            with mock.patch("FewShotSegLib.training.checkpoint.write_sealed") as save:
                save.side_effect = lambda path, data, metadata: Path(path).write_bytes(b"x")
                self.train(make_adapter(self.supports), checkpoint=checkpoint)
        self.assertEqual(save.call_count, 1)

    def test_another_recipe_is_refused(self) -> None:
        self.interrupt(make_adapter(self.supports), after=3)
        adapter = make_adapter(self.supports)
        before = weights(adapter)
        with self.assertRaisesRegex(InputError, "other supports or settings"):
            self.train(adapter, checkpoint=Checkpoint(self.path, "another"))
        for name, tensor in adapter.state_dict().items():
            self.assertTrue(torch.equal(tensor, before[name]))
        self.assertTrue(self.path.exists())

    def test_a_damaged_file_is_refused(self) -> None:
        self.interrupt(make_adapter(self.supports), after=3)
        whole = self.path.read_bytes()
        for name, content in {
            "half": whole[: len(whole) // 2],
            "empty": b"",
            "zeros": bytes(len(whole)),
            "text": b"this is no checkpoint",
            "no history": whole.replace(b'"history"', b'"mystery"'),
        }.items():
            self.path.write_bytes(content)
            with self.subTest(name), self.assertRaisesRegex(InputError, "damaged.*start again"):
                self.train(make_adapter(self.supports), checkpoint=Checkpoint(self.path, "r"))

    def test_stopping_is_immediate(self) -> None:
        calls = []

        def check() -> None:
            calls.append(1)
            if len(calls) == 4:
                raise Cancelled("Stopped.")

        with self.assertRaises(Cancelled):
            self.train(make_adapter(self.supports), check=check)
        self.assertEqual(len(calls), 4)
        # 2 steps an epoch: the second had not ended.
        self.assertEqual([e["epoch"] for e in self.events], [1])


class Events(Training):
    """What is told of every epoch."""

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
            sizes[name] = float(make_query(query).sweep(adapter)[0])
        self.assertGreater(sizes["large"], 1.1 * sizes["free"])
        self.assertLess(sizes["small"], 0.9 * sizes["free"])


class QuerySizes(Training):
    """Soft sizes of a query."""

    def setUp(self) -> None:
        super().setUp()
        self.adapter = make_adapter(self.supports, "adapter")
        for parameter in self.adapter.parameters():
            parameter.data.normal_(std=0.3)
        self.query = make_query(self.supports[0])

    def everything_matters(self):
        """Steps recompute the whole volume."""
        return mock.patch("FewShotSegLib.inference.query_sizes.COVERED", 1.1)

    def little_matters(self):
        """Steps recompute a small part of it."""
        return mock.patch.multiple(
            "FewShotSegLib.inference.query_sizes", MAX_VOXELS=1100, MAX_SIDE=8
        )

    def test_the_sweep_measures_the_whole_volume_in_mm3(self) -> None:
        scores = []
        for number, level in enumerate(LEVELS):
            array = torch.from_numpy(self.query.features.levels[level]).float()[None]
            part = self.adapter.level_scores(number, array)
            scores.append(torch.nn.functional.interpolate(part, (24, 20, 20), mode="trilinear"))
        whole = sum(scores).sigmoid()[0, :, :22, :19, :17]
        sizes = self.query.sweep(self.adapter)
        self.assertFalse(sizes.requires_grad)
        torch.testing.assert_close(
            sizes, whole.detach().sum((1, 2, 3)) * VOXEL, atol=0.1, rtol=1e-3
        )

    def test_sizes_are_those_of_the_sweep_with_a_gradient(self) -> None:
        for name, matters in (("all", self.everything_matters), ("little", self.little_matters)):
            with self.subTest(name), matters():
                swept = self.query.sweep(self.adapter)
                sizes = self.query.sizes(self.adapter)
                torch.testing.assert_close(sizes.detach(), swept, atol=0.1, rtol=1e-3)
                self.adapter.zero_grad()
                sizes.sum().backward()
                self.assertGreater(float(self.adapter.classifiers[0].bias.grad.sum()), 0)

    def test_a_size_has_no_gradient_by_another_structures_score(self) -> None:
        with self.everything_matters():
            self.query.sweep(self.adapter)
            self.query.sizes(self.adapter)[0].backward()
        gradient = self.adapter.classifiers[0].bias.grad
        self.assertGreater(float(gradient[0]), 0)
        self.assertEqual(float(gradient[1]), 0)

    def test_the_gradient_is_that_of_the_whole_volume(self) -> None:
        with self.everything_matters():
            self.query.sweep(self.adapter)
            self.query.sizes(self.adapter)[0].backward()
        gradient = float(self.adapter.classifiers[0].bias.grad[0])
        sizes = []
        for step in (0.05, -0.05):
            moved = copy.deepcopy(self.adapter)
            moved.classifiers[0].bias.data[0] += step
            sizes.append(float(make_query(self.supports[0]).sweep(moved)[0]))
        slope = (sizes[0] - sizes[1]) / 0.1
        self.assertAlmostEqual(gradient / slope, 1, delta=0.02)

    def test_sizes_follow_the_adapter(self) -> None:
        """Wholly where everything is recomputed, else in the part that is."""
        moved = copy.deepcopy(self.adapter)
        moved.classifiers[0].bias.data += 0.5
        before = self.query.sweep(self.adapter)
        expected = make_query(self.supports[0]).sweep(moved)
        with self.everything_matters():
            self.query.sweep(self.adapter)
            sizes = self.query.sizes(moved).detach()
        torch.testing.assert_close(sizes, expected, atol=0.1, rtol=1e-3)
        with self.little_matters():
            self.query.sweep(self.adapter)
            sizes = self.query.sizes(moved).detach()
        self.assertGreater(float(sizes.sum()), 1.001 * float(before.sum()))
        self.assertLess(float(sizes.sum()), 0.99 * float(expected.sum()))

    def test_a_step_computes_little_but_what_matters(self) -> None:
        """Of a structure in one corner, that corner, with nearly all of the gradient."""
        probe = make_adapter(self.supports)
        with torch.no_grad():
            for classifier in probe.classifiers:
                classifier.weight.zero_()
                classifier.bias.zero_()
            probe.classifiers[0].bias.fill_(-12.0)
            probe.classifiers[0].weight[:, 0] = 13.0
        probe.standardise_by(0, torch.zeros(4), torch.ones(4))
        level = torch.zeros(4, 24, 20, 20)
        level[0, 9:14, 9:14, 9:12] = 1
        features = make_features([level, torch.zeros(3, 12, 10, 10)], (1, 2), SHAPE)
        query = Query(features, LEVELS, VOXEL, tuple(slice(0, n) for n in SHAPE), CPU)
        swept = query.sweep(probe)
        inside = 75 * VOXEL * torch.sigmoid(torch.tensor(1.0))
        torch.testing.assert_close(swept, inside.expand(2), rtol=0.01, atol=0.1)
        with mock.patch(
            "FewShotSegLib.inference.query_sizes.box_scores", wraps=box_scores
        ) as computed:
            sizes = query.sizes(probe)
        boxes = [call.args[3] for call in computed.call_args_list]
        voxels = sum(np.prod([part.stop - part.start for part in box]) for box in boxes)
        self.assertGreater(voxels, 0)
        self.assertLess(voxels, 2 * 0.3 * np.prod(SHAPE))
        sizes.sum().backward()
        slope = 75 * VOXEL * 0.19661
        for gradient in probe.classifiers[0].bias.grad.tolist():
            self.assertAlmostEqual(gradient / slope, 1, delta=0.05)

    def test_what_reaches_the_border_of_the_view_may_be_cut_off(self) -> None:
        adapter = make_adapter(self.supports)
        self.train(adapter, THOROUGH)
        whole = make_query(self.supports[0])
        whole.sweep(adapter)
        self.assertEqual(whole.cut_off, {0: False, 1: False})
        centre = self.supports[0].centres[0].mean(0).round().astype(int)
        features = self.supports[0].features
        view = (slice(int(centre[0]), SHAPE[0]), slice(0, SHAPE[1]), slice(0, SHAPE[2]))
        cut = Query(features, LEVELS, VOXEL, view, CPU)
        cut.sweep(adapter)
        self.assertEqual(cut.cut_off, {0: True, 1: False})

    def test_it_can_be_stopped(self) -> None:
        def stop() -> None:
            raise Cancelled("Stopped.")

        with self.everything_matters():
            self.query.sweep(self.adapter)
        self.query.check = stop
        with self.assertRaises(Cancelled):
            self.query.sweep(self.adapter)
        with self.assertRaises(Cancelled):
            self.query.sizes(self.adapter)


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
        self.probability = model_probabilities(self.adapter, self.query.features, LEVELS, CPU)
        self.kept = self.probability.clone()
        self.sizes = self.query.measure(self.probability).tolist()

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
        return refine(
            self.adapter,
            self.probability,
            LEVELS,
            self.query,
            {"ball": ball, "bar": bar},
            rule,
            CPU,
            events=self.events.append,
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
            found = model_probabilities(self.adapter.only(k), self.query.features, LEVELS, CPU)
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
        self.query.view = (slice(centre, SHAPE[0]), *self.query.view[1:])
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
        standardise(adapter, supports, LEVELS)
        for number, scale in enumerate((1.0, 3.0)):
            values = np.concatenate(
                [s.features.levels[number].reshape(WIDTHS[number], -1) for s in supports], 1
            ).astype(np.float32)
            for name, expected in (("mean", values.mean(1)), ("deviation", values.std(1))):
                kept = getattr(adapter, f"{name}{number}").numpy()
                np.testing.assert_allclose(kept, scale * expected, rtol=0.01)


if __name__ == "__main__":
    unittest.main()
