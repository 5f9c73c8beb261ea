"""The wheel and the sdist: what is in them, and that it works away from the checkout.

``make wheel-check`` does the same with an environment of its own, and runs the demo as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
import zipfile
from email.parser import Parser
from pathlib import Path

from distributions import ROOT, build_sdist, build_wheel, copy_source, files_of

from FewShotSegLib.core.requirements import read_requirements

ENGINE = ROOT / "FewShotSegLib"


class DistributionTest(unittest.TestCase):
    """Built once: the sdist from the checkout, the wheel from the sdist."""

    @classmethod
    def setUpClass(cls) -> None:
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.folder = Path(holder.name)
        source = copy_source(cls.folder / "source")
        # A package that nobody listed anywhere.
        new = source / "FewShotSegLib" / "models" / "backbones" / "brand_new"
        new.mkdir()
        (new / "__init__.py").write_text("X = 1\n")
        cls.wheel = build_wheel(build_sdist(source, cls.folder / "sdist"), cls.folder / "wheel")
        cls.files = files_of(cls.wheel)

    def test_every_file_of_the_engine_is_in_it(self) -> None:
        expected = {
            path.relative_to(ROOT).as_posix(): path.read_bytes()
            for path in ENGINE.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts and path.name != "files.cmake"
        }
        self.assertGreater(len(expected), 100)
        for name, content in expected.items():
            with self.subTest(name):
                self.assertEqual(self.files.get(name), content)

    def test_a_new_package_needs_no_list(self) -> None:
        self.assertIn("FewShotSegLib/models/backbones/brand_new/__init__.py", self.files)

    def test_nothing_else_is_installed(self) -> None:
        tops = {name.split("/")[0] for name in self.files}
        self.assertEqual({top for top in tops if not top.endswith(".dist-info")}, {"FewShotSegLib"})
        self.assertFalse([name for name in self.files if "__pycache__" in name])

    def test_what_it_requires_is_the_one_list(self) -> None:
        (name,) = (name for name in self.files if name.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(self.files[name].decode())
        required = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
        self.assertEqual(sorted(required), sorted(str(need) for need in read_requirements()))

    def test_the_models_are_found_from_it(self) -> None:
        with tempfile.TemporaryDirectory() as elsewhere:
            site = Path(elsewhere) / "site"
            with zipfile.ZipFile(self.wheel) as archive:
                archive.extractall(site)  # what pip does with a wheel of Python alone
            program = (
                "import sys, FewShotSegLib as f; print(f.__file__); "
                "from FewShotSegLib.cli import main; sys.exit(main(['models']))"
            )
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=elsewhere,
                env={
                    **os.environ,
                    "PYTHONPATH": str(site),
                    "FEWSHOTSEG_HOME": str(Path(elsewhere) / "home"),
                },
                capture_output=True,
                text=True,
                check=False,
            )
        self.assertEqual(done.returncode, 0, done.stderr)
        where, *lines = done.stdout.splitlines()
        self.assertTrue(where.startswith(str(site)), where)
        self.assertTrue([line for line in lines if "embedded" in line], lines)


if __name__ == "__main__":
    unittest.main()
