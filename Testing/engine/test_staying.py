"""A process that does one job after another: nothing of one reaches the next, and it never stays
where nobody can have a job for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from job_case import StayingWorker, Worker, put_query, put_support
from tiny_model import STRUCTURES, TinyWorld

from FewShotSegLib.core.annotation import parse_structures
from FewShotSegLib.core.job_folders import DESK, MARKER, make_job_folder, remove_abandoned
from FewShotSegLib.core.job_protocol import (
    CANCEL,
    DevicesJob,
    PhantomsJob,
    TrainJob,
    hand_next,
    make_private,
    take_next,
    write_job,
)
from FewShotSegLib.core.processes import process_exists
from FewShotSegLib.models import registry
from FewShotSegLib.models.kept import KeptModels, key_of
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.worker import staying
from FewShotSegLib.worker.leash import LOOK_SECONDS
from FewShotSegLib.worker.process_state import ProcessState


class JobsTest(TinyWorld):
    """Real jobs on a small model."""

    def train_job(self, name: str, seed: int, method: str = "adapter") -> Path:
        folder = make_private(self.folder / name)
        write_job(
            folder,
            TrainJob(
                [put_support(folder, p, n) for n, p in enumerate(self.supports)],
                parse_structures(STRUCTURES),
                str(self.model),
                method=method,
                seed=seed,
                settings={"epochs": 2, "learning_rate": 0.02},
                device="cpu",
                cache=str(self.world / "cache"),
                validate=False,
            ),
        )
        return folder

    def segment_job(self, name: str, adapter: Path) -> Path:
        return put_query(
            self.folder / name,
            self.query.image,
            adapter,
            model=str(self.model),
            uncertainty=True,
            device="cpu",
            cache=str(self.world / "cache"),
        )

    def arrays(self, folder: Path) -> dict[str, bytes]:
        found = (folder / "results").glob("*.npy")
        return {path.name: np.load(path).tobytes() for path in found}

    def test_a_job_gives_after_others_what_it_gives_alone_bit_for_bit(self) -> None:
        worker = StayingWorker(self.folder)
        self.addCleanup(worker.close)
        pids = set()
        # One that trains the network itself, with other seeds, comes first.
        for name, seed, method in (("w0", 9, "ft"), ("w1", 5, "adapter"), ("w2", 5, "lora")):
            events = worker.do(self.train_job(name, seed, method))
            self.assertEqual(events[-1]["event"], "finished", events[-1])
            pids.add(events[0]["pid"])
        adapter = self.folder / "w1" / "results" / "adapter.fseft"
        events = worker.do(self.segment_job("w3", adapter))
        self.assertEqual(events[-1]["event"], "finished", events[-1])
        self.assertEqual(len(pids | {events[0]["pid"]}), 1, "one process did them all")
        for name, seed, method in (("c1", 5, "adapter"), ("c2", 5, "lora")):
            status, _events, errors = Worker(self.train_job(name, seed, method)).ended()
            self.assertEqual(status, 0, errors)
            cold, warm = (
                TrainedAdapter.load(self.folder / n / "results" / "adapter.fseft")
                for n in (name, name.replace("c", "w"))
            )
            self.assertEqual(cold.content_sha256(), warm.content_sha256(), method)
        status, _events, errors = Worker(self.segment_job("c3", adapter)).ended()
        self.assertEqual(status, 0, errors)
        cold, warm = self.arrays(self.folder / "c3"), self.arrays(self.folder / "w3")
        self.assertTrue(cold)
        self.assertEqual(cold, warm)

    def test_one_that_fails_ends_it_and_leaves_nothing(self) -> None:
        parent = self.folder / "temporary"
        parent.mkdir()
        worker = StayingWorker(parent)
        self.addCleanup(worker.close)
        folder = make_job_folder(parent)
        (folder / "query.npy").write_bytes(b"voxels")
        write_job(folder, PhantomsJob(str(self.folder / "patients" / "\0"), 1))
        events = worker.do(folder)
        self.assertEqual(events[-1]["event"], "failed")
        self.assertEqual(worker.wait(), 2)
        self.assertEqual(list(parent.iterdir()), [])


@unittest.skipUnless(os.name == "posix", "processes that are killed")
class EndsTest(unittest.TestCase):
    """When it leaves; no job of these needs torch."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.parent = self.folder / "temporary"
        self.parent.mkdir()

    def worker(self, seconds: float = 600.0) -> StayingWorker:
        worker = StayingWorker(self.parent, seconds)
        self.addCleanup(worker.close)
        return worker

    def short(self) -> Path:
        """A job that is done immediately."""
        folder = make_job_folder(self.parent)
        write_job(folder, DevicesJob())
        return folder

    def long(self) -> Path:
        """A job that goes on for minutes."""
        folder = make_job_folder(self.parent)
        write_job(folder, PhantomsJob(str(self.folder / "patients"), 1000))
        return folder

    def test_when_nobody_has_had_a_job_for_a_while(self) -> None:
        worker = self.worker(0.2)
        events = worker.do(self.short())
        self.assertEqual(events[-1]["event"], "finished")
        self.assertEqual(worker.wait(), 0)
        self.assertFalse(worker.desk.exists())

    def test_when_its_desk_is_gone(self) -> None:
        worker = self.worker()
        worker.do(self.short())
        (worker.desk / MARKER).unlink()
        worker.desk.rmdir()
        self.assertEqual(worker.wait(), 3)

    def test_when_its_caller_is_gone_while_it_waits_and_while_it_works(self) -> None:
        for case in ("waits", "works"):
            with self.subTest(case):
                caller = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                self.addCleanup(caller.wait)
                self.addCleanup(caller.kill)
                worker = self.of_caller(caller.pid)
                if case == "works":
                    hand_next(worker.desk, self.long())
                    self.assertEqual(
                        json.loads(worker.process.stdout.readline())["event"], "started"
                    )
                caller.kill()
                caller.wait()
                self.assertEqual(worker.wait(), 3)
                self.assertFalse(worker.desk.exists())
                self.assertEqual(list(self.parent.iterdir()), [])

    def of_caller(self, pid: int) -> StayingWorker:
        """A process whose desk is another's."""
        with mock.patch("job_case.make_job_folder") as make:
            make.side_effect = lambda parent, label: make_job_folder(parent, pid, label)
            return self.worker()

    def test_when_its_parent_is_gone_though_its_desk_is_not(self) -> None:
        program = (
            "import sys, time; sys.path[:0] = sys.argv[2:]\n"
            "from pathlib import Path\n"
            "import prepared_python\n"
            "prepared_python.program = lambda: sys.executable\n"
            "from job_case import StayingWorker\n"
            "worker = StayingWorker(Path(sys.argv[1]))\n"
            "print(worker.process.pid, worker.desk, flush=True)\n"
            "time.sleep(600)\n"
        )
        root = Path(__file__).resolve().parents[2]
        parent = subprocess.Popen(
            [
                *(sys.executable, "-c", program, str(self.parent)),
                *(str(root), str(root / "Testing" / "support")),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(parent.stdout.close)
        pid, desk = parent.stdout.readline().split(maxsplit=1)
        parent.kill()
        parent.wait()
        end = time.monotonic() + 600
        while process_exists(int(pid)) or Path(desk.strip()).exists():
            self.assertLess(time.monotonic(), end, "it stays")
            time.sleep(0.02)

    def test_a_cancelled_job_ends_it(self) -> None:
        worker = self.worker()
        folder = self.long()
        hand_next(worker.desk, folder)
        self.assertEqual(json.loads(worker.process.stdout.readline())["event"], "started")
        (folder / CANCEL).touch()
        self.assertEqual(worker.events()[-1]["event"], "cancelled")
        self.assertEqual(worker.wait(), 2)
        self.assertEqual(list(self.parent.iterdir()), [])

    def test_a_folder_that_its_caller_takes_away_is_nothing_to_it(self) -> None:
        worker = self.worker()
        first = self.short()
        worker.do(first)
        for path in sorted(first.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        first.rmdir()
        time.sleep(5 * LOOK_SECONDS)  # a watchdog that still looked there would leave
        self.assertEqual(worker.do(self.short())[-1]["event"], "finished")

    def test_when_memory_is_short(self) -> None:
        desk = make_job_folder(self.parent, label=DESK)
        watch = staying.DeskWatch(desk)
        with (
            mock.patch.object(staying, "available_memory", return_value=5),
            mock.patch.object(staying, "total_memory", return_value=100),
        ):
            self.assertTrue(staying.is_memory_short())
            self.assertIsNone(watch.next_folder(600.0))
        hand_next(desk, self.folder / "a b ß")
        self.assertEqual(watch.next_folder(600.0), self.folder / "a b ß")
        self.assertIsNone(take_next(desk))

    def test_desks_of_processes_that_are_no_more_are_swept(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        gone = make_job_folder(self.parent, child.pid, DESK)
        unfinished = make_job_folder(self.parent, child.pid, DESK)
        (unfinished / MARKER).unlink()
        mine = make_job_folder(self.parent, label=DESK)
        self.assertEqual(remove_abandoned(self.parent), 2)
        self.assertEqual(list(self.parent.iterdir()), [mine])
        self.assertFalse(gone.exists())


class StateTest(TinyWorld):
    """What a job could leave behind in the process."""

    def test_everything_is_as_it_was(self) -> None:
        folder = os.getcwd()
        self.addCleanup(os.chdir, folder)
        self.addCleanup(setattr, registry, "kept_models", registry.kept_models)
        state = ProcessState()
        threads, random = torch.get_num_threads(), torch.get_rng_state()
        state.keep(TrainJob([], [], "x"))
        torch.set_num_threads(threads + 1)
        torch.manual_seed(3)
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        benchmark = torch.backends.cudnn.benchmark
        torch.set_grad_enabled(False)
        os.environ["FEWSHOTSEG_TEST"] = "1"
        os.chdir(self.folder)
        with mock.patch.object(tempfile, "tempdir", str(self.folder)):
            state.restore()
        self.assertEqual(torch.get_num_threads(), threads)
        self.assertTrue(torch.equal(torch.get_rng_state(), random))
        self.assertEqual(torch.get_default_dtype(), torch.float32)
        self.assertFalse(torch.are_deterministic_algorithms_enabled())
        self.assertNotEqual(torch.backends.cudnn.benchmark, benchmark)
        self.assertTrue(torch.is_grad_enabled())
        self.assertNotIn("FEWSHOTSEG_TEST", os.environ)
        self.assertEqual(os.getcwd(), folder)

    def test_jobs_without_torch_load_none(self) -> None:
        with mock.patch("FewShotSegLib.worker.process_state._torch_settings") as settings:
            state = ProcessState()
            state.keep(DevicesJob())
            state.restore()
        settings.assert_not_called()


class KeptModelTest(TinyWorld):
    """The model stays loaded, and is what its file is."""

    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(registry, "kept_models", KeptModels())
        patch.start()
        self.addCleanup(patch.stop)

    def test_it_is_read_once_and_nobody_changes_it(self) -> None:
        first = registry.find_model(str(self.model))
        weights = first.backbone.state_dict()
        name = next(iter(weights))
        before = weights[name].clone()
        with torch.no_grad():
            weights[name].fill_(7.0)
        with mock.patch.object(registry.Model, "_read_backbone") as read:
            second = registry.find_model(str(self.model))
            self.assertTrue(torch.equal(second.backbone.state_dict()[name], before))
            self.assertEqual(second.weights_sha256, first.weights_sha256)
        read.assert_not_called()

    def test_another_file_is_read_anew(self) -> None:
        model = registry.find_model(str(self.model))
        _backbone, key = model.backbone, key_of(model.entry)
        weights = model.entry.weights
        stat = weights.stat()
        content = weights.read_bytes()
        weights.write_bytes(content)
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        self.assertNotEqual(key_of(model.entry), key, "written anew, with the same size and time")
        self.assertIsNone(registry.kept_models.digest(model.entry))
        with mock.patch.object(
            registry.Model,
            "_read_backbone",
            side_effect=registry.Model._read_backbone,
            autospec=True,
        ) as read:
            self.assertIsNotNone(registry.find_model(str(self.model)).backbone)
        read.assert_called_once()

    def test_loading_draws_nothing_from_a_seed(self) -> None:
        torch.manual_seed(4)
        expected = torch.rand(3)
        for _ in range(2):
            torch.manual_seed(4)
            self.assertIsNotNone(registry.find_model(str(self.model)).backbone)
            self.assertTrue(torch.equal(torch.rand(3), expected))


if __name__ == "__main__":
    unittest.main()
