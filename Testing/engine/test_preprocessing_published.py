"""Preprocessing as published models need it: cropped, standardised, by splines, padded."""

from __future__ import annotations

import itertools
import unittest

import numpy as np
import torch
from placed_grids import make_grid
from scipy.ndimage import map_coordinates, zoom

from FewShotSegLib.core.errors import InputError, ModelError
from FewShotSegLib.core.geometry import Grid, Volume
from FewShotSegLib.models.preprocessing import Preprocessing
from FewShotSegLib.models.resampling import as_nnunet, thick_axis

RNG = np.random.default_rng(5)


def volume_with_body(grid: Grid) -> Volume:
    """Zeros but for a box of positive values with a hole of zeros in it."""
    array = np.zeros(grid.shape, np.float32)
    array[4:25, 3:20, 6:24] = RNG.uniform(1, 9, (21, 17, 18))
    array[10:12, 9:12, 12:14] = 0
    return Volume(array, grid)


class CropAndPad(unittest.TestCase):
    """The model sees part of a volume, and zeros around it; the way back is exact."""

    def test_a_structure_comes_back_to_its_place_from_every_grid(self) -> None:
        for directions, orientation in itertools.product(
            ("RAS", "sagittal", "oblique and left-handed"), ("RAS", "SPL")
        ):
            for least in (None, (40, 33, 48)):
                with self.subTest(directions, orientation=orientation, least=least):
                    volume = volume_with_body(make_grid(directions, (1.0, 1.5, 2.0)))
                    preprocessing = Preprocessing(
                        orientation, (1.0, 1.0, 1.0), "identity", crop="nonzero", least=least
                    )
                    placement = preprocessing.placement(volume)
                    self.assertEqual(placement.box, (slice(4, 25), slice(3, 20), slice(6, 24)))
                    mask = np.zeros(volume.grid.shape, bool)
                    mask[6:15, 5:14, 9:20] = True
                    on_model = placement.to_model(mask)
                    self.assertEqual(tuple(on_model.shape), placement.shape)
                    if least:
                        self.assertTrue(
                            all(n >= m for n, m in zip(placement.shape, least, strict=True))
                        )
                    back = placement.to_original(on_model).numpy() > 0.5
                    np.testing.assert_array_equal(back, mask)
                    volume_mm3 = float(on_model.sum()) * placement.voxel_volume
                    self.assertAlmostEqual(
                        volume_mm3 / (mask.sum() * volume.grid.voxel_volume), 1, delta=0.02
                    )

    def test_parts_are_those_of_the_whole(self) -> None:
        volume = volume_with_body(make_grid("sagittal", (1.0, 1.5, 2.0)))
        preprocessing = Preprocessing(
            "PIR", (1.3, 0.9, 2.1), "identity", crop="nonzero", least=(26, 50, 31)
        )
        placement = preprocessing.placement(volume)
        scores = torch.rand(placement.shape)
        whole = placement.to_original(scores).numpy()
        self.assertEqual(whole[:4].max(), 0)
        for start in ((0, 0, 0), (5, 13, 4), (20, 44, 22)):
            box = tuple(
                slice(a, min(a + 9, n)) for a, n in zip(start, placement.shape, strict=True)
            )
            alone = torch.zeros(placement.shape)
            alone[box] = scores[box]
            place, values = placement.part_to_original(scores[box], box)
            expected = placement.to_original(alone).numpy()
            np.testing.assert_allclose(values.numpy(), expected[place], atol=1e-5)

    def test_a_box_of_the_volume_lies_within_what_the_model_sees(self) -> None:
        volume = volume_with_body(make_grid("oblique", (1.0, 1.5, 2.0)))
        preprocessing = Preprocessing(
            "LPS", (1.0, 1.0, 1.0), "identity", crop="nonzero", least=(30, 40, 50)
        )
        placement = preprocessing.placement(volume)
        inside = (slice(8, 16), slice(5, 12), slice(10, 18))
        mask = np.zeros(volume.grid.shape, np.float32)
        mask[inside] = 1
        found = placement.box_to_model(inside)
        self.assertGreater(float(placement.to_model(mask)[found].mean()), 0.8)
        beyond = placement.box_to_model((slice(0, 2), slice(0, 26), slice(0, 31)))
        for part, before, size in zip(beyond, placement.before, placement.inner, strict=True):
            self.assertLess(part.start, part.stop)
            self.assertGreaterEqual(part.start, before)
            self.assertLessEqual(part.stop, before + size)

    def test_zeros_are_put_around_in_halves_after_standardising(self) -> None:
        grid = Grid.from_affine((5, 6, 7), np.eye(4))
        volume = Volume(RNG.normal(50, 9, grid.shape).astype(np.float32), grid)
        preprocessing = Preprocessing("RAS", (1, 1, 1), "standardise", least=(8, 9, 10))
        image, placement = preprocessing(volume)
        self.assertEqual(placement.before, (1, 1, 1))
        inner = image[0, 0, 1:6, 1:7, 1:8]
        self.assertAlmostEqual(float(inner.mean()), 0, places=5)
        self.assertEqual(int((image != 0).sum()), int((inner != 0).sum()))

    def test_an_empty_image_is_refused(self) -> None:
        grid = Grid.from_affine((5, 6, 7), np.eye(4))
        volume = Volume(np.zeros(grid.shape, np.int16), grid)
        for fields in ({"crop": "nonzero"}, {"mask": "nonzero"}, {"mask": "filled"}, {}):
            kind = "identity" if "crop" in fields else "standardise"
            with self.assertRaisesRegex(InputError, "nothing to segment"):
                Preprocessing("RAS", (1, 1, 1), kind, **fields)(volume)


