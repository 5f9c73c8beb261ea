"""Kills of the background process and of Slicer: a panel that works, and nothing left behind."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

from process_case import ProcessTestCase, is_alive
from soak_profile import soak_only

KILLS = 20


@unittest.skipUnless(os.name == "posix" and not slicer_world.REAL, "kills its own kind")
class CallerKilledTest(ProcessTestCase):
    """Slicer itself is killed: its process and its files go too."""

    def test_kill_9_of_the_whole_application(self) -> None:
        program = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "import slicer_world, slicer\n"
            "from FewShotSegSlicer.logic import FewShotSegLogic\n"
            "from module_scenes import add_patient\n"
            # Prepared ones die with who started them; this one has to notice by itself.
            "from FewShotSegSlicer.jobs import process\n"
            "from FewShotSegSlicer.machine.engine import python_program\n"
            "process.python_program = python_program\n"
            "logic = FewShotSegLogic()\n"
            "logic.setModel('tiny'); logic.setDevice('cpu')\n"
            "logic.addSupport(*add_patient(0, 'a'))\n"
            "logic.getParameterNode().epochs = 1000\n"
            "logic.startTraining()\n"
            "find = lambda: logic._task._process and logic._task._process.pid()\n"
            "pid = slicer_world.process_events_until(find, 900)\n"
            "print('FOUND', pid, logic._task._folder, flush=True)\n"
            "slicer_world.process_events_until(lambda: False, 900)\n"
        )
        testing = str(slicer_world.ROOT / "Testing" / "support")
        caller = subprocess.Popen(
            [sys.executable, "-c", program, testing],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        line = next(text for text in caller.stdout if text.startswith("FOUND"))
        pid, folder = int(line.split()[1]), Path(line.split(maxsplit=2)[2].strip())
        self.assertTrue(folder.is_dir())
        caller.kill()
        caller.wait()
        caller.stdout.close()
        slicer_world.process_events_until(lambda: not is_alive(pid), 600)
        slicer_world.process_events_until(lambda: not folder.exists(), 600)
        shutil.rmtree(folder.parent, ignore_errors=True)  # the double's own temporary folder


class KillsTestCase(ProcessTestCase):
    """Trainings that are killed, and what must hold after each."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: dict[str, int] = {}

    def kill(self, reached: Callable[[], Any]) -> None:
        """Start a training, kill its process once something is reached, and look what is left."""
        self.start(epochs=2000)
        slicer_world.process_events_until(reached, 300)
        phase = self.logic.progress().phase
        self.seen[phase] = self.seen.get(phase, 0) + 1
        process = self.logic._task._process
        if process is None:  # still handing over: there is nothing to kill but the task
            self.logic.cancel()
            pid = None
        else:
            pid = process.pid() or int(process.worker.process.processId())
            if pid:
                os.kill(pid, signal.SIGKILL)
        end = self.assert_idle(pid or None)
        self.assertIn(end.state, ("crashed", "cancelled"))
        self.assertEqual(len(self.logic.supports()), 2)

    @staticmethod
    def after(seconds: float) -> Callable[[], bool]:
        end = time.monotonic() + seconds
        return lambda: time.monotonic() > end

    def assert_works(self) -> None:
        """The next training ends well, and nothing of the killed ones is in its way."""
        kills = sum(self.seen.values())
        print(
            f"\n{kills} kills, by phase: {self.seen}; no orphan, no folder, each reported in words"
        )
        self.assertTrue(self.logic.train(epochs=1))
        partial = list((self.folder / "home" / "cache").glob("partial-*"))
        self.assertEqual(partial, [])


@unittest.skipUnless(os.name == "posix", "signals")
class NamedMomentsTest(KillsTestCase):
    """Killed where something is half done for sure, it leaves a panel that works."""

    def process(self) -> Any:
        return self.logic._task._process

    def test_six_moments(self) -> None:
        for name, reached in (
            ("handing over", lambda: self.logic.running()),
            ("before it said a word", lambda: self.process() and self.process().is_running()),
            ("at its first word", lambda: self.process() and self.process().pid()),
            ("features", lambda: self.logic.progress().phase in ("features", "train")),
            ("training", lambda: self.logic.progress().phase == "train"),
            ("after two epochs", lambda: len(self.logic.epochs()) >= 2),
        ):
            with self.subTest(name):
                self.kill(reached)
        self.assertEqual(sum(self.seen.values()), 6)
        self.assertGreaterEqual(len(self.seen), 3, self.seen)
        self.assert_works()


@soak_only
@unittest.skipUnless(os.name == "posix", "signals")
class RandomMomentsTest(KillsTestCase):
    """Killed at any moment, it leaves a panel that works."""

    def test_twenty(self) -> None:
        self.logic.train(epochs=1)  # the first process waits for what prepares all of them
        begun = time.monotonic()
        self.logic.train(epochs=3)
        life = time.monotonic() - begun
        rng = random.Random(0)
        for _ in range(KILLS):
            seconds = rng.uniform(0, life)
            self.kill(self.after(seconds))
        self.assert_works()


if __name__ == "__main__":
    unittest.main()
