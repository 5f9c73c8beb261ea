"""Tables of the documentation say what the records do."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import unittest
from pathlib import Path
from types import ModuleType

from FewShotSegLib.core.architecture_catalog import ARCHITECTURES
from FewShotSegLib.core.method_catalog import METHODS

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "tables.py"


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TablesTest(unittest.TestCase):
    """Of methods and of architectures."""

    def setUp(self) -> None:
        self.tool = load_tool()

    def test_the_pages_have_the_tables_of_today(self) -> None:
        pages = {path: path.read_text(encoding="utf-8") for path in self.tool.pages()}
        names = {m["name"] for text in pages.values() for m in self.tool.TABLE.finditer(text)}
        self.assertEqual(names, set(self.tool.TABLES))
        for path, text in pages.items():
            with self.subTest(path.name):
                self.assertEqual(
                    self.tool.renewed(text), text, "run: python tools/tables.py --write"
                )

    def test_an_old_table_is_found(self) -> None:
        marks = ("<!-- table methods: tools/tables.py -->\n", "<!-- end of table -->")
        self.assertIn(
            "`adapter` (default)", self.tool.renewed(f"a\n{marks[0]}old\n{marks[1]}\nb\n")
        )
        self.assertEqual(self.tool.renewed("a\nb\n"), "a\nb\n")
        done = subprocess.run(
            [sys.executable, str(TOOL)], capture_output=True, text=True, check=False
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_a_row_a_record(self) -> None:
        for table, records in (
            (self.tool.methods(), METHODS),
            (self.tool.architectures(), ARCHITECTURES),
        ):
            lines = table.splitlines()
            self.assertEqual(len(lines), 2 + len(records.own))
            self.assertEqual(len({line.count(" | ") for line in lines}), 1)
            for name, line in zip(records.own, lines[2:], strict=True):
                self.assertTrue(line.startswith(f"| `{name}`"), line)


if __name__ == "__main__":
    unittest.main()
