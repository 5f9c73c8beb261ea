"""Prepared volumes of a pre-training that were damaged on the disk are refused."""

from __future__ import annotations

import json
import shutil
import tempfile
import unittest
from pathlib import Path

import numpy as np
from pretraining_world import World

from FewShotSegLib.core import checksums
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.pretraining.assembly import read_assembly
from FewShotSegLib.pretraining.cases import Case, prepare_case


class PreparedCases(World):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.case = self.prepare()
        (self.place,) = self.folder.iterdir()

    def prepare(self, number: int = 0) -> Case:
        """A case as a new process would get it."""
        checksums.forget()
        assembly = read_assembly(self.path)
        data_set = assembly.data[0]
        return prepare_case(assembly, data_set, data_set.sources[number], self.folder, lambda: None)

    def assert_reported(self) -> None:
        with self.assertRaisesRegex(InputError, "is damaged; remove that folder"):
            self.prepare()

    def test_any_bit_of_any_file(self) -> None:
        draw = np.random.default_rng(0)
        for file in sorted(self.place.iterdir()):
            whole = file.read_bytes()
            for bit in draw.integers(8 * len(whole), size=20).tolist():
                data = bytearray(whole)
                data[bit // 8] ^= 1 << bit % 8
                file.write_bytes(data)
                with self.subTest(file.name, bit=bit):
                    self.assert_reported()
            for name, other in {
                "zeros": bytes(len(whole)),
                "short": whole[:-2],
                "long": whole + b"\0",
                "empty": b"",
            }.items():
                file.write_bytes(other)
                with self.subTest(file.name, what=name):
                    self.assert_reported()
            file.write_bytes(whole)
        np.testing.assert_array_equal(self.prepare().labels, self.case.labels)

    def test_another_cases_files(self) -> None:
        before = set(self.folder.iterdir())
        self.prepare(1)
        (other,) = set(self.folder.iterdir()) - before
        shutil.rmtree(self.place)
        shutil.copytree(other, self.place)
        self.assert_reported()

    def test_one_without_checksums_is_prepared_anew(self) -> None:
        summary = json.loads((self.place / "case.json").read_text())
        old = {"annotated": summary["annotated"], "arrays": sorted(summary["arrays"])}
        (self.place / "case.json").write_text(json.dumps(old))
        labels = self.place / "labels.npy"
        np.save(labels, np.zeros_like(np.load(labels)))
        np.testing.assert_array_equal(self.prepare().labels, self.case.labels)
        self.assertTrue(np.any(self.case.labels))


if __name__ == "__main__":
    unittest.main()
