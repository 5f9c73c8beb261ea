"""Lists of queries and plans on a real Dask cluster of two worker processes, one of them killed."""

from __future__ import annotations

import csv
import io
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
import unittest
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import worker_gate
from benchmark_case import BenchmarkCase
from tiny_model import Ran, run

from FewShotSegLib.compute import cluster
from FewShotSegLib.core.errors import Cancelled, InputError
from FewShotSegLib.core.events import ignore
from FewShotSegLib.core.options import SegmentOptions
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline import cluster as on_cluster

SECONDS = 60


def threads_of_torch() -> int:
    return torch.get_num_threads()


def threads_here(job: Any) -> int:
    """A piece of work that says on how many threads it runs."""
    return threads_of_torch()


@unittest.skipUnless(find_spec("distributed"), "distributed is not installed")
class ClusterTest(BenchmarkCase):
    """A cluster with a worker a process, for the whole class."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        from distributed import Client, LocalCluster

        cls.adapter = cls.world / "trained.fseft"
        ran = run(*cls.adapt_arguments(cls.adapter, "--effort", "quick", epochs=1))
        assert ran.status == 0, ran.err
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            local = LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                silence_logs=50,
                local_directory=str(cls.world),
            )
        cls.addClassCleanup(local.close)
        cls.address = local.scheduler_address
        cls.client = Client(cls.address, set_as_default=False)
        cls.addClassCleanup(cls.client.close)

    def setUp(self) -> None:
        super().setUp()
        self.gate, self.out = self.folder / "gate", self.folder / "out"
        self.gate.mkdir()

    def marks(self, kind: str) -> list[str]:
        return sorted(path.name for path in self.gate.glob(f"{kind}-*"))

    def with_a_worker_killed(self, module: str, name: str, work: Any) -> Any:
        """Run; kill one of the workers as soon as both are in the middle of a piece of work."""
        (self.gate / "closed").touch()
        self.client.wait_for_workers(2, timeout=SECONDS)
        self.client.run(worker_gate.put_up, str(self.gate), module, name)
        self.killed: list[int] = []

        def kill() -> None:
            end = time.monotonic() + SECONDS
            while len(self.marks("begun")) < 2 and time.monotonic() < end:
                time.sleep(0.02)
            if len(self.marks("begun")) < 2:
                return  # the work ended otherwise, which is seen by what it says
            pid = int(self.marks("begun")[0].split("-")[1])
            self.killed.append(pid)
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            (self.gate / "closed").unlink()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            return work()
        finally:
            killer.join()
            self.assertEqual(len(self.killed), 1)
            gone = f"ended-{self.killed[0]}-"
            self.assertFalse(any(mark.startswith(gone) for mark in self.marks("ended")))

    def patients(self) -> Path:
        data = self.folder / "archive"
        for name in ("a", "b", "c"):
            (data / name).mkdir(parents=True)
            shutil.copy(self.data / f"{name}.nii.gz", data / name / "ct.nii.gz")
        whole = (self.data / "d.nii.gz").read_bytes()
        (data / "broken").mkdir()
        (data / "broken" / "ct.nii.gz").write_bytes(whole[: len(whole) // 2])
        return data

    def segmented(self, data: Path, out: Path, *more: str) -> Ran:
        return run(*self.segment_arguments(self.adapter, out, str(data), *more))

    def table(self) -> list[dict[str, str]]:
        text = (self.out / "volumes.csv").read_text("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text)))

    def test_a_list_of_queries_and_a_worker_killed_in_the_middle(self) -> None:
        data = self.patients()
        here = self.folder / "here"
        self.segmented(data, here)
        ran = self.with_a_worker_killed(
            "FewShotSegLib.pipeline.cluster",
            "segment",
            lambda: self.segmented(data, self.out, "--dask", self.address),
        )
        self.assertEqual(ran.status, 2)
        self.assertIn("1 of 4 queries could not be segmented; the other 3 were.", ran.err)
        self.assertNotIn("Traceback", ran.err)
        self.assertEqual(sorted(os.listdir(self.out)), sorted(os.listdir(here)))
        self.assertEqual(
            sorted(os.listdir(self.out / "pictures")), sorted(os.listdir(here / "pictures"))
        )
        for name in ("a", "b", "c"):
            one, other = (
                read_image(place / f"{name}_seg.nii.gz").array for place in (here, self.out)
            )
            np.testing.assert_array_equal(one, other)
        rows = self.table()
        self.assertEqual(len(rows), 3 * 2 + 1)
        self.assertEqual([row["volume"] for row in rows if row["error"]], ["broken"])
        self.assertEqual(ran.out.count("(done before)"), 0)
        # Started again: what is done stays as it is, and what failed is tried again.
        times = [(self.out / f"{name}_seg.nii.gz").stat().st_mtime_ns for name in "abc"]
        again = self.segmented(data, self.out, "--dask", self.address)
        self.assertEqual(again.out.count("(done before)"), 3)
        self.assertEqual(
            times, [(self.out / f"{name}_seg.nii.gz").stat().st_mtime_ns for name in "abc"]
        )
        self.assertEqual(self.table(), rows)
        # The scheduler ends before any result of this run: those of before stay listed.
        lost = cluster._reason(mock.Mock(status="cancelled"))
        every = [(number, lost) for number in range(4)]
        with mock.patch.object(cluster.Cluster, "run", lambda *_: iter(every)):
            ran = self.segmented(data, self.out, "--dask", self.address, "--again")
        self.assertEqual(ran.status, 2)
        self.assertIn("The connection to the Dask scheduler was lost", ran.err)
        known = [row for row in self.table() if not row["error"]]
        self.assertEqual(known, [row for row in rows if not row["error"]])
        self.assertEqual([row["volume"] for row in self.table() if row["error"]], ["broken"])
        page = (self.out / "volumes.html").read_text("utf-8")
        self.assertIn("3 segmented, 1 failed", page)
        # What fails of its own is a failure, also where it had a result.
        every = [(number, InputError("It is damaged.")) for number in range(4)]
        with mock.patch.object(cluster.Cluster, "run", lambda *_: iter(every)):
            self.segmented(data, self.out, "--dask", self.address)
        self.assertEqual(len([row for row in self.table() if row["error"]]), 4)

    def test_a_plan_and_a_worker_killed_in_the_middle(self) -> None:
        plan = self.write()
        self.benchmark(plan)
        alone = self.rows()
        shutil.rmtree(self.folder / "small")
        ran = self.with_a_worker_killed(
            "FewShotSegLib.evaluation.benchmark.cluster",
            "run_cell",
            lambda: self.benchmark(plan, "--dask", self.address),
        )
        self.assertEqual(ran.status, 0, ran.err)
        rows = self.rows()
        self.assertEqual(len({(r["setting"], r["query"]) for r in rows}), len(rows))

        def known(rows: list[dict[str, Any]]) -> list[Any]:
            return sorted((r["setting"], r["query"], sorted(r["dice"].items())) for r in rows)

        self.assertEqual(known(rows), known(alone))
        begun = len(self.marks("begun"))
        again = self.benchmark(plan, "--dask", self.address)
        self.assertEqual((again.status, len(self.rows())), (0, len(rows)))
        self.assertEqual(len(self.marks("begun")), begun)
        late = self.folder / "late.json"
        shutil.copy(plan, late)
        ran = self.benchmark(late, "--dask", self.address, "--minutes", "0")
        self.assertIn("cells were not started", ran.err)

    def test_a_volume_that_ends_every_worker_costs_no_other(self) -> None:
        """And no scheduler any more: each in a sentence."""
        from distributed import KilledWorker

        killed = KilledWorker("segment", mock.Mock(address="tcp://10.0.0.7:1"), 3)
        future = mock.Mock(status="error", exception=lambda: killed)
        self.assertIn("may need more memory", str(cluster._reason(future)))
        future = mock.Mock(status="cancelled")
        self.assertIn("Start the same command again", str(cluster._reason(future)))

    def test_work_that_no_one_waits_for_any_more_leaves_nothing(self) -> None:
        """The coordinator has gone before it began, or while a volume was segmented."""
        scratch = self.out / "hidden"
        task = on_cluster.SegmentTask(
            adapter=str(self.adapter),
            query=str(self.query.image),
            name="query_seg.nii.gz",
            workspace=str(scratch / "work"),
            options=SegmentOptions(model=str(self.model)),
            supports=(),
            device="cpu",
            cache=str(self.world / "cache"),
            cache_bytes=2**30,
            done="",
            picture=True,
        )
        self.out.mkdir()
        with self.assertRaises(Cancelled):
            on_cluster.segment_task(task)
        self.assertEqual(os.listdir(self.out), [])
        real = on_cluster.segment

        def gone_meanwhile(*arguments: Any, **named: Any) -> Any:
            shutil.rmtree(scratch)
            return real(*arguments, **named)

        (scratch / "work").mkdir(parents=True)
        (scratch / "work" / on_cluster.WAITED_FOR).touch()
        with (
            mock.patch.object(on_cluster, "SECONDS_BETWEEN_LOOKS", 0),
            mock.patch.object(on_cluster, "segment", gone_meanwhile),
            self.assertRaises(Cancelled),
        ):
            on_cluster.segment_task(task)
        self.assertEqual(os.listdir(self.out), [])

    def test_each_worker_has_its_part_of_the_cores(self) -> None:
        self.client.wait_for_workers(2, timeout=SECONDS)
        with cluster.connect(self.address, ignore) as workers:
            found = dict(workers.run(threads_here, [0, 1, 2]))
        share = max(1, len(os.sched_getaffinity(0)) // 2) if hasattr(os, "sched_getaffinity") else 1
        self.assertEqual(found, {0: share, 1: share, 2: share})

    def test_a_folder_that_workers_do_not_see(self) -> None:
        before = os.getcwd()
        with cluster._inside(str(self.folder)):
            self.assertTrue(os.path.samefile(".", self.folder))
        self.assertEqual(os.getcwd(), before)
        with (
            self.assertRaisesRegex(InputError, "must see the same files"),
            cluster._inside(str(self.folder / "elsewhere")),
        ):
            pass

    def test_what_can_not_be_used(self) -> None:
        data = self.patients()
        ran = self.segmented(data, self.folder / "x.nii.gz", "--dask", self.address)
        self.assertIn("one file", ran.err)
        with mock.patch.object(cluster, "SECONDS", 0.5):
            ran = self.segmented(data, self.out, "--dask", "tcp://127.0.0.1:1")
        self.assertEqual(ran.status, 2)
        self.assertIn("No Dask scheduler answers at tcp://127.0.0.1:1", ran.err)
        self.assertNotIn("Traceback", ran.err)
        with mock.patch.object(cluster, "find_spec", return_value=None):
            ran = self.segmented(data, self.out, "--dask", self.address)
        self.assertIn("pip install distributed", ran.err)
        with (
            mock.patch.object(cluster, "__version__", "0.0.0"),
            self.assertRaisesRegex(InputError, "has not FewShotSeg 0.0.0, but"),
            cluster.connect(self.address, ignore),
        ):
            pass


@unittest.skipUnless(find_spec("distributed"), "distributed is not installed")
class Addresses(unittest.TestCase):
    """What is no address is refused before there is a client, which could not be closed."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def refused(self, address: str, words: str) -> None:
        with (
            self.subTest(address),
            mock.patch("distributed.Client") as client,
            self.assertRaisesRegex(InputError, words),
            cluster.connect(address, ignore),
        ):
            pass
        client.assert_not_called()

    def test_what_is_no_address(self) -> None:
        for address in (
            *("", " ", "foo", "http://x", "http://x:8786", "tcp://127.0.0.1", "tcp://:8786"),
            *("tcp://head:port", "tcp://head:0", "tcp://head:99999", "::1:8786", "tcp://[::1"),
            "tcp://a://b:1",
        ):
            self.refused(address, "is no address of a Dask scheduler; give one such as tcp://head")

    def test_a_schedulers_file(self) -> None:
        path = self.folder / "scheduler.json"
        self.refused(str(path), "There is no file .*scheduler.json")
        for text in ("", "[]", "{}", "no JSON"):
            path.write_text(text)
            self.refused(str(path), "is not the file that a Dask scheduler writes")
        path.write_text('{"address": "foo"}')
        self.refused(str(path), "'foo' is no address")
        path.write_text('{"address": "tcp://10.0.0.7:8786"}')
        self.assertEqual(cluster._scheduler(str(path)), "tcp://10.0.0.7:8786")
        for address in ("tcp://head:8786", "head:8786", "tls://[::1]:8786"):
            self.assertEqual(cluster._scheduler(address), address)

    def test_an_empty_address_is_no_run_on_this_computer(self) -> None:
        with (
            mock.patch("FewShotSegLib.pipeline.adapter_file.TrainedAdapter.load"),
            mock.patch("FewShotSegLib.pipeline.batch.segment_each") as here,
        ):
            given = (str(self.folder / name) for name in ("a.nii.gz", "b.nii.gz"))
            ran = run("segment", "--adapter", "x.fseft", "--dask", "", "--out",
                      str(self.folder / "out"), *given)  # fmt: skip
        self.assertEqual(ran.status, 2)
        self.assertIn("'' is no address", ran.err)
        here.assert_not_called()

    def test_its_loggers_say_nothing(self) -> None:
        """Also those that distributed gives levels of their own."""
        import distributed  # noqa: F401

        log = logging.getLogger("distributed.client")
        before = log.level
        self.addCleanup(log.setLevel, before)
        log.setLevel(logging.INFO)
        cluster._silence()
        self.assertFalse(log.isEnabledFor(logging.CRITICAL))


if __name__ == "__main__":
    unittest.main()
