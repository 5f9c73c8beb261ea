"""Supervoxels that mean the same in all images of a group, carried over by registration."""

from __future__ import annotations

import unittest

import numpy as np
from scipy import ndimage

from FewShotSegLib.pretraining.packed.correspondence import registered_supervoxels

SHAPE = (40, 36, 32)
SPACING = (2.0, 2.0, 3.0)


def _anatomy(shift: tuple[int, int, int], stretch: float) -> tuple[np.ndarray, np.ndarray]:
    """An image (uint8) of a body with three organs in it, and its parts from 1: the body, a bone
    (the landmark), and two organs of one intensity; moved by whole voxels and stretched."""
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    place = (voxels - np.array(SHAPE) / 2 - shift) / np.array([stretch, 1.0, 1.0])
    parts = np.zeros(SHAPE, np.int16)
    for number, (centre, radii) in enumerate(
        [
            ((0, 0, 0), (14, 13, 12)),
            ((0, -7, 0), (4, 4, 5)),
            ((-7, 3, 2), (4, 5, 4)),
            ((7, 3, -2), (4, 5, 4)),
        ],
        1,
    ):
        parts[(((place - centre) / radii) ** 2).sum(-1) < 1] = number
    grey = np.array([0, 90, 240, 160, 160], float)[parts]
    return ndimage.gaussian_filter(grey, 0.7).astype(np.uint8), parts


class RegisteredSupervoxelsTest(unittest.TestCase):
    def test_a_number_is_the_same_part_in_every_image(self) -> None:
        cases = [_anatomy((0, 0, 0), 1.0), _anatomy((4, -2, 1), 1.1), _anatomy((-5, 2, -2), 0.9)]
        images = [image for image, _ in cases]
        bones = [np.where(parts == 2, 1, 0).astype(np.int16) for _, parts in cases]

        def organs(mean: np.ndarray) -> np.ndarray:
            found, _ = ndimage.label((mean > 130) & (mean < 190))
            sizes = np.bincount(found.ravel())
            sizes[0] = 0
            big = sorted(np.argsort(sizes)[-2:], key=lambda n: np.argwhere(found == n)[:, 0].mean())
            return np.select([found == n for n in big], [1, 2], 0).astype(np.int16)

        numbers = registered_supervoxels(images, bones, SPACING, organs)
        for (_, parts), found in zip(cases, numbers, strict=True):
            self.assertEqual(found.shape, SHAPE)
            for number in (1, 2):
                is_there, wanted = found == number, parts == number + 2
                dice = 2 * (is_there & wanted).sum() / (is_there.sum() + wanted.sum())
                self.assertGreater(dice, 0.75)

    def test_an_image_without_a_landmark_in_common_has_no_numbers(self) -> None:
        image, parts = _anatomy((0, 0, 0), 1.0)
        bone = np.where(parts == 2, 1, 0).astype(np.int16)
        other = np.where(parts == 3, 2, 0).astype(np.int16)
        none = np.zeros_like(bone)
        drawn = np.ones(SHAPE, np.int16)
        first, second, third = registered_supervoxels(
            [image] * 3, [bone, other, none], SPACING, lambda mean: drawn
        )
        self.assertTrue((first == 1).all())
        self.assertIsNone(second)
        self.assertIsNone(third)

    def test_what_few_images_show_is_no_part_of_the_mean(self) -> None:
        image, parts = _anatomy((0, 0, 0), 1.0)
        bone = np.where(parts == 2, 1, 0).astype(np.int16)
        # Five of six end where the upper third begins.
        short = [(image[:, :, :20], bone[:, :, :20])] * 5
        images, bones = zip((image, bone), *short, strict=True)
        first, *_ = registered_supervoxels(
            images, bones, SPACING, lambda mean: np.ones(mean.shape, np.int16)
        )
        self.assertTrue((first[8:-8, 8:-8, 2:18] == 1).all())
        self.assertTrue((first[:, :, 24:] == 0).all())


if __name__ == "__main__":
    unittest.main()
