"""Runs the module's tests in Slicer and ends it with their outcome.

    Slicer --testing --no-splash --additional-module-paths FewShotSeg \\
        --python-script Testing/run_in_slicer.py [NAME ...]

NAME is a file of tests without its ending: ``test_module_panel``; ``*`` may stand in it. (Slicer
takes an argument that ends in .py for the script to run, and ends without a word.) On a machine
without a screen put ``xvfb-run`` before it.
"""

from __future__ import annotations

import sys
import unittest
from pathlib import Path

import slicer

HERE = Path(__file__).resolve().parent / "module"


def main() -> int:
    """Run the tests; the exit status."""
    names = [argument for argument in sys.argv[1:] if argument.startswith("test_")]
    sys.path[:0] = [str(HERE), str(HERE.with_name("support"))]
    suite = unittest.TestSuite(
        unittest.TestLoader().discover(str(HERE), f"{name}.py", str(HERE))
        for name in names or ["test_module*"]
    )
    result = unittest.TextTestRunner(sys.stdout, verbosity=2).run(suite)
    if result.testsRun == 0:
        print(f"No test was found for {', '.join(names)}.")
        return 1
    return 0 if result.wasSuccessful() else 1


slicer.util.exit(main())
