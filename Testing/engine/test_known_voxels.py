"""What is known of a sparse annotation: the slices that were drawn on, and what they tell."""

from __future__ import annotations

import itertools
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from image_files import GRIDS
from placed_grids import place
from tiny import PREPROCESSING, OneThread, make_model

from FewShotSegLib.compute.known_voxels import (
    Slices,
    alternating,
    axis_of,
    between,
    drawn_axis,
    drawn_slices,
    estimate_size,
    filled,
    gap_axis,
    is_regular,
    known_slices,
    plane_of,
    restricted,
    shows_whole,
)
from FewShotSegLib.core.annotation import Annotation, Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid, Volume
from FewShotSegLib.models.known_grid import known_on_model
from FewShotSegLib.training.image_recipe import ImageSource
from FewShotSegLib.training.support_set import PreparedSupport, Support, prepare_support

SHAPE, SPACING = (44, 40, 36), (1.0, 1.3, 2.1)
RADII = (17.0, 14.0, 16.0)


def ellipsoid() -> np.ndarray:
    """(i, j, k) bool, its middle off the grid's."""
    places = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    parts = zip(places, (21, 19, 18), RADII, strict=True)
    return sum(((x - c) / r) ** 2 for x, c, r in parts) <= 1


def oriented(axes: tuple[int, int, int], signs: tuple[int, int, int]) -> Grid:
    """A grid whose axis n is the patient's axis ``axes[n]``, either way."""
    direction = np.zeros((3, 3))
    for column, (row, sign) in enumerate(zip(axes, signs, strict=True)):
        direction[row, column] = sign
    return Grid(SHAPE, SPACING, (3.0, -5.0, 7.0), tuple(direction.ravel()))


