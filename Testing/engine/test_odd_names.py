"""Names of files whose bytes are no UTF-8, wherever a command writes; and closed streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path
from unittest import mock

from benchmark_case import BenchmarkCase
from filelock import FileLock
from pretraining_world import World, description
from tiny_model import STRUCTURES, TrainedWorld, run

from FewShotSegLib.compute.transaction import JOURNAL, Transaction, recover
from FewShotSegLib.core.atomic import write_json
from FewShotSegLib.core.json_fields import load_json
from FewShotSegLib.core.plain_text import half_characters_shown, path_text
from FewShotSegLib.evaluation.benchmark.results import NAME
from FewShotSegLib.pipeline.report import read_reports

ODD = os.fsdecode(b"o\xff\xfe")
SHOWN = r"o\xff\xfe"
ROOT = Path(__file__).resolve().parents[2]


class TextTest(unittest.TestCase):
    """How such a name is written."""

    def test_paths(self) -> None:
        for name, text in (
            (ODD, SHOWN),
            ("Größe 肝", "Größe 肝"),
            (os.fsdecode(b"a/\x80b"), r"a/\x80b"),
            ("a\0b", r"a\x00b"),
            ("\ud800", r"\ud800"),
            (Path(ODD), SHOWN),
        ):
            self.assertEqual(path_text(name), text)
        self.assertEqual(half_characters_shown("a\U0001fad8b"), "a\U0001fad8b")

    def test_json(self) -> None:
        folder = Path(self.enterContext(mock_folder()))
        write_json(folder / "x.json", {"path": f"{ODD}/ü", ODD: [ODD], "plain": "a\\xff"})
        read = load_json(folder / "x.json", "file")
        self.assertEqual(read, {"path": f"{SHOWN}/ü", SHOWN: [SHOWN], "plain": "a\\xff"})


def mock_folder():
    """A temporary folder."""
    import tempfile

    return tempfile.TemporaryDirectory()


class CommandsTest(TrainedWorld):
    """Each command with such an output."""

    def done(self, *arguments: str) -> str:
        ran = run(*arguments)
        self.assertEqual(ran.status, 0, ran.err)
        return ran.out

    def test_segment_one(self) -> None:
        out = self.folder / f"{ODD}.nii.gz"
        for _ in range(2):  # the second finds the first's report
            arguments = self.segment_arguments(self.adapter, out, str(self.query.image))
            self.assertIn(r"o\udcff\udcfe.nii.gz", self.done(*arguments))
        self.assertEqual(set(os.listdir(self.folder)), {out.name, "report.json"})
        self.assertEqual(list(read_reports(self.folder / "report.json")), [f"{SHOWN}.nii.gz"])

    def test_segment_into_a_folder(self) -> None:
        out = self.folder / ODD
        out.mkdir()
        queries = [str(self.query.image), str(self.supports[0].image)]
        for _ in range(2):
            self.done(*self.segment_arguments(self.adapter, out, *queries))
        wanted = {"query_seg.nii.gz", "support0_seg.nii.gz", "report.json"}
        wanted |= {"volumes.csv", "volumes.html", "pictures"}
        self.assertEqual(set(os.listdir(out)), wanted)

    def test_adapt_inspect_and_evaluate(self) -> None:
        adapter = self.folder / ODD / f"{ODD}.fseft"
        self.done(*self.adapt_arguments(adapter, epochs=1))
        self.assertIn("bean", self.done("inspect", str(adapter)))
        drawn, scores = str(self.query.segmentation), self.folder / f"{ODD}.json"
        pair = ("--reference", drawn, "--prediction", drawn, "--json", str(scores))
        self.done("evaluate", *pair)
        self.assertEqual(load_json(scores, "scores")["mean_dice"], 1)
        cache = ("--cache", str(self.folder / f"c{ODD}"))
        arguments = self.segment_arguments(adapter, self.folder / "x.nrrd", str(self.query.image))
        self.done(*arguments, *cache)

    def test_demo_is_refused_before_it_makes_anything(self) -> None:
        ran = run("demo", "--out", str(self.folder / ODD))
        self.assertEqual(ran.status, 2)
        self.assertIn("not in UTF-8", ran.err)
        self.assertEqual(os.listdir(self.folder), [])

    def test_one_demo_at_a_time(self) -> None:
        with FileLock(self.folder / ".demo.lock"):
            ran = run("demo", "--out", str(self.folder), "--device", "cpu")
        self.assertEqual(ran.status, 2)
        self.assertIn("Another demo is running", ran.err)
        self.assertFalse((self.folder / "phantoms").exists())

    def test_what_a_killed_run_left_is_found(self) -> None:
        files = Transaction(self.folder)
        staged = files.path(f"{ODD}.txt")
        staged.write_text("whole")
        write_json(staged.parent / JOURNAL, {"files": {f"{ODD}.txt": None}})
        dead = staged.parent.name.replace(f"-{os.getpid()}-", "-999999999-")
        staged.parent.rename(self.folder / dead)
        self.assertEqual(recover(self.folder), 1)
        self.assertEqual(os.listdir(self.folder), [f"{ODD}.txt"])
        self.assertEqual((self.folder / f"{ODD}.txt").read_text(), "whole")


class PretrainTest(World):
    def test_a_folder_and_going_on_in_it(self) -> None:
        out = self.folder / ODD
        path = self.write(description(), "odd.json")
        for more in (("--steps", "2"), ("--steps", "2", "--resume")):
            ran = run("pretrain", str(path), "--out", str(out), "--device", "cpu", *more)
            self.assertEqual(ran.status, 0, ran.err)
        self.assertTrue((out / "tiny-pretrained.safetensors").is_file())
        left = [name for name in os.listdir(out) if name.endswith(".lock")]
        self.assertEqual(left, [])


class BenchmarkNamesTest(BenchmarkCase):
    def test_a_folder(self) -> None:
        path = self.write(methods=[{"method": "linear-probe", "epochs": 1}], shots=[1])
        out = self.folder / ODD
        for _ in range(2):
            ran = self.benchmark(path, "--out", str(out))
            self.assertEqual(ran.status, 0, ran.err)
        lines = (out / NAME).read_text(encoding="utf-8").splitlines()
        self.assertEqual(len([json.loads(line) for line in lines]), 4)

    def test_a_new_plan(self) -> None:
        plan = self.folder / f"{ODD}.json"
        more = ("--new", str(self.data), "--structures", STRUCTURES, "--model", str(self.model))
        ran = run("benchmark", str(plan), *more)
        self.assertIn(ran.status, (0, 2), ran.err)  # it takes four cases
        self.assertNotIn("Traceback", ran.err)


class StreamsTest(unittest.TestCase):
    """Output that goes nowhere, and variables that others set."""

    def command(self, line: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", f'"$PYTHON" -m FewShotSegLib {line}'],
            env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def test_closed_ones(self) -> None:
        for line in ("models >&-", "models --events >&-", "models 2>&-", "models >&- 2>&-"):
            with self.subTest(line):
                ran = self.command(line)
                self.assertEqual(ran.returncode, 0, ran.stderr)
                self.assertNotIn("Traceback", ran.stderr)

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_full_ones(self) -> None:
        for line in ("models >/dev/full", "models --events >/dev/full", "models --json >/dev/full"):
            with self.subTest(line):
                ran = self.command(line)
                self.assertEqual(ran.returncode, 2)
                self.assertIn("No space left", ran.stderr)
                self.assertNotIn("Traceback", ran.stderr)
                self.assertNotIn("Exception", ran.stderr)

    def test_variables_of_torchrun(self) -> None:
        for value in ("abc", "", "-1", "9" * 5000, "²", "1.0"):
            with mock.patch.dict(os.environ, {"WORLD_SIZE": value}):
                with self.subTest(value[:5]):
                    self.assertEqual(run("models").status, 0)


class TorchrunTest(World):
    def test_variables_of_torchrun(self) -> None:
        for value in ("abc", "-1", "0", "9" * 5000, "²"):
            with mock.patch.dict(os.environ, {"WORLD_SIZE": value}), self.subTest(value[:5]):
                ran = run("pretrain", str(self.path), "--out", str(self.folder), "--steps", "1")
                self.assertEqual(ran.status, 2)
                self.assertIn("WORLD_SIZE", ran.err)


class ModelsTest(TrainedWorld):
    """What ``models`` and ``remove`` say of what is not there."""

    def test_remove(self) -> None:
        ran = run("remove", "btcv")
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual(ran.out, "There are no weights of 'btcv' to remove.\n")

    def test_no_id_is_not_every_id(self) -> None:
        ran = run("models", "")
        self.assertEqual((ran.status, ran.out), (2, ""))
        self.assertIn("There is no model ''", ran.err)


if __name__ == "__main__":
    unittest.main()
