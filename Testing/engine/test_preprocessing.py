"""To the model's grid and intensities, and back to exactly the grid that a clinician gave."""

from __future__ import annotations

import itertools
import json
import unittest
from unittest import mock

import numpy as np
import torch
from placed_grids import DIRECTIONS, ORIENTATIONS, ball, make_grid, place
from rotations import affine_of, rotation
from tiny import OneThread

from FewShotSegLib.core.errors import InputError, ModelError
from FewShotSegLib.core.geometry import Grid, Volume
from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.models.preprocessing import Preprocessing
from FewShotSegLib.models.resampling import axis_weights, resize


class RoundTrip(OneThread):
    """What a backbone could at best give back, on the original voxels."""

    # (original spacing, model spacing)
    SPACINGS = (
        ((3.0, 3.0, 3.0), (3.0, 3.0, 3.0)),
        ((3.3, 3.0, 3.7), (3.0, 3.0, 3.0)),
        ((3.0, 3.0, 5.0), (3.0, 3.0, 3.0)),
        ((4.0, 3.5, 5.0), (3.0, 3.0, 3.0)),
        ((5.0, 5.0, 5.0), (3.0, 3.0, 3.0)),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
        ((0.98, 0.98, 2.5), (1.0, 1.0, 1.0)),
        ((1.3, 1.0, 2.5), (1.0, 1.0, 1.0)),
        ((0.7, 0.7, 1.0), (1.0, 1.0, 1.0)),
        ((0.8, 0.8, 3.0), (1.5, 1.5, 1.5)),
        ((1.2, 1.7, 2.3), (2.3, 1.7, 1.2)),
    )

    def test_a_ball_of_five_voxels_comes_back(self) -> None:
        for (spacing, model_spacing), directions, orientation, centre in itertools.product(
            self.SPACINGS, DIRECTIONS, ORIENTATIONS, ((14, 13, 15), (12.3, 14.6, 16.8))
        ):
            with self.subTest(
                spacing=spacing,
                model=model_spacing,
                directions=directions,
                orientation=orientation,
                centre=centre,
            ):
                grid = make_grid(directions, spacing)
                mask = ball(grid.shape, centre, 5)
                placement = place(grid, model_spacing, orientation)
                target = placement.to_model(mask).clamp(0, 1)
                self.assertEqual(tuple(target.shape), placement.shape)
                back = placement.to_original(target).numpy()
                self.assertEqual(back.shape, mask.shape)
                self.assertEqual(placement.grid.affine.tobytes(), grid.affine.tobytes())
                self.assertGreaterEqual(dice(mask, back > 0.5), 0.98)

    def test_masks_keep_their_volume(self) -> None:
        """In mm^3, as fractions on the model grid and as a mask after the way back."""
        for (spacing, model_spacing), directions in itertools.product(
            self.SPACINGS, ("RAS", "oblique and left-handed")
        ):
            with self.subTest(spacing=spacing, model=model_spacing, directions=directions):
                grid = make_grid(directions, spacing, (39, 36, 35))
                mask = ball(grid.shape, (18.4, 17.1, 16.7), 12)
                placement = place(grid, model_spacing, "LPS")
                expected = mask.sum() * grid.voxel_volume
                target = placement.to_model(mask).clamp(0, 1)
                on_model = float(target.sum()) * placement.voxel_volume
                self.assertAlmostEqual(on_model / expected, 1, delta=0.01)
                back = placement.to_original(target).numpy() > 0.5
                self.assertAlmostEqual(back.sum() / mask.sum(), 1, delta=0.01)

    def test_where_nothing_changes_every_bit_is_kept(self) -> None:
        grid = make_grid("oblique and left-handed", (0.9, 1.1, 2.0))
        array = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
        orientation = "ARS"
        placement = place(grid, self.spacing_along(grid, orientation), orientation)
        self.assertEqual(sorted(placement.shape), sorted(grid.shape))
        back = placement.to_original(placement.to_model(array)).numpy()
        self.assertEqual(back.tobytes(), array.tobytes())

    def spacing_along(self, grid: Grid, orientation: str) -> tuple[float, ...]:
        """The grid's own spacing in the order of the model's axes."""
        sources = place(grid, (1.0, 1.0, 1.0), orientation).sources
        return tuple(grid.spacing[source] for source in sources)

    def test_single_slices_survive(self) -> None:
        grid = make_grid("LPS", (1.0, 1.0, 5.0), (20, 20, 1))
        mask = np.zeros(grid.shape, bool)
        mask[5:15, 4:12] = True
        placement = place(grid, (1.0, 1.0, 10.0))
        back = placement.to_original(placement.to_model(mask)).numpy()
        np.testing.assert_array_equal(back > 0.5, mask)


