"""Scores against hand-computed boxes, against scipy, and in the cases that have no number."""

from __future__ import annotations

import json
import math
import time
import unittest
import warnings

import numpy as np
import torch
from monai.metrics import compute_dice, compute_surface_dice
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial import cKDTree

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.evaluation.metrics import Scores, dice, evaluate, format_table

SPACING = (0.7, 1.5, 3.0)


def make_grid(shape: tuple[int, int, int] = (40, 32, 24)) -> Grid:
    return Grid(shape, SPACING, (10.0, -20.0, 5.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def box(grid: Grid, low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    """A mask of voxels low <= index < high."""
    mask = np.zeros(grid.shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def blobs(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Two irregular shapes that differ a little, with islands far off."""
    i, j, k = np.ogrid[tuple(slice(n) for n in grid.shape)]
    radius = np.sqrt((0.7 * (i - 18)) ** 2 + (1.5 * (j - 14)) ** 2 + (3.0 * (k - 10)) ** 2)
    a = radius < 9 + 1.5 * np.sin(0.5 * i) * np.cos(0.7 * j)
    b = radius < 9.5 + 1.5 * np.sin(0.4 * i + 1) * np.cos(0.8 * j)
    a[38:, 30:, 0] = True
    b[0, 0, 23] = True
    return a, b


def hd95_by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    """Both directed 95th percentiles from dense distance transforms, the larger one."""
    edge_a, edge_b = (mask & ~binary_erosion(mask) for mask in (a, b))
    from_a = distance_transform_edt(~edge_b, sampling=SPACING)[edge_a]
    from_b = distance_transform_edt(~edge_a, sampling=SPACING)[edge_b]
    return max(np.percentile(from_a, 95), np.percentile(from_b, 95))


def score_spheres(
    centres: list[np.ndarray], radius: float, spacing: np.ndarray, tolerance: float
) -> Scores:
    """The scores of two spheres (mm) within a cube of 34 mm."""
    shape = tuple(int(n) for n in np.ceil(34 / spacing))
    grid = Grid(shape, tuple(spacing.tolist()), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
    x, y, z = x * spacing[0], y * spacing[1], z * spacing[2]
    masks = [(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < radius**2 for a, b, c in centres]
    return evaluate({"a": masks[0]}, {"a": masks[1]}, grid, tolerance)["a"]


def sampled_surface_dice(
    centres: list[np.ndarray], radius: float, spacing: np.ndarray, tolerance: float
) -> float:
    """Surface Dice of two spheres from points spread evenly over their true surfaces.

    A point belongs to the surface element between eight voxel centres that it lies in; the
    distance of elements is that of their middles, as in the definition by Nikolov et al.
    """
    count = 200_000
    number = np.arange(count) + 0.5
    height, turn = 1 - 2 * number / count, np.pi * (1 + 5**0.5) * number
    around = np.sqrt(1 - height**2)
    points = radius * np.stack([around * np.cos(turn), around * np.sin(turn), height], -1)
    elements = [
        np.unique(np.floor((points + centre) / spacing), axis=0, return_counts=True)
        for centre in centres
    ]
    within = 0
    for (own, areas), (other, _) in (elements, elements[::-1]):
        distance, _ = cKDTree(other * spacing).query(own * spacing)
        within += areas[distance <= tolerance].sum()
    return within / (2 * count)


def as_monai(*masks: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(mask)[None, None] for mask in masks]


class KnownNumbers(unittest.TestCase):
    """What can be said with pencil and paper, or by another way of computing."""

    def setUp(self) -> None:
        self.grid = make_grid()
        self.reference = box(self.grid, (6, 6, 6), (26, 22, 16))

    def shifted(self, axis: int, voxels: int) -> np.ndarray:
        return np.roll(self.reference, voxels, axis)

    def test_shifted_boxes(self) -> None:
        for axis, voxels in ((0, 5), (1, 3), (2, 2), (2, -3)):
            with self.subTest(axis=axis, voxels=voxels):
                scores = evaluate(
                    {"a": self.reference}, {"a": self.shifted(axis, voxels)}, self.grid
                )["a"]
                length = (20, 16, 10)[axis]
                self.assertAlmostEqual(scores.dice, 1 - abs(voxels) / length)
                # More than 5 % of the surface is the face that moved by the whole shift.
                self.assertAlmostEqual(scores.hd95_mm, abs(voxels) * SPACING[axis], places=4)
                self.assertEqual(scores.volume_error_ml, 0)

    def test_the_same_mask_is_perfect(self) -> None:
        scores = evaluate({"a": self.reference}, {"a": self.reference}, self.grid)["a"]
        self.assertEqual((scores.dice, scores.hd95_mm, scores.surface_dice), (1, 0, 1))
        self.assertEqual((scores.volume_error_ml, scores.volume_error_percent), (0, 0))
        self.assertEqual(scores.note, "")

    def test_volumes_are_of_the_grid(self) -> None:
        smaller = box(self.grid, (6, 6, 6), (26, 22, 14))
        scores = evaluate({"a": self.reference}, {"a": smaller}, self.grid)["a"]
        self.assertAlmostEqual(scores.reference_ml, 20 * 16 * 10 * 0.7 * 1.5 * 3 / 1000)
        self.assertAlmostEqual(scores.volume_ml, 20 * 16 * 8 * 0.7 * 1.5 * 3 / 1000)
        self.assertAlmostEqual(scores.volume_error_ml, scores.volume_ml - scores.reference_ml)
        self.assertAlmostEqual(scores.volume_error_percent, -20)

    def test_hd95_is_that_of_distance_transforms(self) -> None:
        a, b = blobs(self.grid)
        scores = evaluate({"a": a}, {"a": b}, self.grid)["a"]
        self.assertAlmostEqual(scores.hd95_mm, hd95_by_scipy(a, b), places=4)

    def test_surface_dice_of_shifted_spheres(self) -> None:
        """Of a sphere moved by d, the part t / d of the surface lies within t of the first one.

        By Archimedes' hat-box theorem the area between two planes is proportional to their
        distance; the planes are where the distance to the other centre is R - t and R + t.

        Surface elements are as thick as a voxel, so that two of them are up to half a voxel
        closer than the surfaces are. That part of a score goes with the size of the voxels: it
        is measured by putting the spheres' true surfaces into the same elements, and is gone where
        two voxel sizes are extrapolated to none.
        """
        shift, radius = 4.0, 12.0
        for axis in range(3):
            first = np.full(3, 17.0)
            first[axis] -= shift / 2
            centres = [first, first + shift * np.eye(3)[axis]]
            for tolerance in (1.0, 2.5):
                with self.subTest(axis=axis, tolerance=tolerance):
                    found = []
                    for voxel in (1.0, 0.5):
                        spacing = voxel * np.array([0.5, 0.6, 0.8])
                        scores = score_spheres(centres, radius, spacing, tolerance)
                        sampled = sampled_surface_dice(centres, radius, spacing, tolerance)
                        self.assertAlmostEqual(scores.surface_dice, sampled, delta=0.03)
                        self.assertAlmostEqual(scores.hd95_mm, 3.8, delta=0.2)
                        found.append(scores.surface_dice)
                    expected = tolerance / shift
                    self.assertAlmostEqual(2 * found[1] - found[0], expected, delta=0.03)

    def test_cutting_gaps_changes_nothing(self) -> None:
        a, b = blobs(self.grid)
        for tolerance in (0.0, 0.6, 2.0, 4.5, 30.0):
            scores = evaluate({"a": a}, {"a": b}, self.grid, tolerance)["a"]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                whole = compute_surface_dice(
                    *as_monai(b, a),
                    [tolerance],
                    include_background=True,
                    spacing=SPACING,
                    use_subvoxels=True,
                ).item()
            self.assertAlmostEqual(scores.surface_dice, whole, places=6)

    def test_dice_is_monais(self) -> None:
        a, b = blobs(self.grid)
        expected = compute_dice(*as_monai(b, a)).item()
        self.assertAlmostEqual(dice(a, b), expected, places=6)
        self.assertTrue(math.isnan(dice(a & ~a, b & ~b)))

    def test_masks_at_the_border_have_a_surface_there(self) -> None:
        grid = make_grid((10, 10, 10))
        full = np.ones(grid.shape, bool)
        scores = evaluate({"a": full}, {"a": box(grid, (0, 0, 0), (10, 10, 8))}, grid)["a"]
        self.assertAlmostEqual(scores.hd95_mm, 6.0, places=4)


class CasesWithoutANumber(unittest.TestCase):
    """Unknown is not background, and nothing undefined is made to look like a score."""

    def setUp(self) -> None:
        self.grid = make_grid()
        self.mask = box(self.grid, (6, 6, 6), (26, 22, 16))
        self.empty = np.zeros(self.grid.shape, bool)

    def one(self, reference: np.ndarray, prediction: np.ndarray):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return evaluate({"a": reference}, {"a": prediction}, self.grid)["a"]

    def test_both_empty(self) -> None:
        scores = self.one(self.empty, self.empty)
        self.assertFalse(scores.scored)
        self.assertEqual(scores.note, "rightly empty")
        self.assertEqual(scores.to_json()["dice"], None)
        self.assertEqual(scores.to_json()["volume_error_ml"], 0)

    def test_missed(self) -> None:
        scores = self.one(self.mask, self.empty)
        self.assertEqual((scores.dice, scores.surface_dice), (0, 0))
        self.assertEqual((scores.hd95_mm, scores.volume_error_percent), (math.inf, -100))
        self.assertIsNone(scores.to_json()["hd95_mm"])
        self.assertEqual(scores.note, "missed")

    def test_reference_empty(self) -> None:
        scores = self.one(self.empty, self.mask)
        self.assertEqual((scores.dice, scores.surface_dice), (0, 0))
        self.assertIsNone(scores.to_json()["volume_error_percent"])
        self.assertEqual(scores.note, "reference is empty")

    def test_only_what_both_have_is_scored(self) -> None:
        scores = evaluate(
            {"Liver": self.mask, "spleen": self.mask},
            {"colon": self.mask, "liver": self.mask},
            self.grid,
        )
        self.assertEqual(list(scores), ["Liver", "spleen", "colon"])
        self.assertEqual([s.scored for s in scores.values()], [True, False, False])
        self.assertEqual([s.note for s in scores.values()], ["", "not predicted", "not annotated"])
        self.assertGreater(scores["colon"].volume_ml, 0)
        self.assertIsNone(scores["colon"].to_json()["reference_ml"])

    def test_json_is_strict(self) -> None:
        for pair in ((self.mask, self.empty), (self.empty, self.empty), (self.mask, self.mask)):
            json.dumps(self.one(*pair).to_json(), allow_nan=False)

    def test_other_grids_and_double_names_are_refused(self) -> None:
        with self.assertRaisesRegex(InputError, "liver.*39 x 32 x 24.*40 x 32 x 24"):
            evaluate({"liver": self.mask}, {"liver": self.mask[1:]}, self.grid)
        with self.assertRaisesRegex(InputError, "twice"):
            evaluate({"liver": self.mask, "Liver": self.mask}, {}, self.grid)


class Table(unittest.TestCase):
    """The table that a person reads."""

    def test_a_line_a_structure_and_the_mean(self) -> None:
        grid = make_grid()
        mask = box(grid, (6, 6, 6), (26, 22, 16))
        half = box(grid, (6, 6, 6), (16, 22, 16))
        table = format_table(
            evaluate(
                {"Parotis": mask, "gland": mask, "missed one": mask},
                {"Parotis": mask, "gland": half, "missed one": mask & ~mask, "other": mask},
                grid,
            )
        )
        lines = table.splitlines()
        self.assertTrue(table.isascii())
        self.assertIn("-50.0 %", lines[3])
        self.assertTrue(lines[4].endswith("missed"))
        self.assertTrue(lines[5].endswith("not annotated"))
        self.assertEqual(lines[-1].split()[:5], ["mean", "of", "3", "0.556", "inf"])
        self.assertLess(max(map(len, lines)), 100)

    def test_no_mean_of_one(self) -> None:
        grid = make_grid()
        mask = box(grid, (6, 6, 6), (26, 22, 16))
        self.assertNotIn("mean", format_table(evaluate({"a": mask}, {"a": mask}, grid)))
        self.assertIn("Dice", format_table({}))


class Speed(unittest.TestCase):
    """A liver on a diagnostic CT, with a speck in the far corner."""

    def test_a_large_organ_takes_seconds(self) -> None:
        grid = make_grid((512, 512, 200))
        i, j, k = np.ogrid[:512, :512, :200]
        masks = [
            ((i - 180 - d) / 110) ** 2 + ((j - 250) / 55) ** 2 + ((k - 100) / 28) ** 2 < 1
            for d in (0, 3)
        ]
        masks[1][510, 510, 198] = True
        start = time.process_time()
        scores = evaluate({"liver": masks[0]}, {"liver": masks[1]}, grid)["liver"]
        self.assertGreater(scores.dice, 0.95)
        # About 9 s of both cores together; what else the machine does is not counted.
        self.assertLess(time.process_time() - start, 30)


if __name__ == "__main__":
    unittest.main()
