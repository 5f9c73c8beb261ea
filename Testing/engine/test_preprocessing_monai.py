"""Preprocessing as MONAI's and NiftyNet's own code does it, and exactly back."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    CropForegroundd,
    Invertd,
    NormalizeIntensityd,
    Orientationd,
    ScaleIntensityd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
    Spacingd,
)
from placed_grids import make_grid

from FewShotSegLib.core.errors import InputError, ModelError
from FewShotSegLib.core.geometry import Grid, Volume
from FewShotSegLib.models.intensities import by_landmarks
from FewShotSegLib.models.preprocessing import Preprocessing

LANDMARKS = (0.0, 8.06, 15.51, 21.5, 26.14, 29.99, 33.84, 38.19, 44.01, 58.39, 100.0)
RAS = {"orientation": "RAS", "resampling": "monai", "normalised": "resampled"}


def volume_on(grid: Grid) -> Volume:
    """Values from -200 to 300, and a frame of zeros."""
    array = np.zeros(grid.shape, np.float32)
    inner = np.random.default_rng(3).normal(60, 120, (22, 19, 23))
    array[4:26, 3:22, 6:29] = np.clip(inner, -200, 300)
    return Volume(array, grid)


def through_monai(volume: Volume, *transforms: Any) -> dict[str, Any]:
    """What MONAI's transforms make of a volume."""
    image = MetaTensor(torch.from_numpy(volume.array[None].copy()), affine=volume.grid.affine)
    return Compose(list(transforms))({"image": image})


class GeometryTest(unittest.TestCase):
    """Orientation, crop and spacing, in MONAI's order."""

    CASES: tuple[tuple[str, dict[str, Any], list[Callable[[], Any]]], ...] = (
        (
            "spacing",
            {"spacing": (1.5, 1.5, 2.5)},
            [lambda: Spacingd("image", (1.5, 1.5, 2.5), mode="bilinear")],
        ),
        (
            "finer",
            {"spacing": (0.8, 0.7, 1.1)},
            [lambda: Spacingd("image", (0.8, 0.7, 1.1), mode="bilinear")],
        ),
        (
            "Auto3DSeg's",
            {"spacing": (1.1, 2.0, 1.0), "crop": "positive", "margin": 2, "keep": 0.25},
            [
                lambda: CropForegroundd("image", "image", margin=2, allow_smaller=True),
                lambda: Spacingd(
                    "image",
                    (1.1, 2.0, 1.0),
                    mode="bilinear",
                    min_pixdim=np.array([1.1, 2.0, 1.0]) * 0.75,
                    max_pixdim=np.array([1.1, 2.0, 1.0]) * 1.25,
                ),
            ],
        ),
    )

    def test_images_are_monais(self) -> None:
        for name, fields, transforms in self.CASES:
            for directions in ("RAS", "LPS", "sagittal", "oblique and left-handed"):
                with self.subTest(name, directions=directions):
                    volume = volume_on(make_grid(directions, (1.0, 1.5, 2.0)))
                    first = Orientationd("image", "RAS", labels=None)
                    theirs = through_monai(volume, first, *(make() for make in transforms))
                    ours, placement = Preprocessing(intensity="identity", **RAS, **fields)(volume)
                    self.assertEqual(ours.shape[1:], theirs["image"].shape)
                    expected = theirs["image"].as_tensor()[None].float()
                    torch.testing.assert_close(ours, expected, atol=2e-3, rtol=1e-4)
                    self.assertEqual(placement.shape, tuple(ours.shape[2:]))

    def test_scores_come_back_as_by_monais_inverse(self) -> None:
        for name, fields, transforms in (self.CASES[0], self.CASES[2]):
            for directions in ("LPS", "sagittal"):
                with self.subTest(name, directions=directions):
                    volume = volume_on(make_grid(directions, (1.0, 1.0, 1.0)))
                    steps = Compose(
                        [
                            Orientationd("image", "RAS", labels=None),
                            *(make() for make in transforms),
                        ]
                    )
                    image = MetaTensor(
                        torch.from_numpy(volume.array[None].copy()), affine=volume.grid.affine
                    )
                    data = steps({"image": image})
                    data["pred"] = data["image"].clone()
                    back = Invertd("pred", steps, orig_keys="image", nearest_interp=False)
                    theirs = back(data)["pred"].as_tensor()[0]
                    preprocessing = Preprocessing(intensity="identity", **RAS, **fields)
                    ours, placement = preprocessing(volume)
                    mine = placement.to_original(ours[0, 0], kernel="linear")
                    self.assertEqual(mine.shape, theirs.shape)
                    torch.testing.assert_close(mine, theirs.float(), atol=2e-3, rtol=1e-4)

    def test_a_structure_comes_back_to_its_place(self) -> None:
        """Unlike grids over the same box, these are half a voxel apart at their ends."""
        for directions in ("RAS", "sagittal", "oblique and left-handed"):
            for spacing in ((0.5, 0.75, 1.0), (1.0, 1.5, 2.0), (1.7, 1.1, 1.3)):
                with self.subTest(directions, spacing=spacing):
                    volume = volume_on(make_grid(directions, (1.0, 1.5, 2.0)))
                    mask = np.zeros(volume.grid.shape, bool)
                    mask[6:16, 5:15, 9:21] = True
                    placement = Preprocessing(
                        spacing=spacing, intensity="identity", **RAS
                    ).placement(volume)
                    model = placement.to_model(mask)
                    size = float(model.sum()) * placement.voxel_volume
                    self.assertAlmostEqual(
                        size / (mask.sum() * volume.grid.voxel_volume), 1, delta=0.03
                    )
                    back = placement.to_original(model).numpy() > 0.5
                    self.assertLess((back ^ mask).sum(), 0.02 * mask.sum())
                    box = placement.box_to_model((slice(6, 16), slice(5, 15), slice(9, 21)))
                    self.assertGreater(float(model[box].sum()), 0.9 * float(model.sum()))
                    part = model[box]
                    place, values = placement.part_to_original(part, box)
                    alone = torch.zeros(placement.shape)
                    alone[box] = part
                    whole = placement.to_original(alone)
                    torch.testing.assert_close(values, whole[place])
                    rest = whole.clone()
                    rest[place] = 0
                    self.assertLess(float(rest.abs().max()), 0.2)


