"""A box of trilinear values is what torch interpolates, wherever it lies."""

from __future__ import annotations

import unittest

import numpy as np
import torch
from torch.nn.functional import interpolate

from FewShotSegLib.compute.upsampling import _weights, upsample


class Upsample(unittest.TestCase):
    """Against ``interpolate`` on the whole."""

    def setUp(self) -> None:
        torch.manual_seed(0)
        _weights.cache_clear()

    def assert_same(self, values: torch.Tensor, stride: int, box: tuple[slice, ...]) -> None:
        spans = [(0, n) for n in values.shape[2:]]
        whole = interpolate(values, scale_factor=stride, mode="trilinear", align_corners=False)
        found = upsample(values, stride, spans, box)
        self.assertEqual(found.dtype, torch.float32)
        torch.testing.assert_close(found, whole[(..., *box)], atol=2e-6, rtol=0)

    def test_any_box_of_any_coarse_grid(self) -> None:
        rng = np.random.default_rng(0)
        for stride in (2, 4, 16):
            for shape in ((5, 4, 3), (1, 2, 7), (1, 1, 1)):
                values = torch.randn(2, 3, *shape)
                for _ in range(6):
                    ends = [sorted(rng.integers(0, n * stride, 2)) for n in shape]
                    box = tuple(slice(int(a), int(b) + 1) for a, b in ends)
                    with self.subTest(stride=stride, shape=shape, box=box):
                        self.assert_same(values, stride, box)

    def test_a_part_of_the_coarse_grid_with_one_voxel_around_is_enough(self) -> None:
        whole, box = torch.randn(1, 2, 9, 9, 9), (slice(8, 20), slice(0, 7), slice(30, 36))
        spans = [(1, 6), (0, 3), (6, 9)]
        part = whole[(..., *(slice(*span) for span in spans))]
        expected = interpolate(whole, scale_factor=4, mode="trilinear")[(..., *box)]
        torch.testing.assert_close(upsample(part, 4, spans, box), expected, atol=2e-6, rtol=0)

    def test_half_precision_around_it_costs_no_digit(self) -> None:
        values = torch.randn(1, 1, 4, 4, 4)
        with torch.autocast("cpu", torch.bfloat16):
            self.assert_same(values, 8, tuple(slice(0, 32) for _ in range(3)))

    def test_training_after_prediction(self) -> None:
        """Weights that were made in inference mode could not be trained through."""
        values, box = torch.randn(1, 1, 3, 3, 3), tuple(slice(0, 6) for _ in range(3))
        spans = [(0, 3)] * 3
        with torch.inference_mode():
            upsample(values, 2, spans, box)
        values.requires_grad_(True)
        upsample(values, 2, spans, box).square().sum().backward()
        found, values.grad = values.grad, None
        interpolate(values, scale_factor=2, mode="trilinear").square().sum().backward()
        torch.testing.assert_close(found, values.grad, atol=1e-5, rtol=1e-5)


if __name__ == "__main__":
    unittest.main()