class Orientation(OneThread):
    """Every model axis grows in the direction that its letter says."""

    def test_axes_run_where_the_letters_say(self) -> None:
        """A linear image of the position along one anatomical axis tells where it points."""
        signs = {"R": 1, "L": -1, "A": 1, "P": -1, "S": 1, "I": -1}
        axis_of = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
        for directions, orientation in itertools.product(
            ("RAS", "LPS", "left-handed", "sagittal"), ("RAS", "LPI", "SAL", "AIR", "PSR")
        ):
            grid = make_grid(directions, (2.0, 3.0, 4.0), (6, 5, 4))
            index = np.stack(
                np.meshgrid(*map(np.arange, grid.shape), [1], indexing="ij"), -1
            ).reshape(-1, 4)
            position = (index @ grid.affine.T)[:, :3].reshape(*grid.shape, 3)
            placement = place(grid, (2.0, 2.0, 2.0), orientation)
            for axis, letter in enumerate(orientation):
                with self.subTest(directions=directions, orientation=orientation, letter=letter):
                    image = placement.to_model(position[..., axis_of[letter]], "linear")
                    steps = image.diff(dim=axis) * signs[letter]
                    self.assertGreater(float(steps.amax()), 1.5)
                    self.assertGreaterEqual(float(steps.amin()), -1e-3)
                    for other in {0, 1, 2} - {axis}:
                        self.assertLess(float(image.diff(dim=other).abs().max()), 1e-3)

    def test_an_oblique_grid_takes_its_nearest_axes(self) -> None:
        grid = Grid.from_affine((6, 7, 8), affine_of(rotation(0.1, 0.2, -0.3), (1, 1, 1), (0,) * 3))
        placement = place(grid, (1.0, 1.0, 1.0), "SPR")
        self.assertEqual(placement.sources, (2, 1, 0))
        self.assertEqual(placement.flips, (False, True, False))
        self.assertEqual(placement.shape, (8, 7, 6))

    def test_model_voxels_are_about_as_large_as_asked(self) -> None:
        grid = make_grid("sagittal", (0.8, 2.2, 1.1), (50, 21, 33))
        placement = place(grid, (1.5, 2.0, 3.0))
        extent = {0: 50 * 0.8, 1: 21 * 2.2, 2: 33 * 1.1}
        for source, n, spacing in zip(placement.sources, placement.shape, (1.5, 2, 3), strict=True):
            self.assertAlmostEqual(n, extent[source] / spacing, delta=0.5)
        whole = np.prod(placement.shape) * placement.voxel_volume
        self.assertAlmostEqual(whole / (np.prod(grid.shape) * grid.voxel_volume), 1, places=12)

    def test_absurd_sizes_are_refused(self) -> None:
        grid = make_grid("RAS", (50.0, 50.0, 50.0), (512, 512, 300))
        with self.assertRaisesRegex(InputError, "25600 x 25600 x 15000"):
            place(grid, (1.0, 1.0, 1.0))


class Largest(OneThread):
    """As many voxels as a model's grid may have, and one more."""

    def test_the_limit(self) -> None:
        grid = make_grid("RAS", (2.0, 2.0, 2.0), (6, 5, 4))
        for most, refused in ((120, False), (119, True)):
            with mock.patch("FewShotSegLib.models.preprocessing.MAX_MODEL_VOXELS", most):
                if refused:
                    with self.assertRaisesRegex(InputError, "the volume would have"):
                        place(grid, (2.0, 2.0, 2.0))
                else:
                    self.assertEqual(place(grid, (2.0, 2.0, 2.0)).shape, (6, 5, 4))


