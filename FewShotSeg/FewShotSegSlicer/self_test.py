"""The module's tests from within Slicer: those of the source checkout that it was loaded from."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

PATTERN = "test_module*.py"


def run_suite(case: unittest.TestCase) -> None:
    """Run every test of the module; failures fail ``case``. Without a checkout it skips."""
    folder = Path(__file__).resolve().parents[2] / "Testing" / "module"
    if not folder.is_dir():
        case.skipTest("the tests are in the source checkout, which this module was not loaded from")
    sys.path[:0] = [str(folder), str(folder.with_name("support"))]
    suite = unittest.defaultTestLoader.discover(str(folder), PATTERN, str(folder))
    result = unittest.TextTestRunner(sys.stdout, verbosity=2).run(suite)
    case.assertTrue(result.wasSuccessful(), f"{len(result.errors) + len(result.failures)} failed")
