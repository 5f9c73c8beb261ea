"""Runs the job in the folder that the command line names, see ``process``; or one after another,
see ``staying``."""

import os
import sys
from pathlib import Path

from ..core.job_protocol import IDLE_SECONDS, STAY

if __name__ == "__main__":
    if sys.argv[1] == STAY:
        from .staying import stay

        status = stay(Path(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else IDLE_SECONDS)
    else:
        from .process import main

        status = main(Path(sys.argv[1]))
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
    # Threads of libraries may be waiting; everything that matters is written and flushed.
    os._exit(status)
