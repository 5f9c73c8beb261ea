"""Memory as psutil tells it, what a heartbeat says of it, and a tree of processes that dies."""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import psutil

from FewShotSegLib.core.job_folders import make_job_folder
from FewShotSegLib.core.job_protocol import MISSING, DevicesJob, write_job
from FewShotSegLib.core.memory import available_memory, held_memory, total_memory
from FewShotSegLib.core.processes import kill_tree, process_exists
from FewShotSegLib.worker import leash as worker

ROOT = Path(__file__).resolve().parents[2]
MIDDLE = """
import subprocess, sys, time
inner = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
)
print(inner.pid, flush=True)
time.sleep(600)
"""


class MemoryTest(unittest.TestCase):
    """Numbers that must fit together."""

    def test_what_is_held_is_part_of_all(self) -> None:
        total = total_memory()
        self.assertGreater(total, 2**28)
        self.assertLess(0, available_memory())
        self.assertLessEqual(available_memory(), total)
        self.assertLess(held_memory(), total)

    def test_what_is_taken_is_held(self) -> None:
        before = held_memory()
        with mmap.mmap(-1, 2**27) as taken:  # never memory that the process was given before
            np.frombuffer(taken, np.uint8)[:] = 1
            held = held_memory()
        self.assertGreater(held - before, 2**26)

    def test_a_heartbeat_tells_all_three(self) -> None:
        reported = worker._memory()
        self.assertEqual(list(reported), ["memory_bytes", "available_bytes", "total_bytes"])
        self.assertEqual(reported["total_bytes"], total_memory())

    def test_a_worker_without_psutil_says_what_is_missing(self) -> None:
        program = (
            "import runpy, sys; sys.modules['psutil'] = None; "
            "runpy.run_module('FewShotSegLib.worker', run_name='__main__', alter_sys=True)"
        )
        with tempfile.TemporaryDirectory() as parent:
            folder = make_job_folder(Path(parent))
            write_job(folder, DevicesJob())
            done = subprocess.run(
                [sys.executable, "-c", program, str(folder)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertFalse(folder.exists(), "a job that failed leaves its folder")
        last = json.loads(done.stdout.splitlines()[-1])
        self.assertEqual((last["kind"], last["package"]), (MISSING, "psutil"), done.stderr)
        self.assertEqual(done.returncode, 2)

    def test_a_system_that_refuses_does_not_end_the_watching(self) -> None:
        for error in (psutil.AccessDenied(1), OSError("no")):
            with mock.patch.object(psutil, "virtual_memory", side_effect=error):
                self.assertEqual(worker._memory(), {})


class KillTreeTest(unittest.TestCase):
    """What a process started goes with it, in another group of processes too."""

    def test_parent_and_child_go(self) -> None:
        outer = subprocess.Popen([sys.executable, "-c", MIDDLE], stdout=subprocess.PIPE, text=True)
        self.addCleanup(outer.stdout.close)
        self.addCleanup(outer.kill)
        inner = int(outer.stdout.readline())
        self.addCleanup(kill_tree, inner)
        self.assertTrue(process_exists(inner))
        kill_tree(outer.pid)
        outer.wait(60)
        end = time.monotonic() + 60
        while process_exists(inner) and time.monotonic() < end:
            time.sleep(0.01)
        self.assertFalse(process_exists(inner))

    def test_one_that_is_gone_is_no_error(self) -> None:
        process = subprocess.Popen([sys.executable, "-c", ""])
        process.wait()
        kill_tree(process.pid)

    def test_without_psutil_the_caller_is_informed(self) -> None:
        with mock.patch.dict(sys.modules, {"psutil": None}), self.assertRaises(ImportError):
            kill_tree(2**22 + 1)


if __name__ == "__main__":
    unittest.main()
