"""Folders of DICOM files: whose slices they are, where they lie, and what lies beside them."""

from __future__ import annotations

import os
import shutil
import unittest
import warnings
from pathlib import Path

import numpy as np
from dicom_series import Written, put, read, stored_values
from image_files import FilesTestCase
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.io.volumes import read_image

SLICES = 9


class FolderTestCase(FilesTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.written = Written(stored_values((6, 5, SLICES)))

    def clear(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def assert_read(self) -> None:
        np.testing.assert_array_equal(read(self.folder).array, self.written.stored)


@unittest.skipUnless(os.name == "posix", "needs links and pipes")
class BesideTest(FolderTestCase):
    """What is no slice takes none with it."""

    def beside(self, name: str) -> None:
        (self.folder / "readme.txt").write_text("words")
        (self.folder / "DICOMDIR").write_bytes(bytes(200))
        (self.folder / "sub.dcm").mkdir()
        (self.folder / "._000.dcm").write_bytes(b"\0\5\x16\7" + bytes(100))
        (self.folder / name).symlink_to("nowhere")
        os.mkfifo(self.folder / f"{name}.pipe")
        (self.folder / f"{name}.socket").symlink_to("/dev/null")

    def test_things_that_are_no_files(self) -> None:
        for name in ("0", "005", "dangling", "zz"):
            for syntax in ("explicit", "bare"):
                self.clear()
                Written(self.written.stored, syntax=syntax).write(self.folder)
                self.beside(name)
                with self.subTest(name, syntax=syntax):
                    self.assert_read()

    def test_in_another_process(self) -> None:
        self.written.write(self.folder)
        self.beside("zz")
        np.testing.assert_array_equal(read_image(self.folder).array, self.written.stored)

    def test_links_to_slices(self) -> None:
        store = self.folder / "store"
        store.mkdir()
        self.written.write(store)
        for file in store.iterdir():
            (self.folder / file.name).symlink_to(file)
        self.assert_read()

    def test_what_may_have_been_a_slice(self) -> None:
        """Without it a gap would be filled, or the image end early."""

        def dangling(path: Path) -> None:
            path.unlink()
            path.symlink_to("nowhere")

        def pipe(path: Path) -> None:
            path.unlink()
            os.mkfifo(path)

        damages = {
            "is no file": dangling,
            "is no file .such": pipe,
            "is empty": lambda path: path.write_bytes(b""),
            "is no DICOM file": lambda path: path.write_bytes(bytes(2000)),
            "is no DICOM file, and may": lambda path: path.write_bytes(b"words" * 40),
            "damaged or cut short": lambda path: path.write_bytes(bytes(128) + b"DICM"),
            "is damaged": lambda path: path.write_bytes(path.read_bytes()[:167]),
            "cut short": lambda path: path.write_bytes(path.read_bytes()[:-300]),
        }
        for telling, damage in damages.items():
            for name in ("000.dcm", "021.dcm", "056.dcm"):  # the first, a middle and the last
                self.clear()
                self.written.write(self.folder)
                damage(self.folder / name)
                with self.subTest(telling, name=name):
                    self.assert_refused(f"{name} .*{telling}|{name}.*{telling}", read, self.folder)

    def test_names_without_an_ending(self) -> None:
        for ending in ("", ".1"):
            self.clear()
            self.written.write(self.folder, ending=ending)
            (self.folder / "README").write_text("words")
            self.assert_read()
            (self.folder / "IM5").symlink_to("nowhere")
            self.assert_refused("IM5 .*is no file", read, self.folder)

    @unittest.skipIf(os.name == "posix" and os.geteuid() == 0, "root may open everything")
    def test_a_slice_that_may_not_be_opened(self) -> None:
        self.written.write(self.folder)
        (self.folder / "021.dcm").chmod(0)
        self.assert_refused("021.dcm.*can't be opened", read, self.folder)


class PatientTest(FolderTestCase):
    """One series number doesn't make one image."""

    def assert_several(self, telling: str, **tags: object) -> None:
        for name, where in {
            "behind": lambda number: number > 5,
            "between": lambda number: number % 2,
            "the first": lambda number: number == 0,
        }.items():

            def change(dataset: Dataset, number: int, where=where) -> None:
                if where(number):
                    for tag, value in tags.items():
                        put(dataset, tag, value)

            self.clear()
            self.written.write(self.folder, change)
            with self.subTest(telling, where=name):
                self.assert_refused(f"different {telling}.*one image only", read, self.folder)

    def test_another_patient(self) -> None:
        self.assert_several("patients", PatientID="ANOTHER")
        self.assert_several("studies", StudyInstanceUID="1.2.77")
        self.assert_several("frames of reference", FrameOfReferenceUID="1.2.78")
        self.assert_several("modalities", Modality="MR")
        self.assert_several("kinds of DICOM", SOPClassUID=MRImageStorage)
        self.assert_several("patients", PatientID="Q", PatientName="O", StudyInstanceUID="1.7")

    def test_nobody_is_named(self) -> None:
        self.written.write(self.folder, lambda d, k: put(d, "PatientID", f"Doe{k}"))
        with self.assertRaises(InputError) as caught:
            read(self.folder)
        self.assertNotRegex(str(caught.exception), "Doe|Secret|ID4711")

    def test_what_is_not_said(self) -> None:
        """Anonymised series, in which nobody is, or not everywhere the same is left out."""
        names = ("PatientID", "PatientName", "FrameOfReferenceUID", "Modality")
        for some in (range(SLICES), (2, 5)):
            for name in names:
                self.clear()
                self.written.write(
                    self.folder,
                    lambda d, k, name=name, some=some: put(d, name, None) if k in some else None,
                )
                with self.subTest(name, some=some):
                    self.assert_read()

    def test_a_description_from_the_file(self) -> None:
        self.written.write(self.folder)
        other = Written(self.written.stored)
        tags = {"SeriesInstanceUID": "1.2.99", "SeriesDescription": "a\x1b[2Jb" + "x" * 5000}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's: no description is that long
            Written(other.stored, tags=tags).write(self.folder, ending=".ima")
        self.assert_refused(r"2 DICOM series: .*\\x1b\[2J", read, self.folder)


class SpacingTest(FolderTestCase):
    """No spacing is 1 mm because nobody says so."""

    def test_none(self) -> None:
        for value in (None, "", [0, 0], [2, 0], [-2, -2], [2], [2, 2, 2], ["1e400", "1e400"]):
            for slices in (range(SLICES), (4,)):
                self.clear()
                self.written.write(
                    self.folder,
                    lambda d, k, value=value, slices=slices: (
                        put(d, "PixelSpacing", value) if k in slices else None
                    ),
                )
                with self.subTest(value, slices=slices):
                    self.assert_refused(
                        "does not say how far its pixels are apart", read, self.folder
                    )

    def test_of_captured_images(self) -> None:
        tags = {
            "SOPClassUID": SecondaryCaptureImageStorage,
            "PixelSpacing": None,
            "NominalScannedPixelSpacing": [0.5, 0.75],
        }
        Written(self.written.stored, tags=tags).write(self.folder)
        np.testing.assert_allclose(read(self.folder).grid.spacing, (0.75, 0.5, 3))

    def test_columns_and_rows(self) -> None:
        self.written.write(self.folder)
        np.testing.assert_allclose(read(self.folder).grid.spacing, (2, 1.5, 3))

    def test_no_place(self) -> None:
        for name in ("ImagePositionPatient", "ImageOrientationPatient"):
            for value in (None, "", [0, 0]):
                self.clear()
                Written(self.written.stored, tags={name: value}).write(self.folder)
                with self.subTest(name, value=value):
                    self.assert_refused("does not say where its slices lie", read, self.folder)

    def test_a_slice_of_another_spacing(self) -> None:
        self.written.write(
            self.folder, lambda d, k: put(d, "PixelSpacing", [2, 2]) if k == 4 else None
        )
        self.assert_refused("different pixel spacings", read, self.folder)


if __name__ == "__main__":
    unittest.main()
