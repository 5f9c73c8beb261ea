"""The values of DICOM slices: all of them, as they were written, in a type that holds them."""

from __future__ import annotations

import unittest
from collections.abc import Callable

import numpy as np
import pydicom
import SimpleITK as sitk
from dicom_series import Written, put, read, stored_values
from image_files import FilesTestCase
from pydicom.dataset import Dataset

from FewShotSegLib.io.dicom.pixels import common_type
from FewShotSegLib.io.volumes import read_image


class SliceTestCase(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.folders = 0

    def write(self, written: Written, change: Callable[[Dataset, int], None] | None = None):
        self.folders += 1
        folder = self.folder / str(self.folders)
        folder.mkdir()
        written.write(folder, change)
        return folder

    def assert_values(self, written: Written, kind: type, change=None) -> None:
        volume = read(self.write(written, change))
        self.assertEqual(volume.array.dtype, kind)
        np.testing.assert_allclose(volume.array, written.values, rtol=1e-6, atol=0)

    def assert_no_volume(self, telling: str, written: Written, change=None) -> None:
        self.assert_refused(telling, read, self.write(written, change))


class TypeTest(SliceTestCase):
    """The type of the first slice is not that of all."""

    def test_values_of_every_type(self) -> None:
        for kind in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32):
            read_as = np.int16 if kind is np.int8 else kind
            with self.subTest(kind.__name__):
                self.assert_values(Written(stored_values(kind=kind)), read_as)

    def test_rescalings_that_differ(self) -> None:
        rescales = {
            "one fraction": ([(1, 0), (1, 0), (0.5, 0.25), (1, 0)], np.float32),
            "first a fraction": ([(0.5, 0), (1, 0), (1, 0), (1, 0)], np.float32),
            "an intercept only": ([(1, 0), (1, 0.5), (1, 0), (1, 0)], np.float32),
            "one of 100": ([(1, 0), (100, 0), (1, 0), (1, 0)], np.int32),
            "one negative": ([(1, 0), (-1, 0), (1, 0), (1, -1024)], np.int32),
            "far apart": ([(1, 0), (2e-5, 0), (3e-5, 0), (4e3, 1)], np.float32),
            "very large": ([(1, 0), (1e6, 0), (1, 0), (1, 0)], np.float32),
        }
        for name, (slopes, kind) in rescales.items():
            with self.subTest(name):
                self.assert_values(Written(stored_values(), rescales=slopes), kind)

    def test_slices_stored_in_several_ways(self) -> None:
        """Signed and unsigned, of 8, 16 and 32 bits, whichever is the first."""
        kinds = ("int16", "uint16", "uint8", "int32")
        for first in range(4):
            order = np.roll(kinds, first)
            stored = np.stack([stored_values((6, 5, 1), k, 3)[..., 0] for k in order], axis=2)
            written = Written(stored.astype(np.int64))
            parts = [Written(stored[..., [k]].astype(kind)) for k, kind in enumerate(order)]

            def change(dataset: Dataset, number: int, parts: list[Written] = parts) -> None:
                other = parts[number].dataset()
                for name in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
                    setattr(dataset, name, getattr(other, name))
                dataset.PixelData = parts[number].pixels([0])

            with self.subTest(order=order):
                folder = self.write(Written(stored.astype(np.int32)), change)
                volume = read(folder)
                self.assertEqual(volume.array.dtype, np.int32)
                np.testing.assert_array_equal(volume.array, written.stored)

    def test_bits_beside_the_value(self) -> None:
        stored = stored_values(kind=np.int16) >> 4  # 12 bits and their sign
        for kind, values in ((np.int16, stored), (np.uint16, (stored + 2048).astype(np.uint16))):
            for above in (0x0000, 0xF000, 0x5000):

                def overlaid(dataset: Dataset, number: int, above: int = above) -> None:
                    data = np.frombuffer(dataset.PixelData, np.uint16)
                    dataset.PixelData = ((data & 0x0FFF) | above).astype(np.uint16).tobytes()

                with self.subTest(kind.__name__, above=hex(above)):
                    written = Written(values, bits=12, rescales=[(1, -1024)] * 4)
                    self.assert_values(written, np.int16, overlaid)

    def test_a_value_that_does_not_begin_at_the_lowest_bit(self) -> None:
        stored = (stored_values(kind=np.uint16) >> 4).astype(np.uint16)

        def shifted(dataset: Dataset, number: int) -> None:
            dataset.PixelData = (np.frombuffer(dataset.PixelData, np.uint16) << 4).tobytes()
            dataset.HighBit = 15

        self.assert_values(Written(stored, bits=12), np.int16, shifted)

    def test_values_too_large_for_an_image(self) -> None:
        written = Written(stored_values(kind=np.uint32), rescales=[(1, 0)] * 3 + [(1e20, 1e20)])
        folder = self.write(written)
        self.assertTrue(np.isfinite(read(folder).array).all())
        for name in ("RescaleSlope", "RescaleIntercept"):
            for value in ("1e300", "-1e21"):
                with self.subTest(name, value=value):
                    self.assert_no_volume(
                        f"{name} that is no usable number",
                        Written(stored_values()),
                        lambda d, k, name=name, value=value: put(d, name, value),
                    )

    def test_the_type_does_not_hang_on_the_contents(self) -> None:
        dark = Written(np.zeros((6, 5, 4), np.uint16), bits=12, rescales=[(1, -1024)] * 4)
        self.assertEqual(read(self.write(dark)).array.dtype, np.int16)
        self.assertEqual(common_type([]), np.uint8)


