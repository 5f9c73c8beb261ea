"""Reading images of every kind, on every kind of grid; and every kind of bad file."""

from __future__ import annotations

import gzip
import struct
import unittest

import numpy as np
import SimpleITK as sitk
from image_files import GRIDS, OBLIQUE, SHAPE, FilesTestCase, make_box, make_grid, make_values

from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.io import results as result_files
from FewShotSegLib.io import volumes as volume_files


class TestReadImage(FilesTestCase):
    def test_every_kind_on_every_grid(self) -> None:
        for extension in volume_files.EXTENSIONS:
            for name, grid in GRIDS.items():
                for dtype in (np.uint8, np.int16, np.float32):
                    with self.subTest(extension=extension, grid=name, dtype=dtype):
                        values = make_values(SHAPE, dtype)
                        path = self.write("x" + extension, values, grid, extension != ".nii")
                        volume = volume_files.read_image(path)
                        np.testing.assert_array_equal(volume.array, values)
                        self.assertEqual(volume.array.dtype, dtype)
                        self.assertTrue(volume.grid.same_as(grid))
                        self.assertIsNone(volume.modality)
                path.unlink()

    def test_the_numbers_are_itks(self) -> None:
        for extension in (".nii.gz", ".nrrd", ".mha"):
            path = self.write("x" + extension, make_values(SHAPE), GRIDS["oblique"])
            grid, image = volume_files.read_image(path).grid, sitk.ReadImage(str(path))
            self.assertEqual(
                (grid.spacing, grid.origin, grid.direction),
                (image.GetSpacing(), image.GetOrigin(), image.GetDirection()),
            )

    def test_doubles_are_halved(self) -> None:
        path = self.write("x.nrrd", make_values(SHAPE, np.float64) / 7, GRIDS["oblique"])
        self.assertEqual(volume_files.read_image(path).array.dtype, np.float32)

    def test_a_nifti_beside_its_unpacked_namesake(self) -> None:
        values = make_values(SHAPE)
        self.write("x.nii", values + 1, GRIDS["oblique"], False)
        path = self.write("x.nii.gz", values, GRIDS["oblique"])
        np.testing.assert_array_equal(volume_files.read_image(path).array, values)

    def test_names_and_kinds(self) -> None:
        text = self.folder / "x.txt"
        text.write_text("hello")
        bare = self.folder / "IM0001.dcm"
        bare.write_bytes(bytes(200))
        self.assert_refused("does not exist", volume_files.read_image, self.folder / "no.nrrd")
        self.assert_refused("unknown kind.*nii.gz", volume_files.read_image, text)
        self.assert_refused("DICOM, give the folder", volume_files.read_image, bare)
        for extension in (".nii.gz", ".nrrd", ".mha"):
            path = self.folder / ("bad" + extension)
            path.write_bytes(b"")
            self.assert_refused("is empty", volume_files.read_image, path)
            path.write_bytes(b"garbage " * 99)
            self.assert_refused("can't be read", volume_files.read_image, path)

    def test_files_cut_short(self) -> None:
        for extension in (".nii.gz", ".nii", ".nrrd", ".mha"):
            for compress in {extension not in (".nii",), extension == ".nii.gz"}:
                path = self.write("x" + extension, make_values(SHAPE), GRIDS["oblique"], compress)
                whole = path.read_bytes()
                for size in (len(whole) // 2, len(whole) - 40):
                    with self.subTest(extension=extension, compress=compress, size=size):
                        path.write_bytes(whole[:size])
                        self.assert_refused("cut short", volume_files.read_image, path)

    def test_a_sound_gzip_with_too_few_voxels(self) -> None:
        path = self.write("x.nii.gz", make_values(SHAPE), GRIDS["oblique"])
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-2]))
        self.assert_refused("fewer voxels", volume_files.read_image, path)

    def test_a_damaged_gzip(self) -> None:
        path = self.write("x.nii.gz", make_values(SHAPE), GRIDS["oblique"])
        data = bytearray(path.read_bytes())
        data[-6] ^= 255  # the checksum
        path.write_bytes(data)
        self.assert_refused("damaged", volume_files.read_image, path)

    def test_missing_voxel_file(self) -> None:
        path = self.write("x.mhd", make_values(SHAPE), GRIDS["oblique"])
        next(self.folder.glob("*raw")).unlink()
        self.assert_refused("can't be read", volume_files.read_image, path)

    def test_wrong_dimensions(self) -> None:
        plane = sitk.GetImageFromArray(make_values((8, 8)))
        series = sitk.GetImageFromArray(make_values((3, 4, 5, 6)), isVector=False)
        colours = sitk.GetImageFromArray(make_values((4, 5, 6, 3), np.uint8), isVector=True)
        waves = sitk.GetImageFromArray(make_values(SHAPE).astype(np.complex64))
        flat = sitk.GetImageFromArray(make_values((1, 5, 6)))
        for extension in (".nii.gz", ".nrrd", ".mha"):
            refused = {
                "2-dimensional": plane,
                r"4-dimensional \(6 x 5 x 4 x 3\)": series,
                "3 values a voxel": colours,
                "single slice": flat,
            }
            if extension == ".nii.gz":
                refused["complex"] = waves
            for telling, image in refused.items():
                with self.subTest(extension=extension, telling=telling):
                    path = self.folder / ("x" + extension)
                    sitk.WriteImage(image, str(path))
                    self.assert_refused(telling, volume_files.read_image, path)

    def test_two_slices_are_a_volume(self) -> None:
        path = self.write("two.nii.gz", make_values((2, 5, 2)), make_grid(OBLIQUE, (2, 5, 2)))
        self.assertEqual(volume_files.read_image(path).array.shape, (2, 5, 2))

    def test_values_that_are_no_numbers(self) -> None:
        for value in (np.nan, np.inf, -np.inf):
            values = make_values(SHAPE, np.float32)
            values[1, 2, 3] = value
            for extension in (".nii.gz", ".nii", ".nrrd", ".mha"):
                with self.subTest(value=value, extension=extension):
                    path = self.write("x" + extension, values, GRIDS["oblique"], False)
                    self.assert_refused(
                        "1 voxels that are not numbers", volume_files.read_image, path
                    )

    def test_sheared_axes(self) -> None:
        sheared = OBLIQUE.copy()
        sheared[:, 1] += 0.1 * sheared[:, 0]
        sheared[:, 1] /= np.linalg.norm(sheared[:, 1])
        self.write("x.nrrd", make_values(SHAPE), make_grid(sheared))
        self.write("x.nii.gz", make_values(SHAPE), GRIDS["straight"])
        nifti = self.folder / "x.nii.gz"
        data = bytearray(gzip.decompress(nifti.read_bytes()))
        struct.pack_into("<h", data, 252, 0)  # no qform
        struct.pack_into("<f", data, 284, 0.3)  # srow_x, second column
        nifti.write_bytes(gzip.compress(data))
        for name in ("x.nrrd", "x.nii.gz"):
            self.assert_refused("right angles", volume_files.read_image, self.folder / name)

    def test_a_segmentation_is_no_image(self) -> None:
        path, masks = self.folder / "x.seg.nrrd", {"liver": make_box(SHAPE, (1, 3))}
        result_files.write_segments(path, masks, [Structure("liver", 1)], GRIDS["oblique"])
        self.assert_refused("a segmentation, not an image", volume_files.read_image, path)


if __name__ == "__main__":
    unittest.main()
