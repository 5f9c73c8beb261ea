"""Runs the job in the folder that the command line names; see ``process``."""

import os
import sys
from pathlib import Path

from .process import main

if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    # Threads of libraries may be waiting; everything that matters is written and flushed.
    os._exit(status)
