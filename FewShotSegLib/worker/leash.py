"""What ties a background process to who waits for it: it stops when it should, and never stays."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from pathlib import Path

from ..core.events import make_event
from ..core.job_folders import owner_of, remove_job_folder
from ..core.job_protocol import CANCEL, HEARTBEAT_SECONDS
from ..core.memory import available_memory, held_memory, total_memory
from ..core.processes import process_exists
from .event_writer import EventWriter

ORPHANED = 3
"""Exit status of a process whose caller is gone."""
FAILED = 2
"""Of one that failed or was cancelled, and said why."""
LOOK_SECONDS = 0.2
"""How often it looks whether it should stop, and whether anybody still waits."""
PATIENCE_SECONDS = 0.3
"""After a command to stop, the engine gets this long to stop by itself, at a place of its own."""
LAST_SECONDS = 3.5
"""After a command to stop, it is over by then, whatever the engine or a full pipe waits for. (The
module kills it after 5 s.)"""
STOPPED = "Stopped."


class Leash:
    """Notices that it should stop, and that the caller is gone; and beats.

    Args:
        folder: of the job. desk: of a process that stays, which goes too when it leaves.
    """

    def __init__(self, folder: Path, desk: Path | None = None) -> None:
        self._folder, self._desk = folder, desk
        self._stopping = threading.Event()
        self._tight, self._lock = True, threading.Lock()
        self._removed = self._released = False
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

    def release(self) -> None:
        """The job is done, and the process goes on: its folder is its caller's alone now."""
        self._released = True

    def leave(self) -> None:
        """Nobody waits any more: leave nothing behind."""
        self.remove_folder()
        os._exit(ORPHANED)

    def remove_folder(self) -> None:
        """Nobody will collect the results; this is no sign that the caller is gone."""
        self._removed = True
        if self._desk is not None:
            remove_job_folder(self._desk)
        remove_job_folder(self._folder)

    def _insist(self) -> None:
        time.sleep(PATIENCE_SECONDS)
        with self._lock:
            if self._tight:
                _thread.interrupt_main()
        time.sleep(max(0.0, self._late - time.monotonic()))
        if self._tight:  # the main thread waits, for a full pipe of the log or in a long pass
            if self._events is not None:
                self._events(make_event("cancelled", message=STOPPED, kind="Cancelled"))
                self._events.drained(LOOK_SECONDS)
            self.remove_folder()
            os._exit(FAILED)

    def _look(self) -> None:
        beat = 0.0
        while not self._released:
            if not self._caller_waits():
                if self._removed or self._released:
                    return
                self.leave()
            if os.path.lexists(self._folder / CANCEL):
                self.stop()
            if time.monotonic() - beat >= HEARTBEAT_SECONDS:
                beat = time.monotonic()
                if self._events is not None and not self._released:
                    self._events(make_event("heartbeat", **_memory()))
            time.sleep(LOOK_SECONDS)

    def _caller_waits(self) -> bool:
        # The parent may be a launcher: killed, it can't tell anybody.
        orphaned = os.name == "posix" and os.getppid() != self._parent
        if orphaned or not process_exists(self._caller) or not os.path.isdir(self._folder):
            return False
        return self._owner is None or self._owner.is_there()


def _memory() -> dict[str, int]:
    """What this process holds, and of how much, so that the caller can tell why it was killed.

    The caller may be unable to ask its system: psutil is the engine's. Where the system refuses to
    tell there is nothing; the thread that asks must go on watching.
    """
    try:
        import psutil
    except ImportError:
        return {}
    try:
        return {
            "memory_bytes": held_memory(),
            "available_bytes": available_memory(),
            "total_bytes": total_memory(),
        }
    except (psutil.Error, OSError):
        return {}