def kept(mask: np.ndarray, axis: int, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """What of a mask is on some slices, and these slices."""
    known = np.zeros(mask.shape, bool)
    np.moveaxis(known, axis, 0)[numbers] = True
    return mask & known, known


def every(axis: int, step: int, start: int) -> list[int]:
    used = np.flatnonzero(ellipsoid().any(tuple(a for a in range(3) if a != axis)))
    return list(range(int(used[0]) + start, int(used[-1]) + 1, step))


class Sizes(unittest.TestCase):
    """Of an ellipsoid whose size is known."""

    def setUp(self) -> None:
        self.mask, self.grid = ellipsoid(), oriented((0, 1, 2), (1, 1, 1))
        self.size = np.count_nonzero(self.mask) * self.grid.voxel_volume

    def estimate(self, axis: int, numbers: list[int], grid: Grid | None = None):
        mask, known = kept(self.mask, axis, numbers)
        return estimate_size(mask, known_slices(known), grid or self.grid)

    def test_evenly_spread_slices_tell_it_along_every_axis(self) -> None:
        for axis, step in itertools.product(range(3), (2, 4, 7)):
            for start in range(step):
                found = self.estimate(axis, every(axis, step, start))
                with self.subTest(axis=axis, step=step, start=start):
                    self.assertLess(abs(found.size - self.size), 0.08 * self.size)
                    self.assertLess(abs(found.size - self.size), 2.5 * found.uncertainty)
                    self.assertLess(found.uncertainty, 0.2 * self.size)

    def test_every_slice_tells_it_exactly(self) -> None:
        for axis in range(3):
            found = self.estimate(axis, every(axis, 1, 0))
            self.assertAlmostEqual(found.size, self.size, places=6)

    def test_more_slices_are_more_certain(self) -> None:
        few, many = (self.estimate(2, every(2, step, 1)) for step in (8, 2))
        self.assertLess(many.uncertainty, few.uncertainty)

    def test_flipping_changes_nothing(self) -> None:
        numbers = every(2, 5, 2)
        mask, known = kept(self.mask, 2, numbers)
        there = estimate_size(mask, known_slices(known), self.grid)
        back = estimate_size(mask[..., ::-1], known_slices(known[..., ::-1]), self.grid)
        self.assertAlmostEqual(there.size, back.size)
        self.assertAlmostEqual(there.uncertainty, back.uncertainty)

    def test_slices_that_do_not_tell_it(self) -> None:
        whole = every(2, 1, 0)
        middle = whole[len(whole) // 4 : -len(whole) // 4]
        cases = {
            "two": whole[6:20:12],
            "uneven": [*whole[:6], *whole[-3:]],
            "the middle alone": middle,
            "the middle alone, spread": middle[::3],
        }
        for name, numbers in cases.items():
            with self.subTest(name):
                self.assertIsNone(self.estimate(2, numbers))

    def test_an_end_that_was_seen_to_be_empty_is_known(self) -> None:
        """A cylinder may go on beyond any slice, but not beyond one that is known to be empty."""
        self.mask[:] = False
        self.mask[10:20, 10:20, 8:24] = True
        self.assertIsNone(self.estimate(2, [9, 13, 17, 21]))
        found = self.estimate(2, [5, 9, 13, 17, 21, 25])
        self.assertLess(abs(found.size - 1600 * self.grid.voxel_volume), 2 * found.uncertainty)

    def test_gaps_along_another_axis_tell_none(self) -> None:
        """Each slice of the other kind has less than all of its area then."""
        for axis, other in itertools.permutations(range(3), 2):
            for numbers in (every(axis, 4, 1), [14, 20], [18]):
                drawn, _ = kept(self.mask, axis, numbers)
                known = drawn_slices([drawn], other)
                with self.subTest(axis=axis, other=other, numbers=numbers):
                    self.assertIsNone(estimate_size(drawn, known_slices(known), self.grid))

    def test_slices_on_which_it_was_not_drawn_in_between_tell_none(self) -> None:
        whole = every(2, 2, 0)
        _, known = kept(self.mask, 2, whole)
        for left_out, known_size in ((whole[5:6], True), (whole[3:8:2], False)):
            drawn = kept(self.mask, 2, [n for n in whole if n not in left_out])[0]
            found = estimate_size(drawn, known_slices(known), self.grid)
            self.assertEqual(found is not None, known_size)

    def test_known_background_all_around_shows_all_of_it(self) -> None:
        known = np.zeros(SHAPE, bool)
        known[3:40, 4:35, 1:36] = True
        self.assertTrue(shows_whole(self.mask, known))
        known[:, :, :4] = False
        self.assertFalse(shows_whole(self.mask & known, known))
        self.assertFalse(shows_whole(*kept(self.mask, 1, every(1, 3, 0))))


class Axes(unittest.TestCase):
    """Along which slices were left out."""

    def test_by_the_patient_axes(self) -> None:
        for axes in itertools.permutations(range(3)):
            for signs in itertools.product((1, -1), repeat=3):
                grid = oriented(axes, signs)
                for plane, row in (("sagittal", 0), ("coronal", 1), ("axial", 2)):
                    self.assertEqual(axis_of(plane, grid), axes.index(row))
                    self.assertEqual(plane_of(axes.index(row), grid), plane)

    def test_of_an_oblique_grid_each_axis_has_one(self) -> None:
        planes = ("sagittal", "coronal", "axial")
        found = [axis_of(plane, GRIDS["oblique"]) for plane in planes]
        self.assertEqual(sorted(found), [0, 1, 2])
        self.assertEqual([plane_of(axis, GRIDS["oblique"]) for axis in found], list(planes))

    def test_slices_that_were_left_out(self) -> None:
        mask = ellipsoid()
        for axis in range(3):
            for numbers in (every(axis, 4, 1), every(axis, 2, 0), [18], [12, 13, 14, 24, 25, 26]):
                drawn, known = kept(mask, axis, numbers)
                with self.subTest(axis=axis, numbers=numbers):
                    self.assertEqual(drawn_axis([drawn], "it"), axis)
                    np.testing.assert_array_equal(drawn_slices([drawn], axis), known)

    def test_left_and_right_are_apart_and_whole(self) -> None:
        both = np.zeros((60, 30, 30), bool)
        both[5:20, 5:25, 6:24] = both[38:54, 6:24, 5:25] = True
        self.assertIsNone(drawn_axis([both], "it"))
        self.assertIsNone(drawn_axis([both[::-1], ~both], "it"))
        drawn, _ = kept(both, 2, [8, 14, 20])
        self.assertEqual(drawn_axis([drawn], "it"), 2)

    def test_structures_on_slices_of_their_own_add_up(self) -> None:
        one, other = kept(ellipsoid(), 2, [8, 16])[0], kept(ellipsoid(), 2, [12, 20])[0]
        self.assertEqual(drawn_axis([one, other], "it"), 2)
        known = drawn_slices([one, other], 2)
        np.testing.assert_array_equal(known_slices(known).numbers, [8, 12, 16, 20])

    def test_one_structure_shows_its_gaps_and_whether_they_are_regular(self) -> None:
        mask = ellipsoid()
        self.assertIsNone(gap_axis(mask))
        flat = np.zeros((20, 20, 1), bool)
        flat[5:15, 5:15] = True
        self.assertIsNone(gap_axis(flat))  # the image has one slice
        for axis in range(3):
            pairs = [n + m for n in every(axis, 6, 2)[:4] for m in (0, 1)]
            for numbers, regular in (
                (every(axis, 4, 1), True),
                (every(axis, 2, 0), True),
                (pairs, True),
                ([14, 20], False),
                ([18], False),
                ([12, 14, 16, 24], False),
                ([10, 11, 12, 16, 17, 18, 22, 23, 24], False),
            ):
                drawn, _ = kept(mask, axis, numbers)
                with self.subTest(axis=axis, numbers=numbers):
                    self.assertEqual(gap_axis(drawn), axis)
                    self.assertEqual(is_regular(drawn, axis), regular)
                    across = [a for a in range(3) if a != axis]
                    self.assertFalse(any(is_regular(drawn, a) for a in across))

    def test_structures_that_were_drawn_in_turns(self) -> None:
        mask = ellipsoid()
        for axis in range(3):

            def on(*numbers: int, axis: int = axis) -> np.ndarray:
                return kept(mask, axis, list(numbers))[0]

            for one, other, found in (
                (on(8, 12, 16, 20), on(10, 14, 18), ["a", "b"]),
                (on(8, 16), on(12, 20), ["a", "b"]),
                (on(8, 12, 16, 20), on(8, 12, 16, 20), []),
                (on(8, 12, 16, 20), on(12, 16), []),  # the smaller one
                (on(8, 10, 12), on(16, 18, 20), []),  # one above the other
                (on(8, 20), on(12, 16), []),  # left and right of it
                (on(*range(8, 21)), on(8, 12, 16, 20), ["b"]),
            ):
                with self.subTest(axis=axis, found=found):
                    self.assertEqual(alternating({"a": one, "b": other}, axis), found)

    def test_whole_is_whole(self) -> None:
        self.assertIsNone(drawn_axis([ellipsoid()], "it"))

    def test_what_is_not_clear_is_asked_for(self) -> None:
        mask = np.zeros(SHAPE, bool)
        mask[20, 10:20:3, 18] = True  # on sagittal and on axial slices, with gaps along a third
        mask[10:30:5, 20, 18] = True
        with self.assertRaisesRegex(InputError, "clear from Support 2.*axial, coronal or sagittal"):
            drawn_axis([mask], "Support 2")


class Parts(unittest.TestCase):
    """Masks of which a part is known."""

    def test_filling_takes_the_nearest_known_value(self) -> None:
        rng = np.random.default_rng(0)
        values = rng.random((12, 9, 10)) > 0.5
        slices, box, any_ = (np.zeros(values.shape, bool) for _ in range(3))
        slices[:, [2, 6]] = box[3:8, 2:5, 4:9] = True
        any_[rng.random(values.shape) > 0.9] = True
        for known in (slices, box, any_):
            found = filled(values, known)
            np.testing.assert_array_equal(found[known], values[known])
            others = values ^ ~known
            np.testing.assert_array_equal(filled(others, known), found)  # of what is known alone
        np.testing.assert_array_equal(filled(values, slices)[:, 3], values[:, 2])
        np.testing.assert_array_equal(filled(values, slices)[:, 9 - 1], values[:, 6])
        np.testing.assert_array_equal(filled(values, box)[0, 0, 0], values[3, 2, 4])

    def test_between_slices_and_not_beyond(self) -> None:
        mask, known = kept(ellipsoid(), 1, [12, 18, 24])
        found = between(mask, Slices(1, np.array([9, 12, 18, 24])))
        used = np.flatnonzero(found.any((0, 2)))
        np.testing.assert_array_equal(used, range(12, 25))
        np.testing.assert_array_equal(found[:, 14], mask[:, 12])
        np.testing.assert_array_equal(found[:, 22], mask[:, 24])

    def test_masks_without_voxels_there_were_not_annotated(self) -> None:
        mask, known = kept(ellipsoid(), 0, [20])
        self.assertEqual(list(restricted({"a": mask, "b": ~known}, known)), ["a"])


class AsTrainingSeesIt(OneThread):
    """A support on the model's grid."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.source = ImageSource(make_model(Path(folder.name)), PREPROCESSING)

    def prepared(self, mask: np.ndarray, known: np.ndarray | None, grid: Grid) -> PreparedSupport:
        volume = Volume(np.random.default_rng(0).normal(0, 99, SHAPE).astype(np.int16), grid)
        structures = [Structure("a", 1), Structure("b", 2)]
        annotation = Annotation({"a": mask}, structures, known)
        return prepare_support(Support(volume, annotation), structures, self.source)

    def test_drawn_slices_are_as_of_the_whole_annotation(self) -> None:
        """Of a cylinder, which is the same on all of its slices, whichever were drawn on."""
        for axis, name in itertools.product(range(3), ("left-handed", "turned by 90 degrees")):
            across = [a for a in range(3) if a != axis]
            places = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
            mask = sum((places[a] - 18) ** 2 for a in across) <= 12**2
            drawn, known = kept(mask, axis, [5, 6, 14, 25])
            grid = replace(GRIDS[name], shape=SHAPE, spacing=SPACING)
            whole, sparse = self.prepared(mask, None, grid), self.prepared(drawn, known, grid)
            with self.subTest(axis=axis):
                self.assertIsNone(whole.known)
                seen = sparse.known
                self.assertTrue(0 < int(seen.sum()) < 0.5 * seen.numel())
                self.assertTrue(torch.equal(sparse.targets[0], whole.targets[0] * seen))
                self.assertGreater(len(sparse.centres[0]), 100)
                self.assertTrue(seen[tuple(sparse.centres[0].T)].all())
                self.assertEqual(sparse.annotated.tolist(), [1, 0])


class ModelGrid(unittest.TestCase):
    """Which model voxels are known."""

    def known(self, numbers: list[int], spacing: float, axis: int = 2, grid: Grid | None = None):
        """(I, J, K) of a model grid in RAS."""
        grid = grid or oriented((0, 1, 2), (1, 1, 1))
        placement = place(grid, (spacing,) * 3)
        return known_on_model(placement, kept(np.zeros(SHAPE, bool), axis, numbers)[1]), placement

    def test_each_drawn_slice_is_known_however_thin(self) -> None:
        for number in range(SHAPE[2]):
            found, placement = self.known([number], 6.0)
            layers = found.all(0).all(0)
            self.assertTrue(torch.equal(found.any(0).any(0), layers))
            middle = (number + 0.5) / placement.lines[2][0]
            self.assertEqual(layers.nonzero().flatten().tolist(), [int(middle)])

    def test_of_thick_slices_their_own_extent_alone(self) -> None:
        found, placement = self.known([10, 11, 20], 0.7)
        step = placement.lines[2][0]
        centres = (np.arange(placement.shape[2]) + 0.5) * step
        expected = np.isin(np.floor(centres), (10, 11, 20))
        np.testing.assert_array_equal(found.all(0).all(0).numpy(), expected)

    def test_flipped_and_turned(self) -> None:
        for axes, signs in (((2, 0, 1), (1, -1, -1)), ((1, 2, 0), (-1, 1, -1))):
            grid = oriented(axes, signs)
            for axis, spacing in itertools.product(range(3), (0.8, 1.6, 3.0)):
                found, placement = self.known([3, 4, 21], spacing, axis, grid)
                turned = placement.turned(kept(np.zeros(SHAPE, bool), axis, [3, 4, 21])[1]).numpy()
                straight = Grid.from_affine(turned.shape, np.diag([*placement.spacing, 1]))
                expected = known_on_model(place(straight, (spacing,) * 3), turned)
                self.assertTrue(found.any())
                self.assertTrue(torch.equal(found, expected))
