"""Reading folders of DICOM slices."""

from __future__ import annotations

import struct
import unittest

import numpy as np
import SimpleITK as sitk
from image_files import OBLIQUE, FilesTestCase, make_image, make_values

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.io import volumes as volume_files


class TestDicom(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.values = make_values((8, 6, 5))
        self.grid = Grid((8, 6, 5), (0.75, 0.5, 2.5), (-12.5, 30.0, 7.0), tuple(OBLIQUE.ravel()))

    def write_series(self, uid: str = "1.2.3", modality: str = "CT", **changes) -> None:
        """One file a slice; ``leave_out`` skips slices, ``shift`` moves one by (k, mm vector)."""
        image = make_image(self.values, self.grid)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        shifted, shift = changes.get("shift", (None, None))
        for k in range(self.grid.shape[2]):
            if k in changes.get("leave_out", ()):
                continue
            position = np.asarray(image.TransformIndexToPhysicalPoint((0, 0, k)))
            if k == shifted:
                position = position + shift
            plane = image[:, :, k]
            cosines = [*OBLIQUE[:, 0], *OBLIQUE[:, 1]]
            tags = {
                "0008|0060": modality,
                "0008|103e": f"Series {uid}",
                "0010|0010": "Secret^Patient",
                "0010|0020": "ID4711",
                "0020|000d": "1.2.9",
                "0020|000e": uid,
                "0020|0013": str(k),
                "0008|0018": f"{uid}.{k}",
                "0020|0032": "\\".join(f"{x:.10g}" for x in position),
                "0020|0037": "\\".join(f"{x:.8f}" for x in cosines),
            }
            for tag, value in tags.items():
                plane.SetMetaData(tag, value)
            # Names in an order of their own: the position decides, not the name.
            writer.SetFileName(str(self.folder / f"{uid}-{(k * 3) % 5}.dcm"))
            writer.Execute(plane)

    def test_a_series(self) -> None:
        for modality, expected in (("CT", "CT"), ("MR", "MR"), ("PT", None)):
            with self.subTest(modality):
                self.write_series(modality=modality)
                volume = volume_files.read_image(self.folder)
                np.testing.assert_array_equal(volume.array, self.values)
                self.assertTrue(volume.grid.same_as(self.grid), volume.grid)
                self.assertEqual(volume.modality, expected)

    def test_several_series_are_named_but_not_the_patient(self) -> None:
        self.write_series("1.2.3")
        self.write_series("1.2.4")
        with self.assertRaisesRegex(InputError, "2 DICOM series: .*Series 1.2.4.*5 files") as e:
            volume_files.read_image(self.folder)
        self.assertNotRegex(str(e.exception), "Secret|ID4711")

    def test_no_images(self) -> None:
        self.assert_refused("no DICOM images", volume_files.read_image, self.folder)

    def test_a_structure_set_beside_the_slices(self) -> None:
        self.write_series()
        (self.folder / "rs.dcm").write_bytes(self.structure_set())
        np.testing.assert_array_equal(volume_files.read_image(self.folder).array, self.values)

    @staticmethod
    def structure_set() -> bytes:
        def element(group: int, number: int, kind: str, text: str) -> bytes:
            value = text.encode()
            value += b"\0" * (len(value) % 2)
            return struct.pack("<HH2sH", group, number, kind.encode(), len(value)) + value

        sop_class = "1.2.840.10008.5.1.4.1.1.481.3"
        meta = element(2, 2, "UI", sop_class) + element(2, 3, "UI", "1.7.1")
        meta += element(2, 0x10, "UI", "1.2.840.10008.1.2.1")
        body = element(8, 0x16, "UI", sop_class) + element(8, 0x18, "UI", "1.7.1")
        body += element(8, 0x60, "CS", "RTSTRUCT")
        body += element(0x20, 0xD, "UI", "1.2.9") + element(0x20, 0xE, "UI", "1.7")
        length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
        return bytes(128) + b"DICM" + length + meta + body

    def test_a_missing_slice(self) -> None:
        self.write_series(leave_out=(2,))
        volume = volume_files.read_image(self.folder)
        self.assertTrue(volume.grid.same_as(self.grid), volume.grid)
        there = [0, 1, 3, 4]
        np.testing.assert_array_equal(volume.array[..., there], self.values[..., there])
        self.assertRegex(volume.notes[0], "missing slices.*resampled")

    def test_a_doubled_slice(self) -> None:
        self.write_series(shift=(2, -2.5 * OBLIQUE[:, 2]))
        self.assert_refused("doubled slices", volume_files.read_image, self.folder)

    def test_a_slice_out_of_line(self) -> None:
        self.write_series(shift=(3, 1.0 * OBLIQUE[:, 0]))
        self.assert_refused("shifted against", volume_files.read_image, self.folder)

    def test_a_single_slice(self) -> None:
        self.write_series(leave_out=(0, 1, 2, 3))
        self.assert_refused("single slice", volume_files.read_image, self.folder)

    def test_a_damaged_slice(self) -> None:
        self.write_series()
        path = self.folder / "1.2.3-2.dcm"
        path.write_bytes(path.read_bytes()[:-40])
        self.assert_refused("1.2.3-2.dcm.*cut short", volume_files.read_image, self.folder)


if __name__ == "__main__":
    unittest.main()
