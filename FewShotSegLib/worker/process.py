"""``python -u -m FewShotSegLib.worker FOLDER``: one job in a process of its own.

See ``job_protocol`` for what it says and hears. It must start fast and survive libraries that
print: events go to a private copy of the standard output, and everything else to standard error.
Exit status: 0 finished; 2 failed or cancelled, and an event said why; 3 the caller is gone.

A folder with a patient's voxels is left only where a caller comes for results: after ``finished``
was written. On every other way out it is removed, if ``job_folders`` knows it for ours.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from .. import __version__
from ..compute.allocation import keep_freed_memory
from ..core.errors import Cancelled, FewShotSegError, OutOfMemory, is_out_of_memory
from ..core.events import make_event
from ..core.job_folders import owner_of, remove_abandoned, remove_job_folder
from ..core.job_protocol import CANCEL, HEARTBEAT_SECONDS, MISSING, kind_of, read_job
from ..core.memory import available_memory, held_memory, total_memory
from ..core.processes import process_exists
from .event_writer import EventWriter

FAILED, ORPHANED = 2, 3
LOOK_SECONDS = 0.2
"""How often it looks whether it should stop, and whether anybody still waits."""
PATIENCE_SECONDS = 0.3
"""After a command to stop, the engine gets this long to stop by itself, at a place of its own."""
LAST_SECONDS = 3.5
"""After a command to stop, it is over by then, whatever the engine or a full pipe waits for. (The
module kills it after 5 s.)"""


def main(folder: Path) -> int:
    """Run the job in a folder; returns the exit status."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see cli
    os.environ.pop("ITK_AUTOLOAD_PATH", None)
    keep_freed_memory()
    folder = folder.absolute()
    leash = _Leash(folder)
    events = EventWriter(_private_stdout(), leash.leave)
    try:
        end = _work(folder, events, leash)
    except BaseException as error:  # a stop that came just as an end was found
        end = _end_of(error)
    while leash.is_tight():
        try:
            leash.loosen()
        except KeyboardInterrupt:
            continue
    events(end)
    while not events.drained(LOOK_SECONDS):  # the reader may be busy, or stand still for ever
        if leash.is_late():
            break
    else:
        if end["event"] == "finished":
            return 0
    leash.remove_folder()
    return FAILED


def _work(folder: Path, events: EventWriter, leash: _Leash) -> dict[str, Any]:
    """Do the job; the event that ends it, however that is."""
    start = time.monotonic()
    try:
        if hasattr(os, "setsid") and os.getpid() != os.getpgrp():
            os.setsid()  # its own process group, so that all of it can be killed together
        # Without a handler of Python's, as in jobs of a shell's background, nothing could interrupt
        # the main thread.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, lambda number, frame: leash.stop())
        job, caller = read_job(folder)
        kind = kind_of(job)
        events(make_event("started", command=kind, version=__version__, pid=os.getpid()))
        total_memory()  # where psutil is missing, that is said here: the watchdog thread can't
        leash.start(caller, events)
        if owner_of(folder) is not None:
            remove_abandoned(folder.parent)
        from .jobs import run_job

        path = run_job(job, folder, events, leash.stopping)
        events(make_event("result", kind="job", path=str(path)))
        return make_event("finished", seconds=round(time.monotonic() - start, 2))
    except BaseException as error:
        return _end_of(error)


def _end_of(error: BaseException) -> dict[str, Any]:
    """The event that tells how a job ended that did not finish."""
    if isinstance(error, (KeyboardInterrupt, Cancelled)):
        return make_event("cancelled", message="Stopped.", kind="Cancelled")
    if isinstance(error, FewShotSegError):
        return _failed(error, type(error).__name__)
    if isinstance(error, ModuleNotFoundError):
        return _failed(error, MISSING, package=error.name)
    if is_out_of_memory(error):
        return _failed(OutOfMemory("The memory is not enough."), OutOfMemory.__name__)
    try:
        import traceback

        traceback.print_exception(error)
    except (OSError, ValueError):  # nobody reads the log any more
        pass
    name = type(error).__name__
    text = f"Something unexpected happened ({name}: {error}). The log says more."
    return make_event("failed", message=text, kind=name)


