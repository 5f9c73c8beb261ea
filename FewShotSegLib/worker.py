"""``python -u -m FewShotSegLib.worker FOLDER``: one job in a process of its own.

See ``job_protocol`` for what it says and hears. It must start fast and survive libraries that
print: events go to a private copy of the standard output, and everything else to standard error.
Exit status: 0 finished; 2 failed or cancelled, and an event said why; 3 the caller is gone.
"""

from __future__ import annotations

import _thread
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from . import __version__
from .allocation import keep_freed_memory
from .errors import Cancelled, FewShotSegError, OutOfMemory, is_out_of_memory
from .events import EventSink, json_lines, make_event
from .job_protocol import (
    CANCEL,
    HEARTBEAT_SECONDS,
    MISSING,
    kind_of,
    process_exists,
    read_job,
)

FAILED, ORPHANED = 2, 3
ENDS = ("finished", "cancelled", "failed")
"""The events after which nothing follows."""
LOOK_SECONDS = 0.2
"""How often it looks whether it should stop, and whether anybody still waits."""
PATIENCE_SECONDS = 0.3
"""After a command to stop, the engine gets this long to stop by itself, at a place of its own."""


def main(folder: Path) -> int:
    """Run the job in a folder; returns the exit status."""
    start = time.monotonic()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see cli
    keep_freed_memory()
    events = _Events(_private_stdout())
    leash = _Leash(folder, events)
    os.environ.pop("ITK_AUTOLOAD_PATH", None)
    try:
        if hasattr(os, "setsid") and os.getpid() != os.getpgrp():
            os.setsid()  # its own process group, so that all of it can be killed at once
        signal.signal(signal.SIGTERM, lambda number, frame: leash.stop())
        job, caller = read_job(folder)
        kind = kind_of(job)
        events(make_event("started", command=kind, version=__version__, pid=os.getpid()))
        leash.start(caller)
        from .job_runner import run_job

        path = run_job(job, folder, events, leash.stopping)
        events(make_event("result", kind="job", path=str(path)))
        events(make_event("finished", seconds=round(time.monotonic() - start, 2)))
        return 0
    except (KeyboardInterrupt, Cancelled):
        events(make_event("cancelled", message="Stopped.", kind="Cancelled"))
    except FewShotSegError as error:
        _fail(events, error, type(error).__name__)
    except ModuleNotFoundError as error:
        _fail(events, error, MISSING, package=error.name)
    except BaseException as error:
        if not is_out_of_memory(error):
            import traceback

            traceback.print_exc()
            _fail(events, error, type(error).__name__)
        else:
            _fail(events, OutOfMemory("The memory is not enough."), OutOfMemory.__name__)
    return FAILED


def _fail(events: EventSink, error: BaseException, kind: str, **fields: Any) -> None:
    events(make_event("failed", message=str(error), kind=kind, **fields))


class _Events:
    """Event lines from several threads, never mixed, and none after the one that ends the job.

    A reader that is gone ends the process.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._write = json_lines(stream)
        self._lock = threading.Lock()
        self._ended = False

    def __call__(self, event: dict[str, Any]) -> None:
        with self._lock:
            if self._ended:  # a last heartbeat, say
                return
            self._ended = event["event"] in ENDS
            try:
                self._write(event)
            except (BrokenPipeError, ValueError):
                os._exit(ORPHANED)  # the leash removes the folder; here it may be gone already


class _Leash:
    """Notices that it should stop, and that the caller is gone; and beats."""

    def __init__(self, folder: Path, events: EventSink) -> None:
        self._folder, self._events = folder, events
        self._stopping = threading.Event()
        self._parent, self._caller = os.getppid(), 0

    def start(self, caller: int) -> None:
        """Begin to look and to beat."""
        self._caller = caller
        threading.Thread(target=self._look, daemon=True).start()

    def stopping(self) -> bool:
        """Whether the work should stop."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Stop the work soon, wherever it is."""
        if not self._stopping.is_set():
            self._stopping.set()
            threading.Thread(target=self._insist, daemon=True).start()

    def _insist(self) -> None:
        time.sleep(PATIENCE_SECONDS)
        _thread.interrupt_main()

    def _look(self) -> None:
        beat = 0.0
        while True:
            # The parent may be a launcher: killed, it can't tell anybody.
            orphaned = os.name == "posix" and os.getppid() != self._parent
            if orphaned or not process_exists(self._caller) or not self._folder.exists():
                self._leave()
            if (self._folder / CANCEL).exists():
                self.stop()
            if time.monotonic() - beat >= HEARTBEAT_SECONDS:
                beat = time.monotonic()
                self._events(make_event("heartbeat", memory_bytes=_memory()))
            time.sleep(LOOK_SECONDS)

    def _leave(self) -> None:
        """Nobody waits any more: leave nothing behind."""
        for _ in range(3):  # the other thread may be writing
            shutil.rmtree(self._folder, ignore_errors=True)
            if not self._folder.exists():
                break
        os._exit(ORPHANED)


def _private_stdout() -> IO[str]:
    """The standard output, for events alone: whatever else is printed goes to standard error."""
    private = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(private, "w", encoding="utf-8", newline="\n")


def _memory() -> int | None:
    """Bytes of memory that this process holds, None where the system has no plain answer."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stderr.flush()
    # Threads of libraries may be waiting; everything that matters is written and flushed.
    os._exit(status)
