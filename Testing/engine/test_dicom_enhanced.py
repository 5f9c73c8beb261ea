"""DICOM files of many frames: each one's place, spacing and rescaling are its own."""

from __future__ import annotations

import unittest

import numpy as np
import SimpleITK as sitk
from dicom_series import Written, read, save, stored_values
from image_files import OBLIQUE, FilesTestCase
from pydicom.dataset import Dataset
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage

from FewShotSegLib.core.geometry import Volume
from FewShotSegLib.io.volumes import read_image

SLICES = 12
RAMP = np.array([7.0, -5.0, 11.0])
"""Of a field, per mm along L, P, S."""


def straight(steps: float = 3.0) -> list[list[float]]:
    return [[-10.0, 20.0, steps * k] for k in range(SLICES)]


def ramp(positions: list[list[float]]) -> Written:
    """The field at the pixels of straight slices in these places."""
    i, j = np.meshgrid(np.arange(20), np.arange(16), indexing="ij")
    planes = [
        (x + 2.0 * i) * RAMP[0] + (y + 1.5 * j) * RAMP[1] + z * RAMP[2] for x, y, z in positions
    ]
    return Written(np.rint(np.stack(planes, axis=2)).astype(np.int16), positions)


class EnhancedTestCase(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.smooth = ramp(straight())

    def save(self, dataset: Dataset, name: str = "a.dcm", syntax: str = "explicit") -> None:
        for file in self.folder.glob(name):
            file.unlink()
        save(dataset, self.folder / name, syntax)

    def read(self, dataset: Dataset, syntax: str = "explicit") -> Volume:
        self.save(dataset, syntax=syntax)
        return read(self.folder)

    def assert_no_volume(self, telling: str, dataset: Dataset) -> None:
        self.save(dataset)
        self.assert_refused(telling, read, self.folder)

    def assert_ramp(self, volume: Volume) -> None:
        """Between the slices every voxel is the field's, to the rounding."""
        index = np.stack(np.meshgrid(*map(np.arange, volume.grid.shape), indexing="ij"), axis=-1)
        affine = volume.grid.affine
        lps = (index @ affine[:3, :3].T + affine[:3, 3]) * [-1, -1, 1]
        filled = volume.array != volume.array.min()
        self.assertGreater(filled.mean(), 0.6)
        self.assertLess(np.abs(volume.array - lps @ RAMP)[filled].max(), 1.01)


class GeometryTest(EnhancedTestCase):
    def test_as_single_slices(self) -> None:
        """The same slices in one file and in many are the same image."""
        for name, axes in (("straight", np.eye(3)), ("oblique", OBLIQUE)):
            places = [axes @ [-10.0, 20.0, 2.5 * k] for k in range(SLICES)]
            cosines = tuple(axes[:, :2].T.ravel())
            stored = stored_values((6, 5, SLICES))
            written = Written(stored, places, cosines, rescales=[(2, -1000)] * SLICES)
            single = self.folder / name
            single.mkdir()
            written.write(single)
            expected = read(single)
            for shared in (True, False):
                with self.subTest(name, shared=shared):
                    volume = self.read(written.enhanced(shared=shared))
                    np.testing.assert_array_equal(volume.array, written.values)
                    self.assertTrue(volume.grid.same_as(expected.grid), volume.grid)
                    self.assertEqual((volume.modality, volume.notes), ("CT", ()))

    def test_frames_in_any_order(self) -> None:
        rng = np.random.default_rng(0)
        swapped = [0, 5, 2, 3, 4, 1, *range(6, SLICES)]
        for order in (swapped, *(rng.permutation(SLICES).tolist() for _ in range(3))):
            with self.subTest(order):
                volume = self.read(self.smooth.enhanced(order))
                np.testing.assert_array_equal(volume.array, self.smooth.stored)
                np.testing.assert_allclose(volume.grid.spacing, (2, 1.5, 3))
                self.assertEqual(volume.notes, ())

    def test_descending_frames_stay_in_their_order(self) -> None:
        volume = self.read(self.smooth.enhanced(range(SLICES)[::-1]))
        np.testing.assert_array_equal(volume.array, self.smooth.stored[..., ::-1])
        np.testing.assert_allclose(volume.grid.direction, (1, 0, 0, 0, 1, 0, 0, 0, -1))
        np.testing.assert_allclose(volume.grid.origin, (-10, 20, 33))
        self.assert_ramp(volume)

    def test_a_tilted_gantry(self) -> None:
        places = [[-10.0, 20.0 + k, 3.0 * k] for k in range(SLICES)]
        volume = self.read(ramp(places).enhanced())
        self.assert_ramp(volume)
        self.assertRegex(volume.notes[0], "tilted by 18.4 degrees.*resampled")

    def test_uneven_and_missing_frames(self) -> None:
        steps = [3.0] * 5 + [6.0] * 6
        for name, along in (
            ("missing", np.delete(np.arange(SLICES + 1) * 3.0, 4)),
            ("uneven", np.concatenate([[0], np.cumsum(steps)])),
        ):
            with self.subTest(name):
                volume = self.read(ramp([[-10.0, 20.0, z] for z in along]).enhanced())
                self.assert_ramp(volume)
                self.assertAlmostEqual(volume.grid.spacing[2], 3.0)
                self.assertRegex(volume.notes[0], "unevenly spaced or missing.*resampled")

    def test_frames_that_make_no_volume(self) -> None:
        gap = straight()
        gap[6:] = [[x, y, z + 20] for x, y, z in gap[6:]]
        crooked = straight()
        crooked[4] = [-4.0, 20.0, 12.0]
        phases = [[-10.0, 20.0, 3.0 * (k % 6)] for k in range(SLICES)]
        pairs = [[-10.0, 20.0, 3.0 * (k // 2)] for k in range(SLICES)]
        for telling, places in (
            ("gap of 23 mm", gap),
            ("shifted against each other", crooked),
            ("doubled slices .12 in all", phases),
            ("doubled slices", pairs),
            ("doubled slices", [[0.0, 0.0, 0.0]] * SLICES),
        ):
            with self.subTest(telling):
                self.assert_no_volume(telling, ramp(places).enhanced())

    def test_frames_that_differ(self) -> None:
        dataset = self.smooth.enhanced(shared=False)
        frame = dataset.PerFrameFunctionalGroupsSequence[3]
        other = Dataset()
        other.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
        frame.PlaneOrientationSequence = [other]
        self.assert_no_volume("different directions", dataset)
        dataset = self.smooth.enhanced(shared=False)
        other = Dataset()
        other.PixelSpacing = [1, 1]
        dataset.PerFrameFunctionalGroupsSequence[3].PixelMeasuresSequence = [other]
        self.assert_no_volume("different pixel spacings", dataset)

    def test_several_files(self) -> None:
        """Parts of one series (a concatenation), whatever their names."""
        self.save(self.smooth.enhanced(range(6, SLICES)), "a.dcm")
        second = self.smooth.enhanced(range(6))
        second.SOPInstanceUID = "1.2.3.77"
        self.save(second, "b.dcm")
        volume = read(self.folder)
        np.testing.assert_array_equal(volume.array, self.smooth.stored)
        self.assert_ramp(volume)


class UnsaidTest(EnhancedTestCase):
    """No spacing or place is taken for granted."""

    def test_what_is_missing(self) -> None:
        for name, telling in (
            ("PlanePositionSequence", "where its slices lie"),
            ("PlaneOrientationSequence", "where its slices lie"),
            ("PixelMeasuresSequence", "how far its pixels are apart"),
        ):
            dataset = self.smooth.enhanced(shared=False)
            delattr(dataset.PerFrameFunctionalGroupsSequence[5], name)
            with self.subTest(name):
                self.assert_no_volume(f"does not say {telling}", dataset)
        dataset = self.smooth.enhanced()
        del dataset.SharedFunctionalGroupsSequence
        self.assert_no_volume("does not say where", dataset)
        # A single position can't be that of all frames.
        dataset = self.smooth.enhanced()
        del dataset.PerFrameFunctionalGroupsSequence[5].PlanePositionSequence
        dataset.ImagePositionPatient = [0, 0, 0]
        self.assert_no_volume("does not say where its slices lie", dataset)

    def test_no_frame_says_anything(self) -> None:
        for name in ("no geometry", "of one slice"):
            dataset = self.smooth.dataset()
            dataset.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
            dataset.NumberOfFrames = SLICES
            dataset.PixelData = self.smooth.pixels(range(SLICES))
            if name == "of one slice":
                dataset.PixelSpacing, dataset.SpacingBetweenSlices = [2, 2], 3
                dataset.ImagePositionPatient = [0, 0, 0]
                dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            with self.subTest(name):
                self.assert_no_volume("12 frames and does not say where each.*export it", dataset)

    def test_another_number_of_frames(self) -> None:
        for count in (5, 13, 500, 2**31 - 1):
            dataset = self.smooth.enhanced()
            dataset.NumberOfFrames = count
            with self.subTest(count):
                self.assert_no_volume("holds 7680 bytes of pixels, and its header says", dataset)
        dataset = self.smooth.enhanced()
        del dataset.PerFrameFunctionalGroupsSequence[-1]
        self.assert_no_volume("12 frames, and then where 11 lie", dataset)


class RescaleTest(EnhancedTestCase):
    def test_rescalings(self) -> None:
        stored = stored_values((6, 5, SLICES))
        for name, slopes in {
            "one": [(2, -5)] * SLICES,
            "a fraction": [(0.25, 0.5)] * SLICES,
            "of each frame": [(1 + k, -k) for k in range(SLICES)],
            "fractions of each frame": [(1 + k / 8, 0) for k in range(SLICES)],
        }.items():
            for shared in (True, False):
                written = Written(stored, rescales=slopes)
                with self.subTest(name, shared=shared):
                    volume = self.read(written.enhanced(shared=shared))
                    np.testing.assert_allclose(volume.array, written.values, rtol=1e-6)

    def test_of_the_whole_file(self) -> None:
        dataset = self.smooth.enhanced()
        del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1000
        volume = self.read(dataset)
        np.testing.assert_array_equal(volume.array, 2.0 * self.smooth.stored - 1000)

    def test_no_slope(self) -> None:
        for slopes in ([(0, 0)] * SLICES, [(1, 0)] * 5 + [(0, 1)] + [(1, 0)] * 6):
            dataset = Written(stored_values((6, 5, SLICES)), rescales=slopes).enhanced()
            self.assert_no_volume("RescaleSlope of 0", dataset)

    def test_compressed(self) -> None:
        """GDCM rescales all frames alike: read where that is right, refused where not."""
        smooth = self.smooth.stored
        for slopes in ([(1, 0)] * SLICES, [(2, -5)] * SLICES):
            for shared in (True, False):
                written = Written(smooth, straight(), rescales=slopes)
                volume = self.read(written.enhanced(shared=shared), "rle")
                np.testing.assert_array_equal(volume.array, written.values)
        varying = Written(smooth, straight(), rescales=[(1 + k, 0) for k in range(SLICES)])
        self.save(varying.enhanced(), syntax="rle")
        self.assert_refused("compressed.*each frame.*uncompressed", read, self.folder)
        # Of other classes GDCM doesn't read the functional groups.
        dataset = Written(smooth, straight(), rescales=[(2, -5)] * SLICES).enhanced()
        dataset.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
        self.save(dataset, syntax="rle")
        self.assert_refused("compressed.*each frame.*uncompressed", read, self.folder)


class ReadTest(EnhancedTestCase):
    def test_in_another_process(self) -> None:
        self.save(self.smooth.enhanced([1, 0, *range(2, SLICES)]))
        volume = read_image(self.folder)
        np.testing.assert_array_equal(volume.array, self.smooth.stored)
        self.assert_ramp(volume)

    def test_as_itk_reads_a_sound_one(self) -> None:
        dataset = self.smooth.enhanced()
        self.save(dataset)
        image = sitk.ReadImage(str(self.folder / "a.dcm"), imageIO="GDCMImageIO")
        volume = read(self.folder)
        np.testing.assert_array_equal(
            volume.array, sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        )
        np.testing.assert_allclose(volume.grid.spacing, image.GetSpacing())
        np.testing.assert_allclose(volume.grid.origin, image.GetOrigin())
        np.testing.assert_allclose(volume.grid.direction, image.GetDirection())


if __name__ == "__main__":
    unittest.main()
