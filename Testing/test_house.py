"""The rules of the house that a machine can check: what may import what; a true map."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import unittest
from pathlib import Path

from FewShotSegLib.requirements import read_requirements

ROOT = Path(__file__).resolve().parents[1]
ENGINE = ROOT / "FewShotSegLib"
SLICER_ONLY = {"slicer", "qt", "ctk", "vtk", "PythonQt"}
WITHOUT_TORCH = (
    *("requirements", "plain_text"),
    *("errors", "events", "geometry", "annotation", "atomic", "progress", "pairs", "cli"),
    *("size_prior", "model_files", "job_protocol", "job_folders", "worker", "adapter_header"),
    *("json_fields", "json_schema", "network_arguments", "model_entry"),
    *("method_list", "method_sizes", "remarks"),
    *("checksums", "temporary_files", "private_folders", "locks"),
)
"""Rooms that the Slicer side may share before torch is installed, or that must start fast."""


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


def own_imports(path: Path, depth: int) -> set[str]:
    """The engine's rooms that a file imports when it runs (not for type checking alone)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    return {
        node.module.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == depth and node.module
    }


def called(path: Path) -> list[ast.Call]:
    return [
        n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)
    ]


class HouseTest(unittest.TestCase):
    """Every file of the engine."""

    def setUp(self) -> None:
        self.files = sorted(ENGINE.rglob("*.py"))
        self.assertGreater(len(self.files), 30)

    def test_the_engine_imports_nothing_of_slicer(self) -> None:
        for path in self.files:
            with self.subTest(path.name):
                self.assertFalse(imported(path) & SLICER_ONLY)

    def test_nothing_is_imported_that_the_project_does_not_declare(self) -> None:
        declared = {need.name for need in read_requirements()}
        allowed = declared | set(sys.stdlib_module_names) | {"FewShotSegLib", ""}
        for path in self.files:
            with self.subTest(path.name):
                self.assertLessEqual(imported(path), allowed)

    def test_no_pickle_and_no_shell(self) -> None:
        for path in self.files:
            for call in called(path):
                name = ast.unparse(call.func)
                keywords = {k.arg: ast.unparse(k.value) for k in call.keywords}
                where = f"{path.name}:{call.lineno}"
                if name == "torch.load":
                    self.assertEqual(keywords.get("weights_only"), "True", where)
                self.assertNotIn(name, ("pickle.load", "pickle.loads", "os.system", "eval"), where)
                self.assertNotEqual(keywords.get("shell"), "True", where)

    def test_some_rooms_need_no_torch(self) -> None:
        modules = ["FewShotSegLib", *(f"FewShotSegLib.{name}" for name in WITHOUT_TORCH)]
        program = (
            "import sys, importlib\n"
            "sys.modules['torch'] = sys.modules['monai'] = None\n"
            f"for name in {modules}: importlib.import_module(name)\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
        )
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_the_map_names_every_room_and_no_other(self) -> None:
        text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        table = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
        named = {name.rstrip("/") for cell in table for name in re.findall(r"`([\w/]+)`", cell)}
        rooms = {path.stem for path in ENGINE.glob("*.py")} - {"__init__", "__main__"}
        rooms |= {path.name for path in ENGINE.iterdir() if (path / "__init__.py").exists()}
        self.assertEqual(named, rooms)

    def test_rooms_import_only_from_rows_above(self) -> None:
        text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.startswith("| `")]
        row = {
            name.rstrip("/"): number
            for number, line in enumerate(lines)
            for name in re.findall(r"`([\w/]+)`", line.split("|")[1])
        }
        for path in self.files:
            inside = path.relative_to(ENGINE).parts
            room = inside[0].removesuffix(".py")
            for name in own_imports(path, depth=len(inside)):
                with self.subTest(room, imports=name):
                    self.assertLessEqual(row.get(name, -1), row.get(room, len(lines)))


if __name__ == "__main__":
    unittest.main()
