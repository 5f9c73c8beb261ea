"""Durations, sizes and tables as people read them: one place for the command line and the panel."""

from __future__ import annotations

import math
import unittest

from FewShotSegLib.core.quantities import bytes_text, duration_text, ml_text
from FewShotSegLib.core.tables import markdown_table, text_table


class QuantitiesTest(unittest.TestCase):
    def test_durations(self) -> None:
        for seconds, exact, rough in (
            (0.2, "0 s", "1 s"),
            (9.4, "9 s", "9 s"),
            (42.9, "43 s", "45 s"),
            (89, "89 s", "2 min"),
            (733, "12 min", "12 min"),
            (3590, "1 h", "1 h"),
            (4200, "1 h 10 min", "1 h 10 min"),
            (90000, "25 h", "25 h"),
        ):
            with self.subTest(seconds=seconds):
                self.assertEqual(duration_text(seconds), exact)
                self.assertEqual(duration_text(seconds, rough=True), rough)

    def test_bytes(self) -> None:
        for count, text in (
            (None, ""),
            (0, "0 B"),
            (999, "999 B"),
            (999_600, "1.0 MB"),
            (3_640_000, "3.6 MB"),
            (9_960_000, "10 MB"),
            (12e9, "12 GB"),
            (5e15, "5000 TB"),
        ):
            self.assertEqual(bytes_text(count), text)

    def test_volumes(self) -> None:
        for ml, text in ((0.049, "0.05"), (9.99, "9.99"), (9.996, "10.0"), (99.96, "100")):
            self.assertEqual(ml_text(ml), text)
        self.assertEqual(ml_text(math.pi * 1000), "3142")


class TablesTest(unittest.TestCase):
    def test_columns_are_as_wide_as_they_need(self) -> None:
        rows = [["a", "1.5", ""], ["long one", "10.25", "note"]]
        self.assertEqual(
            text_table(["name", "ml", "note"], rows, " >"),
            "name         ml  note\n--------  -----  ----\na           1.5\nlong one  10.25  note",
        )

    def test_a_rule_before_the_mean(self) -> None:
        lines = text_table(["x"], [["1"], ["2"]], footers=1).splitlines()
        self.assertEqual(lines, ["x", "-", "1", "-", "2"])

    def test_nothing_but_a_header(self) -> None:
        self.assertEqual(text_table(["a", "b"], []), "a  b\n-  -")

    def test_markdown(self) -> None:
        self.assertEqual(
            markdown_table(["name", "n"], [["a", "1"]], " >"),
            "| name | n |\n|---|---:|\n| a | 1 |",
        )


if __name__ == "__main__":
    unittest.main()