def _failed(error: BaseException, kind: str, **fields: Any) -> dict[str, Any]:
    return make_event("failed", message=str(error), kind=kind, **fields)


class _Leash:
    """Notices that it should stop, and that the caller is gone; and beats."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stopping = threading.Event()
        self._tight, self._lock = True, threading.Lock()
        self._removed = False
        self._late = float("inf")
        self._parent, self._caller = os.getppid(), 0
        self._owner = owner_of(folder)
        self._events: EventWriter | None = None

    def start(self, caller: int, events: EventWriter) -> None:
        """Begin to look and to beat."""
        self._caller, self._events = caller, events
        threading.Thread(target=self._look, daemon=True).start()

    def stopping(self) -> bool:
        """Whether the work should stop."""
        return self._stopping.is_set()

    def is_late(self) -> bool:
        """Whether it should have been over by now."""
        return time.monotonic() > self._late

    def stop(self) -> None:
        """Stop the work soon, wherever it is."""
        if not self._stopping.is_set():
            self._late = time.monotonic() + LAST_SECONDS
            self._stopping.set()
            threading.Thread(target=self._insist, daemon=True).start()

    def is_tight(self) -> bool:
        """Whether a command to stop interrupts the main thread."""
        return self._tight

    def loosen(self) -> None:
        """The work has come to its end: nothing interrupts the main thread any more."""
        with self._lock:
            self._tight = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave(self) -> None:
        """Nobody waits any more: leave nothing behind."""
        remove_job_folder(self._folder)
        os._exit(ORPHANED)

    def remove_folder(self) -> None:
        """Nobody will collect the results; this is no sign that the caller is gone."""
        self._removed = True
        remove_job_folder(self._folder)

    def _insist(self) -> None:
        time.sleep(PATIENCE_SECONDS)
        with self._lock:
            if self._tight:
                _thread.interrupt_main()
        time.sleep(max(0.0, self._late - time.monotonic()))
        if self._tight:  # the main thread waits, for a full pipe of the log or in a long pass
            if self._events is not None:
                self._events(_end_of(Cancelled()))
                self._events.drained(LOOK_SECONDS)
            self.remove_folder()
            os._exit(FAILED)

    def _look(self) -> None:
        beat = 0.0
        while True:
            if not self._caller_waits():
                if self._removed:
                    return
                self.leave()
            if os.path.lexists(self._folder / CANCEL):
                self.stop()
            if time.monotonic() - beat >= HEARTBEAT_SECONDS:
                beat = time.monotonic()
                if self._events is not None:
                    self._events(make_event("heartbeat", **_memory()))
            time.sleep(LOOK_SECONDS)

    def _caller_waits(self) -> bool:
        # The parent may be a launcher: killed, it can't tell anybody.
        orphaned = os.name == "posix" and os.getppid() != self._parent
        if orphaned or not process_exists(self._caller) or not os.path.isdir(self._folder):
            return False
        return self._owner is None or self._owner.is_there()


def _private_stdout() -> IO[bytes]:
    """The standard output, for events alone: whatever else is printed goes to standard error."""
    private = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(private, "wb", buffering=0)


def _memory() -> dict[str, int]:
    """What this process holds, and of how much, so that the caller can tell why it was killed.

    The caller may be unable to ask its system: psutil is the engine's. Where the system refuses to
    tell there is nothing; the thread that asks must go on watching.
    """
    import psutil

    try:
        return {
            "memory_bytes": held_memory(),
            "available_bytes": available_memory(),
            "total_bytes": total_memory(),
        }
    except (psutil.Error, OSError):
        return {}
