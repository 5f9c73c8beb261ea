"""Starts the engine's worker in the background process: ``start_worker.py ENGINE_PARENT FOLDER``.

A script with a path, because Slicer's Python launcher sets ``PYTHONPATH`` to its own liking. It
runs outside Slicer, and imports nothing of it.
"""

from __future__ import annotations

import os
import runpy
import sys

if __name__ == "__main__":
    # The launcher sets it again, whatever its caller cleared: Slicer's plugins for ITK would be
    # loaded into a process that lacks the rest of Slicer, and crash it.
    os.environ.pop("ITK_AUTOLOAD_PATH", None)
    sys.path[0] = sys.argv.pop(1)
    runpy.run_module("FewShotSegLib.worker", run_name="__main__", alter_sys=True)
