"""Phantoms: the same patient for the same seed, difficult, and where they say they are."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from FewShotSegLib.core.errors import StorageError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.phantoms.patients import (
    FIELD_OF_VIEW,
    ORGANS,
    SURROUNDINGS,
    make_phantom,
    write_phantoms,
)

COARSE = (4.0, 4.0, 4.0)
"""mm: enough for most of what is tested here, and quick."""


def centre_of(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """RAS mm of a mask's centre of mass."""
    return (grid.affine @ np.append(np.argwhere(mask).mean(axis=0), 1.0))[:3]


class OneSeedTests(unittest.TestCase):
    """What holds for every single phantom."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.volume, cls.annotation = make_phantom(4)

    def test_the_default_grid_is_axis_aligned_3_mm(self) -> None:
        self.assertEqual(self.volume.array.shape, (96, 96, 80))
        np.testing.assert_allclose(np.diag(self.volume.grid.affine), [3, 3, 3, 1])
        self.assertEqual(self.volume.array.dtype, np.int16)
        self.assertEqual(self.volume.modality, "CT")

    def test_the_same_seed_is_bit_identical(self) -> None:
        again, annotation = make_phantom(4)
        np.testing.assert_array_equal(again.array, self.volume.array)
        self.assertEqual(again.grid, self.volume.grid)
        for name, mask in self.annotation.masks.items():
            np.testing.assert_array_equal(annotation.masks[name], mask)

    def test_there_is_air_fat_soft_tissue_and_bone(self) -> None:
        hu = self.volume.array
        for low, high, least in ((-1024, -900, 0.2), (-900, -750, 0.02), (-130, -70, 0.05),
                                 (0, 80, 0.1), (250, 3071, 0.005)):  # fmt: skip
            self.assertGreater(np.mean((hu >= low) & (hu < high)), least, (low, high))

    def test_two_lungs(self) -> None:
        smooth = ndimage.gaussian_filter(self.volume.array.astype(np.float32), 1.0)
        # The foam of the table is a little darker than a lung.
        lung = (smooth > -885) & (smooth < -650)
        parts, count = ndimage.label(ndimage.binary_erosion(lung))
        self.assertGreaterEqual(count, 2)
        sizes = np.bincount(parts.ravel())[1:] * self.volume.grid.voxel_volume
        largest = np.argsort(sizes)[::-1][:2]
        self.assertGreater(sizes[largest].min(), 100_000)
        sides = [centre_of(parts == part + 1, self.volume.grid)[0] for part in largest]
        self.assertLess(min(sides), -20)
        self.assertGreater(max(sides), 20)

    def test_masks_do_not_overlap_and_are_one_piece(self) -> None:
        stack = np.array(list(self.annotation.masks.values()))
        self.assertEqual(stack.sum(axis=0).max(), 1)
        for name, mask in self.annotation.masks.items():
            parts, _ = ndimage.label(mask)
            self.assertGreater(np.bincount(parts.ravel())[1:].max(), 0.98 * mask.sum(), name)

    def test_every_structure_is_annotated(self) -> None:
        self.assertEqual(self.annotation.structures, list(ORGANS))
        self.assertEqual(self.annotation.annotated, {organ.name for organ in ORGANS})

    def test_the_surroundings_are_annotated_instead(self) -> None:
        volume, annotation = make_phantom(4, surroundings=True)
        np.testing.assert_array_equal(volume.array, self.volume.array)
        self.assertEqual(annotation.structures, list(SURROUNDINGS))
        stack = np.array([*annotation.masks.values(), *self.annotation.masks.values()])
        self.assertEqual(stack.sum(axis=0).max(), 1)
        for name, mask in annotation.masks.items():
            self.assertGreater(mask.sum() * volume.grid.voxel_volume, 10_000, name)
        # RAS: x grows to the patient's right, z upwards.
        places = {name: centre_of(mask, volume.grid) for name, mask in annotation.masks.items()}
        self.assertGreater(places["liver"][0], 20)
        self.assertLess(places["spleen"][0], -20)
        self.assertGreater(places["inferior_vena_cava"][0], places["aorta"][0])
        self.assertGreater(places["heart"][2], places["liver"][2])
        self.assertLess(places["spinal_cord"][1], places["aorta"][1])
        bone = volume.array[annotation.masks["vertebrae"]]
        self.assertGreater(np.median(bone), 150)

    def test_refuses_nonsense(self) -> None:
        for bad in ({"seed": -1}, {"seed": 1, "spacing": (3, 0, 3)}, {"seed": 1, "shape": (9, 9)}):
            with self.assertRaises(ValueError):
                make_phantom(**bad)


class ManySeedsTests(unittest.TestCase):
    """What a few-shot method has to cope with."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.patients = [make_phantom(seed, COARSE) for seed in range(8)]

    def test_anatomy_differs_between_seeds(self) -> None:
        centres = {organ.name: [] for organ in ORGANS}
        for volume, annotation in self.patients:
            for name, mask in annotation.masks.items():
                centres[name].append(centre_of(mask, volume.grid))
        for name, places in centres.items():
            self.assertGreater(np.std(places, axis=0).min(), 2.0, name)
            self.assertLess(np.std(places, axis=0).max(), 25.0, name)

    def test_sizes_vary_but_not_wildly(self) -> None:
        for organ in ORGANS:
            sizes = np.array(
                [a.masks[organ.name].sum() * v.grid.voxel_volume for v, a in self.patients]
            )
            self.assertGreater(sizes.min(), 8_000)
            spread = sizes.std() / sizes.mean()
            self.assertGreater(spread, 0.08, organ.name)
            self.assertLess(spread, 0.40, organ.name)

    def test_left_and_right_differ_by_position_only(self) -> None:
        differences = []
        for volume, annotation in self.patients:
            right, left = (annotation.masks[f"gland_{side}"] for side in ("right", "left"))
            # RAS: x grows to the patient's right.
            self.assertGreater(centre_of(right, volume.grid)[0], 25)
            self.assertLess(centre_of(left, volume.grid)[0], -25)
            means = [volume.array[ndimage.binary_erosion(m)].mean() for m in (right, left)]
            differences.append(means[0] - means[1])
        self.assertLess(np.abs(differences).max(), 8)

    def test_each_organ_touches_something_of_nearly_its_attenuation(self) -> None:
        for volume, annotation in self.patients:
            smooth = ndimage.gaussian_filter(volume.array.astype(np.float32), 0.8)
            organs = np.any(list(annotation.masks.values()), axis=0)
            for name, mask in annotation.masks.items():
                own = volume.array[ndimage.binary_erosion(mask)].mean()
                # The voxel next to the edge is a mixture, so look one farther.
                ring = ndimage.binary_dilation(mask, iterations=3)
                ring &= ~ndimage.binary_dilation(mask) & ~organs
                close = np.abs(smooth[ring] - own) < 30
                self.assertGreater(close.mean(), 0.08, name)

    def test_noise_is_that_of_a_scanner(self) -> None:
        for seed in (1, 2):
            volume, annotation = make_phantom(seed)
            inside = ndimage.binary_erosion(annotation.masks["gland_left"], iterations=2)
            values = volume.array[inside].astype(float)
            self.assertTrue(8 < values.std() < 22, values.std())
            # Neighbours in a slice go together.
            both = inside[:-1] & inside[1:]
            pairs = np.corrcoef(volume.array[:-1][both], volume.array[1:][both])
            self.assertGreater(pairs[0, 1], 0.15)


