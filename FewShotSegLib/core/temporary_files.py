"""Half-written files beside what they will become, and the sweeping of those that nobody finishes.

A process that is killed can't tidy up. Whoever writes into the same folder next removes what it
left, and nothing else: the name says whose it is (this program's, which computer's, which
process's), the process must be gone, and where the system has locks on open files, nobody may hold
the file's. So neither a living writer's file goes, nor anything that a person could have made.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .processes import process_exists, process_start

try:
    import fcntl
except ImportError:  # Windows, which removes no file that is open
    fcntl = None  # type: ignore[assignment]

PREFIX = ".fewshotseg-"
_NAME = re.compile(
    r"\.fewshotseg-([0-9a-f]{8})-([0-9]{1,10})-([0-9a-f]{8})-[0-9a-f]{8}-.+", re.DOTALL
)
"""Computer, process, when that began, chance, and the final name."""
_TAIL_BYTES = 150
"""Of the final name; a name has at most 255 bytes."""
UNKNOWN = "0" * 8
"""Where the system doesn't tell when a process began."""
FOREIGN_SECONDS = 24 * 3600.0
"""Whether a process of another computer (or container) lives can't be asked: its file must not have
changed for so long, by the clock of the file system."""


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """The path of a new file beside ``path``, removed at the end where it is still there.

    Its name ends as that of ``path`` does. What killed processes left in the folder goes first.

    Raises:
        OSError: the file can't be made.
    """
    sweep(path.parent)
    temporary = path.with_name(_new_name(_tail(path.name)))
    held = None
    try:
        if fcntl is not None:
            held = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            _lock(held)
        yield temporary
    finally:
        if held is not None:
            os.close(held)
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass


def sweep(folder: Path) -> list[str]:
    """Remove what killed processes of ours left half written in a folder; returns the names."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(PREFIX)]
    except OSError:
        return []
    return [name for name in names if _is_left(folder, name) and _remove(folder / name)]


def _is_left(folder: Path, name: str) -> bool:
    """Whether it is a file of ours and its process is gone, as far as names and numbers tell."""
    match = _NAME.fullmatch(name)
    if match is None:
        return False
    computer, pid, start = match[1], int(match[2]), match[3]
    try:
        status = os.lstat(folder / name)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            return False
        if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
            return False
        if computer != _computer():
            return _now(folder) - status.st_mtime > FOREIGN_SECONDS
    except OSError:
        return False
    if not process_exists(pid):
        return True
    now = _start(pid)  # another process may have got the number since
    return UNKNOWN not in (start, now) and start != now


def _remove(path: Path) -> bool:
    """Remove a file unless a process holds its lock (or, on Windows, has it open)."""
    held = None
    try:
        if fcntl is not None:
            held = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            if not _lock(held):
                return False
            if not os.path.samestat(os.fstat(held), os.lstat(path)):
                return False  # it was renamed meanwhile
        os.unlink(path)
        return True
    except OSError:
        return False
    finally:
        if held is not None:
            os.close(held)


def _lock(file: int) -> bool:
    """Take the lock of an open file; it goes when the process does, however that ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another's, or the file system has none
        return False
    return True


def _now(folder: Path) -> float:
    """The file system's time: clocks of computers that share it may differ."""
    probe = folder / _new_name("clock")
    try:
        with open(probe, "xb"):
            pass
        return os.lstat(probe).st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _new_name(tail: str) -> str:
    pid = os.getpid()
    return f"{PREFIX}{_computer()}-{pid}-{_own_start(pid)}-{secrets.token_hex(4)}-{tail}"


@cache
def _own_start(pid: int) -> str:
    return _start(pid)


def _start(pid: int) -> str:
    """8 hexadecimal digits for when a process began."""
    start = process_start(pid)
    return hashlib.sha256(start.encode()).hexdigest()[:8] if start else UNKNOWN


@cache
def _computer() -> str:
    """8 hexadecimal digits for this computer; containers, whose processes can't see each other,
    are distinguished."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return hashlib.sha256(f"{platform.node()}|{space}".encode()).hexdigest()[:8]


def _tail(name: str) -> str:
    """The end of a name, within the bytes that are left for it."""
    while len(os.fsencode(name)) > _TAIL_BYTES:
        name = name[1:]
    return name