class Intensities(unittest.TestCase):
    """What becomes of values."""

    def test_of_the_volume_or_of_what_is_not_zero(self) -> None:
        array = volume_with_body(make_grid("RAS", (1.0, 1.0, 1.0))).array
        body, hole = array != 0, (slice(10, 12), slice(9, 12), slice(12, 14))
        filled = body.copy()
        filled[hole] = True
        for mask, where in ((None, np.ones_like(body)), ("nonzero", body), ("filled", filled)):
            found = Preprocessing("RAS", (1, 1, 1), "standardise", mask=mask).normalise(array)
            expected = array.copy()
            expected[where] = (array[where] - array[where].mean()) / array[where].std()
            np.testing.assert_allclose(found, expected, atol=1e-5)
            self.assertEqual(found.dtype, np.float32)

    def test_cut_off_and_by_fixed_numbers(self) -> None:
        array = np.linspace(-1000, 2000, 60).reshape(3, 4, 5)
        fields = {"low": -200.5, "high": 300.0, "mean": 40.0, "std": 25.0}
        found = Preprocessing("RAS", (1, 1, 1), "standardise", **fields).normalise(array)
        np.testing.assert_allclose(found, (array.clip(-200.5, 300) - 40) / 25, rtol=1e-5)

    def test_least_to_0_and_largest_to_1(self) -> None:
        found = Preprocessing("RAS", (1, 1, 1), "unit").normalise(np.array([[[3, 5, 7]]]))
        np.testing.assert_allclose(found, [[[0, 0.5, 1]]])
        with self.assertRaisesRegex(InputError, "nothing to segment"):
            Preprocessing("RAS", (1, 1, 1), "unit").normalise(np.full((2, 2, 2), 4))

    def test_fields_go_to_json_and_back(self) -> None:
        for fields in (
            {"intensity": "standardise"},
            {"intensity": "standardise", "low": -1, "high": 5.5, "mean": 3, "std": 2.5},
            {"intensity": "standardise", "mask": "filled", "crop": "nonzero"},
            {"intensity": "unit", "resampling": "nnunet", "least": (32, 40, 8)},
        ):
            preprocessing = Preprocessing("RAS", (1, 1, 2), **fields)
            data = preprocessing.to_json()
            self.assertEqual(set(data), {"orientation", "spacing", *fields})
            self.assertEqual(Preprocessing.from_json(data), preprocessing)

    def test_what_can_not_be_is_refused(self) -> None:
        for telling, fields in (
            ("use window, percentiles, standardise", {"intensity": "zscore"}),
            ("given together", {"intensity": "standardise", "mean": 1}),
            ("leave out mean", {"intensity": "standardise", "mean": 1, "std": 2, "mask": "filled"}),
            ("std from", {"intensity": "standardise", "mean": 1, "std": 0}),
            ("of the intensity 'standardise'", {"intensity": "unit", "std": 1}),
            ("needs low < high", {"intensity": "standardise", "low": 3}),
            ("'least' is", {"intensity": "unit", "least": (0, 3, 3)}),
        ):
            with self.subTest(telling), self.assertRaisesRegex(ModelError, telling):
                Preprocessing("RAS", (1, 1, 1), **fields)


