"""Adapters: where they start, how far they see, and how many parameters they train."""

from __future__ import annotations

import unittest

import torch
from tiny import OneThread, make_backbone, make_features
from tiny_adapters import make_adapter
from torch import Tensor
from torch.nn.functional import conv3d

from FewShotSegLib.inference.tiles import box_scores
from FewShotSegLib.methods.adapters import ADAPTERS, DEFAULT_METHOD
from FewShotSegLib.methods.adapters.base import RARE, Adapter, statistics
from FewShotSegLib.methods.adapters.linear_probe import LinearProbe
from FewShotSegLib.methods.adapters.spatial import (
    HIDDEN,
    SPATIAL_LEVELS,
    PointwiseAdapter,
    SpatialAdapter,
)

CHANNELS = (5, 60)


def features_of(width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(1, width, 7, 6, 5, generator=generator) + 2


class Start(OneThread):
    """What an adapter says before it has learnt anything."""

    def start(self, kind: type[Adapter]) -> Adapter:
        torch.manual_seed(0)
        return kind(CHANNELS, 3).eval()

    def test_spatial_adapters_start_as_the_linear_probe(self) -> None:
        probe = self.start(LinearProbe)
        for kind in (SpatialAdapter, PointwiseAdapter):
            adapter = self.start(kind)
            adapter.load_state_dict(probe.state_dict(), strict=False)
            for level, width in enumerate(CHANNELS):
                with self.subTest(kind.__name__, level=level):
                    scores = adapter.level_scores(level, features_of(width))
                    self.assertEqual(tuple(scores.shape), (1, 3, 7, 6, 5))
                    expected = probe.level_scores(level, features_of(width))
                    self.assertTrue(torch.equal(scores, expected))

    def test_only_the_second_convolution_is_zero(self) -> None:
        """Were both, no gradient would ever reach either."""
        for kind in (SpatialAdapter, PointwiseAdapter):
            adapter = self.start(kind)
            for level, width in enumerate(CHANNELS):
                first, _, second = adapter.residuals[level]
                self.assertEqual(float(second.weight.detach().abs().max()), 0)
                self.assertGreater(float(first.weight.detach().abs().min()), 0)
                adapter.level_scores(level, features_of(width)).sum().backward()
                self.assertGreater(float(second.weight.grad.abs().max()), 0)

    def test_an_unknown_structure_is_rare(self) -> None:
        for name, kind in ADAPTERS.items():
            with self.subTest(name):
                adapter = self.start(kind)
                biases = [classifier.bias.tolist() for classifier in adapter.classifiers]
                self.assertEqual(biases, [[RARE] * 3, [0.0] * 3])

    def test_features_are_standardised_by_what_the_adapter_keeps(self) -> None:
        for name, kind in ADAPTERS.items():
            with self.subTest(name):
                adapter = self.start(kind)
                features = features_of(CHANNELS[0])
                mean, deviation = features.mean((0, 2, 3, 4)), features.std((0, 2, 3, 4))
                expected = adapter.level_scores(
                    0,
                    (features - mean.view(1, -1, 1, 1, 1)) / deviation.view(1, -1, 1, 1, 1),
                )
                adapter.standardise_by(0, mean, deviation)
                scores = adapter.level_scores(0, features)
                torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
                self.assertIn("mean0", adapter.state_dict())
                self.assertIn("deviation1", adapter.state_dict())

    def test_constant_channels_do_not_blow_up(self) -> None:
        adapter = self.start(LinearProbe)
        adapter.standardise_by(0, torch.full((5,), 7.0), torch.zeros(5))
        scores = adapter.level_scores(0, torch.full((1, 5, 2, 2, 2), 7.0))
        torch.testing.assert_close(scores, torch.full_like(scores, RARE))


class Statistics(OneThread):
    """What features are standardised by."""

    def test_mean_and_deviation(self) -> None:
        mean, deviation = statistics(torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]]))
        self.assertEqual(mean.tolist(), [3.0, 4.0])
        self.assertAlmostEqual(float(deviation[0]), 7**0.5, places=6)
        self.assertEqual(float(deviation[1]), 0)

    def test_a_single_voxel_keeps_its_scale(self) -> None:
        mean, deviation = statistics(torch.tensor([[5.0], [-2.0]]))
        self.assertEqual(mean.tolist(), [5.0, -2.0])
        self.assertEqual(deviation.tolist(), [1.0, 1.0])


