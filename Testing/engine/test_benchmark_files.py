"""A benchmark's folder: rows read back are checked, nothing foreign is touched, one run alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from benchmark_case import BenchmarkCase, refused_method
from filelock import FileLock
from tiny_model import STRUCTURES, run, write_array

from FewShotSegLib.cli.commands.benchmark import LOCK
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.evaluation.benchmark.plan import read_plan
from FewShotSegLib.evaluation.benchmark.results import NAME, Results
from FewShotSegLib.io.volumes import read_image

ROW = {
    **{"setting": "0123456789ab", "task": "peas", "method": "Adapter", "shots": 1, "draw": 0},
    **{"query": "c", "dice": {"bean": 0.5, "pea": None}, "dice_ti": {"bean": 1, "pea": 0.25}},
    **{"parameters": 10, "train_seconds": 1.5, "query_seconds": 0.25},
}
SCORES = {"hd95_mm": None, "surface_dice": 0.5, "volume_ml": 1.5, "reference_ml": 2}
PROBE = {"method": "linear-probe", "epochs": 1}
FOREIGN = (
    b"my only other line\n",
    b"my only other line",
    b"\n",
    b"{}\n",
    b"[1]\n",
    b"null",
    b'{"setting": "a"}',
    b'{"setting": "a", "query": "b"}\n',
    b"\xff\xfe\x00",
    b"PK\x03\x04 a whole archive",
    json.dumps(ROW).encode() + b"\nmine\n",
    json.dumps(ROW).encode() + b"\n\n",
)


class ReadBackTest(BenchmarkCase):
    """Lines of ``results.jsonl``."""

    def results(self, content: bytes) -> Results:
        path = self.folder / NAME
        path.write_bytes(content)
        return Results(path)

    def test_rows_of_today_and_of_before(self) -> None:
        older = {key: value for key, value in ROW.items() if key != "query_seconds"}
        for row in (ROW, older, {**ROW, "note": "mine"}, {**ROW, "dice": {"bean": 0, "pea": 1.0}}):
            found = self.results(f"{json.dumps(row)}\n".encode()).get(row["setting"], "c")
            self.assertEqual(found, row)
        now = {**ROW, "scores": {"bean": SCORES, "pea": SCORES}, "model": "m", "weights": "0"}
        now |= {"versions": {"torch": "2"}}
        self.assertEqual(self.results(json.dumps(now).encode()).get(ROW["setting"], "c"), now)
        plain = {key: value for key, value in ROW.items() if key != "dice_ti"}
        results = self.results(f"{json.dumps(plain)}\n".encode())
        self.assertEqual(results.get(ROW["setting"], "c"), plain)
        self.assertIsNone(results.get(ROW["setting"], "c", refined=True))

    def test_altered_rows_are_refused(self) -> None:
        scores = (None, "x", [], {"bean": "x"}, {"bean": 7.5}, {"bean": 1e300}, {"bean": -0.1})
        changes: list[tuple[str, Any]] = [
            *(("dice", value) for value in (*scores, {"bean": True}, {"bean": [0.5]})),
            *(("dice_ti", value) for value in (*scores[1:], {}, {"bean": 0.5})),
            *(("parameters", value) for value in (None, "10", -1, 1.5, 2**63, [])),
            *(("train_seconds", value) for value in (None, "1", -1, 1e300, {})),
            *(("query_seconds", value) for value in ("1", -1, True)),
            *(("scores", value) for value in ([], {}, {"bean": SCORES}, {"bean": 1, "pea": 1})),
            ("scores", {"bean": SCORES, "pea": {"hd95_mm": 1}}),
            ("scores_ti", {"bean": SCORES, "pea": {**SCORES, "hd95_mm": "far"}}),
            ("versions", {"torch": 2}),
            *(
                (key, value)
                for key in ("setting", "task", "method", "query")
                for value in (5, None)
            ),
            *((key, value) for key in ("shots", "draw") for value in ("1", -1, 0.5)),
        ]
        for key, value in changes:
            with self.subTest(f"{key}: {value}"), self.assertRaisesRegex(InputError, "Line 2 of"):
                lines = f"{json.dumps(ROW)}\n{json.dumps({**ROW, key: value})}\n"
                self.results(lines.encode())
        for key in set(ROW) - {"dice_ti", "query_seconds"}:
            without = {name: value for name, value in ROW.items() if name != key}
            with self.subTest(f"without {key}"), self.assertRaisesRegex(InputError, f"'{key}'"):
                self.results(f"{json.dumps(without)}\n".encode())

    def test_foreign_files_stay_as_they_are(self) -> None:
        path = self.write(methods=[PROBE], shots=[1])
        out = self.folder / "small"
        out.mkdir()
        for content in FOREIGN:
            (out / NAME).write_bytes(content)
            for more in ((), ("--render",)):
                with self.subTest(content, more=more):
                    ran = self.benchmark(path, *more)
                    self.assertEqual(ran.status, 2)
                    self.assertIn("give another --out", ran.err)
                    self.assertEqual((out / NAME).read_bytes(), content)
        self.assertEqual(os.listdir(out), [NAME])

    def test_only_what_was_cut_off_is_cut(self) -> None:
        line = json.dumps(ROW).encode()
        whole = line + b"\n"
        for tail in (line[:1], line[:5], line[:40], line[:-1], line[:40] + b"\0" * 9, b"\0" * 30):
            with self.subTest(tail):
                results = self.results(whole + tail)
                self.assertEqual((self.folder / NAME).read_bytes(), whole + tail)  # only read
                results.mend()
                self.assertEqual((self.folder / NAME).read_bytes(), whole)
        results = self.results(line)  # a whole row that lacks its end is kept
        self.assertEqual(results.get(ROW["setting"], "c"), ROW)
        results.add({**ROW, "query": "d"})
        again = Results(self.folder / NAME)
        self.assertEqual(again.get(ROW["setting"], "d"), {**ROW, "query": "d"})
        self.assertEqual(again.get(ROW["setting"], "c"), ROW)

    def test_what_has_no_end_is_not_read(self) -> None:
        path = self.write(methods=[PROBE], shots=[1])
        out = self.folder / "small"
        out.mkdir()
        os.mkfifo(out / NAME)
        with self.subTest("pipe"):
            self.assertIn("is not a file", self.benchmark(path).err)
        (out / NAME).unlink()
        (out / NAME).symlink_to("/dev/zero")
        with self.subTest("device"):
            self.assertIn("is not a file", self.benchmark(path).err)
        (out / NAME).unlink()
        (out / NAME).mkdir()
        with self.subTest("folder"):
            self.assertIn("is a folder", self.benchmark(path).err)


class OutputTest(BenchmarkCase):
    """Where results go is known to be usable before anything is run."""

    def refused(self, path: Path, *more: str) -> str:
        with mock.patch(
            "FewShotSegLib.evaluation.benchmark.run.adapt", side_effect=AssertionError("was run")
        ):
            ran = self.benchmark(path, *more)
        self.assertEqual(ran.status, 2, ran.err)
        self.assertNotIn("Traceback", ran.err)
        return ran.err

    def test_places_that_cannot_be_written(self) -> None:
        path = self.write(methods=[PROBE], shots=[1])
        file = self.folder / "file"
        file.write_text("mine")
        for out in (file, file / "below", Path("/proc/x"), Path("/dev/null")):
            for more in ((), ("--render",)):
                with self.subTest(out, more=more):
                    self.assertIn("Cannot write", self.refused(path, "--out", str(out), *more))
        for name in ("table.md", "shots.png"):
            out = self.folder / f"out {name}"
            (out / name).mkdir(parents=True)
            self.assertIn("is a folder", self.refused(path, "--out", str(out)))
        self.assertEqual(file.read_text(), "mine")

    def test_a_plan_whose_name_is_its_folders(self) -> None:
        path = self.write(methods=[PROBE], shots=[1])
        plain = path.rename(self.folder / "plan")
        self.assertIn("say --out", self.refused(plain))
        for odd in (".", "..", "/", str(self.folder)):
            with self.subTest(odd):
                self.refused(Path(odd))

    def test_the_first_error_is_the_one_that_is_reported(self) -> None:
        path = self.write(methods=[PROBE], shots=[1])
        with (
            mock.patch(
                "FewShotSegLib.evaluation.benchmark.run.adapt", side_effect=InputError("the first.")
            ),
            mock.patch(
                "FewShotSegLib.evaluation.benchmark.render.draw_plots",
                side_effect=InputError("the second."),
            ),
            mock.patch(
                "FewShotSegLib.evaluation.benchmark.run.CaseReader.of",
                side_effect=KeyboardInterrupt,
            ),
        ):
            ran = self.benchmark(path)
        self.assertEqual(ran.status, 2)
        self.assertIn("Stopped", ran.err)
        self.assertNotIn("second", ran.err)

    def test_results_do_not_go_among_the_data(self) -> None:
        before = sorted(p.name for p in self.data.iterdir())
        for out in (self.data, self.data / "results"):
            self.assertIn("where the data are", self.refused(self.write(), "--out", str(out)))
        path = self.world / "data.json"  # whose results would go to data/
        new = ("--new", str(self.data), "--structures", STRUCTURES, "--model", str(self.model))
        self.assertIn("where the data are", self.refused(path, *new))
        self.assertFalse(path.exists())
        self.assertEqual(sorted(p.name for p in self.data.iterdir()), before)

    def test_a_damaged_mask_costs_its_picture_alone(self) -> None:
        path = self.write(methods=[PROBE], shots=[1])
        self.assertEqual(self.benchmark(path).status, 0)
        out = self.folder / "small"
        self.assertTrue((out / "results.png").is_file())
        self.assertNotIn("earlier run", (out / "table.md").read_text(encoding="utf-8"))
        mask = next((out / "masks").iterdir())
        whole = mask.read_bytes()
        for content in (whole[:-40], whole[:30], b"", b"text"):
            with self.subTest(len(content)):
                mask.write_bytes(content)
                ran = self.benchmark(path, "--render")
                self.assertEqual(ran.status, 0, ran.err)
                self.assertIn("results.png is of an earlier run", ran.out)

    def test_one_run_at_a_time(self) -> None:
        path = self.write(methods=[PROBE], shots=[1])
        out = self.folder / "small"
        out.mkdir()
        with FileLock(out / LOCK):
            self.assertIn("Another benchmark is running", self.refused(path))
        self.assertEqual(self.benchmark(path).status, 0)
        self.assertEqual(len(self.rows()), 4)
        self.assertNotIn(LOCK, os.listdir(out))

    def test_shots_that_are_no_number(self) -> None:
        path = self.write()
        for value in ("²", "9" * 5000, "0", "-1", "1.5", "x", "", "ALL"):
            with self.subTest(value[:9]):
                ran = self.benchmark(path, f"--shots={value}")
                self.assertEqual(ran.status, 2)
                self.assertIn("--shots", ran.err)
        self.assertIn("no number of shots '7'", self.benchmark(path, "--shots", "7").err)


class FailuresTest(BenchmarkCase):
    """What could not be run is part of the exit status, on whichever side the data are bad."""

    def test_a_support_that_is_garbage(self) -> None:
        data = self.folder / "data"
        for file in self.data.iterdir():
            (self.folder / "data").mkdir(exist_ok=True)
            (data / file.name).symlink_to(file)
        (data / "a.nii.gz").unlink()
        (data / "a.nii.gz").write_bytes(b"garbage")
        path = self.write(methods=[PROBE], shots=[1])
        ran = self.benchmark(path, "--data", str(self.folder), "--out", str(self.folder / "o"))
        self.assertEqual(ran.status, 2)
        self.assertIn("linear-probe with 1 of peas", ran.err)  # as a support
        self.assertIn("linear-probe on a of peas", ran.err)  # as a query
        rows = (self.folder / "o" / NAME).read_text(encoding="utf-8").splitlines()
        self.assertEqual([json.loads(row)["query"] for row in rows], ["b"])

    def test_a_structure_that_nobody_annotated(self) -> None:
        tasks = [{**self.plan()["tasks"][0], "structures": "9=lens"}]
        del tasks[0]["groups"]
        ran = self.benchmark(self.write(methods=[PROBE], shots=[1], tasks=tasks))
        self.assertEqual(ran.status, 2)
        self.assertIn("2 could not be run", ran.err)
        self.assertIn("lens", ran.err)

    def test_nothing_at_all_was_run(self) -> None:
        ran = self.benchmark(self.write(methods=[refused_method()], shots=[1]))
        self.assertEqual(ran.status, 2)
        self.assertIn("published settings adapt", ran.err)

    def test_a_query_that_nobody_annotated(self) -> None:
        data = self.folder / "data"
        data.mkdir()
        for file in self.data.iterdir():
            (data / file.name).symlink_to(file)
        volume = read_image(data / "c_seg.nii.gz")
        (data / "c_seg.nii.gz").unlink()
        empty = np.zeros_like(volume.array)
        write_array(data / "c_seg.nii.gz", empty, volume.grid)
        path = self.write(methods=[PROBE], shots=[1])
        ran = self.benchmark(path, "--data", str(self.folder), "--out", str(self.folder / "o"))
        self.assertEqual(ran.status, 2)
        self.assertIn("linear-probe on c of peas", ran.err)


class PlanValuesTest(BenchmarkCase):
    """Numbers and names of a plan."""

    def test_learning_rates(self) -> None:
        for rate in (1e30, 11, 0, -1, 1e308, True, "1"):
            plan = self.write(methods=[{**PROBE, "learning_rate": rate}])
            with self.subTest(rate), self.assertRaisesRegex(InputError, "learning_rate"):
                read_plan(plan)
        for rate in (1e-6, 1, 10):
            method = read_plan(self.write(methods=[{**PROBE, "learning_rate": rate}])).methods[0]
            self.assertEqual(method.options.training.learning_rate, rate)

    def test_names_that_cannot_be_shown(self) -> None:
        task = self.plan()["tasks"][0]
        for odd in ("a\0b", "a\nb", "\x1b[31m", "\u202e", "x" * 5000, ""):
            for fields in (
                {"title": odd},
                {"model": odd},
                {"methods": [{**PROBE, "name": odd}]},
                {"tasks": [{**task, "name": odd}]},
                {"tasks": [{**task, "groups": {odd: ["bean"]}}]},
            ):
                with self.subTest(fields=str(fields)[:60]), self.assertRaises(InputError) as caught:
                    read_plan(self.write(**fields))
                text = str(caught.exception)
                self.assertTrue(text.isprintable(), text)
                self.assertLess(len(text), 500)
        for key, odd in (("methods", ["m" * 5000]), ("tasks", [{**task, "x" * 5000: 1}])):
            with self.subTest(key), self.assertRaises(InputError) as caught:
                read_plan(self.write(**{key: odd}))
            self.assertLess(len(str(caught.exception)), 1200)

    def test_flags_without_their_value(self) -> None:
        for flag in ("--shots", "--minutes", "--out", "--data", "--cache-size"):
            ran = run("benchmark", str(self.write()), f"{flag}=--")
            self.assertEqual(ran.status, 2)
            self.assertIn(f"argument {flag}: -- is no value", ran.err)
