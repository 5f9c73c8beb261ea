"""One pass of a backbone over a volume: seamless windows."""

from __future__ import annotations

import unittest
from unittest import mock

import torch
from feature_case import CPU, FullPrecision, SmallSight, extract_features
from monai.inferers import sliding_window_inference
from tiny import (
    FILTERS,
    STRIDES,
    make_backbone,
)
from torch import Tensor, nn

from FewShotSegLib.core.errors import Cancelled, InputError
from FewShotSegLib.features.extraction import (
    choose_device,
)
from FewShotSegLib.features.sliding_window import Windows, blend_windows, place_windows
from FewShotSegLib.models.backbones.base import Backbone


class SlidingWindow(FullPrecision):
    """One pass over a volume."""

    def setUp(self) -> None:
        super().setUp()
        self.generator = torch.Generator().manual_seed(0)

    def image(self, *shape: int) -> Tensor:
        return torch.randn(1, 1, *shape, generator=self.generator)

    def test_one_window_is_the_backbone_itself(self) -> None:
        backbone = make_backbone()
        image = self.image(16, 24, 8)
        with torch.inference_mode():
            expected = backbone.features(image)
        for window in ((16, 24, 8), (96, 96, 96), (14, 21, 7)):
            levels = extract_features(backbone, image, window, 0.25)
            self.assertEqual([level.dtype for level in levels], [torch.float32] * 3)
            for level, whole in zip(levels, expected, strict=True):
                torch.testing.assert_close(level, whole[0], atol=1e-5, rtol=1e-5)

    def test_strides_that_differ_by_axis(self) -> None:
        """Each level of a network that sees a voxel of its own alone is the same in any windows."""

        class Thick(SmallSight):
            strides = (1, (1, 2, 2), (2, 4, 4))

        backbone, image = Thick(1), self.image(11, 26, 30)
        self.assertEqual(backbone.largest_stride, (2, 4, 4))
        continued = nn.functional.pad(image, (0, 2, 0, 2, 0, 1), mode="replicate")
        with torch.inference_mode():
            expected = backbone.features(continued)
        for window in ((6, 8, 16), (5, 13, 11), (64, 64, 64)):
            levels = extract_features(backbone, image, window, 0.25)
            for level, whole in zip(levels, expected, strict=True):
                torch.testing.assert_close(level, whole[0], atol=1e-5, rtol=1e-5)

    def test_sizes_need_not_be_multiples_of_the_stride(self) -> None:
        """The image is continued by its border, and every level covers all of it."""
        backbone = make_backbone()
        image = self.image(13, 18, 5)
        levels = extract_features(backbone, image, (32, 32, 32), 0.25)
        for level, channels, stride in zip(levels, FILTERS, STRIDES, strict=True):
            expected = (channels, 16 // stride, 20 // stride, 8 // stride)
            self.assertEqual(tuple(level.shape), expected)
        continued = nn.functional.pad(image, (0, 3, 0, 2, 0, 3), mode="replicate")
        with torch.inference_mode():
            expected = backbone.features(continued)
        for level, whole in zip(levels, expected, strict=True):
            torch.testing.assert_close(level, whole[0], atol=1e-5, rtol=1e-5)

    def errors(
        self, backbone: Backbone, window: tuple[int, int, int], overlap: float
    ) -> list[Tensor]:
        """How far each level is from that of the whole image in one pass, in its deviations."""
        backbone.eval().requires_grad_(False)
        image = self.image(41, 26, 50)
        padded = nn.functional.pad(image, (0, 2, 0, 2, 0, 3), mode="replicate")
        whole = [level[0] for level in backbone.features(padded)]
        levels = extract_features(backbone, image, window, overlap)
        self.assertEqual([level.shape for level in levels], [level.shape for level in whole])
        return [(a - b).abs() / b.std() for a, b in zip(levels, whole, strict=True)]

    def test_every_level_of_every_window_lies_in_its_place(self) -> None:
        """Where no voxel sees beyond its window, the result is that of the whole image."""
        for window, overlap in (((16, 16, 16), 0.5), ((24, 12, 20), 0.25), ((12, 28, 40), 0.7)):
            for error in self.errors(SmallSight(kernel=1), window, overlap):
                self.assertLess(float(error.max()), 1e-4)

    def test_window_borders_weigh_little(self) -> None:
        """There a network sees zeros instead of the neighbour; a Gaussian leaves little of it."""
        apart = self.errors(SmallSight(kernel=3), (16, 16, 16), 0.0)
        blended = self.errors(SmallSight(kernel=3), (16, 16, 16), 0.5)
        means = [(float(b.mean()), float(a.mean())) for a, b in zip(apart, blended, strict=True)]
        for b, a in means:
            self.assertLess(b, 0.7 * a)

    def test_a_network_that_sees_far_is_close_to_the_whole(self) -> None:
        """Much closer than to itself one voxel further."""
        backbone = make_backbone()
        image = self.image(48, 16, 16)
        with torch.inference_mode():
            whole = [level[0] for level in backbone.features(image)]
        levels = extract_features(backbone, image, (32, 16, 16), 0.5)
        for level, expected in zip(levels, whole, strict=True):
            error = (level - expected).square().mean()
            shifted = (level[:, 1:] - expected[:, :-1]).square().mean()
            self.assertLess(float(error), 0.1 * float(shifted))

    def test_windows_start_where_every_level_has_a_voxel(self) -> None:
        """Whatever the window and its overlap, all steps are multiples of the largest stride."""
        backbone = SmallSight(kernel=1).eval().requires_grad_(False)
        ramp = torch.arange(256.0).view(1, 1, -1, 1, 1).expand(-1, -1, -1, 4, 4).contiguous()
        for window in range(4, 129, 4):
            for overlap in (0.0, 0.25, 0.3, 0.5, 0.625, 0.8):
                starts = []
                counted = []
                features = SmallSight.features

                def record(self: SmallSight, image: Tensor, starts=starts, features=features):
                    starts.append(int(image[0, 0, 0, 0, 0]))
                    return features(self, image)

                with mock.patch.object(SmallSight, "features", record):
                    extract_features(
                        backbone,
                        ramp,
                        (window, 4, 4),
                        overlap,
                        lambda done, total, counted=counted: counted.append((done, total)),
                    )
                with self.subTest(window=window, overlap=overlap):
                    self.assertEqual([start % 4 for start in starts], [0] * len(starts))
                    expected = [(n, len(starts)) for n in range(len(starts) + 1)]
                    self.assertEqual(counted, expected)

    def test_it_is_the_sliding_window_of_monai(self) -> None:
        """Slab by slab as over the whole image in one pass, weights of coarser levels included."""
        backbone = make_backbone()
        image = self.image(44, 28, 52)
        for window in ((16, 12, 24), (24, 28, 20)):
            windows = place_windows(image.shape[2:], window, 0.25, 4)
            steps = [starts[1] if len(starts) > 1 else n for n, starts in self.rows(windows)]
            expected = sliding_window_inference(
                image,
                windows.side,
                1,
                lambda crop: tuple(backbone.features(crop)),
                overlap=[
                    max(0.0, 1 - (step + 0.5) / n)
                    for step, n in zip(steps, windows.side, strict=True)
                ],
                mode="gaussian",
            )
            self.assertGreater(windows.count, 8)
            for level, whole in zip(
                extract_features(backbone, image, window, 0.25), expected, strict=True
            ):
                torch.testing.assert_close(level, whole[0], atol=1e-5, rtol=1e-5)

    @staticmethod
    def rows(windows: Windows) -> list[tuple[int, tuple[int, ...]]]:
        return list(zip(windows.side, windows.starts, strict=True))

    def test_no_more_than_a_slab_is_handed_over(self) -> None:
        """What memory holds depends on the window, not on how long the image is."""
        planes = []
        windows = place_windows((160, 8, 8), (16, 8, 8), 0.25, 4)
        blend_windows(
            self.image(160, 8, 8),
            windows,
            SmallSight(1).requires_grad_(False).features,
            lambda number, first, values: planes.append((number, first, values.shape[1])),
        )
        finest = [(first, count) for number, first, count in planes if number == 0]
        self.assertEqual(finest, [(n * 12, 12) for n in range(12)] + [(144, 16)])

    def test_it_can_be_stopped_at_every_window(self) -> None:
        def stop(done: int, total: int) -> None:
            if done == 2:
                raise Cancelled("Stopped.")

        with self.assertRaises(Cancelled):
            extract_features(make_backbone(), self.image(40, 8, 8), (8, 8, 8), 0.0, stop)


class Device(unittest.TestCase):
    """Where to compute."""

    def test_names(self) -> None:
        self.assertEqual(choose_device("cpu"), CPU)
        self.assertIn(choose_device().type, ("cpu", "cuda"))
        for name in ("cuda:99", "abacus"):
            with self.subTest(name), self.assertRaisesRegex(InputError, f"no device '{name}'"):
                choose_device(name)


if __name__ == "__main__":
    unittest.main()
