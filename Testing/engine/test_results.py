"""Writing results: the query's grid, label values and segments."""

from __future__ import annotations

import os
import struct
import unittest

import numpy as np
from image_files import GRIDS, SHAPE, FilesTestCase, make_values

from FewShotSegLib.io import results as result_files
from FewShotSegLib.io import volumes as volume_files


class TestResults(FilesTestCase):
    def test_every_kind_on_every_grid(self) -> None:
        writers = {
            np.uint8: result_files.write_label_map,
            np.uint16: result_files.write_label_map,
            np.float32: result_files.write_probability,
        }
        for extension in (".nii.gz", ".nii", ".nrrd", ".mha"):
            for name, grid in GRIDS.items():
                for dtype, write in writers.items():
                    with self.subTest(extension=extension, grid=name, dtype=dtype):
                        path = self.folder / ("x" + extension)
                        values = make_values(SHAPE, dtype)
                        values = values / np.float32(7) if dtype is np.float32 else values
                        for array in (values, np.asfortranarray(values)):
                            write(path, array, grid)
                            volume = volume_files.read_image(path)
                            np.testing.assert_array_equal(volume.array, values)
                            self.assertEqual(volume.array.dtype, dtype)
                            self.assertTrue(volume.grid.same_as(grid), volume.grid)
                path.unlink()

    def test_the_querys_grid_to_the_last_bit(self) -> None:
        labels = make_values(SHAPE, np.uint8)
        for extension in (".nii.gz", ".nii", ".nrrd", ".mha"):
            for name, grid in GRIDS.items():
                with self.subTest(extension=extension, grid=name):
                    query = self.write("q" + extension, labels, grid, extension != ".nii")
                    result = self.folder / ("r" + extension)
                    stated = volume_files.read_image(query).grid
                    result_files.write_label_map(result, labels, stated, query)
                    self.assertEqual(volume_files.read_image(result).grid, stated)

    def test_any_query_as_mha_to_the_last_bit(self) -> None:
        labels = make_values(SHAPE, np.uint8)
        for grid in GRIDS.values():
            query = self.write("q.nii.gz", labels, grid)
            stated = volume_files.read_image(query).grid
            result_files.write_label_map(self.folder / "r.mha", labels, stated)
            self.assertEqual(volume_files.read_image(self.folder / "r.mha").grid, stated)

    def test_nifti_geometry_fields_are_the_querys(self) -> None:
        labels = make_values(SHAPE, np.uint8)
        query, result = self.write("q.nii", labels, GRIDS["oblique"], False), self.folder / "r.nii"
        for codes in ((0, 2), (0, 1), (1, 0), (2, 4), (0, 0)):
            for order in "<>":
                with self.subTest(codes=codes, order=order):
                    data = bytearray(self.swapped(query.read_bytes(), order))
                    struct.pack_into(f"{order}2h", data, 252, *codes)
                    data[148:158] = b"Mr Secret "
                    source = self.folder / "source.nii"
                    source.write_bytes(data)
                    grid = volume_files.read_image(source).grid
                    result_files.write_label_map(result, labels, grid, source)
                    header = result.read_bytes()[:348]
                    for form, offset in (("2h18f", 252), ("4f", 76)):
                        self.assertEqual(
                            struct.unpack_from("<" + form, header, offset),
                            struct.unpack_from(order + form, data, offset),
                        )
                    self.assertEqual(volume_files.read_image(result).grid, grid)
                    self.assertNotIn(b"Secret", header)

    def test_nifti_says_how_many_bits_a_voxel_has(self) -> None:
        for dtype, bits in ((np.uint8, 8), (np.uint16, 16)):
            path = self.folder / "bits.nii"
            result_files.write_label_map(path, make_values(SHAPE, dtype), GRIDS["straight"])
            self.assertEqual(struct.unpack_from("<h", path.read_bytes(), 72), (bits,))

    @staticmethod
    def swapped(data: bytes, order: str) -> bytes:
        """A little-endian, one-byte NIfTI file in another byte order."""
        if order == "<":
            return data
        header = bytearray(data)
        for form, offset in (("i", 0), ("8h", 40), ("4h", 68), ("11f", 76), ("2h18f", 252)):
            values = struct.unpack_from("<" + form, data, offset)
            struct.pack_into(">" + form, header, offset, *values)
        return bytes(header)

    def test_a_query_of_another_shape(self) -> None:
        query = self.write("q.nii.gz", make_values((3, 4, 5)), GRIDS["straight"])
        path = self.folder / "r.nii.gz"
        with self.assertRaises(ValueError):
            result_files.write_label_map(
                path, make_values(SHAPE, np.uint8), GRIDS["oblique"], query
            )
        self.assertFalse(path.exists())

    def test_the_same_result_is_the_same_file(self) -> None:
        for extension in (".nii.gz", ".nrrd", ".mha"):
            paths = [self.folder / (name + extension) for name in "ab"]
            for path in paths:
                result_files.write_label_map(path, make_values(SHAPE, np.uint8), GRIDS["oblique"])
            self.assertEqual(paths[0].read_bytes(), paths[1].read_bytes())

    def test_names(self) -> None:
        for extension in result_files.EXTENSIONS:
            name = "a.b" + extension.upper()
            self.assertEqual(result_files.check_output_name(name), extension)
        for name in ("x", ".dcm", "x.nii.gz.txt", "x.mhd", ".nii.gz", "x.img"):
            self.assert_refused(
                r"\.nii\.gz, .*\.seg\.nrrd, \.mha or \.dcm", result_files.check_output_name, name
            )
        self.assert_refused(
            "which this result is not",
            result_files.write_label_map,
            self.folder / "x.seg.nrrd",
            np.zeros(SHAPE, np.uint8),
            GRIDS["oblique"],
        )

    def test_wrong_arrays(self) -> None:
        grid, path = GRIDS["oblique"], self.folder / "x.nrrd"
        for array in (np.zeros(SHAPE, np.int64), np.zeros((2, 3, 4), np.uint8)):
            with self.assertRaises(ValueError):
                result_files.write_label_map(path, array, grid)
        with self.assertRaises(ValueError):
            result_files.write_probability(path, np.zeros(SHAPE), grid)
        self.assertEqual(os.listdir(self.folder), [])


if __name__ == "__main__":
    unittest.main()
