"""Files are replaced whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import unittest
from unittest import mock

import numpy as np
from image_files import GRIDS, SHAPE, FilesTestCase

from FewShotSegLib.core import atomic
from FewShotSegLib.core.errors import StorageError
from FewShotSegLib.io import results as result_files


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

    def test_a_full_disk_is_reported_plainly(self) -> None:
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


if __name__ == "__main__":
    unittest.main()
