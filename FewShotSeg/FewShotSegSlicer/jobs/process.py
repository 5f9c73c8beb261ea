"""The background process: started, listened to, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import qt

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import CANCEL
from FewShotSegLib.core.json_fields import parse_json
from FewShotSegLib.core.processes import kill_tree

from ..machine.engine import engine_parent, python_program

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
    """One job's process.

    Args:
        folder: of the job. on_event: for every event. on_log: for every line of its log.
        on_end: called once, whatever happened.
    """

    def __init__(
        self,
        folder: Path,
        on_event: Callable[[dict[str, Any]], None],
        on_log: Callable[[str], None],
        on_end: Callable[[Ended], None],
    ) -> None:
        self.last_heard = time.monotonic()
        self._on_event, self._on_log, self._on_end = on_event, on_log, on_end
        script = Path(__file__).with_name("start_worker.py")
        self._program = [python_program(), "-u", str(script), str(engine_parent())]
        self._folder = folder
        self._out, self._err = b"", b""
        self._pid: int | None = None
        self._ended = Ended("crashed")
        self._over = self._running = False
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(_environment())
        self._process.setWorkingDirectory(str(folder.parent))
        self._process.connect("started()", self._on_started)
        self._process.connect("readyReadStandardOutput()", self._read_events)
        self._process.connect("readyReadStandardError()", self._read_log)
        self._process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        self._process.connect("errorOccurred(QProcess::ProcessError)", self._error)
        self._kill_timer = qt.QTimer()
        self._kill_timer.setSingleShot(True)
        self._kill_timer.setInterval(STOP_MILLISECONDS)
        self._kill_timer.connect("timeout()", self.kill)

    def start(self) -> None:
        """Start it; returns immediately."""
        program, *arguments = self._program
        self._process.start(program, [*arguments, str(self._folder)])

    def pid(self) -> int | None:
        """Of the engine itself (launchers have another), once it has said so."""
        return self._pid

    def cancel(self) -> None:
        """Ask it to stop; a process that does not is killed after a few seconds."""
        if self._over:
            return
        try:
            (self._folder / CANCEL).touch()
        except OSError:
            self.kill()
            return
        self._kill_timer.start()

    def kill(self) -> None:
        """Kill it and whatever it started, immediately. ``on_end`` follows from the event loop."""
        if self._over:
            return
        if self._pid is not None and _is_running(self._process):
            _kill_tree(self._pid)
        self._process.kill()

    def kill_and_wait(self, milliseconds: int = 3000) -> None:
        """Kill it and wait until it is gone: for when no event loop will follow."""
        if not self._over:
            self.kill()
            self._process.waitForFinished(milliseconds)

    def _on_started(self) -> None:
        self._running = True

    def _read_events(self) -> None:
        self.last_heard = time.monotonic()
        *lines, self._out = (self._out + _bytes(self._process.readAllStandardOutput())).split(b"\n")
        for line in lines:
            try:
                event = parse_json(line, "An event")
                kind = event["event"]
            except (InputError, KeyError, TypeError):
                self._on_log(line.decode("utf-8", "replace"))
                continue
            if kind == "started":
                self._pid = event.get("pid")
            elif kind == "heartbeat":
                heard = event.get("memory_bytes") or 0
                self._ended.memory_bytes = max(self._ended.memory_bytes or 0, heard) or None
                self._ended.available_bytes = event.get("available_bytes")
                self._ended.total_bytes = event.get("total_bytes")
            elif kind in ("finished", "failed", "cancelled"):
                self._ended.final = event
            self._on_event(event)

    def _read_log(self) -> None:
        *lines, self._err = (self._err + _bytes(self._process.readAllStandardError())).split(b"\n")
        for line in lines:
            self._say(line)

    def _say(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            self._ended.lines = [*self._ended.lines, text][-LAST_LINES:]
            self._on_log(text)

    def _error(self, *args: Any) -> None:
        # Of the errors, only failing to start is not followed by "finished".
        if not self._running and not self._over:
            self._ended.state, self._ended.error = "not started", self._process.errorString()
            self._end()

    def _finished(self, *args: Any) -> None:
        self._read_events()
        self._read_log()
        self._say(self._err)
        crashed = int(_value(self._process.exitStatus())) != 0
        self._ended.state = "crashed" if crashed else "exited"
        self._ended.status = self._process.exitCode()
        self._end()

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        self._kill_timer.stop()
        if self._pid is not None:
            _kill_group(self._pid)  # what it started itself, should anything be left
        self._on_end(self._ended)


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
