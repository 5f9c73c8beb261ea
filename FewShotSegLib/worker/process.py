"""``python -u -m FewShotSegLib.worker FOLDER``: one job in a process of its own.

See ``job_protocol`` for what it says and hears. It must start fast and survive libraries that
print: events go to a private copy of the standard output, and everything else to standard error.
Exit status: 0 finished; 2 failed or cancelled, and an event said why; 3 the caller is gone.

A folder with a patient's voxels is left only where a caller comes for results: after ``finished``
was written. On every other way out it is removed, if ``job_folders`` knows it for ours.

With ``--stay DESK`` it does one job after another, see ``staying``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from .. import __version__
from ..compute.allocation import keep_freed_memory
from ..core.errors import Cancelled, FewShotSegError, OutOfMemory, is_out_of_memory
from ..core.events import make_event
from ..core.job_folders import owner_of, remove_abandoned
from ..core.job_protocol import MISSING, Job, PhantomsJob, kind_of, read_job
from ..core.memory import total_memory
from .event_writer import EventWriter
from .leash import FAILED, LOOK_SECONDS, STOPPED, Leash


def main(folder: Path) -> int:
    """Run the job in a folder; returns the exit status."""
    prepare_process()
    folder = folder.absolute()
    leash = Leash(folder)
    events = EventWriter(private_stdout(), leash.leave)
    if finishes(folder, events, leash):
        return 0
    leash.remove_folder()
    return FAILED


def prepare_process() -> None:
    """What must be set before any library is loaded."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: see cli
    os.environ.pop("ITK_AUTOLOAD_PATH", None)
    keep_freed_memory()


def finishes(
    folder: Path,
    events: EventWriter,
    leash: Leash,
    before: Callable[[Job], None] = lambda job: None,
    after: Callable[[], None] = lambda: None,
) -> bool:
    """Do the job in a folder and report how it ended; whether it finished and that was heard.

    Args:
        before: called when the job has been read. after: when it finished, before that is said.
    """
    try:
        end = _work(folder, events, leash, before)
    except BaseException as error:  # a stop that came just as an end was found
        end = _end_of(error)
    while leash.is_tight():
        try:
            leash.loosen()
        except KeyboardInterrupt:
            continue
    if end["event"] == "finished":
        after()
    events(end)
    while not events.drained(LOOK_SECONDS):  # the reader may be busy, or stand still for ever
        if leash.is_late():
            return False
    return bool(end["event"] == "finished")


def _work(
    folder: Path, events: EventWriter, leash: Leash, before: Callable[[Job], None]
) -> dict[str, Any]:
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
        if not isinstance(job, PhantomsJob):  # sample data are there before anything is installed
            total_memory()  # where psutil is missing, that is said here: the watchdog thread can't
        leash.start(caller, events)
        if owner_of(folder) is not None:
            remove_abandoned(folder.parent)
        before(job)
        from .jobs import run_job

        path = run_job(job, folder, events, leash.stopping)
        events(make_event("result", kind="job", path=str(path)))
        return make_event("finished", seconds=round(time.monotonic() - start, 2))
    except BaseException as error:
        return _end_of(error)


def _end_of(error: BaseException) -> dict[str, Any]:
    """The event that tells how a job ended that did not finish."""
    if isinstance(error, (KeyboardInterrupt, Cancelled)):
        return make_event("cancelled", message=STOPPED, kind="Cancelled")
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


def private_stdout() -> IO[bytes]:
    """The standard output, for events alone: whatever else is printed goes to standard error."""
    private = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return os.fdopen(private, "wb", buffering=0)
