"""The overlay picture: the right slices, the right way round, and a PNG."""

from __future__ import annotations

import itertools
import tempfile
import unittest
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np

from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import StorageError
from FewShotSegLib.core.geometry import Grid, Volume
from FewShotSegLib.overlay.picture import (
    PLANES,
    Legend,
    Panel,
    _smoothed,
    choose_slices,
    draw_overlay,
    orientation_of,
    slice_plane,
)

STRUCTURES = [Structure("right_one", 1), Structure("upper_one", 2)]
SIZE = (20, 30, 25)
"""Voxels of the test patient to the right, to the front and up."""


def all_grids(tilt: float = 0.0):
    """Every order and direction of axes: a grid and how to lay a RAS array on it."""
    cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    mm = np.array([2.0, 1.0, 3.0])
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            axes = np.zeros((3, 3))
            for column, (axis, sign) in enumerate(zip(order, signs, strict=True)):
                axes[axis, column] = sign * mm[axis]
            affine = np.eye(4)
            affine[:3, :3] = turn @ axes
            affine[:3, 3] = 7, -5, 3
            shape = tuple(SIZE[axis] for axis in order)
            flips = tuple(slice(None, None, sign) for sign in signs)
            yield Grid.from_affine(shape, affine), order, flips


class OrientationTests(unittest.TestCase):
    """Panes are as a radiologist reads them, however the array lies."""

    def test_corners_of_every_plane_on_every_grid(self) -> None:
        x, y, z = np.meshgrid(*map(np.arange, SIZE), indexing="ij")
        for grid, order, flips in all_grids(tilt=20):
            orientation = orientation_of(grid)
            ras = [axis.transpose(order)[flips] for axis in (x, y, z)]
            for plane, (normal, row, column) in PLANES.items():
                along = orientation.axes[normal]
                shown = [slice_plane(a, orientation, plane, 3) for a in ras]
                self.assertEqual(shown[0].shape, (SIZE[row], SIZE[column]))
                for direction in (row, column):
                    step = np.diff(shown[direction], axis=0 if direction == row else 1)
                    # Right, front and up come first.
                    self.assertTrue((step == -1).all(), (plane, order))
                expected = ras[normal].take(3, axis=along).flat[0]
                self.assertTrue((shown[normal] == expected).all())

    def test_the_patients_right_is_left_in_the_picture(self) -> None:
        for grid, _, _ in itertools.islice(all_grids(), 0, None, 5):
            # The place of each voxel by its affine, not by how the test made the array.
            index = np.indices(grid.shape).reshape(3, -1)
            place = grid.affine[:3, :3] @ index + grid.affine[:3, 3:]
            right, front, up = (axis.reshape(grid.shape) for axis in place)
            orientation = orientation_of(grid)
            for plane in ("axial", "coronal"):
                shown = slice_plane(right, orientation, plane, 2)
                self.assertTrue((shown[:, 0] > shown[:, -1]).all())
            axial = slice_plane(front, orientation, "axial", 2)
            self.assertTrue((axial[0] > axial[-1]).all())
            sagittal = slice_plane(front, orientation, "sagittal", 2)
            self.assertTrue((sagittal[:, 0] > sagittal[:, -1]).all())
            for plane in ("coronal", "sagittal"):
                shown = slice_plane(up, orientation, plane, 2)
                self.assertTrue((shown[0] > shown[-1]).all())

    def test_slicing_copies_nothing(self) -> None:
        array = np.zeros(SIZE, np.int16)
        orientation = orientation_of(Grid.from_affine(SIZE, np.diag([-1.0, 2, 3, 1])))
        for plane in PLANES:
            self.assertTrue(np.shares_memory(slice_plane(array, orientation, plane, 0), array))

    def test_how_oblique(self) -> None:
        for tilt in (0, 20):
            for grid, _, _ in itertools.islice(all_grids(tilt), 4):
                self.assertAlmostEqual(orientation_of(grid).degrees, tilt, places=4)

    def test_axes_stay_apart_when_a_grid_is_turned_far(self) -> None:
        for grid, _, _ in all_grids(tilt=45):
            self.assertEqual(sorted(orientation_of(grid).axes), [0, 1, 2])


class ChoiceTests(unittest.TestCase):
    """Slices that show something."""

    def setUp(self) -> None:
        self.orientation = orientation_of(Grid.from_affine(SIZE, np.eye(4)))

    def test_through_a_structure(self) -> None:
        mask = np.zeros(SIZE, bool)
        mask[2:9, 10:15, 18:23] = True
        chosen = choose_slices([mask, np.zeros(SIZE, bool)], self.orientation, SIZE)
        self.assertIn(chosen["sagittal"], range(3, 8))
        self.assertIn(chosen["coronal"], range(11, 14))
        self.assertIn(chosen["axial"], range(19, 22))

    def test_small_structures_count_as_much_as_large_ones(self) -> None:
        large, small, beside = (np.zeros(SIZE, bool) for _ in range(3))
        large[:, :, 2:6] = True
        small[3:5, 3:5, 18:21] = beside[8:10, 3:5, 18:21] = True
        chosen = choose_slices([large, small, beside], self.orientation, SIZE)
        self.assertIn(chosen["axial"], range(18, 21))

    def test_nothing_to_show(self) -> None:
        chosen = choose_slices([np.zeros(SIZE, bool)], self.orientation, SIZE)
        self.assertEqual(chosen, {"axial": 12, "coronal": 15, "sagittal": 10})


