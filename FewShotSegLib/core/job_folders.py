"""Private folders for jobs, and their removal whatever happens; shared by both sides.

A job folder holds a patient's voxels. It is ours if its name *and* the file ``owner.json`` in it
say so; nothing else is ever removed, whatever anybody passes for a job folder. The file names the
process that waits for the job, with the time at which it began, so that neither a process that got
its number later keeps a folder, nor one that still lives loses it.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import is_the_process, process_start

PREFIX = "fewshotseg-job-"
MARKER = "owner.json"
_PURPOSE = "a job of FewShotSeg"
_MARKER_BYTES = 4096


@dataclass(frozen=True)
class Owner:
    """The process that waits for a job. ``start``: of :func:`.processes.process_start`."""

    pid: int
    start: str

    def is_there(self) -> bool:
        """Whether it still waits."""
        return is_the_process(self.pid, self.start)


DESK = "desk-"
"""In the names of folders that processes take their jobs from; no voxels are in those."""


def make_job_folder(parent: Path, caller: int | None = None, label: str = "") -> Path:
    """A new folder that the user alone can look into.

    Args:
        parent: where it is made. caller: the process that waits for the job; None is this one.
        label: empty, or :data:`DESK`.

    Raises:
        OSError: it can't be made.
    """
    pid = os.getpid() if caller is None else caller
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{label}{pid}-", dir=parent))
    mark_job_folder(folder, pid)
    return folder


def mark_job_folder(folder: Path, caller: int) -> None:
    """Write who waits for the job in a folder.

    Raises:
        OSError: it can't be written.
    """
    marker = {"purpose": _PURPOSE, "pid": caller, "start": process_start(caller)}
    (folder / MARKER).write_text(json.dumps(marker), encoding="utf-8")


def owner_of(folder: Path) -> Owner | None:
    """Who waits for the job in a folder; None where the folder is not one of ours."""
    if not _is_ours_by_name(folder):
        return None
    data = _read_marker(folder / MARKER)
    if not isinstance(data, dict) or data.get("purpose") != _PURPOSE:
        return None
    pid, start = data.get("pid"), data.get("start")
    if type(pid) is not int or not isinstance(start, str):
        return None
    return Owner(pid, start)


def remove_job_folder(folder: Path) -> bool:
    """Remove a folder if it is one of ours; links in it are removed, not what they point to.

    Returns:
        whether it is gone. On Windows a process that is ending may hold it.
    """
    if owner_of(folder) is not None:
        # Another name first: whoever still writes into it by its path writes nothing more.
        moved = folder.with_name(f"{folder.name}-{secrets.token_hex(4)}")
        try:
            os.rename(folder, moved)
        except OSError:  # Windows, while a file in it is open
            moved = folder
        _empty(moved)
        if moved != folder and _is_ours_by_name(folder):  # made once more, by who wrote on
            _remove(folder)
    # What a process left that was killed on its way through the above.
    for moved in folder.parent.glob(f"{glob.escape(folder.name)}-*"):
        if owner_of(moved) is not None:
            _empty(moved)
    return not os.path.lexists(folder)


def remove_abandoned(parent: Path) -> int:
    """Remove the job folders in ``parent`` whose process is no more; how many.

    Of a process that was killed while it made its folder, an empty one is left, or one with an
    unfinished marker: by their name alone these go as well, since nothing is in them.
    """
    count = 0
    for folder in sorted(parent.glob(f"{PREFIX}*")):
        owner = owner_of(folder)
        if owner is not None and not owner.is_there():
            count += remove_job_folder(folder)
        elif owner is None and _is_ours_by_name(folder) and not _pid_in_name(folder).is_there():
            count += _remove_unfinished(folder)
    return count


def _is_ours_by_name(folder: Path) -> bool:
    """A real folder of this user with a job's name."""
    try:
        found = os.lstat(folder)
    except (OSError, ValueError):
        return False
    mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return stat.S_ISDIR(found.st_mode) and mine and folder.name.startswith(PREFIX)


def _read_marker(path: Path) -> Any:
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, encoding="utf-8") as stream:
            return json.loads(stream.read(_MARKER_BYTES))
    except (OSError, ValueError, RecursionError):
        return None


def _pid_in_name(folder: Path) -> Owner:
    pid = folder.name[len(PREFIX) :].removeprefix(DESK).split("-")[0]
    # A name without an owner is another process's: this very process is there.
    return Owner(int(pid), "") if pid.isdecimal() and len(pid) < 20 else Owner(os.getpid(), "")


def _remove_unfinished(folder: Path) -> bool:
    items = _items(folder)
    if any(item.name != MARKER or item.is_symlink() for item in items):
        return False
    try:
        # json.dumps is cut off, or nothing: a whole marker of something else is not ours.
        if items and items[0].stat().st_size and _read_marker(items[0]) is not None:
            return False
    except OSError:
        return False
    _remove(folder / MARKER)
    _remove_empty(folder)
    return not os.path.lexists(folder)


def _empty(folder: Path) -> None:
    """Remove what is in a folder of ours, and itself.

    The marker goes last: what an interrupted removal leaves can still be recognised as ours.
    """
    for item in _items(folder):
        if item.name != MARKER:
            _remove(item)
    if all(item.name == MARKER for item in _items(folder)):
        _remove(folder / MARKER)
        _remove_empty(folder)


def _items(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink()
    except OSError:
        pass


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass
