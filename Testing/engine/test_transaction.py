"""A result and its report: both in place or neither, and the same command can always run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from tiny_model import TrainedWorld, run

from FewShotSegLib.compute import transaction
from FewShotSegLib.compute.transaction import Transaction, recover
from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import InputError, StorageError
from FewShotSegLib.evaluation.benchmark.results import Results
from FewShotSegLib.io import results as result_files
from FewShotSegLib.pipeline import segmentation
from FewShotSegLib.pipeline.report import read_reports

ROOT = Path(__file__).resolve().parents[2]
KILLED = """\
import os, signal, sys
from pathlib import Path
import FewShotSegLib.core.atomic, FewShotSegLib.compute.transaction as transaction

calls, last = 0, int(sys.argv[2])

def counted(function):
    def call(*arguments, **more):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **more)
    return call

with transaction.Transaction(sys.argv[1]) as files:
    for module, name in ((os, 'replace'), (os, 'fsync'), (os, 'mkdir'), (os, 'unlink')):
        setattr(module, name, counted(getattr(module, name)))
    for name in 'abc':
        files.path(name).write_text('new ' + name)
    transaction.os.stat(sys.argv[1])
    files.commit()
print(calls)
"""
"""Killed at one of its calls of the system: the number is the second argument."""


class TransactionTest(unittest.TestCase):
    """Three files, of which one is there already."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kleine Größe ")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        home = mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(self.folder / "home")})
        home.start()
        self.addCleanup(home.stop)
        self.place = self.folder / "results"
        self.place.mkdir()
        (self.place / "a").write_text("old a")

    def found(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in sorted(self.place.iterdir())}

    OLD = {"a": "old a"}
    NEW = {"a": "new a", "b": "new b", "c": "new c"}

    def test_all_or_nothing(self) -> None:
        with self.assertRaises(KeyboardInterrupt), Transaction(self.place) as files:
            files.path("a").write_text("new a")
            raise KeyboardInterrupt
        self.assertEqual(self.found(), self.OLD)
        with Transaction(self.place) as files:
            for name in "abc":
                files.path(name).write_text(f"new {name}")
            self.assertEqual((self.place / "a").read_text(), "old a")
            files.commit()
        self.assertEqual(self.found(), self.NEW)

    def test_interrupted_while_the_files_move(self) -> None:
        real, moved = os.replace, []

        def interrupted(source: str, target: str) -> None:
            moved.append(target)
            if len(moved) == 3:  # the journal, the first file, and then
                raise KeyboardInterrupt
            real(source, target)

        with self.assertRaises(KeyboardInterrupt), Transaction(self.place) as files:
            for name in "abc":
                files.path(name).write_text(f"new {name}")
            with mock.patch.object(os, "replace", interrupted):
                files.commit()
        self.assertEqual(self.found(), self.NEW)

    @unittest.skipUnless(os.name == "posix", "kill -9")
    def test_killed_at_every_call_of_the_system(self) -> None:
        outcomes = []
        for number in range(1, 100):
            for path in self.place.iterdir():
                path.unlink()
            (self.place / "a").write_text("old a")
            child = subprocess.run(
                [sys.executable, "-c", KILLED, str(self.place), str(number)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            if child.returncode == 0:
                break
            self.assertEqual(child.returncode, -signal.SIGKILL, child.stderr)
            recover(self.place)
            found = self.found()
            self.assertIn(found, (self.OLD, self.NEW), f"killed at call {number}")
            outcomes.append(found == self.NEW)
            self.assertEqual(recover(self.place), 0)
        self.assertEqual(child.returncode, 0, child.stderr)
        self.assertEqual(outcomes, sorted(outcomes), "once decided, always done")
        self.assertGreater(outcomes.count(False), 3)
        self.assertGreater(outcomes.count(True), 3)

    def killed(self, *calls: int) -> None:
        """Leave what processes leave that were killed at these calls."""
        for number in calls:
            child = subprocess.run(
                [sys.executable, "-c", KILLED, str(self.place), str(number)], cwd=ROOT, check=False
            )
            self.assertNotEqual(child.returncode, 0)

    @unittest.skipUnless(os.name == "posix", "kill -9")
    def test_what_another_process_wrote_meanwhile_stays(self) -> None:
        child = None
        for number in range(1, 100):  # until one file is in its place, and the others are not
            self.killed(number)
            if (self.place / "b").exists():
                child = number
                break
        self.assertIsNotNone(child)
        (self.place / "c").write_text("drawn by hand")
        recover(self.place)
        self.assertEqual(self.found(), {**self.NEW, "c": "drawn by hand"})

    def test_other_folders_and_living_processes_are_left_alone(self) -> None:
        (self.place / ".fewshotseg-notes.part").mkdir()
        (self.place / f".fewshotseg-{'0' * 8}-1--{'0' * 8}.part").mkdir()  # of another computer
        target = self.folder / "elsewhere"
        target.mkdir()
        (target / "x").write_text("x")
        name = f".fewshotseg-{transaction._host()}-99999999--{'0' * 8}.part"
        if os.name == "posix":
            (self.place / name).symlink_to(target)
        with Transaction(self.place) as files:
            files.path("a").write_text("new a")
            self.assertEqual(recover(self.place), 0)
            files.commit()
        self.assertEqual((self.place / "a").read_text(), "new a")
        self.assertEqual((target / "x").read_text(), "x")
        self.assertTrue((self.place / ".fewshotseg-notes.part").exists())

    def test_journals_that_name_other_places_move_nothing(self) -> None:
        name = f".fewshotseg-{transaction._host()}-99999999--{'0' * 8}.part"
        for text in (
            '{"files": {"../a": null}}',
            '{"files": {"/etc/x": null}}',
            '{"files": ["a"]}',
            '{"files": {"a": [1]}}',
            "[" * 5000,
            "{",
        ):
            staging = self.place / name
            staging.mkdir()
            (staging / "a").write_text("new a")
            (staging / "journal.json").write_text(text)
            self.assertEqual(recover(self.place), 1, text[:40])
            self.assertEqual(self.found(), self.OLD)

    def test_a_folder_in_the_way_is_reported_before_anything_moves(self) -> None:
        (self.place / "c").mkdir()
        with self.assertRaisesRegex(StorageError, "it is a folder"), Transaction(self.place) as f:
            for name in "abc":
                f.path(name).write_text(f"new {name}")
            f.commit()
        (self.place / "c").rmdir()
        self.assertEqual(self.found(), self.OLD)


class ProbabilityNamesTest(unittest.TestCase):
    """Every structure has a file of its own, with a name that a file can have."""

    def test_names(self) -> None:
        def names(*given: str, out: str = "x.nii.gz") -> list[str]:
            structures = [Structure(name, 7 + n) for n, name in enumerate(given)]
            return list(result_files.probability_names(out, structures).values())

        self.assertEqual(names("bean", "pea"), ["x_prob_bean.nii.gz", "x_prob_pea.nii.gz"])
        self.assertEqual(names("a/b", "a:b"), ["x_prob_a_b_7.nii.gz", "x_prob_a_b_8.nii.gz"])
        self.assertEqual(names("Bean", "bean"), ["x_prob_Bean_7.nii.gz", "x_prob_bean_8.nii.gz"])
        self.assertEqual(names("a", out="x.seg.nrrd"), ["x_prob_a.nii.gz"])
        for name in ("n" * 300, "ü" * 200, "肝" * 100, "🫘" * 70):
            (found,) = names(name)
            self.assertLessEqual(len(os.fsencode(found)), 255)
            self.assertTrue(found.endswith("_7.nii.gz"))
            self.assertTrue(found.startswith(f"x_prob_{name[:40]}"))
        with self.assertRaisesRegex(InputError, "shorter name"):
            names("bean", out="y" * 245 + ".nii.gz")


class ResultTest(TrainedWorld):
    """The command, stopped between its files."""

    def arguments(self, *more: str) -> list[str]:
        return self.segment_arguments(
            self.adapter, self.folder / "results", str(self.query.image), *more
        )

    def setUp(self) -> None:
        super().setUp()
        (self.folder / "results").mkdir()

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "results").iterdir())

    def test_stopped_between_segmentation_and_report(self) -> None:
        for function in ("make_report", "commit_with_report", "write_label_map"):
            with self.subTest(function):
                with mock.patch.object(segmentation, function, side_effect=KeyboardInterrupt):
                    self.assertEqual(run(*self.arguments()).status, 2)
                self.assertEqual(self.files(), [])
                self.assertEqual(run(*self.arguments()).status, 0)
                self.assertEqual(self.files(), ["query_seg.nii.gz", "report.json"])
                for path in (self.folder / "results").iterdir():
                    path.unlink()

    def test_stopped_while_old_results_are_replaced(self) -> None:
        self.assertEqual(run(*self.arguments("--seed", "1")).status, 0)
        before = read_reports(self.folder / "results" / "report.json")
        with mock.patch.object(segmentation, "commit_with_report", side_effect=MemoryError):
            ran = run(*self.arguments("--seed", "2", "--probabilities"))
        self.assertEqual(ran.status, 2)
        self.assertEqual(self.files(), ["query_seg.nii.gz", "report.json"])
        self.assertEqual(read_reports(self.folder / "results" / "report.json"), before)


class RowsTest(unittest.TestCase):
    """A benchmark that was cut off while it wrote a row."""

    def test_cut_off_at_every_byte(self) -> None:
        more = {"task": "t", "method": "m", "shots": 1, "draw": 0, "dice": {"bean": 0.5}}
        more |= {"parameters": 5, "train_seconds": 1.0}
        rows = [{"setting": "s", "query": f"q{n}", **more} for n in range(3)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.jsonl"
            whole = "".join(json.dumps(row) + "\n" for row in rows[:2])
            first = len(json.dumps(rows[0])) + 1
            for length in range(first, len(whole) + 1):
                path.write_text(whole[:length])
                results = Results(path)
                kept = 2 if length >= len(whole) - 1 else 1
                self.assertEqual(sum(bool(results.get("s", f"q{n}")) for n in range(3)), kept)
                results.add(rows[2])
                again = Results(path)
                self.assertEqual(
                    [again.get("s", f"q{n}") for n in range(3)],
                    [rows[0], rows[1] if kept == 2 else None, rows[2]],
                    length,
                )
            path.write_bytes(b"\xff\xfe\n" + whole.encode())
            with self.assertRaisesRegex(InputError, "Line 1 of"):
                Results(path)


if __name__ == "__main__":
    unittest.main()
