"""One job in the background process: handed over, listened to, stopped, never left behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import CANCEL
from FewShotSegLib.core.json_fields import parse_json

from ..machine.engine import engine_parent, python_program
from .worker_process import WaitingWorker, WorkerProcess

STOP_MILLISECONDS = 5000
"""After a request to stop, the process gets this long before it is killed."""
LAST_LINES = 20


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        state: ``exited``, ``crashed`` or ``not started``.
        status: the exit status, where it exited.
        final: its last ``finished``, ``failed`` or ``cancelled`` event, or None.
        memory_bytes: the most that it was heard to hold. available_bytes, total_bytes: what the
            computer had left of its memory when last heard of, and all that it has.
        error: what the system said, where it never started. lines: the last ones of its log.
    """

    state: str
    status: int = 0
    final: dict[str, Any] | None = None
    memory_bytes: int | None = None
    available_bytes: int | None = None
    total_bytes: int | None = None
    error: str = ""
    lines: list[str] = field(default_factory=list)


class JobProcess:
    """One job, in the process that waits or in a new one.

    Args:
        folder: of the job. on_event: for every event. on_log: for every line of its log.
        on_end: called once, whatever happened. waiting: where a process may wait.
    """

    def __init__(
        self,
        folder: Path,
        on_event: Callable[[dict[str, Any]], None],
        on_log: Callable[[str], None],
        on_end: Callable[[Ended], None],
        waiting: WaitingWorker | None = None,
    ) -> None:
        self.last_heard = time.monotonic()
        self._tell_event, self._tell_log, self._tell_end = on_event, on_log, on_end
        script = Path(__file__).with_name("start_worker.py")
        self._program = [python_program(), "-u", str(script), str(engine_parent())]
        self._folder = folder
        self._waiting = waiting or WaitingWorker()
        self._ended = Ended("crashed")
        self._over = self._heard = self._stopping = False
        self.worker: WorkerProcess | None = None
        self.reused = False
        """Whether the process did another job before."""
        self._kill_timer = qt.QTimer()
        self._kill_timer.setSingleShot(True)
        self._kill_timer.setInterval(STOP_MILLISECONDS)
        self._kill_timer.connect("timeout()", self.kill)

    def start(self) -> None:
        """Start it; returns immediately.

        Raises:
            OSError: no folder can be made.
        """
        self.worker = self._waiting.take(self._program)
        if self.worker is not None:
            self.reused = True
            try:
                self.worker.hand(self._folder, self)
                return
            except OSError:  # it is just leaving
                self._leave_behind()
        self._start_new()

    def _start_new(self) -> None:
        self.reused = False
        self.worker = WorkerProcess(self._program)
        self.worker.hand(self._folder, self)
        self.worker.start()

    def _leave_behind(self) -> None:
        """The process that waited can't be used."""
        self._tell_log(_("The background process that waited had ended; a new one is started."))
        if self.worker is not None:
            self.worker.client = None
            self.worker.kill()

    def pid(self) -> int | None:
        """Of the engine itself (launchers have another), once it has said so of this job."""
        return self.worker.pid if self.worker is not None and self._heard else None

    def is_running(self) -> bool:
        """Whether the process has started."""
        return self.worker is not None and self.worker.started

    def cancel(self) -> None:
        """Ask it to stop; a process that does not is killed after a few seconds."""
        if self._over:
            return
        self._stopping = True
        try:
            (self._folder / CANCEL).touch()
        except OSError:
            self.kill()
            return
        self._kill_timer.start()

    def kill(self) -> None:
        """Kill it and whatever it started, immediately. ``on_end`` follows from the event loop."""
        self._stopping = True
        if not self._over and self.worker is not None:
            self.worker.kill()

    def kill_and_wait(self, milliseconds: int = 3000) -> None:
        """Kill it and wait until it is gone: for when no event loop will follow."""
        self._stopping = True
        if not self._over and self.worker is not None:
            self.worker.kill_and_wait(milliseconds)

    # --- what the process says; see worker_process.Client

    def on_started(self) -> None:
        """The process is there."""

    def on_line(self, line: bytes) -> None:
        """An event, or what else is on its standard output."""
        self.last_heard = time.monotonic()
        try:
            event = parse_json(line, "An event")
            kind = event["event"]
        except (InputError, KeyError, TypeError):
            self._tell_log(line.decode("utf-8", "replace"))
            return
        if kind == "started":
            self._heard = True
            if self.worker is not None:
                self.worker.pid = event.get("pid")
        elif kind == "heartbeat":
            heard = event.get("memory_bytes") or 0
            self._ended.memory_bytes = max(self._ended.memory_bytes or 0, heard) or None
            self._ended.available_bytes = event.get("available_bytes")
            self._ended.total_bytes = event.get("total_bytes")
        elif kind in ("finished", "failed", "cancelled"):
            self._ended.final = event
        self._tell_event(event)
        if kind == "finished":
            self._finished()

    def on_log(self, line: bytes) -> None:
        """A line of the log."""
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            self._ended.lines = [*self._ended.lines, text][-LAST_LINES:]
            self._tell_log(text)

    def on_gone(self, state: str, status: int, error: str) -> None:
        """The process is no more."""
        if self.reused and not self._heard and not self._stopping:
            self._leave_behind()
            try:
                self._start_new()
                return
            except OSError as failure:
                state, error = "not started", str(failure)
        self._ended.state, self._ended.status, self._ended.error = state, status, error
        self._end()

    def _finished(self) -> None:
        """The job is done, and the process waits for another."""
        worker = self.worker
        if worker is not None and not self._over:
            worker.read_log()
            self._ended.state = "exited"
            self._waiting.keep(worker)
            self._end()

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        self._kill_timer.stop()
        self._tell_end(self._ended)
