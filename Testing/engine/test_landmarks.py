"""Distances from landmarks, against positions worked out by hand."""

from __future__ import annotations

import unittest

import numpy as np

from FewShotSegLib.pretraining.landmarks import (
    FARTHEST_MM,
    STEPS_PER_MM,
    landmark_distance,
    tissue_of,
)

SPACING = (2.0, 3.0, 4.0)


def body() -> np.ndarray:
    """Soft tissue with a closed airway and a rod of bone, in air on all sides but S and I."""
    tissue = np.full((40, 30, 20), tissue_of("air"), np.uint8)
    tissue[5:35, 5:25] = tissue_of("soft tissue")
    tissue[19:21, 14:16] = tissue_of("air")
    tissue[10:12, 10:12] = tissue_of("bone")
    return tissue


def distance(name: str, tissue: np.ndarray | None, labels: np.ndarray | None = None, place=None):
    """In mm."""
    if labels is None:
        labels = np.zeros(tissue.shape, np.uint8)
    steps = landmark_distance(name, place, labels, tissue, SPACING, "RAS")
    return None if steps is None else steps / STEPS_PER_MM


class LandmarkTestCase(unittest.TestCase):
    def test_depth_under_the_skin(self) -> None:
        depth = distance("skin", body())
        self.assertFalse(depth[:5].any())
        np.testing.assert_allclose(depth[5:10, 14, 10], [2, 4, 6, 8, 10])
        np.testing.assert_allclose(depth[20, 5:8, 0], [3, 6, 9])  # ends up and down are no skin

    def test_air_inside_the_body_is_no_outside(self) -> None:
        depth = distance("skin", body())
        self.assertGreater(depth[19, 14, 10], 25)

    def test_a_scan_cropped_at_the_body_ends_at_its_skin(self) -> None:
        depth = distance("skin", body()[5:35, 5:25])
        np.testing.assert_allclose(depth[0:3, 10, 10], [2, 4, 6])

    def test_bone(self) -> None:
        far = distance("bone", body())
        self.assertEqual(far[10, 10, 3], 0)
        np.testing.assert_allclose(far[12:15, 10, 3], [2, 4, 6])
        self.assertEqual(far[39, 29, 3], min(FARTHEST_MM, np.hypot(28 * 2, 18 * 3)))

    def test_a_class(self) -> None:
        labels = np.zeros((40, 30, 20), np.uint8)
        labels[20, 15, 10] = 7
        far = distance("anything", None, labels, 7)
        self.assertEqual(far[20, 15, 10], 0)
        self.assertAlmostEqual(far[21, 16, 11], round(4 * np.sqrt(4 + 9 + 16)) / 4)
        self.assertEqual(far.max(), FARTHEST_MM)

    def test_what_is_unknown_is_not_guessed(self) -> None:
        labels = np.zeros((4, 4, 4), np.uint8)
        self.assertIsNone(distance("skin", None, labels))  # no HU
        self.assertIsNone(distance("liver", body()))  # not annotated
        self.assertIsNone(distance("liver", None, labels, 3))  # annotated, and not there


if __name__ == "__main__":
    unittest.main()