class RescaleTest(SliceTestCase):
    def test_a_slope_of_nothing(self) -> None:
        for slope in ("0", "0.0", "-0", "1e-30"):
            for slices in ({0, 1, 2, 3}, {2}):
                with self.subTest(slope, slices=slices):
                    self.assert_no_volume(
                        "RescaleSlope of .* all its values the same",
                        Written(stored_values()),
                        lambda d, k, slope=slope, slices=slices: (
                            put(d, "RescaleSlope", slope) if k in slices else None
                        ),
                    )

    def test_a_rescaling_that_is_left_out(self) -> None:
        for value in (None, ""):
            for name in ("RescaleSlope", "RescaleIntercept"):
                rescale = (1, -7) if name == "RescaleSlope" else (3, 0)
                written = Written(stored_values(), rescales=[rescale] * 4, tags={name: value})
                with self.subTest(name, value=value):
                    self.assert_values(written, np.int32)

    def test_a_lookup_table(self) -> None:
        table = Dataset()
        table.LUTDescriptor, table.ModalityLUTType = [4, 0, 16], "HU"
        table.add_new("LUTData", "OW", bytes(8))
        written = Written(stored_values(), tags={"ModalityLUTSequence": [table]})
        self.assert_no_volume("lookup table.*dcm2niix", written)


class InvertedTest(SliceTestCase):
    """MONOCHROME1 is how an image is shown; its values are what they are."""

    def test_the_values_stay(self) -> None:
        for kind, rescale in ((np.int16, (1, 0)), (np.uint16, (1, -1024)), (np.uint8, (2, 3))):
            for slices in ({0, 1, 2, 3}, {0}, {2, 3}):
                with self.subTest(kind.__name__, slices=slices):
                    written = Written(stored_values(kind=kind), rescales=[rescale] * 4)

                    def invert(dataset: Dataset, k: int, slices: set[int] = slices) -> None:
                        if k in slices:
                            dataset.PhotometricInterpretation = "MONOCHROME1"

                    volume = read(self.write(written, invert))
                    np.testing.assert_array_equal(volume.array, written.values)

    def test_colours(self) -> None:
        for name in ("RGB", "PALETTE COLOR", "YBR_FULL"):
            written = Written(stored_values(), tags={"PhotometricInterpretation": name})
            self.assert_no_volume("has colours; give one with grey values", written)