class Resampling(OneThread):
    """The matrices behind it."""

    def test_rows_sum_to_one_and_equal_sizes_are_the_identity(self) -> None:
        for kernel, (a, b) in itertools.product(
            ("linear", "cubic"), ((7, 19), (19, 7), (1, 5), (5, 1), (30, 31))
        ):
            weights = axis_weights(a, b, kernel)
            self.assertEqual(tuple(weights.shape), (b, a))
            torch.testing.assert_close(weights.sum(1), torch.ones(b))
            self.assertTrue(torch.equal(axis_weights(a, a, kernel), torch.eye(a)))
        with self.assertRaisesRegex(ValueError, "nearest"):
            axis_weights(3, 4, "nearest")

    def test_linear_is_torchs_interpolation(self) -> None:
        array = torch.randn(7, 6, 5, generator=torch.Generator().manual_seed(0))
        expected = torch.nn.functional.interpolate(
            array[None, None], (14, 15, 12), mode="trilinear", align_corners=False
        )[0, 0]
        torch.testing.assert_close(resize(array, (14, 15, 12)), expected, atol=1e-5, rtol=1e-5)

    def test_shrinking_averages_instead_of_picking(self) -> None:
        """A checkerboard at half the resolution is grey, not black or white."""
        array = (torch.arange(24) % 2).float().view(-1, 1, 1).expand(24, 4, 4)
        for kernel in ("linear", "cubic"):
            inner = resize(array, (12, 4, 4), kernel)[2:-2]
            torch.testing.assert_close(inner, torch.full_like(inner, 0.5), atol=0.01, rtol=0)

    def test_cubic_keeps_a_parabola(self) -> None:
        """Its second moment is zero: quadratic functions are sampled exactly when enlarging."""
        x_in = torch.arange(20) + 0.5
        x_out = (torch.arange(50) + 0.5) * 0.4
        out = resize((x_in**2).view(-1, 1, 1), (50, 1, 1), "cubic").flatten()
        torch.testing.assert_close(out[5:-5], (x_out**2)[5:-5], atol=1e-3, rtol=1e-5)


