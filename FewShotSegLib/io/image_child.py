"""The other process of :mod:`image_process`: reads one image and writes it to standard output."""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path

from ..core.errors import InputError
from .image_process import send

CRASHED = 3
"""Its exit status where it failed without words for a person."""


def main(kind: str, limit: str, name: str) -> int:
    """Read ``name`` within ``limit`` seconds."""
    try:
        import resource

        # What a crash would leave on the disk is the patient's image.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):  # Windows
        pass
    # ITK's libraries print to standard output; the answer goes where they don't.
    answer = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    # A thread of C, which no loop in ITK can hold up.
    faulthandler.dump_traceback_later(float(limit), exit=True)
    try:
        what, _, uid = kind.partition(" ")
        if what == "dicom":
            from .dicom.series import read_series

            image, modality, note = read_series(Path(name), uid or None)
            said = {"modality": modality, "note": note}
        else:
            from .image_files import read_file_here

            image, said = read_file_here(Path(name)), {}
    except InputError as error:
        send(answer, None, error=str(error))
        return 0
    except MemoryError:
        send(answer, None, error=f"{name} does not fit in this computer's memory.")
        return 0
    except Exception:  # of ITK's own kinds; the status of Python's is that of being late
        return CRASHED
    send(answer, image, **said)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
