"""The extension: every file is installed, its description is complete, and it configures."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "FewShotSeg"


def listed(path: Path, name: str) -> list[str]:
    """The entries of ``set(NAME ...)`` in a CMake file."""
    text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
    found = re.search(rf"set\({name}\s+(.*?)\)", text, re.DOTALL)
    if found is None:
        raise AssertionError(f"{path} has no list {name}")
    return found.group(1).split()


def there(folder: Path, root: Path, pattern: str) -> set[str]:
    """Files below a folder, relative to another one."""
    paths = (p for p in folder.rglob(pattern) if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(root).as_posix() for p in paths}


class InstallListsTest(unittest.TestCase):
    """What is there is what is installed."""

    def compare(self, found: set[str], names: list[str]) -> None:
        self.assertEqual(sorted(found), sorted(names))
        self.assertGreater(len(found), 0)

    def test_every_python_file_of_the_engine(self) -> None:
        files = ROOT / "FewShotSegLib" / "files.cmake"
        self.compare(
            there(ROOT / "FewShotSegLib", ROOT, "*.py"), listed(files, "ENGINE_PYTHON_SCRIPTS")
        )

    def test_everything_else_of_the_engine(self) -> None:
        files = ROOT / "FewShotSegLib" / "files.cmake"
        found = there(ROOT / "FewShotSegLib", ROOT, "*")
        found -= there(ROOT / "FewShotSegLib", ROOT, "*.py")
        found -= {files.relative_to(ROOT).as_posix()}
        self.compare(found, listed(files, "ENGINE_RESOURCES"))

    def test_every_python_file_of_the_module(self) -> None:
        names = listed(MODULE / "CMakeLists.txt", "MODULE_PYTHON_SCRIPTS")
        self.compare(
            there(MODULE, MODULE, "*.py"),
            [name.replace("${MODULE_NAME}", "FewShotSeg") for name in names],
        )

    def test_every_resource_of_the_module(self) -> None:
        names = listed(MODULE / "CMakeLists.txt", "MODULE_PYTHON_RESOURCES")
        self.compare(there(MODULE / "Resources", MODULE, "*"), names)


class DescriptionTest(unittest.TestCase):
    """What Slicer's catalogue asks for."""

    def test_the_extensions_fields(self) -> None:
        text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
        for name in (
            *("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION"),
            *("ICONURL", "SCREENSHOTURLS", "DEPENDS"),
        ):
            found = re.findall(rf'set\(EXTENSION_{name} "([^"\n]+)"\)', text)
            self.assertEqual(len(found), 1, name)
        for url in re.findall(r"https://raw[^\s\"]+/main/([^\s\"]+)", text):
            self.assertTrue((ROOT / url).is_file(), url)

    def test_the_catalogue_entry(self) -> None:
        raw = (ROOT / "FewShotSeg.json").read_bytes()
        self.assertNotIn(b"\r", raw)
        entry = json.loads(raw)
        known = {
            *("$schema", "category", "scm_url", "scm_revision", "scm_type"),
            *("build_dependencies", "build_subdirectory", "enabled", "tier"),
        }
        self.assertLessEqual(set(entry), known)
        self.assertIn("v1.0.1", entry["$schema"])
        self.assertEqual(entry["category"], "Segmentation")
        self.assertEqual(entry["build_dependencies"], ["PyTorch"])

    def test_the_icon_is_a_png_of_128_pixels(self) -> None:
        raw = (MODULE / "Resources" / "Icons" / "FewShotSeg.png").read_bytes()
        self.assertEqual(raw[:8], b"\x89PNG\r\n\x1a\n")
        size = [int.from_bytes(raw[i : i + 4], "big") for i in (16, 20)]
        self.assertEqual(size, [128, 128])

    def test_pictures_are_small(self) -> None:
        for path in (ROOT / "Documentation").glob("*.png"):
            self.assertLess(path.stat().st_size, 700_000, path.name)

    def test_documents_link_to_files_that_are_there(self) -> None:
        cards = (ROOT / "FewShotSegLib" / "Resources").rglob("*.md")
        for page in (*(ROOT / "Documentation").glob("*.md"), ROOT / "README.md", *cards):
            for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
                if "://" not in link:
                    self.assertTrue((page.parent / link).exists(), f"{page.name}: {link}")


class HouseOfTheModuleTest(unittest.TestCase):
    """Rules of the module's own code."""

    def test_nothing_of_torch_in_the_slicer_process(self) -> None:
        for path in MODULE.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                for name in names:
                    self.assertNotIn(name.split(".")[0], ("torch", "monai"), path.name)

    def test_the_form_sets_no_styles_and_names_its_widgets_once(self) -> None:
        text = (MODULE / "Resources" / "UI" / "FewShotSeg.ui").read_text(encoding="utf-8")
        self.assertNotIn("styleSheet", text)
        root = ElementTree.fromstring(text)
        names = [element.get("name") for element in root.iter("widget")]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(root.find("widget").get("class"), "qMRMLWidget")


class ConfigureTest(unittest.TestCase):
    """CMake without Slicer."""

    def test_it_says_in_one_line_what_to_pass(self) -> None:
        cmake = shutil.which("cmake")
        if cmake is None:
            self.skipTest("CMake is not here")
        with tempfile.TemporaryDirectory() as build:
            result = subprocess.run(
                [cmake, "-S", str(ROOT), "-B", build],
                capture_output=True,
                text=True,
                check=False,
            )
        if result.returncode and "compiler" in result.stderr and "CXX" in result.stderr:
            self.skipTest("there is no C++ compiler, which CMake looks for first")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("Python files, all there", result.stdout)
        said = [line.strip() for line in result.stderr.splitlines() if "Slicer was not" in line]
        self.assertEqual(len(said), 1)
        self.assertIn("-DSlicer_DIR=", said[0])


if __name__ == "__main__":
    unittest.main()
