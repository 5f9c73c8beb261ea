"""The module's logic over the real background process, on a small model."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import os
import time
from pathlib import Path
from typing import Any

import qt
import slicer
from FewShotSegSlicer.interface.rows import End
from FewShotSegSlicer.jobs.folder import (
    PREFIX,
)
from module_logic import LogicTestCase
from module_scenes import add_patient
from tiny_model import write_model


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


class Stalls:
    """The longest that the event loop was kept waiting, wall clock and this process's own work."""

    def __init__(self) -> None:
        self.wall = self.own = 0.0
        self._wall, self._own = time.perf_counter(), time.process_time()
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._tick)
        self._timer.start()

    def stop(self) -> str:
        self._timer.stop()
        return f"{self.own * 1000:.0f} ms of work ({self.wall * 1000:.0f} ms by the clock)"

    def _tick(self) -> None:
        wall, own = time.perf_counter(), time.process_time()
        self.wall, self.own = max(self.wall, wall - self._wall), max(self.own, own - self._own)
        self._wall, self._own = wall, own


class ProcessTestCase(LogicTestCase):
    """With a small model, two annotated patients and one to segment."""

    def setUp(self) -> None:
        super().setUp()
        self.settings = {
            key: qt.QSettings().value(f"FewShotSeg/{key}") for key in ("Model", "Device")
        }
        self.addCleanup(self.restore)
        write_model(self.folder / "home" / "models", "tiny")
        self.logic.setModel("tiny")
        self.logic.setDevice("cpu")
        for seed in range(2):
            self.logic.addSupport(*add_patient(seed, f"Patient {seed}"))
        self.query, _drawn = add_patient(7, "Query")
        slicer.mrmlScene.RemoveNode(_drawn)
        self.notices: list[Any] = []
        self.logic.listen(self.notices.append)
        self.logic.getParameterNode().learningRate = 0.02

    def restore(self) -> None:
        for key, value in self.settings.items():
            if value is None:
                qt.QSettings().remove(f"FewShotSeg/{key}")
            else:
                qt.QSettings().setValue(f"FewShotSeg/{key}", value)

    def folders(self) -> list[Path]:
        """Job folders of this process."""
        return list(Path(slicer.app.temporaryPath).glob(f"{PREFIX}{os.getpid()}-*"))

    def start(self, epochs: int = 1000) -> None:
        self.logic.getParameterNode().epochs = epochs
        self.logic.startTraining()

    def pid(self) -> int:
        """Of the running process, once it has said so."""
        return slicer_world.process_events_until(
            lambda: self.logic._task._process and self.logic._task._process.pid(), 300
        )

    def assert_gone(self, pid: int) -> None:
        """A process that was killed is over, without this one's event loop."""
        end = time.monotonic() + 30
        while is_alive(pid):
            self.assertLess(time.monotonic(), end, "it lives on")
            time.sleep(0.005)

    def assert_idle(self, pid: int | None = None) -> End:
        """The task has ended in words, and nothing is left of it."""
        slicer_world.process_events_until(lambda: self.logic.running() is None, 900)
        end = self.logic.lastEnd()
        self.assertTrue(end.message.endswith("."), end)
        self.assertEqual(self.folders(), [])
        if pid is not None:
            slicer_world.process_events_until(lambda: not is_alive(pid), 30)
        return end
