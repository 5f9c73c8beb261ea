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
from pathlib import Path

import slicer
from process_case import ProcessTestCase, is_alive

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


class KillsTest(ProcessTestCase):
    """Killed at any moment, it leaves a panel that works."""

    @unittest.skipUnless(os.name == "posix", "signals")
    def test_twenty_random_moments(self) -> None:
        begun = time.monotonic()
        self.logic.train(epochs=3)
        life = time.monotonic() - begun
        seen: dict[str, int] = {}
        rng = random.Random(0)
        for _ in range(KILLS):
            self.start()
            until = time.monotonic() + rng.uniform(0, life)
            while time.monotonic() < until:
                slicer.app.processEvents()
                time.sleep(0.002)
            phase = self.logic.progress().phase
            seen[phase] = seen.get(phase, 0) + 1
            process = self.logic._task._process
            if process is None:  # still handing over: there is nothing to kill but the task
                self.logic.cancel()
                pid = None
            else:
                pid = int(process._process.processId())
                if pid:
                    os.kill(pid, signal.SIGKILL)
            end = self.assert_idle(pid or None)
            self.assertIn(end.state, ("crashed", "cancelled"))
            self.assertEqual(len(self.logic.supports()), 2)
        print(f"\n{KILLS} kills, by phase: {seen}; no orphan, no folder, each reported in words")
        self.assertTrue(self.logic.train(epochs=1))
        partial = list((self.folder / "home" / "cache").glob("partial-*"))
        self.assertEqual(partial, [])


if __name__ == "__main__":
    unittest.main()
