"""The published settings: the numbers of the paper, its schedule, stopping rule, crops and loss."""

from __future__ import annotations

import unittest
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from tiny import PREPROCESSING
from tiny_model import STRUCTURES, TinyWorld, run

from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.methods.tuned_model import TunedNetwork
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline import adapt, read_support, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter, read_metadata
from FewShotSegLib.training.image_recipe import ImageSource
from FewShotSegLib.training.published_recipe import PublishedLearner
from FewShotSegLib.training.recipes import default_settings
from FewShotSegLib.training.support_set import prepare_support


class Numbers(unittest.TestCase):
    """Those of the authors' code."""

    def learner(self, supports: Sequence[Any] = ()) -> PublishedLearner:
        """One that takes no step, so that its network is never asked for anything."""
        network = mock.create_autospec(TunedNetwork)
        settings = default_settings("ft", "published")
        return PublishedLearner(network, supports, settings, PREPROCESSING)

    def test_settings(self) -> None:
        for method, decoder, rate in (
            ("linear-probe", None, 1e-2),
            ("adapter", None, 1e-4),
            ("ft", None, 1e-4),
            ("scratch", None, 1e-4),
            ("lora", None, 1e-3),
            ("lora", "tuned", 1e-4),
            ("bias", "frozen", 1e-2),
            ("affine", "new", 1e-4),
            ("adaptformer", None, 1e-2),
            ("compacter", None, 1e-2),
            ("cnn-adapter", None, 1e-2),
        ):
            s = default_settings(method, "published", decoder)
            self.assertEqual(s.learning_rate, rate, method)
            self.assertEqual((s.epochs, s.crops, s.crop_size, s.weight_decay), (200, 6, 96, 0))
            self.assertEqual((s.cross_entropy, s.patience, s.plateau), (0, 20, 0.001))

    def test_schedule(self) -> None:
        learner = self.learner([None] * 5)
        rates = [learner.rate(epoch) for epoch in range(200)]
        self.assertEqual(rates[:2], [1, 1])
        self.assertAlmostEqual(rates[100], 0.5 + 0.5 * np.cos(np.pi * 99 / 199))
        self.assertLess(rates[-1], 1e-3)
        self.assertEqual(learner.steps(), 5)

    def test_it_stops_where_the_average_has_settled(self) -> None:
        learner = self.learner()

        def settled(losses: list[float]) -> bool:
            return learner.settled([{"dice_loss": x} for x in losses])

        self.assertFalse(settled([0.5] * 30))
        self.assertTrue(settled([0.5] * 31))
        self.assertTrue(settled([0.5 + 0.001 * n for n in range(40)]))  # it rises
        self.assertFalse(settled([0.5 - 0.001 * n for n in range(40)]))

    def test_dice_is_by_crop_and_class(self) -> None:
        learner = self.learner()
        scores = [torch.full((1, 2, 2, 2), 2.0), torch.full((1, 2, 2, 2), -2.0)]
        targets = [torch.ones(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)]
        p, q = (torch.sigmoid(torch.tensor(x)).item() for x in (2.0, -2.0))
        expected = (2 - (16 * p + 1) / (8 * p + 8 + 1) - 1 / (8 * q + 1)) / 2
        loss, entropy = learner.combine(scores, targets, [torch.ones(1)] * 2)
        self.assertAlmostEqual(loss.item(), expected, places=6)
        self.assertEqual(entropy.item(), 0)

    def test_several_structures_compete(self) -> None:
        learner = self.learner()
        score = torch.randn(2, 3, 3, 3, requires_grad=True)
        target = torch.zeros(2, 3, 3, 3)
        target[0, 0], target[1, 1] = 1, 1
        p = torch.cat([torch.zeros(1, 3, 3, 3), score]).softmax(0)
        whole = torch.cat([1 - target.sum(0, keepdim=True), target])
        dice = (2 * (p * whole).sum((1, 2, 3)) + 1) / (p.sum((1, 2, 3)) + whole.sum((1, 2, 3)) + 1)
        loss, _ = learner.combine([score], [target], [torch.ones(2)])
        torch.testing.assert_close(loss, (1 - dice).mean())
        loss, _ = learner.combine([score], [target], [torch.tensor([1.0, 0.0])])
        torch.testing.assert_close(loss, 1 - dice[1])

    def test_what_is_unknown_is_as_if_it_were_not_there(self) -> None:
        """Of the structures and of the background; alone or competing."""
        learner = self.learner()
        for count in (1, 2):
            score = torch.randn(count, 4, 3, 3, requires_grad=True)
            target, known = torch.zeros(count, 4, 3, 3), torch.zeros(4, 3, 3)
            target[:, 0], known[:2] = 1, 1
            masks = [torch.ones(count)]
            loss, _ = learner.combine([score], [target], masks, [known])
            expected, _ = learner.combine([score[:, :2]], [target[:, :2]], masks)
            torch.testing.assert_close(loss, expected)
            loss.backward()
            self.assertEqual(float(score.grad[:, 2:].abs().max()), 0)