class KnownOrgan(OneThread):
    """A structure that the foundation model knows begins as its zero-shot result."""

    def setUp(self) -> None:
        self.backbone = make_backbone()
        with torch.inference_mode():
            image = torch.randn(1, 1, 12, 8, 16, generator=torch.Generator().manual_seed(0))
            self.levels = [level[0] for level in self.backbone.features(image)]
            self.published = self.backbone.net(image)[0]

    def standardised(self, kind: type[Adapter]) -> Adapter:
        torch.manual_seed(0)
        adapter = kind(self.backbone.channels, 3).eval()
        for number, level in enumerate(self.levels):
            flat = level.flatten(1)
            adapter.standardise_by(number, flat.mean(1), flat.std(1))
        return adapter

    def test_its_score_is_that_of_the_published_head(self) -> None:
        weights, biases = self.backbone.head_weights()
        features = make_features(self.levels, self.backbone.strides, (12, 8, 16))
        rounded = torch.from_numpy(features.levels[0]).float()[None]
        published = conv3d(rounded, weights[:, :, None, None, None], biases)[0]
        torch.testing.assert_close(published, self.published, atol=0.02, rtol=0.02)
        box = tuple(slice(0, n) for n in (12, 8, 16))
        for name, kind in ADAPTERS.items():
            with self.subTest(name):
                adapter = self.standardised(kind)
                before = box_scores(adapter, features, box, torch.device("cpu"))
                adapter.start_from(2, weights[1], biases[1])
                scores = box_scores(adapter, features, box, torch.device("cpu"))
                torch.testing.assert_close(scores[2], published[1], atol=1e-4, rtol=1e-4)
                self.assertFalse(torch.allclose(before[2], scores[2], atol=0.1))
                self.assertTrue(torch.equal(before[:2], scores[:2]))

    def test_it_can_still_be_trained_on_every_level(self) -> None:
        adapter = self.standardised(SpatialAdapter)
        weights, biases = self.backbone.head_weights()
        adapter.start_from(0, weights[0], biases[0])
        for number, level in enumerate(self.levels):
            adapter.level_scores(number, level.clone()[None])[:, 0].sum().backward()
            self.assertGreater(float(adapter.classifiers[number].weight.grad[0].abs().max()), 0)


class Sight(OneThread):
    """How many neighbours a score depends on: what :mod:`tiles` reads around a box."""

    def test_the_halo_is_exactly_what_is_seen(self) -> None:
        for name, halo in (("linear-probe", 0), ("adapter-1x1", 0), ("adapter", 2)):
            with self.subTest(name):
                adapter = make_adapter(name, (4,))
                self.assertEqual(adapter.halo, halo)
                features = torch.randn(1, 4, 9, 9, 9, requires_grad=True)
                adapter.level_scores(0, features)[0, :, 4, 4, 4].sum().backward()
                seen = features.grad[0].abs().sum(0).nonzero()
                self.assertEqual(seen.amin(0).tolist(), [4 - halo] * 3)
                self.assertEqual(seen.amax(0).tolist(), [4 + halo] * 3)

    def test_the_hidden_layer_matters_to_both_spatial_adapters(self) -> None:
        for name in ("adapter", "adapter-1x1"):
            adapter = make_adapter(name, (4,))
            features = features_of(4)
            before = adapter.level_scores(0, features)
            adapter.residuals[0][0].weight.data.neg_()
            self.assertFalse(torch.allclose(adapter.level_scores(0, features), before))


class Names(unittest.TestCase):
    """The registry, and the size of what it makes."""

    def test_registry(self) -> None:
        expected = {
            "linear-probe": LinearProbe,
            "adapter": SpatialAdapter,
            "adapter-1x1": PointwiseAdapter,
        }
        self.assertEqual({name: ADAPTERS[name] for name in expected}, expected)
        self.assertIn(DEFAULT_METHOD, ADAPTERS)

    def test_trained_parameters(self) -> None:
        """Classifiers with a bias for each structure; convolutions without, at most so wide."""
        probe = (5 + 1) * 3 + (60 + 1) * 3
        residual = 2 * 5 * 5 + 2 * 60 * HIDDEN
        for name, expected in (
            ("linear-probe", probe),
            ("adapter-1x1", probe + residual),
            ("adapter", probe + 27 * residual),
        ):
            with self.subTest(name):
                self.assertEqual(ADAPTERS[name](CHANNELS, 3).trained_parameters(), expected)

    def test_coarse_levels_are_linear(self) -> None:
        channels = (4, 5, 6, 7, 8)
        probe, adapter = LinearProbe(channels, 2), SpatialAdapter(channels, 2)
        residuals = sum(2 * 27 * width * width for width in channels[:SPATIAL_LEVELS])
        self.assertEqual(adapter.trained_parameters(), probe.trained_parameters() + residuals)
        self.assertEqual([adapter.halo_of(level) for level in range(5)], [2, 2, 2, 0, 0])
        features = features_of(8)
        self.assertTrue(torch.equal(adapter.adapt(4, features), features))

    def test_the_published_adapter_on_one_level(self) -> None:
        """48 features of SwinUNETR: two 3x3x3 convolutions and one output."""
        adapter = SpatialAdapter((48,), 1)
        self.assertEqual(adapter.trained_parameters(), 2 * 27 * 48 * 48 + 49)


if __name__ == "__main__":
    unittest.main()
