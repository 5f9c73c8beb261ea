"""Grids: affines there and back, lattices that coincide, and the volume of a voxel."""

from __future__ import annotations

import itertools
import unittest
from dataclasses import replace

import numpy as np
from rotations import affine_of, rotation

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid, Volume

SPACING = (0.7, 1.5, 3.0)
ORIGIN = (10.5, -220.25, 35.0)
AFFINES = {
    "RAS": affine_of(np.eye(3), SPACING, ORIGIN),
    "LPS": affine_of(np.diag([-1.0, -1.0, 1.0]), SPACING, ORIGIN),
    "left-handed": affine_of(np.diag([-1.0, 1.0, 1.0]), SPACING, ORIGIN),
    "permuted": affine_of(np.eye(3)[[2, 0, 1]], SPACING, ORIGIN),
    "oblique": affine_of(rotation(0.2, -0.4, 0.9), SPACING, ORIGIN),
    "oblique and left-handed": affine_of(
        rotation(0.2, -0.4, 0.9) @ np.diag([1, 1, -1.0]), SPACING, ORIGIN
    ),
}


class Affine(unittest.TestCase):
    """The grid as ITK states it, and as an affine in RAS."""

    def test_round_trip(self) -> None:
        for name, affine in AFFINES.items():
            with self.subTest(name):
                grid = Grid.from_affine((4, 5, 6), affine)
                np.testing.assert_allclose(grid.affine, affine, rtol=1e-14, atol=1e-13)
                np.testing.assert_allclose(grid.spacing, SPACING, rtol=1e-14)
                again = Grid.from_affine(grid.shape, grid.affine)
                self.assertTrue(again.same_as(grid))

    def test_itk_numbers_are_in_lps(self) -> None:
        grid = Grid((4, 5, 6), (1.0, 2.0, 3.0), (7.0, 8.0, 9.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
        expected = [[-1, 0, 0, -7], [0, -2, 0, -8], [0, 0, 3, 9], [0, 0, 0, 1]]
        np.testing.assert_array_equal(grid.affine, expected)

    def test_directions_are_columns_in_row_major_order(self) -> None:
        """Axis i runs to the patient's head here, axis k to the left."""
        direction = (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0)
        grid = Grid((4, 5, 6), (2.0, 3.0, 5.0), (0.0, 0.0, 0.0), direction)
        np.testing.assert_array_equal(grid.affine @ [1, 0, 0, 1], [0, 0, 2, 1])
        np.testing.assert_array_equal(grid.affine @ [0, 0, 1, 1], [-5, 0, 0, 1])

    def test_what_is_no_grid_is_refused(self) -> None:
        singular = AFFINES["oblique"].copy()
        singular[:3, 2] = singular[:3, 0] * 2
        flat = AFFINES["RAS"].copy()
        flat[:3, 1] = 0
        unknown = AFFINES["RAS"].copy()
        unknown[0, 3] = np.nan
        for affine, pattern in (
            (np.eye(3), "4x4"),
            (unknown, "finite"),
            (singular, "singular"),
            (flat, "singular"),
        ):
            with self.assertRaisesRegex(ValueError, pattern):
                Grid.from_affine((4, 5, 6), affine)


class VoxelVolume(unittest.TestCase):
    """mm^3, however the grid lies."""

    def test_it_is_the_product_of_spacings_on_every_rigid_grid(self) -> None:
        for name, affine in AFFINES.items():
            with self.subTest(name):
                volume = Grid.from_affine((4, 5, 6), affine).voxel_volume
                self.assertAlmostEqual(volume, 0.7 * 1.5 * 3.0, places=12)

    def test_shear_makes_it_smaller(self) -> None:
        """A gantry tilt of 20 degrees brings slices closer by its cosine."""
        tilted = np.eye(3)
        tilted[:, 2] = (0, np.sin(np.radians(20)), np.cos(np.radians(20)))
        grid = Grid.from_affine((4, 5, 6), affine_of(tilted, SPACING, ORIGIN))
        expected = 0.7 * 1.5 * 3.0 * np.cos(np.radians(20))
        self.assertAlmostEqual(grid.voxel_volume, expected, places=12)


class Lattices(unittest.TestCase):
    """Whether two grids have the same voxels, or one is a part of the other."""

    def part(self, grid: Grid, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Grid:
        """The grid of ``array[start : start + shape]``."""
        affine = grid.affine
        affine[:3, 3] = (affine @ [*start, 1])[:3]
        return Grid.from_affine(shape, affine)

    def test_a_part_is_found_where_it_was_cut_out(self) -> None:
        for (name, affine), start in itertools.product(
            AFFINES.items(), ((0, 0, 0), (3, 1, 2), (-4, 7, -1))
        ):
            with self.subTest(name, start=start):
                grid = Grid.from_affine((12, 10, 8), affine)
                self.assertEqual(self.part(grid, start, (5, 4, 3)).offset_in(grid), start)

    def test_the_array_of_a_part_lies_at_its_offset(self) -> None:
        grid = Grid.from_affine((12, 10, 8), AFFINES["oblique and left-handed"])
        part = self.part(grid, (2, 3, 4), (5, 4, 3))
        offset = part.offset_in(grid)
        index = np.array([1, 2, 2])
        np.testing.assert_allclose(
            part.affine @ [*index, 1], grid.affine @ [*(index + offset), 1], atol=1e-10
        )

    def test_another_lattice_has_no_offset(self) -> None:
        grid = Grid.from_affine((12, 10, 8), AFFINES["oblique"])
        turned = AFFINES["oblique"].copy()
        turned[:3, :3] = rotation(0.0, 0.0, 0.01) @ turned[:3, :3]
        for name, other in {
            "between voxels": replace(grid, origin=tuple(np.add(grid.origin, (0.3, 0.0, 0.0)))),
            "spacing": replace(grid, spacing=(0.7, 1.5, 3.01)),
            "turned": Grid.from_affine(grid.shape, turned),
            "mirrored": Grid.from_affine(grid.shape, AFFINES["oblique and left-handed"]),
        }.items():
            with self.subTest(name):
                self.assertIsNone(other.offset_in(grid))
                self.assertFalse(other.same_as(grid))

    def test_what_a_float32_header_loses_does_not_matter(self) -> None:
        for name, affine in AFFINES.items():
            with self.subTest(name):
                grid = Grid.from_affine((512, 512, 300), affine)
                rounded = Grid.from_affine(grid.shape, affine.astype(np.float32))
                self.assertNotEqual(grid.affine.tobytes(), rounded.affine.tobytes())
                self.assertTrue(rounded.same_as(grid))

    def test_errors_that_add_up_along_an_axis_matter(self) -> None:
        """A spacing that is off by one part in 10,000 shifts the last of 512 voxels."""
        grid = Grid.from_affine((512, 512, 300), AFFINES["RAS"])
        other = replace(grid, spacing=(0.7 * 1.0001, 1.5, 3.0))
        self.assertIsNone(other.offset_in(grid))
        self.assertTrue(replace(other, shape=(5, 5, 5)).same_as(replace(grid, shape=(5, 5, 5))))

    def test_the_same_needs_the_same_shape(self) -> None:
        grid = Grid.from_affine((12, 10, 8), AFFINES["LPS"])
        self.assertTrue(grid.same_as(grid))
        smaller = self.part(grid, (0, 0, 0), (12, 10, 7))
        self.assertEqual(smaller.offset_in(grid), (0, 0, 0))
        self.assertFalse(smaller.same_as(grid))
        self.assertFalse(self.part(grid, (1, 0, 0), (12, 10, 8)).same_as(grid))


class VolumeTest(unittest.TestCase):
    """An array and a grid belong together."""

    def test_an_array_of_another_shape_is_refused(self) -> None:
        grid = Grid.from_affine((4, 5, 6), AFFINES["RAS"])
        self.assertIs(Volume(np.zeros((4, 5, 6)), grid).grid, grid)
        with self.assertRaisesRegex(InputError, "6 x 5 x 4"):
            Volume(np.zeros((6, 5, 4)), grid)


if __name__ == "__main__":
    unittest.main()
