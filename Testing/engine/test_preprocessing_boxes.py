"""Parts of a grid on the model's, and a model's grid that follows the field of view."""

from __future__ import annotations

import itertools
import unittest
from dataclasses import replace

import numpy as np
import torch
from placed_grids import make_grid, place
from tiny import OneThread
from torch import Tensor

from FewShotSegLib.core.errors import ModelError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.models.preprocessing import Placement, Preprocessing
from FewShotSegLib.models.resampling import resize


class Boxes(OneThread):
    """Parts of the original grid on the model's, and the other way round."""

    def setUp(self) -> None:
        self.rng = np.random.default_rng(1)
        self.placements = [
            place(make_grid(directions, spacing), model_spacing, orientation)
            for directions, orientation in (("oblique", "SPL"), ("left-handed", "AIR"))
            for spacing, model_spacing in (
                ((1.3, 1.0, 2.5), (1.0, 1.5, 2.0)),
                ((0.7, 0.9, 1.0), (2.0, 2.0, 3.0)),
                ((5.0, 4.0, 3.0), (3.0, 3.0, 3.0)),
            )
        ]

    def draw(self, shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
        """A random box within a grid; some touch its borders."""
        box = []
        for n in shape:
            first, last = sorted(self.rng.integers(0, n, 2))
            box.append(slice(int(first), int(last) + 1))
        return tuple(box)

    def test_a_part_comes_back_as_in_the_whole(self) -> None:
        for placement in self.placements:
            for kernel in ("linear", "cubic"):
                box = self.draw(placement.shape)
                whole = torch.zeros(placement.shape)
                part = torch.rand(tuple(s.stop - s.start for s in box))
                whole[box] = part
                expected = self.by_resize(placement, whole, kernel)
                torch.testing.assert_close(placement.to_original(whole, kernel), expected)
                covered, values = placement.part_to_original(part, box, kernel)
                self.assertEqual(tuple(values.shape), tuple(expected[covered].shape))
                torch.testing.assert_close(values, expected[covered], atol=1e-5, rtol=1e-5)

    def by_resize(self, placement: Placement, array: Tensor, kernel: str) -> Tensor:
        """The way back, step by step: resample, flip, permute."""
        shape = tuple(placement.grid.shape[source] for source in placement.sources)
        array = resize(array, shape, kernel)
        array = array.flip([axis for axis, flip in enumerate(placement.flips) if flip])
        return array.permute(tuple(np.argsort(placement.sources).tolist()))

    def test_the_part_of_a_structure_holds_all_of_it(self) -> None:
        """Original voxels outside it have no half of the part in them."""
        for placement in self.placements:
            box = self.draw(placement.shape)
            whole = torch.zeros(placement.shape)
            whole[box] = 1
            outside = placement.to_original(whole, "linear")
            covered, _ = placement.part_to_original(whole[box], box)
            outside[covered] = 0
            self.assertLessEqual(float(outside.max()), 0.5 + 1e-6)

    def test_a_box_keeps_the_model_voxels_that_are_mostly_in_it(self) -> None:
        for placement, _ in itertools.product(self.placements, range(20)):
            box = self.draw(placement.grid.shape)
            inside = np.zeros(placement.grid.shape, bool)
            inside[box] = True
            model_box = placement.box_to_model(box)
            for axis, (source, flip, size) in enumerate(
                zip(placement.sources, placement.flips, placement.shape, strict=True)
            ):
                original = placement.grid.shape[source]
                line = inside.any(axis=tuple(a for a in range(3) if a != source))
                line = line[::-1] if flip else line
                # The part of each model voxel that the box covers, counted in fine steps.
                share = np.repeat(line, size).reshape(size, original).mean(1)
                chosen = np.zeros(size, bool)
                chosen[model_box[axis]] = True
                self.assertTrue(chosen.any())
                self.assertTrue(chosen[share > 0.5 + 1e-9].all())
                if chosen.sum() > 1:
                    self.assertFalse(chosen[share < 0.5 - 1e-9].any())

    def test_the_whole_is_the_whole(self) -> None:
        for placement in self.placements:
            expected = tuple(slice(0, n) for n in placement.shape)
            whole = (slice(0, None), slice(None), slice(0, placement.grid.shape[2]))
            self.assertEqual(placement.box_to_model(whole), expected)


class FittedSpacing(unittest.TestCase):
    """A grid that follows the field of view, so that a large one costs no more than others."""

    FINE = Preprocessing("RAS", (1.0, 1.0, 1.5), "percentiles", 1, 99, most_voxels=1_000_000)

    def grid(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Grid:
        return make_grid("RAS", spacing, shape)

    def test_a_small_field_of_view_keeps_the_spacing(self) -> None:
        fitted = self.FINE.fitted([self.grid((100, 100, 100), (1.0, 1.0, 1.5))])
        self.assertEqual(fitted.spacing, (1.0, 1.0, 1.5))
        self.assertIsNone(fitted.most_voxels)

    def test_eight_times_the_extent_is_twice_the_spacing(self) -> None:
        for shape, spacing in (((200, 200, 200), (1.0, 1.0, 1.5)), ((50, 200, 75), (4, 1, 4))):
            fitted = self.FINE.fitted([self.grid(shape, spacing)])
            self.assertEqual(fitted.spacing, (2.0, 2.0, 3.0))

    def test_the_largest_volume_has_no_more_voxels_than_asked(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(50):
            shapes = rng.integers(20, 400, (3, 3)).tolist()
            grids = [self.grid(tuple(shape), tuple(rng.uniform(0.5, 6, 3))) for shape in shapes]
            fitted = self.FINE.fitted(grids)
            sizes = [np.prod(fitted.place(grid).shape, dtype=float) for grid in grids]
            # Rounding each side to whole voxels moves it by a percent or two.
            self.assertLess(max(sizes), 1.06 * self.FINE.most_voxels)
            factor = fitted.spacing[0]
            if factor > 1:
                finer = replace(fitted, spacing=tuple(s / 2**0.25 for s in fitted.spacing))
                sizes = [np.prod(finer.place(grid).shape, dtype=float) for grid in grids]
                self.assertGreater(max(sizes), 0.94 * self.FINE.most_voxels)

    def test_without_a_limit_nothing_changes(self) -> None:
        plain = replace(self.FINE, most_voxels=None)
        self.assertIs(plain.fitted([self.grid((999, 999, 999), (1.0, 1.0, 1.0))]), plain)
        self.assertNotIn("most_voxels", plain.to_json())

    def test_it_travels_with_an_entry(self) -> None:
        self.assertEqual(Preprocessing.from_json(self.FINE.to_json()), self.FINE)
        for wrong in (0, 5.5, "many", 10**10):
            with self.assertRaises(ModelError):
                Preprocessing.from_json({**self.FINE.to_json(), "most_voxels": wrong})


if __name__ == "__main__":
    unittest.main()
