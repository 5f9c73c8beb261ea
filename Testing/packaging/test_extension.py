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

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "FewShotSeg"


def there(folder: Path, root: Path, pattern: str) -> set[str]:
    """Files below a folder, relative to another one."""
    paths = (p for p in folder.rglob(pattern) if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(root).as_posix() for p in paths}


class InstallListsTest(unittest.TestCase):
    """What CMake installs is what is there."""

    def test_the_lists_are_made_from_the_folders(self) -> None:
        cmake = shutil.which("cmake")
        if cmake is None:
            self.skipTest("CMake is not here")
        module = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
        (resources,) = re.findall(r"set\(MODULE_PYTHON_RESOURCES.*?\)", module, re.DOTALL)
        (scripts,) = re.findall(r"file\(GLOB_RECURSE MODULE.*?\n\n", module, re.DOTALL)
        engine = (ROOT / "FewShotSegLib" / "files.cmake").read_text(encoding="utf-8")
        program = (
            f'set(CMAKE_CURRENT_SOURCE_DIR "{ROOT.as_posix()}")\n{engine}\n'
            f'set(CMAKE_CURRENT_SOURCE_DIR "{MODULE.as_posix()}")\nset(MODULE_NAME FewShotSeg)\n'
            f"{resources}\n{scripts}\n"
            "foreach(name ENGINE_PYTHON_SCRIPTS ENGINE_RESOURCES MODULE_PYTHON_SCRIPTS\n"
            "        MODULE_PYTHON_RESOURCES)\n"
            '  message(STATUS "${name}=${${name}}")\nendforeach()\n'
        )
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "lists.cmake"
            # A script can't watch folders, as a project does.
            script.write_text(program.replace(" CONFIGURE_DEPENDS", ""), encoding="utf-8")
            result = subprocess.run(
                [cmake, "-P", str(script)], capture_output=True, text=True, check=True
            )
        lines = (line.removeprefix("-- ") for line in result.stdout.splitlines())
        lists = {
            name: set(text.split(";")) for name, _, text in (li.partition("=") for li in lines)
        }
        folder = ROOT / "FewShotSegLib"
        scripts = there(folder, ROOT, "*.py")
        self.assertEqual(lists["ENGINE_PYTHON_SCRIPTS"], scripts)
        others = there(folder, ROOT, "*") - scripts - {"FewShotSegLib/files.cmake"}
        self.assertEqual(lists["ENGINE_RESOURCES"], others)
        self.assertEqual(lists["MODULE_PYTHON_SCRIPTS"], there(MODULE, MODULE, "*.py"))
        found = there(MODULE / "Resources", MODULE, "*")
        self.assertEqual(lists["MODULE_PYTHON_RESOURCES"], found)


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


class ModuleFilesTest(unittest.TestCase):
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
        files = len(list((ROOT / "FewShotSegLib").rglob("*.py")))
        self.assertIn(f"FewShotSeg's engine: {files} Python files", result.stdout)
        said = [line.strip() for line in result.stderr.splitlines() if "Slicer was not" in line]
        self.assertEqual(len(said), 1)
        self.assertIn("-DSlicer_DIR=", said[0])


if __name__ == "__main__":
    unittest.main()