class IntensityTest(unittest.TestCase):
    """Each mapping, as MONAI's transform of it."""

    def assert_same(self, fields: dict[str, Any], *transforms: Any) -> None:
        volume = volume_on(make_grid("RAS", (1.0, 1.5, 2.0)))
        theirs = through_monai(volume, *transforms)["image"].as_tensor()[0]
        ours = Preprocessing("RAS", (1, 1, 1), **fields).normalise(volume.array)
        torch.testing.assert_close(torch.from_numpy(ours), theirs.float(), atol=1e-4, rtol=1e-4)

    def test_ranges(self) -> None:
        window = {"intensity": "window", "low": -100, "high": 150}
        for fields, low, high, clip in (
            ({}, 0, 1, True),
            ({"onto": (-1, 1)}, -1, 1, True),
            ({"onto": (-1, 1), "cut": False}, -1, 1, False),
        ):
            with self.subTest(fields):
                scale = ScaleIntensityRanged("image", -100, 150, low, high, clip=clip)
                self.assert_same({**window, **fields}, scale)
        self.assert_same({"intensity": "unit", "onto": (-1, 2)}, ScaleIntensityd("image", -1, 2))
        percentiles = ScaleIntensityRangePercentilesd("image", 2, 98, 0, 1, clip=True)
        both = (NormalizeIntensityd("image", nonzero=True), ScaleIntensityd("image", -1, 1))
        standard = {"intensity": "standardise", "mask": "nonzero", "onto": (-1, 1)}
        self.assert_same(standard, *both)
        self.assert_same({"intensity": "percentiles", "low": 2, "high": 98}, percentiles)

    def test_auto3dseg(self) -> None:
        """Its modes ct and range, meanstd, meanstdtanh and pet."""
        normalize = NormalizeIntensityd("image", nonzero=True, channel_wise=True)
        standard = {"intensity": "standardise", "mask": "nonzero"}
        self.assert_same(standard, normalize)

        def tanh(data: dict[str, Any]) -> dict[str, Any]:
            return {"image": 3 * torch.tanh(data["image"] / 3)}

        def pet(data: dict[str, Any]) -> dict[str, Any]:
            x = data["image"]
            return {"image": torch.sigmoid((x - x.min()) / x.std())}

        def sigmoid(data: dict[str, Any]) -> dict[str, Any]:
            return {"image": torch.sigmoid(data["image"])}

        self.assert_same({**standard, "squash": "tanh"}, normalize, tanh)
        self.assert_same({"intensity": "above-least", "squash": "sigmoid"}, pet)
        window = {"intensity": "window", "low": -100, "high": 150, "onto": (-1, 1), "cut": False}
        scale = ScaleIntensityRanged("image", -100, 150, -1, 1, clip=False)
        self.assert_same({**window, "squash": "sigmoid"}, scale, sigmoid)

    def test_landmarks(self) -> None:
        """Percentiles become the landmarks, lines between; then bright voxels are whitened."""
        image = np.random.default_rng(1).gamma(2, 30, (30, 31, 32)).astype(np.float32)
        found = by_landmarks(image.copy(), LANDMARKS)
        above = image[image > image.mean()]
        percentiles = np.percentile(above, (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99))
        inside = (image > percentiles[0]) & (image < percentiles[-1])
        mapped = np.interp(image, percentiles, LANDMARKS)
        slope = np.polyfit(mapped[inside], found[inside], 1)
        np.testing.assert_allclose(np.polyval(slope, mapped[inside]), found[inside], atol=1e-4)
        bright = found[found > found.mean()]
        self.assertAlmostEqual(float(bright.mean()), 0, delta=1e-4)
        self.assertAlmostEqual(float(bright.std()), 1, delta=1e-4)
        beyond = image > percentiles[-1]  # the last line goes on
        steps = (LANDMARKS[-1] - LANDMARKS[-2]) / (percentiles[-1] - percentiles[-2])
        expected = LANDMARKS[-1] + steps * (image[beyond] - percentiles[-1])
        np.testing.assert_allclose(np.polyval(slope, expected), found[beyond], rtol=1e-3, atol=1e-3)

    def test_much_background_of_one_value(self) -> None:
        image = np.zeros((20, 20, 20), np.float32)
        image[5:12, 5:12, 5:12] = np.random.default_rng(1).gamma(2, 30, (7, 7, 7))
        found = by_landmarks(image, LANDMARKS)
        self.assertTrue(np.isfinite(found).all())
        with self.assertRaisesRegex(InputError, "same value almost everywhere"):
            by_landmarks(np.full((4, 4, 4), 7, np.float32), LANDMARKS)
        for intensity in ("above-least", "unit"):
            with self.assertRaisesRegex(InputError, "same value almost everywhere"):
                Preprocessing("RAS", (1, 1, 1), intensity).normalise(np.full((4, 4, 4), 7.0))


