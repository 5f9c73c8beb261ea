"""A ``report.json`` that is there already: ours, or left as it is."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.pipeline.report import FORMAT, read_reports, write_report


class ReportsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = self.folder / "report.json"

    def test_what_is_ours(self) -> None:
        self.assertEqual(read_reports(self.path), {})
        for results in ({}, {"a.nii.gz": {}}, {"a.nii.gz": {"structures": {"x": {"ml": 1.5}}}}):
            self.path.write_text(json.dumps({"format": FORMAT, "results": results, "later": 1}))
            self.assertEqual(read_reports(self.path), results)
        write_report(self.folder / "b.nii.gz", {"seed": 0})
        self.assertEqual(set(read_reports(self.path)), {"a.nii.gz", "b.nii.gz"})

    def test_what_is_not_ours_stays(self) -> None:
        ours = {"format": FORMAT, "results": {}}
        for data in (
            *([], 5, None, "x", {}),
            *({**ours, "format": value} for value in (None, "fewshotseg-report-2", 1, [])),
            *({**ours, "results": value} for value in (None, [], 5, "x", {"a": 5}, {"a": []})),
            *({"format": FORMAT}, {"results": {}}),
        ):
            text = json.dumps(data)
            self.path.write_text(text)
            with self.subTest(text), self.assertRaisesRegex(InputError, "not a FewShotSeg report"):
                read_reports(self.path)
            with self.subTest(text), self.assertRaises(InputError):
                write_report(self.folder / "b.nii.gz", {})
            self.assertEqual(self.path.read_text(), text)


if __name__ == "__main__":
    unittest.main()
