"""The background process from the module's side: every end in words, and nothing left behind."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import qt
import slicer
from FewShotSegSlicer.console import TaskFailed
from FewShotSegSlicer.interface.rows import End, Epoch, Progress
from FewShotSegSlicer.jobs import process as job_process
from FewShotSegSlicer.jobs import words as task_words
from FewShotSegSlicer.jobs.export_nodes import volume_steps
from FewShotSegSlicer.jobs.folder import (
    make_job_folder,
    remove_abandoned,
    remove_job_folder,
)
from FewShotSegSlicer.jobs.process import Ended
from FewShotSegSlicer.machine.engine import python_program
from FewShotSegSlicer.machine.stepper import Stepper
from module_logic import LogicTestCase
from module_scenes import add_patient, add_transform, add_volume, affine_of
from process_case import ProcessTestCase, Stalls

from FewShotSegLib.core import job_folders
from FewShotSegLib.core.errors import Cancelled, InputError


class LifeTest(ProcessTestCase):
    """From Train to an overlay, with a cancelled training on the way."""

    def test_cancel_train_again_segment_and_save(self) -> None:
        stalls = Stalls()
        self.start()
        pid = self.pid()
        self.assertEqual(self.folders()[0].stat().st_mode & 0o777, 0o700)
        names = {p.name for p in self.folders()[0].rglob("*")}
        self.assertTrue(
            names
            <= {"volume0.npy", "volume1.npy", "job.json", "owner.json", "results"}
            | {f"labels{a}_{b}.npy" for a in range(2) for b in range(2)},
            names,
        )
        self.assertNotIn("Patient", (self.folders()[0] / "job.json").read_text(encoding="utf-8"))
        with self.assertRaisesRegex(InputError, "running task"):
            self.logic.startTraining()
        slicer_world.process_events_until(
            lambda: any(isinstance(n, Epoch) for n in self.notices), 300
        )
        self.logic.cancel()
        end = self.assert_idle(pid)
        self.assertEqual((end.state, end.adapter_id), ("cancelled", ""))
        self.assertEqual(self.logic.adapters(), [])

        heard: list[Any] = []
        adapter = self.logic.train(epochs=4, progress=heard.append)
        self.assertEqual([e.epoch for e in heard if isinstance(e, Epoch)], [1, 2, 3, 4])
        fractions = [p.fraction for p in heard if isinstance(p, Progress)]
        self.assertEqual(fractions, sorted(fractions))
        (row,) = self.logic.adapters()
        self.assertEqual((row.id, row.structures), (adapter, ("bean", "pea")))
        self.assertRegex(row.supports[0], r"Patient 0 \(bean .* ml, pea .* ml\)")

        add_transform(affine_of((1, 1, 1), (0, 0, 30), (5, 6, 7)), self.query)
        ends: list[End] = []
        started = self.logic.segment(self.query, wait=False, done=ends.append)
        self.assertIsNone(started)
        slicer_world.process_events_until(lambda: ends, 900)
        result = ends[0].result
        self.assertIs(result.query, self.query)
        self.assertIs(
            result.segmentation.GetParentTransformNode(), self.query.GetParentTransformNode()
        )
        self.assertEqual([r.name for r in result.rows], ["bean", "pea"])
        for segment_id, line in zip(("Segment_1", "Segment_2"), result.rows, strict=True):
            mask = slicer.util.arrayFromSegmentBinaryLabelmap(
                result.segmentation, segment_id, self.query
            )
            voxel = np.prod(self.query.GetSpacing()) / 1000
            self.assertAlmostEqual(np.count_nonzero(mask) * voxel, line.volume_ml, places=3)
        print(f"\nlongest stall of the GUI thread, small volumes: {stalls.stop()}")
        self.assertLess(stalls.own, 0.5)
        self.assertEqual(self.folders(), [])

        path = str(self.folder / "scene.mrb")
        self.assertTrue(slicer.mrmlScene.WriteToMRB(path))
        slicer_world.clear_scene()
        self.assertEqual(self.logic.results(), [])
        self.assertTrue(slicer.mrmlScene.ReadFromMRB(path))
        (again,) = self.logic.results()
        self.assertEqual(again.rows, result.rows)
        self.assertEqual(again.query.GetName(), "Query")
        self.assertIsNotNone(again.segmentation)
        self.assertEqual(self.logic.adapters()[0].supports, row.supports)

    def test_the_second_training_runs_no_backbone_pass(self) -> None:
        # In a new interpreter, as in Slicer; the other tests' are prepared.
        with mock.patch.object(job_process, "python_program", python_program):
            first = self.logic.train(epochs=1)
        second = self.logic.train(epochs=1, seed=1)
        rows = {row.id: row.metadata["training"] for row in self.logic.adapters()}
        self.assertEqual([rows[i]["backbone_passes"] for i in (first, second)], [2, 0])


class EndsTest(ProcessTestCase):
    """Each end that nobody wished for, in words."""

    def test_it_never_started(self) -> None:
        with mock.patch.object(job_process, "python_program", lambda: "/nowhere/python"):
            self.start()
            end = self.assert_idle()
        self.assertEqual(end.state, "not started")
        with mock.patch.object(job_process, "python_program", lambda: "/nowhere/python"):
            with self.assertRaisesRegex(TaskFailed, "could not be started"):
                self.logic.train(epochs=1)

    def test_killed_and_scene_closed_and_quit(self) -> None:
        self.start()
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        end = self.assert_idle(pid)
        self.assertEqual(end.state, "crashed")
        self.assertIn("Nothing of the scene was changed", end.message)

        self.start()
        pid = self.pid()
        supports = self.logic.supports()
        self.assertEqual(len(supports), 2)
        slicer_world.clear_scene()
        end = self.assert_idle(pid)
        self.assertEqual(end.state, "cancelled")
        self.assertIn("scene was closed", end.message)

        for seed in range(2):
            self.logic.addSupport(*add_patient(seed, f"Patient {seed}"))
        self.start()
        pid = self.pid()
        if slicer_world.REAL:
            self.logic.close()
        else:
            slicer.app.emit_about_to_quit()
        self.assertIsNone(self.logic.running())
        self.assertEqual(self.folders(), [])
        self.assert_gone(pid)

    def test_missing_packages_and_weights(self) -> None:
        site = self.folder / "site"
        site.mkdir()
        (site / "torch.py").write_text("raise ModuleNotFoundError('No torch.', name='torch')")
        # Not by PYTHONPATH, which Slicer's Python launcher sets itself.
        engine = Path(job_process.engine_parent(), "FewShotSegLib")
        shutil.copytree(engine, site / engine.name, ignore=shutil.ignore_patterns("__pycache__"))
        with mock.patch.object(job_process, "engine_parent", return_value=site):
            with self.assertRaisesRegex(TaskFailed, "«torch» is not installed.*Press Install"):
                self.logic.train(epochs=1)
        (self.folder / "home" / "models" / "tiny.safetensors").unlink()
        self.assertIn("weights are not on this machine", self.logic.blockers("train")[0])
        with self.assertRaisesRegex(InputError, "weights are not on this machine"):
            self.logic.train(epochs=1)

    def test_cancelled_while_it_is_handed_over(self) -> None:
        self.start()
        self.logic.cancel()
        self.assertEqual(self.assert_idle().state, "cancelled")
        with self.assertRaises(InputError):
            self.logic.train(nonsense=1)
        with self.assertRaises(InputError):
            self.logic.train(method="nonsense")

    def test_a_console_that_waits_hears_that_it_was_cancelled(self) -> None:
        qt.QTimer.singleShot(50, self.logic.cancel)
        with self.assertRaisesRegex(Cancelled, "Stopped"):
            self.logic.train(epochs=1000)


class WordsTest(unittest.TestCase):
    """What is said of ends that tests can't bring about."""

    def test_killed_with_much_memory_is_memory(self) -> None:
        total = 16 * 2**30
        for held, left, ran_out in (
            *((0.9, 0.0, True), (0.61, 0.3, True), (0.9, None, True)),
            *((0.3, 0.01, True), (0.3, 0.3, False), (0.3, None, False), (0.01, 0.01, False)),
        ):
            with self.subTest(held=held, left=left):
                available = None if left is None else int(left * total)
                ended = Ended("crashed", 0, None, int(held * total), available, total)
                state, text = task_words.end_words("train", ended, "")
                self.assertEqual(state, "crashed")
                self.assertEqual("memory ran out" in text, ran_out, text)
                self.assertEqual("of 16.0 GB" in text, ran_out, text)
        _state, text = task_words.end_words("train", Ended("crashed", memory_bytes=2**40), "")
        self.assertNotIn("ran out", text, "of how much was not heard")

    def test_memory_that_the_engine_noticed(self) -> None:
        final = {"event": "failed", "kind": "OutOfMemory", "message": "x"}
        state, text = task_words.end_words("train", Ended("exited", 2, final), "")
        self.assertEqual(state, "failed")
        self.assertIn("memory is not enough", text)

    def test_killed_below_slicers_launcher(self) -> None:
        lines = ["error: [/slicer/bin/python-real] exit abnormally - Report the problem."]
        state, text = task_words.end_words("train", Ended("exited", 1, lines=lines), "")
        self.assertEqual(state, "crashed")
        self.assertIn("killed or crashed", text)

    def test_an_exit_without_a_word(self) -> None:
        ended = Ended("exited", 3, lines=["Fatal Python error"])
        state, text = task_words.end_words("train", ended, "")
        self.assertEqual(state, "crashed")
        self.assertIn("status 3 (Fatal Python error)", text)


