"""Private folders for jobs, and their removal whatever happens."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import slicer

PREFIX = "fewshotseg-job-"


def make_job_folder() -> Path:
    """A new folder that the user alone can look into; its name tells which process owns it."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=_parent()))


def remove_job_folder(folder: Path | None) -> bool:
    """Remove a folder; whether it is gone. On Windows a process that is ending may hold it."""
    if folder is None:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def remove_abandoned() -> int:
    """Remove what processes that are no more left behind; how many folders."""
    count = 0
    for folder in _parent().glob(f"{PREFIX}*"):
        owner = folder.name[len(PREFIX) :].split("-")[0]
        if owner.isdigit() and not _alive(int(owner)):
            count += remove_job_folder(folder)
    return count


def _parent() -> Path:
    folder = Path(slicer.app.temporaryPath or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _alive(pid: int) -> bool:
    """Whether a process exists; where that can't be told it is taken for alive."""
    if os.name == "nt":
        import ctypes

        handle = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # limited information
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
