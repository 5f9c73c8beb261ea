"""kill -9 of command and worker: no half file, nothing left once the next has started, no refusal.

A handful at named moments; ``make soak`` has a hundred at random ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from job_case import put, put_support
from soak_profile import record, soak_only
from tiny_model import QUICK, STRUCTURES, TinyWorld

from FewShotSegLib.core.annotation import parse_structures
from FewShotSegLib.core.job_folders import MARKER, PREFIX, make_job_folder, remove_job_folder
from FewShotSegLib.core.job_protocol import Job, SegmentJob, TrainJob, write_job
from FewShotSegLib.core.processes import process_exists, process_start
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 6
KILLS = 100
SEED = int(os.environ.get("FEWSHOTSEG_KILL_SEED", "0"))
PATIENCE = 120.0


class Killed(Exception):
    """The run went on to its end: it was not there any more when the moment came."""


@unittest.skipUnless(os.name == "posix" and hasattr(os, "fork"), "kill -9 and fork")
class KillsTestCase(TinyWorld):
    """A server that runs what is to be killed, and an undisturbed run of everything."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        cls.server = subprocess.Popen(
            [sys.executable, str(ROOT / "Testing" / "support" / "kill_server.py")],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        cls.addClassCleanup(cls.stop_server)
        cls.temporary = cls.world / "temporary"
        cls.temporary.mkdir()
        cls.events = cls.world / "events.jsonl"
        cls.counts: Counter[str] = Counter()
        cls.adapter = cls.world / "whole.fseft"
        cls.results = cls.world / "whole"
        for name, arguments in (
            ("adapt", cls.command("adapt", cls.adapter, cls.world / "cache")),
            ("segment", cls.command("segment", cls.results, cls.world / "cache")),
        ):
            status, _ = cls.run_whole("command", arguments)
            assert status == 0, (name, cls.log())

    @classmethod
    def stop_server(cls) -> None:
        cls.server.stdin.close()
        cls.server.wait(60)
        cls.server.stdout.close()

    @classmethod
    def log(cls) -> str:
        return Path(f"{cls.events}.log").read_text(errors="replace")[-2000:]

    @classmethod
    def command(cls, name: str, out: Path, cache: Path, *more: str) -> list[str]:
        if name == "adapt":
            arguments = cls.adapt_arguments(out, "--events", *more, epochs=EPOCHS)
        else:
            queries = (str(cls.query.image), str(cls.supports[0].image))
            arguments = cls.segment_arguments(
                cls.adapter, out, *queries, "--probabilities", "--events", *more
            )
        arguments[arguments.index("--cache") + 1] = str(cache)
        return arguments

    @classmethod
    def begin(cls, kind: str, arguments: list[str]) -> int:
        """Start a run; its process id."""
        cls.events.write_bytes(b"")
        spec = {"kind": kind, "arguments": arguments, "out": str(cls.events)}
        cls.server.stdin.write(json.dumps(spec) + "\n")
        cls.server.stdin.flush()
        return int(cls.server.stdout.readline())

    @classmethod
    def status(cls) -> int:
        """Of the run, once it is over."""
        return int(cls.server.stdout.readline())

    @classmethod
    def run_whole(cls, kind: str, arguments: list[str]) -> tuple[int, float]:
        """A run to its end: its status, and how long it took."""
        begun = time.monotonic()
        cls.begin(kind, arguments)
        return cls.status(), time.monotonic() - begun

    def at_event(self, text: str) -> Callable[[int], None]:
        """Waits until the run says so."""

        def wait(pid: int) -> None:
            end = time.monotonic() + PATIENCE
            while text not in self.events.read_text(errors="replace"):
                if not process_exists(pid) or time.monotonic() > end:
                    raise Killed(self.log())
                time.sleep(0.001)

        return wait

    def after(self, seconds: float) -> Callable[[int], None]:
        """Waits so long."""
        return lambda pid: time.sleep(seconds)

    def kill(self, kind: str, arguments: list[str], moment: Callable[[int], None]) -> bool:
        """Start a run and kill it at a moment; whether it was still there."""
        pid = self.begin(kind, arguments)
        try:
            moment(pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            status = self.status()
        self.counts["kills" if status == -signal.SIGKILL else "over before"] += 1
        return status == -signal.SIGKILL

    # --- what must hold

    def assert_whole(self, folder: Path) -> None:
        """Whatever can be seen in a folder can be used; hidden files are nobody's yet."""
        for path in folder.rglob("*"):
            if path.is_dir() or any(part.startswith(".") for part in path.parts[-3:]):
                continue
            try:
                if path.name.endswith(".nii.gz"):
                    read_image(path)
                elif path.suffix == ".fseft":
                    TrainedAdapter.load(path)
                elif path.suffix == ".json":
                    json.loads(path.read_text(encoding="utf-8"))
            except Exception as error:
                self.counts["half files"] += 1
                self.fail(f"{path} is half a file: {error}")

    def assert_nothing_left(self, *folders: Path) -> None:
        """No temporary file, nor folder, of a killed run."""
        left = [
            str(path.relative_to(folder))
            for folder in folders
            if folder.exists()
            for path in folder.rglob("*")
            if path.name.startswith((".", "partial-", PREFIX)) and not path.name.endswith(".lock")
        ]
        self.counts["left"] += len(left)
        self.assertEqual(left, [])

    def assert_runs(self, kind: str, arguments: list[str]) -> None:
        """The same run is not refused."""
        status, _ = self.run_whole(kind, arguments)
        self.counts["refusals"] += status != 0
        self.assertEqual(status, 0, self.log())

    # --- the runs

    def killed_adapt(self, moment: Callable[[int], None], resume: bool, fresh: bool) -> bool:
        """``adapt``, killed and run again; whether it was killed."""
        out, cache = self.folder / "x.fseft", self.folder / "cache"
        if not fresh:
            shutil.copytree(self.world / "cache", cache)
        killed = self.kill("command", self.command("adapt", out, cache), moment)
        self.assert_whole(self.folder)
        self.assert_runs("command", self.command("adapt", out, cache, *["--resume"] * resume))
        self.assert_nothing_left(self.folder)
        self.assertFalse(Path(f"{out}.partial").exists())
        whole = TrainedAdapter.load(self.adapter).content_sha256()
        self.assertEqual(TrainedAdapter.load(out).content_sha256(), whole)
        return killed

    def killed_segment(self, moment: Callable[[int], None], fresh: bool) -> None:
        """``segment`` of two queries into a folder, killed and run again."""
        out, cache = self.folder / "results", self.folder / "cache"
        if not fresh:
            shutil.copytree(self.world / "cache", cache)
        arguments = self.command("segment", out, cache)
        self.kill("command", arguments, moment)
        self.assert_whole(self.folder)
        self.assert_runs("command", arguments)
        self.assert_nothing_left(self.folder)
        names = sorted(path.name for path in self.results.iterdir())
        self.assertEqual(sorted(path.name for path in out.iterdir()), names)
        for name in names:
            if name.endswith(".nii.gz"):
                self.assertEqual((out / name).read_bytes(), (self.results / name).read_bytes())
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        self.assertEqual(sorted(report["results"]), ["query_seg.nii.gz", "support0_seg.nii.gz"])

    def job(self, folder: Path, name: str) -> Job:
        """A job whose arrays are put into its folder."""
        cache = str(self.folder / "cache")
        if name == "adapt":
            supports = [put_support(folder, p, n) for n, p in enumerate(self.supports)]
            settings = {**QUICK.to_json(), "epochs": EPOCHS}
            return TrainJob(
                supports,
                parse_structures(STRUCTURES),
                str(self.model),
                settings=settings,
                device="cpu",
                cache=cache,
            )
        query = read_image(self.query.image)
        shutil.copyfile(self.adapter, folder / "adapter.fseft")
        array = put(folder, "query.npy", query.array, query.grid.affine)
        return SegmentJob(array, model=str(self.model), device="cpu", cache=cache)

    @contextlib.contextmanager
    def caller(self) -> Iterator[subprocess.Popen]:
        """A process that a job is for."""
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def killed_worker(self, name: str, moment: Callable[[int], None], whom: str) -> None:
        """A job whose worker, or caller, or both are killed; then the next one."""
        with self.caller() as caller:
            folder = make_job_folder(self.temporary, caller.pid)
            write_job(folder, self.job(folder, name))
            data = json.loads((folder / "job.json").read_text(encoding="utf-8"))
            (folder / "job.json").write_text(json.dumps({**data, "caller": caller.pid}))

            def at(pid: int) -> None:
                moment(pid)
                if whom != "worker":
                    caller.kill()
                    caller.wait()
                if whom == "caller":  # the worker notices by itself
                    end = time.monotonic() + PATIENCE
                    while process_exists(pid) and time.monotonic() < end:
                        time.sleep(0.01)

            self.kill("worker", [str(folder)], at)
            if whom == "worker":  # the module is there, and removes what is its own
                self.assertTrue(remove_job_folder(folder))
        self.next_worker()

    def next_worker(self) -> None:
        """The next job finds nothing in its way, and leaves nothing of the last."""
        folder = make_job_folder(self.temporary)
        write_job(folder, self.job(folder, "segment"))
        self.assert_runs("worker", [str(folder)])
        self.assertTrue((folder / "results" / "result.json").exists())
        self.assert_whole(folder)
        left = [path.name for path in self.temporary.iterdir() if path != folder]
        self.counts["left"] += len(left)
        self.assertEqual(left, [])
        self.assertTrue(remove_job_folder(folder))
        self.assert_nothing_left(self.folder)

    def clear(self) -> None:
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class NamedMomentsTest(KillsTestCase):
    """Where something is half done for sure."""

    def test_adapt_while_features_are_computed(self) -> None:
        moment = self.at_event('"phase": "features"')
        self.assertTrue(self.killed_adapt(moment, resume=False, fresh=True))

    def test_adapt_in_training_goes_on(self) -> None:
        self.assertTrue(self.killed_adapt(self.at_event('"epoch": 2'), resume=True, fresh=False))

    def test_segment_before_and_while_it_writes(self) -> None:
        for event in ('"phase": "segment"', '"phase": "write"'):
            self.killed_segment(self.at_event(event), fresh=False)
            self.clear()

    def test_worker_with_its_caller_and_alone(self) -> None:
        for name, event, whom in (
            ("adapt", '"event": "epoch"', "both"),
            ("segment", '"phase": "segment"', "worker"),
            ("adapt", '"phase": "features"', "caller"),
        ):
            self.killed_worker(name, self.at_event(event), whom)
            self.clear()

    def test_a_number_that_another_process_has_by_now(self) -> None:
        folder = make_job_folder(self.temporary)
        marker = json.loads((folder / MARKER).read_text())
        self.assertEqual(marker["start"], process_start(os.getpid()))
        (folder / MARKER).write_text(json.dumps({**marker, "start": "0"}))
        self.next_worker()


@soak_only
class RandomMomentsTest(KillsTestCase):
    """A hundred, of everything in turn."""

    def test_a_hundred(self) -> None:
        rng = random.Random(SEED)
        lives: dict[str, float] = {}
        kinds = ("adapt", "segment", "worker adapt", "worker segment")
        number = 0
        while self.counts["kills"] < KILLS:
            kind, fresh = kinds[number % len(kinds)], rng.random() < 0.5
            number += 1
            self.assertLess(number, 10 * KILLS, self.counts)
            seconds = rng.uniform(0, lives.get(kind, 1.0))
            begun = time.monotonic()
            with self.subTest(kind, number=number, seconds=round(seconds, 3), fresh=fresh):
                if kind == "adapt":
                    self.killed_adapt(self.after(seconds), rng.random() < 0.5, fresh)
                elif kind == "segment":
                    self.killed_segment(self.after(seconds), fresh)
                else:
                    whom = rng.choice(("worker", "caller", "both"))
                    self.killed_worker(kind.split()[1], self.after(seconds), whom)
            # A run again takes as long as a whole one: the next moments are drawn from that.
            lives[kind] = min(20.0, max(0.2, time.monotonic() - begun - seconds))
            self.clear()
        record("runs killed", self.counts["kills"])
        text = ", ".join(f"{self.counts[key]} {key}" for key in ("half files", "left", "refusals"))
        print(f"\n{self.counts['kills']} kills at random moments (seed {SEED}): {text}")
        for key in ("half files", "left", "refusals"):
            self.assertEqual(self.counts[key], 0, key)


if __name__ == "__main__":
    unittest.main()