class CompleteTest(SliceTestCase):
    """The pixels are as many as the header says, in every slice and encoding."""

    def test_a_header_of_other_pixels(self) -> None:
        for name, value in {
            **{"Rows": 10, "Columns": 2000, "BitsAllocated": 32, "NumberOfFrames": 2},
        }.items():
            for syntax in ("explicit", "implicit", "big-endian", "deflated", "bare"):
                for slices in ({0, 1, 2, 3}, {1}):
                    written = Written(stored_values(), syntax=syntax)

                    def change(
                        dataset: Dataset, k: int, name=name, value=value, slices=slices
                    ) -> None:
                        if k in slices:
                            setattr(dataset, name, value)

                    with self.subTest(name, syntax=syntax, slices=slices):
                        self.assert_no_volume("cut short: it holds 60 bytes.*says", written, change)

    def test_a_header_of_fewer_pixels(self) -> None:
        """A part of a slice, or one that is sheared, is no slice either."""
        for name, value in {"Rows": 4, "Columns": 5, "BitsAllocated": 8}.items():
            with self.subTest(name):
                self.assert_no_volume(
                    "it holds 60 bytes of pixels, and its header says",
                    Written(stored_values(), tags={"BitsStored": 8, "HighBit": 7, name: value}),
                )

    def test_no_usable_number(self) -> None:
        for name in ("Rows", "Columns"):
            for value in (0, None):
                with self.subTest(name, value=value):
                    written = Written(stored_values(), tags={name: value})
                    self.assert_no_volume(f"no pixels|no usable {name}", written)
        for name, value in (("BitsStored", 17), ("HighBit", 16), ("PixelRepresentation", 2)):
            written = Written(stored_values(), tags={name: value})
            self.assert_no_volume("contradicts itself", written)
        for bits in (1, 12, 64):
            written = Written(stored_values(), tags={"BitsAllocated": bits})
            self.assert_no_volume(f"pixels of {bits} bits", written)

    def test_slices_of_different_sizes(self) -> None:
        def change(dataset: Dataset, number: int) -> None:
            if number == 2:
                dataset.Rows, dataset.PixelData = 4, dataset.PixelData[: 2 * 4 * 6]

        self.assert_no_volume("slices of different sizes", Written(stored_values()), change)

    def test_pixels_of_an_odd_number(self) -> None:
        written = Written(stored_values((5, 3, 4), np.uint8))
        self.assert_values(written, np.uint8)

    def test_floating_point_pixels(self) -> None:
        def change(dataset: Dataset, number: int) -> None:
            del dataset.PixelData
            dataset.add_new("FloatPixelData", "OF", bytes(4 * 30))

        self.assert_no_volume("floating-point pixels", Written(stored_values()), change)


class EncodingTest(SliceTestCase):
    def test_every_encoding(self) -> None:
        for syntax in ("implicit", "explicit", "big-endian", "deflated", "bare", "rle"):
            # GDCM decodes no run-length encoding that is longer than the pixels.
            i, j, k = np.mgrid[:20, :18, :4]
            stored = (i + 2 * j - 300 * k).astype(np.int16)
            written = Written(stored, syntax=syntax, rescales=[(2, -5)] * 4)
            with self.subTest(syntax):
                folder = self.write(written)
                np.testing.assert_array_equal(read(folder).array, written.values)

    def test_as_gdcm_decodes_it(self) -> None:
        """Where the header is sound, GDCM reads the same values and grid."""
        for kind in (np.int16, np.uint16, np.uint8):
            written = Written(stored_values(kind=kind), rescales=[(3, -1024)] * 4)
            folder = self.write(written)
            image = sitk.ReadImage(
                sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)), imageIO="GDCMImageIO"
            )
            volume = read(folder)
            with self.subTest(kind.__name__):
                expected = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
                np.testing.assert_array_equal(volume.array, expected)
                for ours, theirs in (
                    (volume.grid.spacing, image.GetSpacing()),
                    (volume.grid.origin, image.GetOrigin()),
                    (volume.grid.direction, image.GetDirection()),
                ):
                    np.testing.assert_allclose(ours, theirs, atol=1e-9)

    def test_compressed_by_gdcm(self) -> None:
        for name, kind in (("JPEG", np.uint8), ("JPEG2000", np.int16)):
            # GDCM's encoder writes past its memory where an image doesn't get smaller.
            i, j, k = np.mgrid[:40, :36, :4]
            written = Written((i + 2 * j + 3 * k).astype(kind))
            folder = self.folder / name
            folder.mkdir()
            for number in range(4):
                plain = written.slice(number)
                image = sitk.GetImageFromArray(written.stored[..., number].T.copy())
                image.SetSpacing(written.spacing)
                for tag in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"):
                    image.SetMetaData(_key(plain[tag].tag), str(plain[tag].value))
                for tag in ("ImagePositionPatient", "ImageOrientationPatient"):
                    value = "\\".join(map(str, plain[tag].value))
                    image.SetMetaData(_key(plain[tag].tag), value)
                writer = sitk.ImageFileWriter()
                writer.KeepOriginalImageUIDOn()
                writer.UseCompressionOn()
                writer.SetCompressor(name)
                writer.SetFileName(str(folder / f"{number}.dcm"))
                writer.Execute(image)
            with self.subTest(name):
                volume = read(folder)
                np.testing.assert_array_equal(volume.array, written.values)
                self.assertEqual(volume.grid.spacing, (*written.spacing, 3.0))
                # A header of other sizes than the code stream.
                file = folder / "2.dcm"
                dataset = pydicom.dcmread(file)
                for rows in (18, 50):
                    dataset.Rows = rows
                    dataset.save_as(file)
                    self.assert_refused("2.dcm|different sizes", read_image, folder)

    def test_run_lengths_of_another_size(self) -> None:
        """GDCM takes the beginning of a frame for the whole, or shears it."""
        for name, value in (("Rows", 3), ("Columns", 3), ("Rows", 50), ("Columns", 50)):
            folder = self.write(Written(stored_values((40, 40, 4)), syntax="rle"))
            for file in folder.iterdir():
                data = file.read_bytes()
                tag = {"Rows": b"\x28\0\x10\0US\2\0", "Columns": b"\x28\0\x11\0US\2\0"}[name]
                place = data.index(tag) + len(tag)
                file.write_bytes(data[:place] + value.to_bytes(2, "little") + data[place + 2 :])
            with self.subTest(name, value=value):
                self.assert_refused("is damaged.*header says", read, folder)

    def test_inverted_and_compressed(self) -> None:
        tags = {"PhotometricInterpretation": "MONOCHROME1"}
        written = Written(stored_values(), syntax="rle", tags=tags)
        self.assert_no_volume("inverted .MONOCHROME1.*export it uncompressed", written)

    def test_damaged_runs(self) -> None:
        written = Written(stored_values((40, 40, 4)), syntax="rle")
        for cut in (30, 400, 1500):
            folder = self.write(written)
            file = folder / "014.dcm"
            file.write_bytes(file.read_bytes()[:-cut])
            with self.subTest(cut):
                self.assert_refused("014.dcm.*is damaged", read_image, folder)


