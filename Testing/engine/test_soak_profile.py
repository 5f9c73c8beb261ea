"""The frame of the property tests: how many examples run, and what is counted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from pathlib import Path

import soak_profile

TESTING = Path(__file__).resolve().parents[1]
TESTS = """
    import unittest

    from hypothesis import assume, given, strategies
    from soak_profile import examples, record, soak_only

    class SomeTest(unittest.TestCase):
        @examples(7)
        @given(strategies.integers())
        def test_right(self, number):
            self.assertEqual(number, int(str(number)))

        @soak_only
        def test_long(self):
            record("runs killed", 5)
"""
WRONG = """
        @examples(7)
        @given(strategies.integers(0, 9))
        def test_wrong(self, number):
            self.assertLess(number, 0)

        @examples(7)
        @given(strategies.integers(0, 9))
        def test_traceback(self, number):
            raise KeyError(number)
"""


class SoakFrameTest(unittest.TestCase):
    """``pytest`` in another process, over tests written here."""

    def run_pytest(self, tests: str, soak: bool, *arguments: str) -> tuple[int, str]:
        """Its status and what it printed."""
        with tempfile.TemporaryDirectory() as folder:
            for path in (TESTING / "conftest.py", TESTING / "support" / "soak_profile.py"):
                (Path(folder) / path.name).write_bytes(path.read_bytes())
            (Path(folder) / "pytest.ini").write_text("[pytest]\nmarkers =\n  soak: long\n")
            (Path(folder) / "test_some.py").write_text(textwrap.dedent(tests))
            environment = {**os.environ, "FEWSHOTSEG_SOAK": "1" if soak else "0"}
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
        return done.returncode, done.stdout

    def test_a_sample_ordinarily(self) -> None:
        status, text = self.run_pytest(TESTS, False)
        self.assertEqual(status, 0, text)
        self.assertIn("soak: 7 examples of 1 tests: 0 tracebacks, 0 hangs, 0 wrong results", text)
        self.assertIn("1 passed, 1 skipped", text)

    def test_two_thousand_in_the_soak(self) -> None:
        status, text = self.run_pytest(TESTS, True, "-m", "soak")
        self.assertEqual(status, 0, text)
        self.assertRegex(
            text,
            r"soak: 2,\d{3} examples of 2 tests, 5 runs killed: 0 tracebacks, 0 hangs, 0 wrong",
        )

    def test_what_fails_is_counted_by_its_kind(self) -> None:
        status, text = self.run_pytest(TESTS + WRONG, False)
        self.assertEqual(status, 1, text)
        self.assertRegex(text, r"of 3 tests: 1 tracebacks, 0 hangs, 1 wrong results")

    def test_an_example_that_hangs_is_ended_and_counted(self) -> None:
        before = soak_profile.COUNTS.copy()
        self.addCleanup(soak_profile.COUNTS.update, before)
        self.addCleanup(soak_profile.COUNTS.clear)

        def hang() -> None:
            try:
                while True:
                    time.sleep(0.01)
            except Exception:  # what would swallow an ordinary error
                return

        with self.assertRaises(soak_profile.Hang):
            soak_profile.watch(hang, limit=0.05)()
        self.assertEqual(soak_profile.COUNTS["hangs"], before["hangs"] + 1)

    def test_make_soak_runs_what_is_marked(self) -> None:
        text = (TESTING.parent / "Makefile").read_text(encoding="utf-8")
        self.assertTrue(re.search(r"^\tFEWSHOTSEG_SOAK=1 .*pytest .*-m soak", text, re.MULTILINE))


if __name__ == "__main__":
    unittest.main()
