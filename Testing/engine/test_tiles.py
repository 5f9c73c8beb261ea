"""Scores piece by piece are those of the whole volume: no seams, and crops are no exception."""

from __future__ import annotations

import itertools
import unittest

import numpy as np
import torch
from tiny import FILTERS, STRIDES, OneThread, random_features
from tiny_adapters import make_adapter
from torch import Tensor
from torch.nn.functional import interpolate

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.features.store import VolumeFeatures
from FewShotSegLib.inference.tiles import box_scores, iterate_boxes, select_levels
from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.methods.adapters.base import Adapter
from FewShotSegLib.training.sampling import draw_crops
from FewShotSegLib.training.support_set import PreparedSupport

CPU = torch.device("cpu")
SHAPES = ((21, 18, 13), (16, 24, 8), (5, 30, 3))


def in_one_pass(adapter: Adapter, features: VolumeFeatures) -> Tensor:
    """Scores of a whole volume, by the shortest way that they can be written down."""
    total = 0
    for number, level in enumerate(adapter.levels):
        array = torch.from_numpy(features.levels[level]).float() * features.scales[level]
        scores = adapter.level_scores(number, array[None])
        scale = features.strides[level]
        total = total + interpolate(scores, scale_factor=scale, mode="trilinear")
    i, j, k = features.shape
    return total[0, :, :i, :j, :k]


class Seamless(OneThread):
    """For every adapter, on one level or on all."""

    def cases(self):
        """Every adapter, choice of levels and shape: (adapter, features)."""
        for name, choice, shape in itertools.product(ADAPTERS, ("multi", "last"), SHAPES):
            levels = select_levels(STRIDES, choice)
            adapter = make_adapter(name, [FILTERS[level] for level in levels], levels=levels)
            yield f"{name}, {choice}, {shape}", adapter, random_features(shape)

    def assert_same(self, scores: Tensor, expected: Tensor) -> None:
        self.assertEqual(scores.shape, expected.shape)
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)

    def test_the_whole_box_is_the_whole_volume(self) -> None:
        for name, adapter, features in self.cases():
            with self.subTest(name):
                box = tuple(slice(0, n) for n in features.shape)
                scores = box_scores(adapter, features, box, CPU)
                self.assertEqual(scores.dtype, torch.float32)
                self.assert_same(scores, in_one_pass(adapter, features))

    def test_tiles_make_up_the_whole(self) -> None:
        for name, adapter, features in self.cases():
            expected = in_one_pass(adapter, features)
            for size in (7, 12):
                with self.subTest(name, size=size):
                    scores = torch.full_like(expected, torch.nan)
                    for box in iterate_boxes(features.shape, size):
                        part = box_scores(adapter, features, box, CPU)
                        scores[(slice(None), *box)] = part
                    self.assert_same(scores, expected)

    def test_every_kind_of_box_is_a_part_of_the_whole(self) -> None:
        """Single voxels, slabs, corners, and boxes that start at odd places."""
        rng = np.random.default_rng(0)
        for name, adapter, features in self.cases():
            expected = in_one_pass(adapter, features)
            for _ in range(8):
                box = []
                for n in features.shape:
                    first, last = sorted(rng.integers(0, n, 2))
                    box.append(slice(int(first), int(last) + 1))
                with self.subTest(name, box=box):
                    scores = box_scores(adapter, features, tuple(box), CPU)
                    self.assert_same(scores, expected[(slice(None), *box)])

    def test_training_crops_see_what_prediction_sees(self) -> None:
        """Scores of drawn crops, computed with gradients, are those of the whole volume there."""
        for name, adapter, features in self.cases():
            voxels = np.argwhere(np.ones(features.shape))
            support = PreparedSupport(
                features, torch.zeros(1), torch.ones(1), (voxels,), {}, frozenset()
            )
            expected = in_one_pass(adapter, features)
            adapter.requires_grad_(True)
            for crop, box in draw_crops(np.random.default_rng(0), [support], 6, 9):
                scores = box_scores(adapter, crop.features, box, CPU)
                self.assertTrue(scores.requires_grad)
                with self.subTest(name, box=box):
                    self.assert_same(scores.detach(), expected[(slice(None), *box)])

    def test_strides_that_differ_by_axis(self) -> None:
        """As of nnU-Net on thick slices: what one pass gives, of any box."""
        strides = (1, (1, 2, 2), (2, 4, 4))
        for name, shape in itertools.product(ADAPTERS, SHAPES):
            adapter, features = (
                make_adapter(name, FILTERS),
                random_features(shape, FILTERS, strides),
            )
            whole = tuple(slice(0, n) for n in shape)
            expected = in_one_pass(adapter, features)
            for box in (whole, *list(iterate_boxes(shape, 7))[:3]):
                with self.subTest(name, box=box):
                    found = box_scores(adapter, features, box, CPU)
                    self.assert_same(found, expected[(slice(None), *box)])

    def test_scales_are_multiplied_back(self) -> None:
        adapter = make_adapter("adapter", FILTERS)
        features = random_features((9, 10, 11))
        halves = VolumeFeatures(
            tuple(level / np.float16(2) for level in features.levels),
            (2.0, 2.0, 2.0),
            features.strides,
            features.shape,
            "halves",
        )
        box = (slice(0, 9), slice(2, 10), slice(3, 8))
        self.assert_same(
            box_scores(adapter, halves, box, CPU),
            box_scores(adapter, features, box, CPU),
        )

    def test_any_choice_of_levels_is_possible(self) -> None:
        features = random_features((13, 10, 11))
        for levels in ((1,), (2,), (0, 2)):
            with self.subTest(levels):
                channels = [FILTERS[level] for level in levels]
                adapter = make_adapter("adapter", channels, levels=levels)
                self.assertEqual(adapter.only(0).levels, levels)
                expected = in_one_pass(adapter, features)
                box = (slice(3, 8), slice(1, 10), slice(0, 7))
                scores = box_scores(adapter, features, box, CPU)
                self.assert_same(scores, expected[(slice(None), *box)])


class Boxes(unittest.TestCase):
    """How a volume is cut up."""

    def test_every_voxel_is_in_one_box(self) -> None:
        for shape, size in (((21, 18, 13), 8), ((40, 41, 79), 40), ((3, 1, 5), 8), ((8, 8, 8), 1)):
            with self.subTest(shape=shape, size=size):
                count = np.zeros(shape, int)
                for box in iterate_boxes(shape, size):
                    count[box] += 1
                    sides = [s.stop - s.start for s in box]
                    self.assertLessEqual(max(sides), size)
                    self.assertGreater(min(sides), 0)
                self.assertTrue((count == 1).all())

    def test_levels_by_name(self) -> None:
        self.assertEqual(select_levels((1, 2, 4, 8), "multi"), (0, 1, 2, 3))
        self.assertEqual(select_levels((1, 2, 4, 8), "last"), (0,))
        with self.assertRaisesRegex(InputError, "'first'"):
            select_levels((1, 2), "first")


if __name__ == "__main__":
    unittest.main()