class GridTests(unittest.TestCase):
    """The same patient on another grid."""

    def test_varied_grids_vary(self) -> None:
        grids = [
            make_phantom(seed, shape=(4, 4, 4), varied_grid=True)[0].grid for seed in range(16)
        ]
        self.assertGreater(len({tuple(np.round(g.spacing, 3)) for g in grids}), 2)
        oblique = [np.abs(np.reshape(g.direction, (3, 3))).max() < 0.9999 for g in grids]
        self.assertTrue(any(oblique) and not all(oblique))
        handed = {bool(np.linalg.det(g.affine[:3, :3]) > 0) for g in grids}
        self.assertEqual(handed, {True, False})

    def test_a_patient_is_the_same_on_every_grid(self) -> None:
        for seed in (2, 9):
            plain, varied = make_phantom(seed, COARSE), make_phantom(seed, varied_grid=True)
            for organ in ORGANS:
                (a, one), (b, other) = ((v.grid, n.masks[organ.name]) for v, n in (plain, varied))
                np.testing.assert_allclose(centre_of(one, a), centre_of(other, b), atol=1.0)
                sizes = one.sum() * a.voxel_volume, other.sum() * b.voxel_volume
                self.assertAlmostEqual(sizes[0] / sizes[1], 1, delta=0.06)

    def test_a_grid_covers_the_field_of_view(self) -> None:
        volume, _ = make_phantom(3, (6.0, 6.0, 8.0))
        covered = np.asarray(volume.array.shape) * volume.grid.spacing
        np.testing.assert_allclose(covered, FIELD_OF_VIEW, atol=8)
        middle = volume.grid.affine @ np.append((np.asarray(volume.array.shape) - 1) / 2, 1)
        np.testing.assert_allclose(middle[:3], 0, atol=1e-9)


class WritingTests(unittest.TestCase):
    """Files that anything can read."""

    def test_images_labels_and_names(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            pairs = write_phantoms(Path(folder) / "new", 2, seed=5, varied_grid=True)
            self.assertEqual(
                [path.name for pair in pairs for path in pair],
                ["phantom_01_ct.nii.gz", "phantom_01_seg.nii.gz",
                 "phantom_02_ct.nii.gz", "phantom_02_seg.nii.gz"],
            )  # fmt: skip
            names = json.loads((Path(folder) / "new" / "labels.json").read_text("utf-8"))
            self.assertEqual(names, {"1": "gland_right", "2": "gland_left", "3": "pouch"})
            image, labels = (sitk.ReadImage(str(path)) for path in pairs[1])
            volume, annotation = make_phantom(6, varied_grid=True)
            self.assertEqual(image.GetPixelID(), sitk.sitkInt16)
            self.assertEqual(labels.GetPixelID(), sitk.sitkUInt8)
            array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
            np.testing.assert_array_equal(array, volume.array)
            written = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(),
                           image.GetDirection())  # fmt: skip
            self.assertTrue(written.same_as(volume.grid))
            values = sitk.GetArrayFromImage(labels).transpose(2, 1, 0)
            for organ in ORGANS:
                np.testing.assert_array_equal(values == organ.value, annotation.masks[organ.name])

    def test_a_place_that_cannot_be_written_to(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "file").write_text("in the way")
            with self.assertRaises(StorageError):
                write_phantoms(Path(folder) / "file", 1)


if __name__ == "__main__":
    unittest.main()