class CutTest(SliceTestCase):
    def test_at_every_part_of_a_file(self) -> None:
        written = Written(stored_values())
        whole = self.write(written)
        length = (whole / "014.dcm").stat().st_size
        for cut in (1, 40, 61, 70, 120, 300, length - 300, length - 140, length - 4, length):
            folder = self.write(written)
            file = folder / "014.dcm"
            file.write_bytes(file.read_bytes()[: length - cut])
            with self.subTest(cut, of=length):
                self.assert_refused("014.dcm", read, folder)

    def test_slices_that_only_the_rest_shows(self) -> None:
        """No pixels in one slice, and in all of them."""

        def change(dataset: Dataset, number: int) -> None:
            if number == 1:
                del dataset.PixelData

        self.assert_no_volume("007.dcm.*cut short", Written(stored_values()), change)
        self.assert_no_volume(
            "has no DICOM images", Written(stored_values(), tags={"PixelData": None})
        )

    def test_in_another_process(self) -> None:
        written = Written(stored_values(), rescales=[(1, 0), (0.5, 0), (1, 0), (1, 0)])
        volume = read_image(self.write(written))
        np.testing.assert_array_equal(volume.array, written.values)
        self.assertEqual((volume.modality, volume.notes), ("CT", ()))

    def test_a_number_that_is_none(self) -> None:
        for old, new in (
            (b"-10\\20\\3", b"-10\\x0\\3"),
            (b"-10\\20\\3", b"-10\\  \\3"),
            (b"-10\\20\\3", b"nan\\20\\3"),
            (b"1.5\\2 ", b"1.5\\a "),
            (b"1.5\\2 ", b"inf\\2 "),
            (b"1.5\\2 ", b"1.5\\-2"),
        ):
            folder = self.write(Written(stored_values()))
            file = folder / "007.dcm"
            data = file.read_bytes()
            self.assertIn(old, data)
            file.write_bytes(data.replace(old, new))
            with self.subTest(new):
                self.assert_refused("007.dcm.*does not say", read, folder)


def _key(tag: pydicom.tag.BaseTag) -> str:
    """A tag as ITK writes it."""
    return f"{tag.group:04x}|{tag.element:04x}"


if __name__ == "__main__":
    unittest.main()
