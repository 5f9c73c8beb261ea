"""Reading and writing every kind of file, on every kind of grid; and every kind of bad file."""

from __future__ import annotations

import errno
import gzip
import json
import os
import struct
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from FewShotSegLib.core import atomic
from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.colors import default_color
from FewShotSegLib.core.errors import InputError, StorageError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.io import annotations as annotation_files
from FewShotSegLib.io import results as result_files
from FewShotSegLib.io import volumes as volume_files

SHAPE = (9, 7, 5)
OBLIQUE = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
LIVER = "Segmentation category and type~SCT^123^Organ~SCT^10200004^Liver~^^~Anatomic codes~^^~^^"


def make_grid(direction: np.ndarray, shape: tuple[int, int, int] = SHAPE) -> Grid:
    """An anisotropic grid with numbers that float32 can't hold."""
    numbers = tuple(np.asarray(direction, float).ravel().tolist())
    return Grid(shape, (0.7, 1.1, 3.3), (-100.123456789, 33.3, 7.7), numbers)


GRIDS = {
    "straight": make_grid(np.eye(3)),
    "left-handed": make_grid(np.diag([-1, 1, 1])),
    "turned by 90 degrees": make_grid([[0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "oblique": make_grid(OBLIQUE),
    "oblique and left-handed": make_grid(OBLIQUE @ np.diag([1, -1, 1])),
}


def make_image(array: np.ndarray, grid: Grid) -> sitk.Image:
    """A SimpleITK image of an array (i, j, k)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def make_values(shape: tuple[int, ...], dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def make_box(shape: tuple[int, ...], *bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in bounds)] = True
    return mask


class FilesTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    if not hasattr(unittest.TestCase, "enterContext"):  # Python 3.10

        def enterContext(self, context):
            value = context.__enter__()
            self.addCleanup(context.__exit__, None, None, None)
            return value

    def write(self, name: str, array: np.ndarray, grid: Grid, compress: bool = True) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(make_image(array, grid), str(path), compress)
        return path

    def assert_refused(self, telling: str, function, *args, error=InputError) -> None:
        with self.assertRaisesRegex(error, telling) as caught:
            function(*args)
        self.assertLess(len(str(caught.exception)), 600)
        self.assertNotIn("\n", str(caught.exception))


class TestAtomic(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / "result.nii.gz"
        self.path.write_text("old")

    def assert_untouched(self) -> None:
        self.assertEqual(self.path.read_text(), "old")
        self.assertEqual(os.listdir(self.folder), ["result.nii.gz"])

    def test_the_new_file_takes_the_old_ones_place(self) -> None:
        with atomic.replacing(self.path) as temporary:
            self.assertEqual(temporary.parent, self.folder)
            self.assertTrue(temporary.name.endswith("result.nii.gz"))
            temporary.write_text("new")
            self.assertEqual(self.path.read_text(), "old")
        self.assertEqual(self.path.read_text(), "new")
        self.assertEqual(os.listdir(self.folder), ["result.nii.gz"])

    def test_any_failure_leaves_the_old_file(self) -> None:
        for failure in (KeyboardInterrupt, ValueError, MemoryError):
            with self.subTest(failure), self.assertRaises(failure):
                with atomic.replacing(self.path) as temporary:
                    temporary.write_text("half")
                    raise failure
            self.assert_untouched()

    def test_a_full_disk_is_told_plainly(self) -> None:
        failures = (
            OSError(errno.ENOSPC, "No space left on device"),
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            OSError("1000000 requested and 307072 written"),  # numpy's
            RuntimeError("I/O error: No space left on device (os error 28)"),
        )
        for failure in failures:
            with self.subTest(failure), self.assertRaisesRegex(StorageError, "result.*is full"):
                with atomic.replacing(self.path) as temporary:
                    temporary.write_text("half")
                    raise failure
            self.assert_untouched()

    def test_results_on_a_full_disk(self) -> None:
        full = OSError(errno.ENOSPC, "No space left on device")
        grid = GRIDS["oblique"]
        with mock.patch.object(result_files, "_planes", side_effect=full):
            for extension in (".nii.gz", ".nii", ".nrrd", ".mha"):
                path = self.folder / ("result" + extension)
                path.write_text("old")
                with self.subTest(extension), self.assertRaises(StorageError):
                    result_files.write_label_map(path, np.zeros(SHAPE, np.uint8), grid)
                self.assertEqual(path.read_text(), "old")
        self.assertFalse([name for name in os.listdir(self.folder) if name.startswith(".")])

    def test_a_place_that_cannot_be_written(self) -> None:
        for code in (errno.EACCES, errno.EROFS):
            failure = OSError(code, os.strerror(code))
            with self.subTest(code), mock.patch.object(atomic, "open", create=True) as opening:
                opening.side_effect = failure
                self.assert_refused(
                    "Cannot write", atomic.require_writable, self.path, error=StorageError
                )
        self.assert_untouched()

    def test_another_files_error_stays_itself(self) -> None:
        with self.assertRaises(FileNotFoundError), atomic.replacing(self.path):
            (self.folder / "elsewhere").read_text()
        self.assert_untouched()

    def test_writable_makes_folders_and_leaves_nothing(self) -> None:
        atomic.require_writable(self.folder / "a" / "b" / "x.nrrd")
        self.assertEqual(os.listdir(self.folder / "a" / "b"), [])
        atomic.require_writable(self.path)
        self.assertEqual(self.path.read_text(), "old")

    def test_not_writable(self) -> None:
        refused = {"is a folder": self.folder, "is not a folder": self.path / "x.nrrd"}
        for telling, path in refused.items():
            self.assert_refused(telling, atomic.require_writable, path, error=StorageError)
        with self.assertRaisesRegex(StorageError, "is not a folder"):
            atomic.write_json(self.path / "x.json", {})

    def test_json(self) -> None:
        path = self.folder / "report.json"
        atomic.write_json(path, {"name": "Größe", "ml": [1.5]})
        self.assertEqual(json.loads(path.read_text("utf-8")), {"name": "Größe", "ml": [1.5]})
        with self.assertRaises(TypeError):
            atomic.write_json(path, object())
        self.assertIn("Größe", path.read_text("utf-8"))


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
        for modality, told in (("CT", "CT"), ("MR", "MR"), ("PT", None)):
            with self.subTest(modality):
                self.write_series(modality=modality)
                volume = volume_files.read_image(self.folder)
                np.testing.assert_array_equal(volume.array, self.values)
                self.assertTrue(volume.grid.same_as(self.grid), volume.grid)
                self.assertEqual(volume.modality, told)

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


class TestLabelMaps(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.grid = GRIDS["oblique and left-handed"]
        self.labels = np.zeros(SHAPE, np.uint8)
        self.labels[1:3, 2:4, 1:3] = 4
        self.labels[4:6, 2:4, 1:3] = 200

    def read(self, path: Path, structures: str | None = None):
        parsed = annotation_files.parse_structures(structures) if structures else None
        return annotation_files.read_annotation(path, self.grid, parsed)

    def test_all_labels(self) -> None:
        for extension in volume_files.EXTENSIONS:
            for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64):
                with self.subTest(extension=extension, dtype=dtype):
                    path = self.write(
                        "x" + extension, self.labels.astype(dtype), self.grid, extension != ".nii"
                    )
                    annotation = self.read(path)
                    self.assertEqual(list(annotation.masks), ["label_4", "label_200"])
                    self.assertEqual([s.value for s in annotation.structures], [4, 200])
                    for value in (4, 200):
                        mask = annotation.masks[f"label_{value}"]
                        self.assertEqual(mask.dtype, bool)
                        np.testing.assert_array_equal(mask, self.labels == value)
            path.unlink()

    def test_by_value(self) -> None:
        path = self.write("x.nii.gz", self.labels, self.grid)
        annotation = self.read(path, "7=absent,200=liver")
        self.assertEqual(annotation.annotated, {"liver"})
        self.assertEqual(annotation.structures, [Structure("liver", 200)])
        np.testing.assert_array_equal(annotation.masks["liver"], self.labels == 200)

    def test_nothing_annotated(self) -> None:
        path = self.write("x.nii.gz", self.labels * 0, self.grid)
        self.assert_refused("is empty", self.read, path)
        self.assert_refused("is empty", self.read, path, "1=liver")
        path = self.write("x.nii.gz", self.labels, self.grid)
        self.assert_refused(r"none .* \(liver\).*label 4, label 200", self.read, path, "1=liver")

    def test_no_label_map(self) -> None:
        refused = {
            "fractional": self.labels + 0.25,
            "not numbers": np.where(self.labels, np.nan, 0),
            "outside 0 to 65535": self.labels.astype(np.int32) - 1,
            "outside 0 to": self.labels.astype(np.int32) * 1000,
        }
        for telling, array in refused.items():
            path = self.write("x.nii.gz", array, self.grid)
            self.assert_refused(telling, self.read, path)

    def test_other_grids(self) -> None:
        image = make_image(self.labels, self.grid)
        spaced, shifted, away = (sitk.Image(image) for _ in range(3))
        spaced.SetSpacing((0.7, 1.1, 3.0))
        shifted.SetOrigin((-100.0, 33.3, 7.7))
        away.SetOrigin(image.TransformIndexToPhysicalPoint((50, 0, 0)))
        flipped = sitk.Flip(image, (True, False, False))
        for other in (spaced, shifted, away, flipped):
            path = self.folder / "x.nrrd"
            sitk.WriteImage(other, str(path))
            self.assert_refused(
                "image and segmentation have different grids.*9 x 7 x 5.*1.1 x 3.*9 x 7 x 5.*mm",
                self.read,
                path,
            )


class TestSegments(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.grid = GRIDS["oblique and left-handed"]
        self.masks = {
            "Liver": make_box(SHAPE, (1, 5), (2, 5), (1, 3)),
            "tumour\\a": make_box(SHAPE, (3, 7), (3, 6), (2, 4)),
            "Größe": make_box(SHAPE, (7, 8), (1, 2), (1, 2)),
        }
        self.structures = [
            Structure("Liver", 3, (1.0, 0.5, 0.25), LIVER),
            Structure("tumour\\a", 300),
            Structure("Größe", 7),
        ]
        self.path = self.folder / "x.seg.nrrd"

    def write_segments(self, **masks: np.ndarray) -> None:
        masks = self.masks | masks
        structures = [*self.structures, *(Structure(n, 9) for n in masks if n not in self.masks)]
        result_files.write_segments(self.path, masks, structures, self.grid)

    def read(self, structures: list[Structure] | None = None):
        return annotation_files.read_annotation(self.path, self.grid, structures)

    def write_like_slicer(self, image: sitk.Image, *segments: dict[str, str]) -> None:
        for index, fields in enumerate(segments):
            for key, value in fields.items():
                image.SetMetaData(f"Segment{index}_{key}", value)
        sitk.WriteImage(image, str(self.path), True)

    def test_overlapping_segments_come_back(self) -> None:
        self.write_segments(template=np.zeros(SHAPE, bool))
        image = sitk.ReadImage(str(self.path))
        self.assertEqual(image.GetNumberOfComponentsPerPixel(), 2)
        self.assertEqual(volume_files.grid_of(image).shape, SHAPE)
        self.assertEqual(image.GetMetaData("Segment3_Name"), "template")
        self.assertEqual(image.GetMetaData("Segment0_Extent"), "0 8 0 6 0 4")
        annotation = self.read()
        self.assertEqual(annotation.annotated, set(self.masks))
        for name, mask in self.masks.items():
            np.testing.assert_array_equal(annotation.masks[name], mask)
        self.assertEqual([s.value for s in annotation.structures], [3, 300, 7])
        self.assertEqual(annotation.structures[0], self.structures[0])
        np.testing.assert_allclose(annotation.structures[2].color, default_color(7), atol=1e-5)

    def test_every_grid(self) -> None:
        for name, self.grid in GRIDS.items():
            for masks in (self.masks, {"Liver": self.masks["Liver"]}):
                with self.subTest(name):
                    result_files.write_segments(self.path, masks, self.structures, self.grid)
                    annotation = self.read()
                    for each, mask in masks.items():
                        np.testing.assert_array_equal(annotation.masks[each], mask)

    def test_by_name_ignoring_case(self) -> None:
        self.write_segments()
        wanted = [Structure("LIVER", 1), Structure("TUMOUR\\A", 2, (0.0, 0.0, 1.0), "mine")]
        annotation = self.read([*wanted, Structure("spleen", 3)])
        self.assertEqual(annotation.annotated, {"LIVER", "TUMOUR\\A"})
        self.assertEqual(
            annotation.structures, [Structure("LIVER", 1, (1.0, 0.5, 0.25), LIVER), wanted[1]]
        )

    def test_none_that_is_wanted(self) -> None:
        self.write_segments()
        self.assert_refused("asked for .spleen.*Liver, ", self.read, [Structure("spleen", 3)])

    def test_cropped_as_slicer_does(self) -> None:
        labels = (self.masks["Liver"] * 2 + self.masks["Größe"] * 5).astype(np.uint8)
        image = make_image(labels, self.grid)[1:8, 1:5, 1:3]
        tags = f"Segmentation.Status:inprogress|TerminologyEntry:{LIVER}|"
        self.write_like_slicer(
            image,
            {"ID": "Segment_1", "Name": "liver", "Color": "1 0 0", "LabelValue": "2", "Layer": "0"},
            {"ID": "Segment_2", "Name": "other", "LabelValue": "5", "Layer": "0", "Tags": tags},
            {"ID": "Segment_3", "Name": "empty", "LabelValue": "6", "Layer": "0"},
        )
        annotation = self.read()
        self.assertEqual(
            annotation.structures,
            [Structure("liver", 2, (1.0, 0.0, 0.0)), Structure("other", 5, None, LIVER)],
        )
        np.testing.assert_array_equal(annotation.masks["liver"], self.masks["Liver"])
        np.testing.assert_array_equal(annotation.masks["other"], self.masks["Größe"])

    def test_layers_before_slicer_4_11(self) -> None:
        images = [
            make_image(self.masks[name].astype(np.uint8), self.grid)
            for name in ("Liver", "tumour\\a")
        ]
        self.write_like_slicer(
            sitk.Compose(images), {"ID": "Segment_1", "Name": "a"}, {"ID": "Segment_2"}
        )
        annotation = self.read()
        np.testing.assert_array_equal(annotation.masks["a"], self.masks["Liver"])
        np.testing.assert_array_equal(annotation.masks["Segment_2"], self.masks["tumour\\a"])
        self.assertEqual([s.value for s in annotation.structures], [1, 2])

    def test_an_empty_segmentation_on_a_grid_of_its_own(self) -> None:
        self.write_like_slicer(
            sitk.Image((1, 1, 1), sitk.sitkUInt8), {"ID": "Segment_1", "Name": "liver"}
        )
        self.assert_refused("is empty", self.read)
        self.assert_refused("is empty", self.read, [Structure("liver", 1)])

    def test_damaged_descriptions(self) -> None:
        image = make_image(self.masks["Liver"].astype(np.uint8), self.grid)
        self.write_like_slicer(image, {"ID": "Segment_1", "LabelValue": "one"})
        self.assert_refused("description of its segment 0", self.read)
        self.write_like_slicer(image, {"ID": "Segment_1", "LabelValue": "1", "Layer": "3"})
        self.assert_refused("said to be in layer 3", self.read)

    def test_two_segments_of_one_name(self) -> None:
        image = make_image(self.masks["Liver"].astype(np.uint8), self.grid)
        both = (
            {"ID": "a", "Name": "liver", "Layer": "0"},
            {"ID": "b", "Name": "Liver", "Layer": "0"},
        )
        self.write_like_slicer(image, *both)
        self.assert_refused("2 segments or masks named 'liver'", self.read)

    def test_another_grid(self) -> None:
        self.write_segments()
        self.grid = GRIDS["straight"]
        self.assert_refused("different grids", self.read)

    def test_what_the_writer_refuses(self) -> None:
        write, masks = result_files.write_segments, self.masks
        self.assert_refused("seg.nrrd", write, "x.nrrd", masks, self.structures, self.grid)
        for wrong in ({}, {"unknown": masks["Liver"]}, {"Liver": masks["Liver"][1:]}):
            with self.assertRaises(ValueError):
                write(self.path, wrong, self.structures, self.grid)
        self.assertEqual(os.listdir(self.folder), [])


class TestMaskFolders(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.grid = GRIDS["oblique"]
        self.liver = make_box(SHAPE, (1, 5), (2, 5), (1, 3))
        self.spleen = make_box(SHAPE, (3, 7), (2, 5), (2, 4))
        self.masks = self.folder / "masks"

    def read(self, *structures: Structure):
        return annotation_files.read_annotation(self.masks, self.grid, list(structures) or None)

    def test_one_file_a_structure(self) -> None:
        self.write("masks/Spleen.nrrd", self.spleen.astype(np.float32), self.grid)
        self.write("masks/liver.nii.gz", self.liver.astype(np.uint8) * 255, self.grid)
        self.write("masks/empty.mha", self.liver.astype(np.uint8) * 0, self.grid)
        (self.masks / "notes.txt").write_text("by hand")
        annotation = self.read()
        self.assertEqual(annotation.structures, [Structure("liver", 2), Structure("Spleen", 3)])
        np.testing.assert_array_equal(annotation.masks["liver"], self.liver)
        np.testing.assert_array_equal(annotation.masks["Spleen"], self.spleen)
        annotation = self.read(Structure("spleen", 9), Structure("empty", 8))
        self.assertEqual(annotation.structures, [Structure("spleen", 9)])
        self.assert_refused("asked for .kidney.*liver, Spleen", self.read, Structure("kidney", 1))

    def test_what_is_no_mask(self) -> None:
        self.write("masks/liver.nii.gz", self.liver * 1 + self.spleen * 1, self.grid)
        self.assert_refused("is no mask: it has the labels 1, 2", self.read)
        self.write("masks/liver.nii.gz", self.liver * 0.5, self.grid)
        self.assert_refused("fractional", self.read)

    def test_no_files_and_two_of_one_name(self) -> None:
        self.masks.mkdir()
        self.assert_refused("no mask files", self.read)
        self.write("masks/liver.nii.gz", self.liver.astype(np.uint8), self.grid)
        self.write("masks/Liver.nrrd", self.liver.astype(np.uint8), self.grid)
        self.assert_refused("masks named 'liver'", self.read)

    def test_all_empty(self) -> None:
        self.write("masks/liver.nii.gz", self.liver.astype(np.uint8) * 0, self.grid)
        self.assert_refused("is empty", self.read)


class TestStructures(unittest.TestCase):
    def test_a_list(self) -> None:
        self.assertEqual(
            annotation_files.parse_structures("4=parotid_right, 5 = left lobe"),
            [Structure("parotid_right", 4), Structure("left lobe", 5)],
        )

    def test_bad_lists(self) -> None:
        refused = {
            "no value=name": ("", "4", "=a", "4=", "a=4", "4=a,", "4=a,,5=b", "-1=a", "²=a"),
            "not within 1 to 65535": ("0=a", "65536=a"),
            "value 4 comes twice": ("4=a,4=b",),
            "name A comes twice": ("4=a,5=A",),
            "file's name": ("4=a/b", "4=a\\b", "4=a:b", "4=a=b", "4=..", "4=a\tb", "4=.hidden"),
        }
        for telling, texts in refused.items():
            for text in texts:
                with self.subTest(text), self.assertRaisesRegex(InputError, telling) as caught:
                    annotation_files.parse_structures(text)
                self.assertIn("4=parotid_right,5=parotid_left", str(caught.exception))

    def test_colors(self) -> None:
        colors = np.array([default_color(value) for value in range(1, 61)])
        self.assertTrue(((colors >= 0) & (colors <= 1)).all())
        apart = np.linalg.norm(colors[:20, None] - colors[None, :20], axis=-1)
        self.assertGreater(apart[~np.eye(20, dtype=bool)].min(), 0.15)
        self.assertEqual(len(np.unique(colors.round(3), axis=0)), 60)


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
                    told = volume_files.read_image(query).grid
                    result_files.write_label_map(result, labels, told, query)
                    self.assertEqual(volume_files.read_image(result).grid, told)

    def test_any_query_as_mha_to_the_last_bit(self) -> None:
        labels = make_values(SHAPE, np.uint8)
        for grid in GRIDS.values():
            query = self.write("q.nii.gz", labels, grid)
            told = volume_files.read_image(query).grid
            result_files.write_label_map(self.folder / "r.mha", labels, told)
            self.assertEqual(volume_files.read_image(self.folder / "r.mha").grid, told)

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
        for name in ("x", "x.dcm", "x.nii.gz.txt", "x.mhd", ".nii.gz", "x.img"):
            self.assert_refused(
                r"\.nii\.gz, .*\.seg\.nrrd or \.mha", result_files.check_output_name, name
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
