"""The background process, which stays between jobs; and the one that waits for the next."""

from __future__ import annotations

import os
import signal
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import qt

from FewShotSegLib.core.job_protocol import STAY, hand_next
from FewShotSegLib.core.processes import kill_tree

from .folder import make_desk, remove_job_folder


class Client(Protocol):
    """The job that a process works on."""

    def on_started(self) -> None:
        """The process is there."""
        ...

    def on_line(self, line: bytes) -> None:
        """It wrote a line on its standard output."""
        ...

    def on_log(self, line: bytes) -> None:
        """It wrote a line on its standard error."""
        ...

    def on_gone(self, state: str, status: int, error: str) -> None:
        """It is no more; see :class:`.process.Ended`."""
        ...


class WorkerProcess:
    """A process that takes one job after another from its desk.

    Args:
        program: the interpreter and its arguments, up to those of the worker.

    Raises:
        OSError: no folder can be made for it.
    """

    def __init__(self, program: Sequence[str]) -> None:
        self.signature = signature(program)
        self.pid: int | None = None
        """Of the engine itself (launchers have another), once it has said so."""
        self.started = self.over = False
        self.client: Client | None = None
        self._desk = make_desk()
        self._program = [*program, STAY, str(self._desk)]
        self._out, self._err = b"", b""
        self.process = qt.QProcess()
        self.process.setProcessEnvironment(_environment())
        self.process.setWorkingDirectory(str(self._desk.parent))
        self.process.connect("started()", self._on_started)
        self.process.connect("readyReadStandardOutput()", self._read_lines)
        self.process.connect("readyReadStandardError()", self.read_log)
        self.process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        self.process.connect("errorOccurred(QProcess::ProcessError)", self._error)

    def start(self) -> None:
        """Start it; returns immediately."""
        self.process.start(self._program[0], self._program[1:])

    def hand(self, folder: Path, client: Client) -> None:
        """Give it a job, of which the client hears.

        Raises:
            OSError: it has left.
        """
        self.client = client
        hand_next(self._desk, folder)

    def kill(self) -> None:
        """Kill it and whatever it started, immediately; the client hears from the event loop."""
        if self.over:
            return
        if self.pid is not None and _is_running(self.process):
            _kill_tree(self.pid)
        self.process.kill()
        self._remove_desk()  # a launcher that was killed can't pass it on: the engine misses this

    def kill_and_wait(self, milliseconds: int = 3000) -> None:
        """Kill it and wait until it is gone: for when no event loop will follow."""
        if not self.over:
            self.kill()
            self.process.waitForFinished(milliseconds)

    def _on_started(self) -> None:
        self.started = True
        if self.client is not None:
            self.client.on_started()

    def _read_lines(self) -> None:
        data = _bytes(self.process.readAllStandardOutput())
        *lines, self._out = (self._out + data).split(b"\n")
        for line in lines:
            if self.client is not None:
                self.client.on_line(line)

    def read_log(self) -> None:
        """Hand on what it has written on its standard error."""
        data = _bytes(self.process.readAllStandardError())
        *lines, self._err = (self._err + data).split(b"\n")
        for line in lines:
            if self.client is not None:
                self.client.on_log(line)

    def _error(self, *args: Any) -> None:
        # Of the errors, only failing to start is not followed by "finished".
        if not self.started:
            self._gone("not started", 0, self.process.errorString())

    def _finished(self, *args: Any) -> None:
        self._read_lines()
        self.read_log()
        if self._err and self.client is not None:
            self.client.on_log(self._err)
        crashed = int(_value(self.process.exitStatus())) != 0
        self._gone("crashed" if crashed else "exited", self.process.exitCode(), "")

    def _gone(self, state: str, status: int, error: str) -> None:
        if self.over:
            return
        self.over = True
        if self.pid is not None:
            _kill_group(self.pid)  # what it started itself, should anything be left
        self._remove_desk()
        client, self.client = self.client, None
        if client is not None:
            client.on_gone(state, status, error)

    def _remove_desk(self) -> None:
        remove_job_folder(self._desk)


class WaitingWorker:
    """Keeps the one process that has no job at the moment. It leaves by itself after some minutes,
    or when memory is short."""

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None

    def is_there(self) -> bool:
        """Whether a process waits."""
        return self._worker is not None and not self._worker.over

    def take(self, program: Sequence[str]) -> WorkerProcess | None:
        """The process that waits, if it is as one that were started now; else it is dismissed."""
        worker, self._worker = self._worker, None
        if worker is None or worker.over:
            return None
        if worker.signature != signature(program):
            worker.kill()
            return None
        return worker

    def keep(self, worker: WorkerProcess) -> None:
        """Have a process wait whose job is done."""
        worker.client = None
        self.dismiss()
        self._worker = worker

    def dismiss(self, wait: bool = False) -> None:
        """End the process that waits. ``wait``: no event loop will follow."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill_and_wait() if wait else worker.kill()


def signature(program: Sequence[str]) -> tuple[Any, ...]:
    """What a process started now would begin with: its program, environment and packages."""
    stamps = []
    for name in ("purelib", "platlib"):
        try:
            stamps.append(os.stat(sysconfig.get_paths()[name]).st_mtime_ns)
        except OSError:
            stamps.append(0)
    return (*program, *sorted(os.environ.items()), *stamps)


def _environment() -> Any:
    environment = qt.QProcessEnvironment.systemEnvironment()
    environment.insert("PYTHONUTF8", "1")
    environment.insert("PYTHONUNBUFFERED", "1")
    environment.remove("ITK_AUTOLOAD_PATH")  # Slicer's plugins crash a Python outside it
    return environment


def _bytes(data: Any) -> bytes:
    """What a QByteArray holds; its ``data()`` is text in some versions of PythonQt."""
    content = data.data()
    return content.encode("utf-8") if isinstance(content, str) else bytes(content)


def _value(enum: Any) -> int:
    """The number of an enumerator, of PythonQt (an int) or of a Python enum."""
    return getattr(enum, "value", enum)


def _is_running(process: Any) -> bool:
    return int(_value(process.state())) != 0


def _kill_tree(pid: int) -> None:
    """Kill the engine and whatever it started; it leads a group where the system has groups."""
    try:
        kill_tree(pid)
    except ImportError:
        pass  # no psutil: the engine, which can't do without, says so and ends by itself
    _kill_group(pid)


def _kill_group(pid: int) -> None:
    if os.name == "nt":
        return
    try:
        if pid != os.getpgrp():
            os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