class Resampling(unittest.TestCase):
    """As nnU-Net resamples, which stands on scipy's splines."""

    def test_thick_slices_are_those_of_an_axis_three_times_as_long(self) -> None:
        for spacing, other, axis in (
            ((1, 1, 1), (2, 2, 2), None),
            ((5, 1, 1), (1, 1, 1), 0),
            ((1, 1, 1), (1, 3.1, 1), 1),
            ((1, 1, 3), (1, 1, 3), None),
            ((0.2, 1, 1), (1, 1, 1), None),  # two axes are the longest
            ((0.2, 1, 1.1), (9, 1, 1), 2),
        ):
            self.assertEqual(thick_axis(spacing, other), axis, (spacing, other))

    def test_without_thick_slices_it_is_scipys_spline_cut_off(self) -> None:
        for order, shape, wanted in (
            (3, (9, 14, 8), (13, 7, 8)),
            (3, (5, 5, 1), (9, 3, 2)),
            (1, (9, 14, 8), (4, 30, 11)),
        ):
            array = RNG.normal(size=shape)
            factors = [m / n for n, m in zip(shape, wanted, strict=True)]
            expected = zoom(array, factors, order=order, mode="nearest", grid_mode=True)
            expected = expected.clip(array.min(), array.max())
            found = as_nnunet(torch.from_numpy(array), wanted, None, order)
            self.assertEqual(found.dtype, torch.float32)
            np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_thick_slices_are_resampled_one_by_one(self) -> None:
        array = RNG.normal(size=(6, 11, 10))
        for thick in range(3):
            flat = np.moveaxis(array, thick, 0)
            shape, wanted = flat.shape, (17, 7, 13)
            factors = [m / n for n, m in zip(shape[1:], wanted[1:], strict=True)]
            slices = [
                zoom(s, factors, order=3, mode="nearest", grid_mode=True).clip(s.min(), s.max())
                for s in flat
            ]
            scale = shape[0] / wanted[0]
            places = np.mgrid[: wanted[0], : wanted[1], : wanted[2]].astype(float)
            places[0] = scale * (places[0] + 0.5) - 0.5
            expected = map_coordinates(np.stack(slices), places, order=0, mode="nearest")
            to = np.moveaxis(np.empty(wanted), 0, thick).shape
            found = as_nnunet(torch.from_numpy(array), to, thick)
            np.testing.assert_allclose(np.moveaxis(found.numpy(), thick, 0), expected, atol=1e-5)

    def test_sizes_are_rounded_as_theirs(self) -> None:
        grid = Grid.from_affine((5, 5, 5), np.diag([0.7, 0.7, 0.7, 1]))
        for spacing in (0.1, 0.2, 0.35, 1.4, 1.0, 7.0):
            shape = (
                Preprocessing("RAS", (spacing,) * 3, "unit", resampling="nnunet").place(grid).shape
            )
            self.assertEqual(shape, (max(1, round(0.7 / spacing * 5)),) * 3)
