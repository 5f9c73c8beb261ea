"""Whether a process is still there, distinguished from another that got its number later.

By the standard library, although the engine has psutil for the same: both processes write and
compare who owns a job's folder or a half-written file, and Slicer's must do so before «Install...»
has brought psutil. One way of counting on both sides is what makes the two times comparable.
"""

from __future__ import annotations

import os
import subprocess
import sys


def process_exists(pid: int) -> bool:
    """Whether a process is there; where that can't be determined it is taken to be."""
    if pid <= 0:  # for kill(2) these are groups
        return False
    if os.name == "nt":
        return _windows(pid)[0]
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return not _is_zombie(pid)


def process_start(pid: int) -> str:
    """When a process began, as this system counts: only good to be compared.

    Returns:
        the same text for as long as the process lives, another for the next that gets its number;
        empty where the system doesn't tell.
    """
    if os.name == "nt":
        return _windows(pid)[1]
    if sys.platform == "linux":
        fields = _linux_stat(pid)
        return fields[19] if len(fields) > 19 else ""  # start time in ticks since the system's
    try:
        answer = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()


def kill_tree(pid: int) -> None:
    """Kill a process and whatever it started, and whatever that started, immediately.

    Through psutil, which every engine that runs has imported.

    Raises:
        ImportError: psutil is not installed.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:  # it has ended, or is not ours to kill
        return
    for member in family:  # the parent first: it starts no more
        try:
            member.kill()
        except psutil.Error:  # it has ended meanwhile
            continue


def is_the_process(pid: int, start: str) -> bool:
    """Whether the process that began then is there; ``start`` is of :func:`process_start`.

    Where one of the two times is not known, the number alone counts.
    """
    if not process_exists(pid):
        return False
    now = process_start(pid)
    return not start or not now or start == now


def _linux_stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` after the program's name, which may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _is_zombie(pid: int) -> bool:
    """Whether it has ended, and its parent was not informed yet."""
    fields = _linux_stat(pid) if sys.platform == "linux" else []
    return bool(fields) and fields[0] in ("Z", "X")


def _windows(pid: int) -> tuple[bool, str]:
    """Whether a process is there, and when it began."""
    import ctypes

    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    handle = kernel.OpenProcess(0x1000, False, pid)  # limited information
    if not handle:
        return False, ""
    try:
        code = ctypes.c_ulong()
        known = kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        times = [ctypes.c_ulonglong() for _ in range(4)]
        answered = kernel.GetProcessTimes(handle, *(ctypes.byref(t) for t in times))
    finally:
        kernel.CloseHandle(handle)
    alive = not known or code.value == 259  # still active
    return alive, str(times[0].value) if answered else ""
