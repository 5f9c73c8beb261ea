"""Private folders for jobs in Slicer's temporary folder, and their removal whatever happens."""

from __future__ import annotations

import tempfile
from pathlib import Path

import slicer

from FewShotSegLib.core import job_folders
from FewShotSegLib.core.job_folders import PREFIX

__all__ = ["PREFIX", "make_desk", "make_job_folder", "remove_abandoned", "remove_job_folder"]


def make_job_folder() -> Path:
    """A new folder that the user alone can look into, marked as this process's."""
    return job_folders.make_job_folder(_parent())


def make_desk() -> Path:
    """A new folder that a process which stays takes its jobs from."""
    return job_folders.make_job_folder(_parent(), label=job_folders.DESK)


def remove_job_folder(folder: Path | None) -> bool:
    """Remove a folder; whether it is gone. On Windows a process that is ending may hold it."""
    return folder is None or job_folders.remove_job_folder(folder)


def remove_abandoned() -> int:
    """Remove what processes that are no more left behind; how many folders."""
    return job_folders.remove_abandoned(_parent())


def _parent() -> Path:
    folder = Path(slicer.app.temporaryPath or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    return folder
