"""What files say is read once, and again as soon as they changed."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

from FewShotSegLib.core.errors import ModelError
from FewShotSegLib.core.file_cache import FileCache


class FileCacheTest(unittest.TestCase):
    """Over a reader that counts."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "entry.json"
        self.reads: list[Path] = []
        self.cache = FileCache(self.read)

    def read(self, path: Path) -> str:
        self.reads.append(path)
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not text.startswith("good"):
            raise ModelError(f"{path.name}: {text or 'it is not there'}")
        return text

    def test_a_file_that_stays_is_read_once(self) -> None:
        self.path.write_text("good 1", encoding="utf-8")
        self.assertEqual([self.cache(self.path) for _ in range(3)], ["good 1"] * 3)
        self.assertEqual(len(self.reads), 1)

    def test_what_changes_is_read_again(self) -> None:
        self.path.write_text("good 1", encoding="utf-8")
        self.cache(self.path)
        self.path.write_text("good, longer", encoding="utf-8")
        self.assertEqual(self.cache(self.path), "good, longer")
        self.path.unlink()
        with self.assertRaisesRegex(ModelError, "not there"):
            self.cache(self.path)
        self.path.write_text("good 1", encoding="utf-8")
        self.assertEqual(self.cache(self.path), "good 1")

    def test_another_file_of_the_same_time_and_size_is_another_file(self) -> None:
        self.path.write_text("good 1", encoding="utf-8")
        self.cache(self.path)
        other = self.path.with_name("other")
        other.write_text("good 2", encoding="utf-8")
        stamp = os.stat(self.path)
        os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        os.replace(other, self.path)
        self.assertEqual(os.stat(self.path).st_mtime_ns, stamp.st_mtime_ns)
        self.assertEqual(self.cache(self.path), "good 2")

    def test_a_fault_is_kept_and_reported_anew(self) -> None:
        self.path.write_text("bad", encoding="utf-8")
        reported = []
        for _ in range(3):
            with self.assertRaisesRegex(ModelError, "entry.json: bad") as caught:
                self.cache(self.path)
            reported.append(caught.exception)
        self.assertEqual(len(self.reads), 1)
        self.assertEqual(len(set(map(id, reported))), 3)
        self.path.write_text("good now", encoding="utf-8")
        self.assertEqual(self.cache(self.path), "good now")

    def test_a_file_that_is_missing_is_looked_for_each_time(self) -> None:
        for count in (1, 2):
            with self.assertRaises(ModelError):
                self.cache(self.path)
            self.assertEqual(len(self.reads), count)


if __name__ == "__main__":
    unittest.main()
