"""Rules of the layout beside those of import-linter in pyproject.toml: what runs without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
import unittest
from pathlib import Path

from FewShotSegLib.core.requirements import read_requirements

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "FewShotSegLib"
MODULE = ROOT / "FewShotSeg"
SLICER_ONLY = {"slicer", "qt", "ctk", "vtk", "PythonQt"}
WITHOUT = {
    "core": ("torch", "monai", "SimpleITK", "filelock", "psutil"),
    "io": ("torch", "monai", "psutil"),
    "cli/__init__.py": ("torch", "monai"),
    "worker/process.py": ("torch", "monai"),
    "worker/leash.py": ("torch", "monai"),
    "worker/staying.py": ("torch", "monai"),
}
"""Packages and files that are imported where these are missing: by Slicer before they are
installed, and by whatever must start fast."""


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


def called(path: Path) -> list[ast.Call]:
    return [
        n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)
    ]


class LayoutTest(unittest.TestCase):
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
        # For bundles of MONAI's in YAML, DICOM segmentations, tables and clusters: refused in words
        # where they are missing.
        optional = {"yaml", "highdicom", "pandas", "distributed"}
        allowed = declared | optional | set(sys.stdlib_module_names) | {"FewShotSegLib", ""}
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

    def test_what_is_imported_without_torch(self) -> None:
        for package, missing in WITHOUT.items():
            there = ENGINE / package
            files = sorted(there.rglob("*.py")) if there.is_dir() else [there]
            self.assertTrue(files, package)
            names = [".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files]
            program = (
                "import sys, importlib\n"
                f"sys.modules.update(dict.fromkeys({missing}))\n"
                f"for name in {names}: importlib.import_module(name.removesuffix('.__init__'))\n"
            )
            result = subprocess.run(
                [sys.executable, "-c", program],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            with self.subTest(package):
                self.assertEqual(result.returncode, 0, result.stderr)

    def test_every_package_says_what_it_is_for(self) -> None:
        for path in (*ENGINE.rglob("__init__.py"), *MODULE.rglob("__init__.py")):
            with self.subTest(path.relative_to(ROOT)):
                text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
                self.assertGreater(len(text.split()), 3)


if __name__ == "__main__":
    unittest.main()