class WholeJob(TinyWorld):
    """From supports to a result, with few epochs."""

    def short(self, method: str, **changes):
        return replace(
            default_settings(method, "published"), epochs=8, crop_size=24, crops=4, **changes
        )

    def test_crops_come_from_one_volume_a_step(self) -> None:
        model = find_model(str(self.model))
        source = ImageSource(model, model.entry.preprocessing["CT"])
        structures = [Structure("bean", 4), Structure("pea", 5)]
        supports = [
            prepare_support(read_support(*s.paths, structures), structures, source)
            for s in self.supports
        ]
        network = mock.create_autospec(TunedNetwork)
        learner = PublishedLearner(network, supports, self.short("ft"), source.preprocessing)
        rng = np.random.default_rng(0)
        for _ in range(3):
            seen = []
            for _ in range(len(supports)):
                drawn = learner.draw(rng)
                self.assertEqual(len(drawn), 4)
                self.assertEqual(len({id(support) for support, _ in drawn}), 1)
                seen.append(id(drawn[0][0]))
            self.assertEqual(set(seen), {id(support) for support in supports})

    def test_adapters_and_white_box_methods(self) -> None:
        for method in ("adapter", "linear-probe", "ft"):
            with self.subTest(method):
                path = self.folder / f"{method}.fseft"
                trained = adapt(
                    [support.paths for support in self.supports],
                    path,
                    structures=STRUCTURES,
                    model=str(self.model),
                    method=method,
                    preset="published",
                    settings=self.short(method, learning_rate=0.01),
                    runtime=self.runtime,
                )
                self.assertEqual((trained.features, len(trained.adapter.classifiers)), ("last", 1))
                self.assertEqual(bool(trained.tuned), method == "ft")
                self.assertEqual(read_metadata(path)["training"]["preset"], "published")
                self.assertEqual(float(trained.adapter.mean0.abs().sum()), 0)
                result = segment(
                    TrainedAdapter.load(path),
                    self.query.image,
                    model=str(self.model),
                    runtime=self.runtime,
                )
                self.assertEqual(set(result.masks), {"bean", "pea"})

    def test_what_has_no_meaning_is_reported(self) -> None:
        for options, telling in (
            ({"features": "multi"}, "use --features last"),
            ({"query": self.query.image}, "'segment' refines what is on the features"),
            ({"preset": "magic"}, "no preset 'magic'. Known: own, published"),
        ):
            with self.assertRaisesRegex(InputError, telling):
                adapt(
                    [support.paths for support in self.supports],
                    structures=STRUCTURES,
                    model=str(self.model),
                    **{"preset": "published", "runtime": self.runtime, **options},
                )

    def test_the_command(self) -> None:
        path = self.folder / "a.fseft"
        more = ("--method", "linear-probe", "--preset", "published")
        ran = run(*self.adapt_arguments(path, *more, epochs=1))
        self.assertEqual(ran.status, 0, ran.err)
        data = read_metadata(path)
        self.assertEqual((data["features"], data["training"]["settings"]["crops"]), ("last", 6))


if __name__ == "__main__":
    unittest.main()