class PictureTests(unittest.TestCase):
    """A file comes out, and shows what it should."""

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.path = Path(holder.name) / "overlay.png"
        self.grid = Grid.from_affine(SIZE, np.diag([-2.0, 1.0, 3.0, 1.0]))
        self.image = Volume(np.full(SIZE, -1000, np.int16), self.grid, "CT")
        self.image.array[2:-2, 3:-3] = 40
        self.mask = np.zeros(SIZE, bool)
        self.mask[4:9, 8:16, 8:16] = True

    def draw(self, panels: list[Panel], structures: list[Structure], **more: Any) -> np.ndarray:
        compared = {key: more.pop(key) for key in ("reference", "prior_ml") if key in more}
        draw_overlay(self.path, self.image, panels, Legend(structures, **compared), **more)
        self.assertEqual(list(self.path.parent.iterdir()), [self.path])
        picture = matplotlib.image.imread(self.path)
        self.assertTrue(1600 <= picture.shape[1] <= 2000)
        return picture[..., :3]

    def test_rows_legend_and_everything_optional(self) -> None:
        one = self.draw([Panel("Adapter", {"right_one": self.mask})], STRUCTURES[:1])
        dice = {"right_one": 0.8, "upper_one": float("nan")}
        two = self.draw(
            [
                Panel("Adapter", {"right_one": self.mask}, dice),
                Panel("Refined", {"right_one": ~self.mask}, {}),
            ],
            STRUCTURES,
            reference={"upper_one": self.mask},
            prior_ml={"right_one": (0.0, 1.5), "upper_one": (0.0, 0.0)},
            title="A query with a rather long name " * 8,
            subtitle="From 5 volumes",
        )
        self.assertGreater(two.shape[0], 1.6 * one.shape[0])

    def test_a_structure_on_the_right_is_drawn_on_the_left(self) -> None:
        # On this grid i grows to the left, so that the mask's small i are the patient's right.
        pure = Structure("right_one", 1, (1.0, 0.0, 1.0))
        picture = self.draw([Panel("Adapter", {"right_one": self.mask})], [pure])
        red, green, blue = np.moveaxis(picture, -1, 0)
        _, columns = np.nonzero((red > 0.8) & (green < 0.3) & (blue > 0.8))
        axial = columns[columns < 440]
        self.assertGreater(axial.size, 100)
        self.assertLess(axial.mean(), 36 + 200)

    def test_a_single_voxel_is_not_smoothed_away(self) -> None:
        mask = np.zeros(SIZE, bool)
        mask[10, 15, 12] = True
        pure = Structure("right_one", 1, (1.0, 0.0, 1.0))
        picture = self.draw([Panel("Adapter", {"right_one": mask})], [pure])
        red, green, blue = np.moveaxis(picture[:, :1300], -1, 0)
        alone = np.count_nonzero((red > 0.8) & (green < 0.3) & (blue > 0.8))
        self.assertGreater(alone, 50)

    def test_nor_beside_a_large_piece(self) -> None:
        field = np.zeros((20, 20), bool)
        field[3:10, 3:10] = field[15, 15] = True
        x, y, level = _smoothed(field, (2.0, 2.0), 8.0)
        near = np.ix_(np.abs(y - 31) < 1.5, np.abs(x - 31) < 1.5)
        self.assertGreater(level[near].max(), 0.6)
        corner = np.ix_(np.abs(y - 13) < 3, np.abs(x - 13) < 3)
        self.assertGreater(level[corner].min(), 0.8)

    def test_eight_empty_structures_in_a_flat_mri(self) -> None:
        self.image = Volume(np.zeros(SIZE, np.float32), self.grid, "MR")
        structures = [Structure(f"structure_{n}", n) for n in range(1, 9)]
        masks = {s.name: np.zeros(SIZE, bool) for s in structures[:4]}
        priors = {s.name: (1.0, 200.0) for s in structures}
        self.draw([Panel("Adapter", masks)], structures, prior_ml=priors)

    def test_one_slice(self) -> None:
        shape = (20, 30, 1)
        self.image = Volume(self.image.array[:, :, :1], Grid.from_affine(shape, self.grid.affine))
        self.draw([Panel("Adapter", {"right_one": np.ones(shape, bool)})], STRUCTURES)

    def test_refuses_what_does_not_belong_together(self) -> None:
        for panels, structures in (
            ([], STRUCTURES),
            ([Panel("Adapter", {})], []),
            ([Panel("Adapter", {"right_one": self.mask[1:]})], STRUCTURES),
        ):
            with self.assertRaises(ValueError):
                draw_overlay(self.path, self.image, panels, Legend(structures))
        self.assertFalse(self.path.exists())

    def test_a_place_that_cannot_be_written_to(self) -> None:
        self.path.write_text("in the way")
        with self.assertRaises(StorageError):
            draw_overlay(
                self.path / "overlay.png", self.image, [Panel("Adapter", {})], Legend(STRUCTURES)
            )


if __name__ == "__main__":
    unittest.main()
