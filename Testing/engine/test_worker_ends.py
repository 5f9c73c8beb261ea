"""Every way out of the background process: a word where a reader listens, and no voxels left.

The engine's work is replaced by a few lines, so that what is tested starts and ends immediately.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from FewShotSegLib.core.job_folders import MARKER, make_job_folder, owner_of
from FewShotSegLib.core.job_protocol import CANCEL, DevicesJob, write_job

ROOT = Path(__file__).resolve().parents[2]
FOREVER = "while True: time.sleep(0.01)"
WAIT = 600
"""Seconds for what takes one or four, on a machine that does other things as well."""


def wait_until(condition: Any) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it never came about")
        time.sleep(0.02)


@unittest.skipUnless(os.name == "posix", "signals, and pipes that are full")
class WorkerEndsTest(unittest.TestCase):
    """One process a test, or a few."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.world = Path(folder.name)
        self.parent = self.world / "temporary"
        self.parent.mkdir()

    def folder(self, caller: int | None = None) -> Path:
        """A job's folder with voxels in it."""
        folder = make_job_folder(self.parent, caller)
        (folder / "query.npy").write_bytes(b"voxels")
        write_job(folder, DevicesJob())
        return folder

    def environment(self, work: str) -> dict[str, str]:
        """In which the engine's work is these lines, the body of ``run_job``."""
        site = self.world / "site"
        site.mkdir(exist_ok=True)
        lines = [
            "import json, os, sys, time, types",
            "from pathlib import Path",
            "from FewShotSegLib.core.errors import *",
            "def run_job(job, folder, events, cancel):",
            *(f"    {line}" for line in work.splitlines()),
        ]
        (site / "sitecustomize.py").write_text(
            "import sys, types\n"
            "module = types.ModuleType('FewShotSegLib.worker.jobs')\n"
            f"exec({chr(10).join(lines)!r}, module.__dict__)\n"
            "sys.modules[module.__name__] = module\n"
        )
        return {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}

    def start(self, folder: Path, work: str, **streams: Any) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "FewShotSegLib.worker", str(folder)],
            cwd=ROOT,
            env=self.environment(work),
            stdin=subprocess.DEVNULL,
            stdout=streams.get("stdout", subprocess.PIPE),
            stderr=streams.get("stderr", subprocess.DEVNULL),
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        if process.stdout is not None:
            self.addCleanup(process.stdout.close)
        return process

    def reported(self, process: subprocess.Popen) -> list[dict[str, Any]]:
        out, _ = process.communicate(timeout=WAIT)
        return [json.loads(line) for line in out.splitlines()]

    def assert_nothing_left(self) -> None:
        self.assertEqual([path.name for path in self.parent.iterdir()], [])

    def test_what_finished_is_left_for_who_comes_for_it(self) -> None:
        folder = self.folder()
        process = self.start(folder, "(folder / 'result').write_text('x')\nreturn folder")
        events = self.reported(process)
        self.assertEqual((process.returncode, events[-1]["event"]), (0, "finished"))
        self.assertTrue((folder / "result").exists())
        self.assertIsNotNone(owner_of(folder))

    def test_failures_in_words_leave_nothing(self) -> None:
        for work, kind, text in (
            ("raise InputError('The query is odd.')", "InputError", "The query is odd."),
            (
                "events({'event': 'epoch', 'loss': float('nan')})",
                "InputError",
                r"no finite number \(epoch: loss\)",
            ),
            ("raise ValueError('x')", "ValueError", r"unexpected happened \(ValueError: x\)"),
            ("raise SystemExit(0)", "SystemExit", "unexpected happened"),
            ("raise RuntimeError('could not create a primitive')", "OutOfMemory", "memory"),
            ("raise RecursionError('deep')", "RecursionError", "deep"),
        ):
            with self.subTest(work):
                process = self.start(self.folder(), work)
                end = self.reported(process)[-1]
                self.assertEqual(
                    (process.returncode, end["event"], end["kind"]), (2, "failed", kind)
                )
                self.assertRegex(end["message"], text)
                self.assert_nothing_left()

    def test_a_reader_that_goes_away(self) -> None:
        process = self.start(self.folder(), FOREVER)
        process.stdout.readline()
        process.stdout.close()
        self.assertEqual(process.wait(WAIT), 3)
        self.assert_nothing_left()

    def test_a_reader_that_is_gone_before_the_end_is_reported(self) -> None:
        """Results that nobody hears of are nobody's."""
        work = "while not (folder / 'go').exists(): time.sleep(0.01)\nreturn folder"
        folder = self.folder()
        process = self.start(folder, work)
        process.stdout.readline()
        process.stdout.close()
        (folder / "go").touch()
        self.assertEqual(process.wait(WAIT), 3)
        self.assert_nothing_left()

    def test_a_parent_that_is_killed_while_the_pipe_stays_open_and_full(self) -> None:
        folder = self.folder()
        noise = "while True: events({'event': 'epoch', 'x': 'x' * 1000})"
        read, write = os.pipe()
        program = (
            "import subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-u', '-m', 'FewShotSegLib.worker', "
            "sys.argv[1]], stdin=subprocess.DEVNULL)\n"
            "time.sleep(600)\n"
        )
        parent = subprocess.Popen(
            [sys.executable, "-c", program, str(folder)],
            cwd=ROOT,
            env=self.environment(noise),
            stdout=write,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(os.close, read)
        self.addCleanup(os.close, write)  # the pipe never breaks
        os.read(read, 10)  # the worker is at work
        parent.kill()
        parent.wait()
        wait_until(lambda: not any(self.parent.iterdir()))

    def test_a_full_pipe_does_not_keep_it_from_stopping(self) -> None:
        noise = "events({'event': 'epoch', 'x': 'x' * 10_000})"
        for name, work in (
            ("events", f"while True:\n    {noise}\n    time.sleep(0.01)"),
            ("progress", f"while not cancel(): {noise}\nraise Cancelled('Stopped.')"),
        ):
            for stop in ("file", "signal"):
                with self.subTest(name, stop=stop):
                    folder = self.folder()
                    process = self.start(folder, work)
                    process.stdout.read(20_000)  # it is at work, and nobody reads on
                    if stop == "file":
                        (folder / CANCEL).touch()
                    else:
                        process.send_signal(signal.SIGTERM)
                    self.assertEqual(process.wait(WAIT), 2)
                    self.assert_nothing_left()

    def test_a_full_log_does_not_keep_it_from_stopping(self) -> None:
        folder = self.folder()
        work = "events({'event': 'epoch'})\nwhile True: os.write(2, b'x' * 100_000)"
        process = self.start(folder, work, stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        while b"epoch" not in process.stdout.readline():
            pass
        (folder / CANCEL).touch()
        self.assertEqual(process.wait(WAIT), 2)
        self.assertIn(b'"cancelled"', process.stdout.read())
        self.assert_nothing_left()

    def test_interrupts_that_the_shell_had_switched_off(self) -> None:
        folder = self.folder()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process = self.start(folder, FOREVER)
        finally:
            signal.signal(signal.SIGINT, before)
        process.stdout.readline()
        (folder / CANCEL).touch()
        events = self.reported(process)
        self.assertEqual((process.returncode, events[-1]["event"]), (2, "cancelled"))

    def test_a_caller_that_is_gone(self) -> None:
        """Whoever has its number by now is another process."""
        for case in ("gone", "another"):
            with self.subTest(case):
                caller = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                self.addCleanup(caller.wait)
                self.addCleanup(caller.kill)
                folder = self.folder(caller.pid)
                job = json.loads((folder / "job.json").read_text())
                (folder / "job.json").write_text(json.dumps({**job, "caller": caller.pid}))
                if case == "another":
                    marker = json.loads((folder / MARKER).read_text())
                    (folder / MARKER).write_text(json.dumps({**marker, "start": "long ago"}))
                process = self.start(folder, FOREVER)
                if case == "gone":
                    process.stdout.readline()
                    caller.kill()
                    caller.wait()
                self.assertEqual(process.wait(WAIT), 3)
                self.assert_nothing_left()

    def test_a_folder_that_is_not_ours_stays_whoever_is_gone(self) -> None:
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        for case in ("name", "marker", "link"):
            with self.subTest(case):
                folder = self.folder(dead.pid)
                if case == "name":
                    folder = folder.rename(self.world / "data of mine")
                elif case == "marker":
                    (folder / MARKER).unlink()
                else:
                    folder.rename(self.world / "linked to")
                    folder.symlink_to(self.world / "linked to")
                job = json.loads((folder / "job.json").read_text())
                (folder / "job.json").write_text(json.dumps({**job, "caller": dead.pid}))
                process = self.start(folder, FOREVER)
                self.assertEqual(process.wait(WAIT), 3)
                self.assertEqual((folder / "query.npy").read_bytes(), b"voxels")

    def test_the_next_job_sweeps_what_killed_ones_left(self) -> None:
        folder = self.folder()
        process = self.start(folder, FOREVER)
        process.stdout.readline()
        process.kill()
        process.wait()
        self.assertTrue(folder.exists())
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        marker = json.loads((folder / MARKER).read_text())
        (folder / MARKER).write_text(json.dumps({**marker, "pid": dead.pid}))
        process = self.start(self.folder(), "raise InputError('An end.')")
        self.reported(process)
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
