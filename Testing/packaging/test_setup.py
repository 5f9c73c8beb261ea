"""``make setup`` says what it is about to fetch, and shows pip's progress to people alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = """#!/bin/sh
case "$*" in
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python;;
  "-m pip "*) echo "RAN $*"; exit ${STATUS:-0};;
esac
"""
"""A Python that installs nothing, and tells what it was asked to."""


@unittest.skipUnless(shutil.which("make") and os.name == "posix", "make is not here")
class SetupTest(unittest.TestCase):
    """With a Python that installs nothing."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        (self.folder / "FewShotSegLib").mkdir()
        for name in (
            *("Makefile", "pyproject.toml", "constraints.txt"),
            "FewShotSegLib/requirements.txt",
        ):
            shutil.copy(ROOT / name, self.folder / name)
        python = self.folder / "fake python"
        python.write_text(PYTHON, encoding="utf-8")
        python.chmod(0o755)
        self.command = ["make", "--no-print-directory", "PYTHON=./fake\\ python", "setup"]

    def lines(self, **environment: str) -> tuple[int, list[str]]:
        """The status of ``make setup``, and its output where that goes to a file."""
        done = subprocess.run(
            self.command,
            cwd=self.folder,
            env={**os.environ, "MAKEFLAGS": "", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        return done.returncode, done.stdout.splitlines()

    def test_a_line_before_every_long_step(self) -> None:
        status, lines = self.lines()
        self.assertEqual(status, 0, lines)
        ran = [number for number, line in enumerate(lines) if line.startswith("RAN ")]
        self.assertEqual(len(ran), 2, lines)
        for number, what in zip(ran, ("torch", "MONAI"), strict=True):
            self.assertRegex(lines[number - 1], rf"^Installing .*{what}.* GB")
            self.assertIn("install --quiet ", lines[number])
        self.assertRegex(lines[0], "^Making a Python environment")
        self.assertEqual(len(lines), 5, lines)
        status, lines = self.lines()  # it is there, so that nothing long comes
        self.assertEqual((status, [line for line in lines if "Installing" in line]), (0, []))

    def test_what_fails_is_tried_again_next_time(self) -> None:
        status, lines = self.lines(STATUS="1")
        self.assertNotEqual(status, 0)
        self.assertEqual(sum(line.startswith("RAN ") for line in lines), 1)
        self.assertFalse((self.folder / ".venv" / "ready").exists())

    def test_a_terminal_sees_pips_own_progress(self) -> None:
        import pty

        ours, theirs = pty.openpty()
        done = subprocess.run(
            self.command,
            cwd=self.folder,
            env={**os.environ, "MAKEFLAGS": ""},
            stdout=theirs,
            stderr=theirs,
            timeout=600,
        )
        os.close(theirs)
        text = os.read(ours, 65536).decode()
        os.close(ours)
        self.assertEqual(done.returncode, 0, text)
        self.assertEqual(text.count("RAN -m pip install"), 2, text)
        self.assertNotIn("--quiet", text)


if __name__ == "__main__":
    unittest.main()
