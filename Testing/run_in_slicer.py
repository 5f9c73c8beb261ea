"""Runs the module's tests in Slicer and ends it with their outcome.

    Slicer --testing --no-splash --additional-module-paths FewShotSeg \\
        --python-script Testing/run_in_slicer.py [PATTERN]

On a machine without a screen put ``xvfb-run`` before it.
"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

import slicer

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the tests; the exit status."""
    patterns = [argument for argument in sys.argv[1:] if argument.startswith("test_")]
    sys.path.insert(0, str(HERE))
    pattern = patterns[0] if patterns else "test_module*.py"
    suite = unittest.defaultTestLoader.discover(str(HERE), pattern, str(HERE))
    result = unittest.TextTestRunner(sys.stdout, verbosity=2).run(suite)
    if result.testsRun == 0:
        print(f"No test was found for {pattern}.")
        return 1
    return 0 if result.wasSuccessful() else 1


slicer.util.exit(main())