class FieldsTest(unittest.TestCase):
    """What an entry may say of it."""

    def test_they_survive_json(self) -> None:
        for fields in (
            {"intensity": "landmarks", "landmarks": LANDMARKS},
            {"intensity": "window", "low": 0, "high": 9, "onto": (-1, 1), "cut": False},
            {"intensity": "standardise", "crop": "positive", "margin": 10, "squash": "tanh"},
            {"intensity": "unit", "resampling": "monai", "keep": 0.25, "normalised": "resampled"},
        ):
            preprocessing = Preprocessing("RAS", (1.0, 1.0, 1.0), **fields)
            self.assertEqual(Preprocessing.from_json(preprocessing.to_json()), preprocessing)

    def test_what_cannot_be(self) -> None:
        window = {"intensity": "window", "low": 0, "high": 1}
        for telling, fields in (
            ("'onto' is two numbers", {**window, "onto": (1, 1)}),
            ("'cut' is of window", {"intensity": "identity", "cut": False}),
            ("'onto' can't go with", {"intensity": "identity", "onto": (0, 2)}),
            ("list of 11 rising", {"intensity": "landmarks", "landmarks": (1.0, 2.0)}),
            ("list of 11 rising", {"intensity": "landmarks", "landmarks": LANDMARKS[::-1]}),
            ("which needs it", {"intensity": "landmarks"}),
            ("which needs it", {**window, "landmarks": LANDMARKS}),
            ("goes with 'crop'", {**window, "margin": 3}),
            ("goes with 'resampling'", {**window, "keep": 0.25}),
            ("can't be had together", {**window, "resampling": "monai", "most_voxels": 10**6}),
        ):
            with self.subTest(telling, **fields), self.assertRaisesRegex(ModelError, telling):
                Preprocessing("RAS", (1.0, 1.0, 1.0), **fields)


if __name__ == "__main__":
    unittest.main()