class FoldersTest(slicer_world.SceneTestCase):
    """Job folders of processes that are no more; test_job_folders.py has the rest."""

    def test_abandoned_folders_go_and_others_stay(self) -> None:
        mine = make_job_folder()
        self.addCleanup(remove_job_folder, mine)
        parent = Path(slicer.app.temporaryPath)
        child = subprocess.Popen([sys.executable, "-c", ""])
        gone = job_folders.make_job_folder(parent, child.pid)
        (gone / "results").mkdir()
        child.wait()
        other = parent / "other"
        other.mkdir(exist_ok=True)
        self.assertEqual(remove_abandoned(), 1)
        self.assertEqual((mine.exists(), gone.exists(), other.exists()), (True, False, True))


class StallTest(LogicTestCase):
    """How long the GUI thread is kept busy."""

    def test_handing_over_a_large_volume(self) -> None:
        array = np.zeros((512, 512, 200), np.int16, order="F")
        volume = add_volume(array, affine_of((0.7, 0.7, 1.5)), "Large")
        done: list[Any] = []
        slicer.app.processEvents()
        stalls = Stalls()
        stepper = Stepper(volume_steps(self.folder, "v.npy", volume, done), done.append)
        slicer_world.process_events_until(lambda: len(done) == 2, 900)
        del stepper
        print(f"\nlongest stall of the GUI thread, 512 x 512 x 200 handed over: {stalls.stop()}")
        self.assertIsNone(done[1])
        self.assertLess(stalls.own, 0.1)
        written = np.load(self.folder / "v.npy", mmap_mode="r")
        self.assertEqual((written.shape, written.flags.f_contiguous), (array.shape, True))

    def test_no_step_of_it_copies_the_whole(self) -> None:
        volume = add_volume(np.zeros((256, 256, 100), np.int16, order="F"), affine_of(), "Large")
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for _ in volume_steps(self.folder, "v.npy", volume, []):
            pass
        self.assertLess(tracemalloc.get_traced_memory()[1], 2**20)

    def test_voxels_that_change_meanwhile_are_handed_over_as_they_are_then(self) -> None:
        array = np.random.default_rng(0).integers(0, 9, (256, 256, 100)).astype(np.int16)
        volume = add_volume(array, affine_of(), "Large")
        files: list[Any] = []
        steps = volume_steps(self.folder, "v.npy", volume, files)
        next(steps)
        slicer.util.arrayFromVolume(volume)[0] = 77
        slicer.util.arrayFromVolumeModified(volume)
        for _ in steps:
            pass
        written = np.load(self.folder / files[0].file)
        np.testing.assert_array_equal(written, slicer.util.arrayFromVolume(volume).T)
        self.assertTrue((written[..., 0] == 77).all())
        with self.assertRaisesRegex(InputError, "is being changed. Wait"):
            for _ in volume_steps(self.folder, "w.npy", volume, []):
                slicer.util.arrayFromVolumeModified(volume)


if __name__ == "__main__":
    unittest.main()
