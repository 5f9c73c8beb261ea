"""What the panel says a task will take: before it starts, and once the engine has timed itself."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import json
import sys
import time
from typing import Any
from unittest import mock

import numpy as np
from FewShotSegSlicer.interface.protocol import Progress
from FewShotSegSlicer.jobs.control import PlainRun
from FewShotSegSlicer.jobs.task import Task
from FewShotSegSlicer.machine.estimates import Plan, model_voxels
from FewShotSegSlicer.machine.estimates import estimate as estimate_of
from FewShotSegSlicer.machine.memory import total_memory
from FewShotSegSlicer.machine.timing import remember
from module_logic import LogicTestCase

from FewShotSegLib.core.job_protocol import DevicesJob

MODELS = slicer_world.ROOT / "FewShotSegLib" / "Resources" / "Models"
LARGE = ((512, 512, 300), np.diag([0.8, 0.8, 1.5, 1.0]))


def estimate(*fields: Any, **more: Any) -> Any:
    return estimate_of(Plan(*fields, **more))


def entry_of(name: str) -> dict:
    return json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))


class EstimateTest(LogicTestCase):
    """Before the task."""

    def test_a_large_model_on_a_cpu_is_minutes_and_fits_24_gb(self) -> None:
        small, large = (
            estimate([LARGE], entry_of(name), "CT", 1, "cpu") for name in ("embedded", "btcv")
        )
        self.assertLess(small.seconds, 90)
        self.assertGreater(large.seconds, 300)
        self.assertIn(" min", large.text)
        self.assertIn("a guess", large.text)
        self.assertLess(small.memory_bytes, large.memory_bytes)
        self.assertGreater(large.memory_bytes, 4 * 2**30)
        self.assertLess(large.memory_bytes, 12 * 2**30)

    def test_memory_is_unknown_until_psutil_is_installed(self) -> None:
        words = "is known once the packages are installed"
        self.assertGreater(total_memory(), 2**28)
        self.assertNotIn(words, estimate([LARGE], entry_of("embedded"), "CT", 1, "cpu").text)
        with mock.patch.dict(sys.modules, {"psutil": None}):
            self.assertIsNone(total_memory())
            heard = estimate([LARGE], entry_of("embedded"), "CT", 1, "cpu")
        self.assertIn(words, heard.text)
        self.assertTrue(heard.enough_memory, "nobody is warned of what is not known")

    def test_too_little_memory_is_said(self) -> None:
        little = "FewShotSegSlicer.machine.estimates.total_memory"
        with mock.patch(little, return_value=2**30):
            heard = estimate([LARGE], entry_of("btcv"), "CT", 1, "cpu")
            card = estimate([LARGE], entry_of("btcv"), "CT", 1, "cuda:0", graphics_card=True)
        self.assertFalse(heard.enough_memory)
        self.assertIn("this computer has 1 GB", heard.text)
        self.assertTrue(card.enough_memory)

    def test_what_was_measured_here_comes_before_the_guess(self) -> None:
        guess = estimate([LARGE], entry_of("btcv"), "CT", 1, "cpu")
        self.assertFalse(guess.measured)
        remember("btcv", "cpu", "features", 1.0)
        heard = estimate([LARGE], entry_of("btcv"), "CT", 1, "cpu")
        self.assertTrue(heard.measured)
        self.assertLess(heard.seconds, guess.seconds / 2)

    def test_a_model_grid_is_no_larger_than_the_entry_lets_it_be(self) -> None:
        part = {"spacing": [1.0, 1.0, 2.0]}
        affine = np.diag([2.0, 1.0, 1.0, 1.0])
        for most, expected in ((None, 10_000), (4_000, 4_000), (40_000, 10_000)):
            entry = {"preprocessing": {"MR": {**part, "most_voxels": most} if most else part}}
            self.assertEqual(model_voxels((10, 20, 50), affine, entry, "MR"), expected)

    def test_a_model_grid_is_no_smaller_than_a_window_that_must_be_whole(self) -> None:
        part = {"spacing": [1.0, 1.0, 2.0], "least": [64, 64, 64]}
        found = model_voxels((10, 20, 50), np.eye(4), {"preprocessing": {"MR": part}}, "MR")
        self.assertEqual(found, 64**3)


class TaskTest(LogicTestCase):
    """While it runs."""

    def test_the_engines_estimate_is_the_time_that_is_left(self) -> None:
        heard: list = []
        task = Task(PlainRun("segment", DevicesJob(), None), heard.append)
        task.start()
        self.addCleanup(task.abort, "", True)
        task._on_event({"event": "phase", "phase": "features"})
        task._on_event(
            {"event": "estimate", "phase": "features", "seconds": 720.0, "windows": 80}
            | {"window_seconds": 9.1, "volumes": 1, "bytes": 1, "device": "cpu"}
        )
        self.assertIn("about 12 min for 80 windows", [t for t in heard if isinstance(t, str)][-1])
        task._on_event({"event": "progress", "phase": "features", "done": 1, "total": 80})
        last = [t for t in heard if isinstance(t, Progress)][-1]
        self.assertLess(abs(last.remaining_seconds - 720), 60)
        task._features_end = time.monotonic() - 1
        task._on_event({"event": "progress", "phase": "features", "done": 2, "total": 80})
        self.assertIsNone([t for t in heard if isinstance(t, Progress)][-1].remaining_seconds)

    def test_waiting_for_another_process_is_reported(self) -> None:
        heard: list = []
        task = Task(PlainRun("segment", DevicesJob(), None), heard.append)
        task.start()
        self.addCleanup(task.abort, "", True)
        message = "Another process computes these features; waiting for it to end."
        task._on_event({"event": "waiting", "phase": "features", "message": message})
        self.assertIn(message, heard)


if __name__ == "__main__":
    import unittest

    unittest.main()
