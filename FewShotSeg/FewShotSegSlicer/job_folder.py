"""Private folders for jobs, and their removal whatever happens."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import slicer

from FewShotSegLib.job_protocol import process_exists

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
        if owner.isdigit() and not process_exists(int(owner)):
            count += remove_job_folder(folder)
    return count


def _parent() -> Path:
    folder = Path(slicer.app.temporaryPath or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    return folder
