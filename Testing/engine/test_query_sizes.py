"""Soft sizes of a query, and their gradients."""

from __future__ import annotations

import copy
import unittest
from dataclasses import FrozenInstanceError, replace
from unittest import mock

import numpy as np
import torch
from tiny import make_features
from training_case import CPU, LEVELS, SHAPE, THOROUGH, VOXEL, Training, make_adapter, make_query

from FewShotSegLib.core.errors import Cancelled
from FewShotSegLib.inference.query_sizes import Query
from FewShotSegLib.inference.tiles import box_scores


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
        sizes = self.query.sweep(self.adapter).sizes
        self.assertFalse(sizes.requires_grad)
        torch.testing.assert_close(
            sizes, whole.detach().sum((1, 2, 3)) * VOXEL, atol=0.1, rtol=1e-3
        )

    def test_sizes_are_those_of_the_sweep_with_a_gradient(self) -> None:
        for name, matters in (("all", self.everything_matters), ("little", self.little_matters)):
            with self.subTest(name), matters():
                swept = self.query.sweep(self.adapter)
                sizes = self.query.sizes(self.adapter, swept)
                torch.testing.assert_close(sizes.detach(), swept.sizes, atol=0.1, rtol=1e-3)
                self.adapter.zero_grad()
                sizes.sum().backward()
                self.assertGreater(float(self.adapter.classifiers[0].bias.grad.sum()), 0)

    def test_a_size_has_no_gradient_by_another_structures_score(self) -> None:
        with self.everything_matters():
            swept = self.query.sweep(self.adapter)
            self.query.sizes(self.adapter, swept)[0].backward()
        gradient = self.adapter.classifiers[0].bias.grad
        self.assertGreater(float(gradient[0]), 0)
        self.assertEqual(float(gradient[1]), 0)

    def test_the_gradient_is_that_of_the_whole_volume(self) -> None:
        with self.everything_matters():
            swept = self.query.sweep(self.adapter)
            self.query.sizes(self.adapter, swept)[0].backward()
        gradient = float(self.adapter.classifiers[0].bias.grad[0])
        sizes = []
        for step in (0.05, -0.05):
            moved = copy.deepcopy(self.adapter)
            moved.classifiers[0].bias.data[0] += step
            sizes.append(float(make_query(self.supports[0]).sweep(moved).sizes[0]))
        slope = (sizes[0] - sizes[1]) / 0.1
        self.assertAlmostEqual(gradient / slope, 1, delta=0.02)

    def test_sizes_follow_the_adapter(self) -> None:
        """Wholly where everything is recomputed, else in the part that is."""
        moved = copy.deepcopy(self.adapter)
        moved.classifiers[0].bias.data += 0.5
        before = self.query.sweep(self.adapter).sizes
        expected = make_query(self.supports[0]).sweep(moved).sizes
        with self.everything_matters():
            swept = self.query.sweep(self.adapter)
            sizes = self.query.sizes(moved, swept).detach()
        torch.testing.assert_close(sizes, expected, atol=0.1, rtol=1e-3)
        with self.little_matters():
            swept = self.query.sweep(self.adapter)
            sizes = self.query.sizes(moved, swept).detach()
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
        query = Query(features, VOXEL, tuple(slice(0, n) for n in SHAPE), CPU)
        swept = query.sweep(probe)
        inside = 75 * VOXEL * torch.sigmoid(torch.tensor(1.0))
        torch.testing.assert_close(swept.sizes, inside.expand(2), rtol=0.01, atol=0.1)
        with mock.patch(
            "FewShotSegLib.inference.query_sizes.box_scores", wraps=box_scores
        ) as computed:
            sizes = query.sizes(probe, swept)
        boxes = [call.args[2] for call in computed.call_args_list]
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
        self.assertEqual(whole.sweep(adapter).cut_off, (False, False))
        centre = self.supports[0].centres[0].mean(0).round().astype(int)
        features = self.supports[0].features
        view = (slice(int(centre[0]), SHAPE[0]), slice(0, SHAPE[1]), slice(0, SHAPE[2]))
        cut = Query(features, VOXEL, view, CPU)
        self.assertEqual(cut.sweep(adapter).cut_off, (True, False))

    def test_it_can_be_stopped(self) -> None:
        def stop() -> None:
            raise Cancelled("Stopped.")

        with self.everything_matters():
            swept = self.query.sweep(self.adapter)
        query = replace(self.query, check=stop)
        with self.assertRaises(Cancelled):
            query.sweep(self.adapter)
        with self.assertRaises(Cancelled):
            query.sizes(self.adapter, swept)

    def test_a_measurement_is_a_value(self) -> None:
        """What one sweep found is not overwritten by the next, of whatever adapter."""
        first = self.query.sweep(self.adapter)
        kept = copy.deepcopy(first)
        moved = copy.deepcopy(self.adapter)
        moved.classifiers[0].bias.data += 0.5
        second = self.query.sweep(moved)
        self.query.sizes(moved, second)
        self.assertFalse(torch.equal(first.sizes, second.sizes))
        for field in ("sizes", "rest"):
            self.assertTrue(torch.equal(getattr(first, field), getattr(kept, field)))
        self.assertEqual((first.cut_off, first.boxes), (kept.cut_off, kept.boxes))
        for value in (first, self.query):
            with self.assertRaises(FrozenInstanceError):
                value.sizes = None


if __name__ == "__main__":
    unittest.main()
