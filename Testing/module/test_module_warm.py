"""The background process stays between jobs: one for all, never one too many, never an orphan."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import os
import signal
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import slicer
from FewShotSegSlicer.interface.rows import LogLine
from FewShotSegSlicer.jobs.folder import PREFIX
from FewShotSegSlicer.jobs.worker_process import WaitingWorker
from process_case import ProcessTestCase, is_alive

from FewShotSegLib.core.job_folders import DESK

MESSAGE = "process that waited had ended"


@unittest.skipUnless(os.name == "posix", "signals")
class WarmTest(ProcessTestCase):
    """Several jobs of one panel."""

    def desks(self) -> list[Path]:
        parent = Path(slicer.app.temporaryPath)
        return list(parent.glob(f"{PREFIX}{DESK}{os.getpid()}-*"))

    def waiting(self) -> int:
        """The process id of the one that waits."""
        worker = self.logic._waiting._worker
        self.assertTrue(self.logic._waiting.is_there())
        return worker.pid

    def lines(self) -> str:
        return "\n".join(n.text for n in self.notices if isinstance(n, LogLine))

    def logged(self) -> str:
        return "\n".join(n if isinstance(n, str) else "" for n in self.notices) + self.lines()

    def test_one_process_for_all_and_none_when_the_module_is_closed(self) -> None:
        before = self.desks()
        self.assertTrue(self.logic.train(epochs=1))
        pid = self.waiting()
        self.assertTrue(is_alive(pid))
        self.assertEqual(self.folders(), [])
        self.logic.segment(self.query)
        self.assertEqual(self.waiting(), pid)
        self.assertTrue(self.logic.train(epochs=2, seed=1))
        self.assertEqual(self.waiting(), pid)
        self.assertEqual(len(self.desks()), len(before) + 1)
        self.logic.close()
        self.assert_gone(pid)
        self.assertEqual(self.desks(), before)

    def test_after_a_cancelled_job_a_new_one_is_started(self) -> None:
        self.logic.train(epochs=1)
        pid = self.waiting()
        self.start()
        self.assertEqual(self.pid(), pid)
        self.logic.cancel()
        self.assertEqual(self.assert_idle(pid).state, "cancelled")
        self.assertFalse(self.logic._waiting.is_there())
        self.assertTrue(self.logic.train(epochs=1))
        self.assertNotEqual(self.waiting(), pid)

    def test_one_that_was_killed_while_it_waited_is_replaced(self) -> None:
        self.logic.train(epochs=1)
        pid = self.waiting()
        os.kill(pid, signal.SIGKILL)
        slicer_world.process_events_until(lambda: not self.logic._waiting.is_there(), 60)
        # It is over before its folder is gone.
        slicer_world.process_events_until(lambda: not self.desks(), 60)
        self.assertEqual(self.desks(), [])
        self.assertTrue(self.logic.train(epochs=1))
        self.assertNotEqual(self.waiting(), pid)

    def test_one_that_dies_before_it_takes_the_job_is_replaced_and_that_is_said(self) -> None:
        self.logic.train(epochs=1)
        pid = self.waiting()
        os.kill(pid, signal.SIGSTOP)
        self.start(epochs=1)
        slicer_world.process_events_until(
            lambda: self.logic._task._process and self.logic._task._process.reused, 60
        )
        self.assertIsNone(self.logic._task._process.pid(), "it has not said a word of this job")
        os.kill(pid, signal.SIGKILL)
        slicer_world.process_events_until(lambda: self.logic.running() is None, 600)
        self.assertEqual(self.logic.lastEnd().state, "finished", self.logic.lastEnd())
        self.assertIn(MESSAGE, self.logged())
        self.assertNotEqual(self.waiting(), pid)

    def test_one_that_dies_in_the_middle_of_a_job_is_reported(self) -> None:
        self.logic.train(epochs=1)
        self.start()
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        self.assertEqual(self.assert_idle(pid).state, "crashed")
        self.assertNotIn(MESSAGE, self.logged())
        self.assertFalse(self.logic._waiting.is_there())

    def test_another_environment_needs_another_process(self) -> None:
        self.logic.train(epochs=1)
        pid = self.waiting()
        with mock.patch.dict(os.environ, {"FEWSHOTSEG_TEST": "1"}):
            self.assertTrue(self.logic.train(epochs=1))
            self.assertNotEqual(self.waiting(), pid)
        self.assert_gone(pid)

    def test_newly_installed_packages_need_another_process(self) -> None:
        self.logic.train(epochs=1)
        pid = self.waiting()
        site = self.folder / "site"
        site.mkdir()
        stamp: dict[str, Any] = {"purelib": str(site), "platlib": str(site)}
        with mock.patch("sysconfig.get_paths", return_value=stamp):
            self.assertIsNone(self.logic._waiting.take(self.program()))
        self.assert_gone(pid)

    def program(self) -> list[str]:
        from FewShotSegSlicer.jobs import process

        script = Path(process.__file__).with_name("start_worker.py")
        return [process.python_program(), "-u", str(script), str(process.engine_parent())]

    def test_a_second_one_that_waits_replaces_the_first(self) -> None:
        first, second = mock.Mock(over=False), mock.Mock(over=False)
        waiting = WaitingWorker()
        waiting.keep(first)
        waiting.keep(second)
        first.kill.assert_called_once()
        waiting.dismiss(wait=True)
        second.kill_and_wait.assert_called_once()
        self.assertFalse(waiting.is_there())


if __name__ == "__main__":
    unittest.main()