class Intensities(OneThread):
    """What a backbone sees of them."""

    def test_a_window_is_cut_off_at_fixed_values(self) -> None:
        preprocessing = Preprocessing("RAS", (1.0, 1.0, 1.0), "window", -175, 250)
        array = np.array([-2000, -175, 37.5, 250, 3000]).reshape(5, 1, 1).astype(np.int16)
        result = preprocessing.normalise(array)
        self.assertEqual(result.dtype, np.float32)
        expected = [0, 0, (37 + 175) / 425, 1, 1]
        np.testing.assert_allclose(result.ravel(), expected, atol=1e-6)
        self.assertEqual(array[0, 0, 0], -2000)

    def test_percentiles_are_of_the_volume(self) -> None:
        preprocessing = Preprocessing("RAS", (1.0, 1.0, 1.0), "percentiles", 1, 99)
        array = np.random.default_rng(0).permutation(1001.0 * np.arange(1001)).reshape(7, 11, 13)
        result = preprocessing.normalise(array)
        low, high = 1001.0 * 10, 1001.0 * 990
        np.testing.assert_allclose(result, np.clip((array - low) / (high - low), 0, 1), atol=1e-5)
        scaled = preprocessing.normalise((3 * array + 500).astype(np.float64))
        np.testing.assert_allclose(scaled, result, atol=1e-5)

    def test_percentiles_of_a_large_volume_are_estimated(self) -> None:
        preprocessing = Preprocessing("RAS", (1.0, 1.0, 1.0), "percentiles", 5, 95)
        array = np.random.default_rng(0).random((200, 200, 200), np.float32)
        result = preprocessing.normalise(array)
        np.testing.assert_allclose(result[0], np.clip((array[0] - 0.05) / 0.9, 0, 1), atol=0.005)

    def test_identity_changes_nothing(self) -> None:
        array = np.array([-2000, 0, 3000], np.int16).reshape(3, 1, 1)
        result = Preprocessing("RAS", (1.0, 1.0, 1.0), "identity").normalise(array)
        np.testing.assert_array_equal(result.ravel(), [-2000, 0, 3000])
        self.assertEqual(result.dtype, np.float32)

    def test_a_constant_image_is_refused(self) -> None:
        preprocessing = Preprocessing("RAS", (1.0, 1.0, 1.0), "percentiles", 1, 99)
        nearly = np.zeros((20, 20, 20))
        nearly[0, 0, :20] = 1000
        for array in (np.full((5, 5, 5), 7, np.int16), nearly):
            with self.assertRaisesRegex(InputError, "same value almost everywhere"):
                preprocessing.normalise(array)

    def test_a_volume_arrives_turned_resampled_and_normalised(self) -> None:
        grid = make_grid("LPS", (1.0, 1.0, 2.0), (8, 6, 5))
        array = np.zeros(grid.shape, np.int16)
        array[0, 0, 0] = 100
        preprocessing = Preprocessing("RAS", (1.0, 1.0, 2.0), "window", 0, 200)
        image, placement = preprocessing(Volume(array, grid))
        self.assertEqual((tuple(image.shape), image.dtype), ((1, 1, 8, 6, 5), torch.float32))
        self.assertEqual(placement.shape, (8, 6, 5))
        expected = torch.zeros(1, 1, 8, 6, 5)
        expected[0, 0, 7, 5, 0] = 0.5
        torch.testing.assert_close(image, expected)


class Registry(unittest.TestCase):
    """Preprocessing is data of a registry entry."""

    def test_json_round_trip(self) -> None:
        for preprocessing in (
            Preprocessing("RAS", (1.5, 1.5, 1.5), "window", -175.0, 250.0),
            Preprocessing("LPI", (0.9, 1.25, 3.0), "percentiles", 0.5, 99.5),
            Preprocessing("SAL", (2.0, 2.0, 2.0), "identity"),
        ):
            text = json.dumps(preprocessing.to_json(), allow_nan=False)
            self.assertEqual(Preprocessing.from_json(json.loads(text)), preprocessing)

    def test_what_cannot_be_meant_is_refused(self) -> None:
        good = Preprocessing("RAS", (1.5, 1.5, 1.5), "window", -175, 250).to_json()
        for change, pattern in (
            ({"orientation": "RAX"}, "Orientation 'RAX'"),
            ({"orientation": "RLS"}, "Orientation 'RLS'"),
            ({"orientation": "RA"}, "Orientation 'RA'"),
            ({"orientation": "RASS"}, "Orientation 'RASS'"),
            ({"orientation": "ras"}, "Orientation 'ras'"),
            ({"orientation": ""}, "Orientation ''"),
            ({"spacing": [1.5, 1.5]}, "'spacing' .* is a list of 3"),
            ({"spacing": [1.5, 0, 1.5]}, "three lengths"),
            ({"spacing": [1.5, -1, 1.5]}, "three lengths"),
            ({"spacing": ["wide", 1, 1]}, "'spacing' .* is a number, not 'wide'"),
            ({"spacing": None}, "'spacing' .* is a list"),
            ({"intensity": "z-score"}, "'z-score'"),
            ({"low": 250}, "low < high"),
            ({"high": None}, "low < high"),
            ({"low": "air"}, "'low' .* is a number or null"),
            ({"gamma": 1}, "gamma"),
        ):
            with self.subTest(change), self.assertRaisesRegex(ModelError, pattern):
                Preprocessing.from_json({**good, **change})
        for field in ("orientation", "spacing", "intensity"):
            with self.subTest(field), self.assertRaisesRegex(ModelError, field):
                Preprocessing.from_json({k: v for k, v in good.items() if k != field})


if __name__ == "__main__":
    unittest.main()
