"""``fewshotseg benchmark``: plans, running them once and no more, and what is said of the rows."""

from __future__ import annotations

import io
import json
import unittest
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from unittest import mock

from tiny_model import STRUCTURES, TinyWorld, run, write_patient

from FewShotSegLib.cli.progress import Progress
from FewShotSegLib.cli.progress_words import left_text
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.evaluation.benchmark.cells import Cell, Models, cells
from FewShotSegLib.evaluation.benchmark.forecast import Forecast, Timing
from FewShotSegLib.evaluation.benchmark.plan import draw_plan, part_of, read_plan
from FewShotSegLib.evaluation.benchmark.results import NAME, Results, setting_key
from FewShotSegLib.evaluation.benchmark.summary import Change, Summary, by_network
from FewShotSegLib.evaluation.benchmark.table import results_text
from FewShotSegLib.evaluation.benchmark.untrained import untrained_model
from FewShotSegLib.models.registry import find_model

CASES = ("a", "b", "c", "d")


class BenchmarkCase(TinyWorld):
    """Four patients in a folder, and a plan that is quickly run."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.data = cls.world / "data"
        for seed, name in enumerate(CASES):
            patient = write_patient(cls.data, name, seed)
            patient.segmentation.rename(cls.data / f"{name}_seg.nii.gz")

    def plan(self, **fields: Any) -> dict[str, Any]:
        """A plan as JSON; ``fields`` in place of its own."""
        return {
            "title": "Small",
            "model": str(self.model),
            "shots": [1, "all"],
            "methods": [
                {"name": "Adapter", "method": "adapter", "refine": True, "epochs": 2},
                {"name": "Probe", "method": "linear-probe", "epochs": 2, "shots": ["all"]},
            ],
            "tasks": [
                {
                    "name": "peas",
                    "data": "data",
                    "structures": STRUCTURES,
                    "groups": {"beans": ["bean"], "peas": ["pea"]},
                    "draws": [
                        {"seed": 0, "supports": ["a", "b"], "queries": ["c", "d"]},
                        {"seed": 1, "supports": ["d", "c"], "queries": ["a", "b"]},
                    ],
                }
            ],
            **fields,
        }

    def write(self, **fields: Any) -> Path:
        path = self.folder / "small.json"
        path.write_text(json.dumps(self.plan(**fields)), encoding="utf-8")
        return path

    def benchmark(self, path: Path, *more: str):
        places = ("--data", str(self.world), "--cache", str(self.world / "cache"))
        return run("benchmark", str(path), *places, "--device", "cpu", *more)

    def rows(self) -> list[dict[str, Any]]:
        text = (self.folder / "small" / NAME).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def refused_method() -> dict[str, str]:
    """One whose training can't begin, which no plan shows: published settings want one level."""
    method = {"name": "refused", "method": "adapter", "preset": "published"}
    return {**method, "features": "multi"}


class RunTest(BenchmarkCase):
    """From the plan to the table."""

    def test_every_cell_is_run_once_and_the_table_drawn(self) -> None:
        path = self.write()
        ran = self.benchmark(path)
        self.assertEqual(ran.status, 0, ran.err)
        rows = self.rows()
        # Two draws of two queries: the adapter at two numbers of shots, the probe at one.
        self.assertEqual(len(rows), 2 * 2 * (2 + 1))
        self.assertEqual({(r["method"], r["shots"]) for r in rows}, {("Adapter", 1), ("Adapter", 2),
                                                                    ("Probe", 2)})  # fmt: skip
        for row in rows:
            self.assertEqual(set(row["dice"]), {"bean", "pea"})
            self.assertEqual("dice_ti" in row, row["method"] == "Adapter")
            self.assertNotIn(row["query"], {0: "ab", 1: "cd"}[row["draw"]])
        probe = [r for r in rows if r["method"] == "Probe"]
        wanted = [mean(r["dice"]["pea"] for r in probe if r["draw"] == draw) for draw in (0, 1)]
        page = (self.folder / "small" / "table.md").read_text(encoding="utf-8")
        line = next(ln for ln in page.split("## peas")[1].splitlines() if ln.startswith("| Probe"))
        self.assertIn(f"{mean(wanted):.3f} ± {stdev(wanted):.3f}", line)
        self.assertNotIn("not run", page)
        for name in ("shots", "parameters", "time", "transduction"):
            data = (self.folder / "small" / f"{name}.png").read_bytes()
            self.assertEqual(data[:4], b"\x89PNG")
        with mock.patch("FewShotSegLib.evaluation.benchmark.run.adapt") as adapt:
            again = self.benchmark(path)
        adapt.assert_not_called()
        self.assertEqual(again.status, 0, again.err)
        self.assertEqual(self.rows(), rows)

    def test_what_is_stopped_is_kept_and_said(self) -> None:
        path = self.write()
        part = self.benchmark(path, "--methods", "Adapter", "--shots", "1")
        self.assertEqual(part.status, 0, part.err)
        self.assertEqual(len(self.rows()), 4)
        none = self.benchmark(path, "--minutes", "0")
        self.assertEqual(len(self.rows()), 4)
        self.assertIn("8 of 12 queries were not run", none.out)
        self.assertIn("| Probe |  |  | not run |", none.out)

    def test_a_row_that_was_cut_off_is_run_again(self) -> None:
        path = self.write(shots=[1], methods=[{"method": "linear-probe", "epochs": 1}])
        self.benchmark(path)
        rows = self.rows()
        file = self.folder / "small" / NAME
        file.write_text(file.read_text(encoding="utf-8")[:-20], encoding="utf-8")
        ran = self.benchmark(path)
        self.assertEqual(ran.status, 0, ran.err)
        again = self.rows()
        for row in (*rows, *again):
            del row["query_seconds"], row["train_seconds"]
        self.assertEqual(again, rows)

    def test_a_method_that_cannot_be_run_costs_no_other_row(self) -> None:
        path = self.write(
            methods=[refused_method(), {"method": "linear-probe", "epochs": 1}], shots=[1]
        )
        ran = self.benchmark(path)
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual({row["method"] for row in self.rows()}, {"linear-probe"})
        self.assertIn("- refused with 1 of peas: The published settings adapt", ran.out)
        self.assertIn("| refused |  | not run |", ran.out)

    def test_an_untrained_network_is_another_model(self) -> None:
        probe = {"method": "linear-probe", "epochs": 1}
        path = self.write(
            methods=[probe, {**probe, "name": "untrained", "untrained": True}], shots=[1]
        )
        ran = self.benchmark(path)
        self.assertEqual(ran.status, 0, ran.err)
        settings = {row["method"]: row["setting"] for row in self.rows()}
        self.assertNotEqual(settings["linear-probe"], settings["untrained"])
        untrained = self.folder / "small" / "untrained" / f"untrained-{self.model.stem}.json"
        hashes = {find_model(str(path)).weights_sha256 for path in (untrained, self.model)}
        self.assertEqual(len(hashes), 2)
        again = untrained_model(str(self.model), self.folder)
        self.assertIn(find_model(again).weights_sha256, hashes)  # or it would be run again


class SayingTest(BenchmarkCase):
    """What is said before and while it runs."""

    def test_a_file_gets_the_work_and_a_line_a_cell(self) -> None:
        path = self.write()
        first = self.benchmark(path, "--methods", "Probe").err.splitlines()
        self.assertEqual(
            first[:4],
            [
                "2 cells (method x shots x draw x task) with 4 queries: 0 cells, 0 queries are "
                "there already; 2 cells, 4 queries are to be run.",
                "Still to be run:",
                "  Probe  2 cells, time not known before its first cell",
                "benchmark",
            ],
        )
        rows = self.rows()
        for draw in (0, 1):
            own = [x for r in rows if r["draw"] == draw for x in r["dice"].values()]
            line = next(ln for ln in first if ln.startswith(f"Probe, peas, 2 shots, draw {draw}:"))
            self.assertIn(f": mean Dice {mean(own):.3f}, ", line)
        self.assertRegex(first[4], r"Dice [\d.]+, \d+ s; about \d+ s to go$")
        self.assertRegex(first[6], r"  Probe  1 cell, about \d+ s \(measured in this run\)$")
        self.assertTrue(first[7].endswith("; that was the last"), first)

        file = self.folder / "small" / NAME
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows[:3]), encoding="utf-8")
        later = self.benchmark(path).err.splitlines()
        self.assertIn(
            "6 cells (method x shots x draw x task) with 12 queries: 1 cell, 3 queries are there "
            "already; 5 cells, 9 queries are to be run.",
            later[0],
        )
        self.assertEqual(later[2], "  Adapter  4 cells, time not known before its first cell")
        self.assertRegex(later[3], r"  Probe    1 cell, about \d+ s \(by the times in its earlier")
        cells_said = [ln for ln in later if ", draw " in ln]
        self.assertEqual(len(cells_said), 5)
        self.assertIn("with transduction", cells_said[0])
        self.assertEqual(
            self.benchmark(path).err,
            "6 cells (method x shots x draw x task) with 12 queries: all are there already.\n",
        )

    def test_a_method_that_cannot_be_run_is_not_waited_for(self) -> None:
        path = self.write(methods=[refused_method(), {"method": "linear-probe", "epochs": 1}])
        events = self.benchmark(path, "--events").events
        told = [event for event in events if event["event"] == "cell"]
        self.assertEqual(len(told), 4)
        self.assertEqual(told[-1]["remaining"], [])
        left = told[0]["remaining"]
        bases = {part["method"]: part["basis"] for part in left}
        self.assertEqual(bases, {"refused": None, "linear-probe": "run"})

    def test_a_method_without_a_meaning_is_told_once_and_counted_nowhere(self) -> None:
        path = self.write(methods=["adaptformer", {"method": "linear-probe", "epochs": 1}])
        ran = self.benchmark(path)
        self.assertIn("4 cells (method x shots x draw x task) with 8 queries", ran.err)
        self.assertEqual(ran.err.count("adaptformer"), 1)
        sentence = "adaptformer is for transformer encoders; that of "
        for text in (ran.out, self.benchmark(path, "--render").out):
            self.assertRegex(text, r"\| adaptformer \|  \| no meaning \| no meaning \|\n")
            self.assertEqual(text.count(sentence), 1)
            self.assertIn("is convolutional, so it is not run.", text)
            self.assertNotIn("queries were not run", text)

    def test_minutes_that_are_over_are_told_with_what_they_left(self) -> None:
        events = self.benchmark(self.write(), "--events", "--minutes", "0").events
        told = [event["message"] for event in events if event["event"] == "warning"]
        self.assertEqual(
            told,
            ["The 0 minutes are over; 6 cells were not started. The same command goes on with "
             "them."],
        )  # fmt: skip

    def test_a_terminal_has_the_lines_above_one_bar(self) -> None:
        class Screen(io.StringIO):
            def isatty(self) -> bool:
                return True

        screen = Screen()
        progress = Progress(screen)
        left = [{"method": "ft", "cells": 1, "queries": 2, "seconds": 4000.0, "basis": "run"}]
        work = {"cells": 2, "queries": 4, "cells_done": 0, "queries_done": 0, "remaining": left}
        cell = {"method": "ft", "task": "t", "shots": 1, "draw": 0, "seconds": 4000.0}
        progress({"event": "workload", **work})
        progress({"event": "phase", "phase": "benchmark", "total": 4})
        progress({"event": "progress", "phase": "benchmark", "done": 2, "total": 4})
        progress({"event": "cell", **cell, "mean_dice": None, "remaining": left})
        progress({"event": "progress", "phase": "benchmark", "done": 3, "total": 4})
        text = screen.getvalue()
        self.assertIn(
            "ft, t, 1 shot, draw 0: mean Dice -, 1 h 7 min; about 1 h 7 min to go\n", text
        )
        self.assertRegex(text.rsplit("\r", 1)[1], r"75%.*3/4 \[00:0\d, about 1 h 7 min to go\]")
        progress({"event": "result", "kind": "benchmark", "path": "table.md"})
        self.assertEqual(text, screen.getvalue()[: len(text)])
        self.assertTrue(screen.getvalue().endswith("\r"))  # the bar has gone before the table


class ForecastTest(BenchmarkCase):
    """Counts and estimates, computed by hand."""

    def setUp(self) -> None:
        super().setUp()
        probe = {"method": "linear-probe", "epochs": 1}
        plan = self.plan(methods=[{**probe, "name": "own"}, {**probe, "name": "as published",
                                                           "preset": "published"}])  # fmt: skip
        path = self.write(**plan)
        self.cells = list(cells(read_plan(path, self.world), Models(self.folder)))
        self.results = Results(self.folder / "rows.jsonl")

    def cell(self, method: str, shots: int, draw: int) -> Cell:
        wanted = (method, shots, draw)
        return next(c for c in self.cells if (c.method.name, c.shots, c.draw.seed) == wanted)

    def record(self, cell: Cell, queries: int, train: float, query: float) -> None:
        for name in cell.draw.queries[:queries]:
            times = {"train_seconds": train, "query_seconds": query}
            self.results.add({"setting": cell.setting, "query": name, **times})

    def seconds(self, forecast: Forecast) -> dict[str, tuple[float | None, str | None]]:
        return {part["method"]: (part["seconds"], part["basis"]) for part in forecast.remaining()}

    def test_rows_tell_until_the_run_does(self) -> None:
        self.record(self.cell("own", 1, 0), 2, 10, 1)
        self.record(self.cell("as published", 1, 0), 1, 10, 1)
        forecast = Forecast(self.cells, self.results, self.cells)
        work = forecast.workload()
        counts = [work[key] for key in ("cells", "cells_done", "queries", "queries_done")]
        self.assertEqual(counts, [8, 1, 16, 3])
        self.assertEqual(self.seconds(forecast), {
            "own": (3 * (10 + 2 * 1), "rows"),
            # Published epochs run over every support: 1, 1, 2 and 2 times as long; 7 queries.
            "as published": ((1 + 1 + 2 + 2) * 10 + 7 * 1, "rows"),
        })  # fmt: skip
        forecast.finished(Timing(self.cell("own", 1, 1), 30, 3))
        self.assertEqual(self.seconds(forecast)["own"], (2 * (30 + 2 * 3), "run"))
        # Cells of the same shots tell more than others.
        forecast.finished(Timing(self.cell("own", 2, 0), 50, 5))
        self.assertEqual(self.seconds(forecast)["own"], (50 + 2 * 5, "run"))

    def test_rows_of_another_setting_tell_nothing(self) -> None:
        others = {"train_seconds": 1, "query_seconds": 1, "method": "own"}
        self.results.add({"setting": "0" * 12, "query": "c", **others})
        forecast = Forecast(self.cells, self.results, self.cells)
        self.assertEqual(self.seconds(forecast)["own"], (None, None))

    def test_what_is_not_known_is_not_taken_for_nothing(self) -> None:
        known = {"method": "a", "cells": 2, "queries": 4, "seconds": 600.0, "basis": "run"}
        unknown = {"method": "b", "cells": 1, "queries": 2, "seconds": None, "basis": None}
        self.assertEqual(left_text([known, unknown]), "about 10 min to go, and b not known yet")
        self.assertEqual(left_text([unknown]), "time to go not known yet")


class PlanTest(BenchmarkCase):
    """Reading and drawing plans."""

    def test_a_drawn_plan_can_be_run(self) -> None:
        plan = draw_plan(self.data, STRUCTURES, model=str(self.model), shots=(1, "all"), queries=2)
        path = self.write(**plan)
        read = read_plan(path)
        self.assertEqual(len(read.tasks[0].draws), 3)
        for draw in read.tasks[0].draws:
            self.assertEqual(sorted([*draw.supports, *draw.queries]), list(CASES))
        self.assertEqual(plan, draw_plan(self.data, STRUCTURES, model=str(self.model),
                                         shots=(1, "all"), queries=2))  # fmt: skip

    def test_the_command_writes_a_plan_and_never_over_one(self) -> None:
        for name in range(12):
            write_patient(self.folder / "more", f"p{name}", name)
            old = self.folder / "more" / f"p{name}_manual.nii.gz"
            old.rename(self.folder / "more" / f"p{name}_seg.nii.gz")
        path = self.folder / "new.json"
        command = ("benchmark", str(path), "--new", str(self.folder / "more"))
        few = run(*command, "--structures", STRUCTURES)
        self.assertEqual(few.status, 2)
        self.assertIn("too few for 10 shots", few.err)
        path.write_text("mine", encoding="utf-8")
        self.assertIn("is there already", run(*command, "--structures", STRUCTURES).err)
        self.assertEqual(path.read_text(encoding="utf-8"), "mine")

    def test_a_wrong_plan_is_refused_in_one_sentence(self) -> None:
        good = self.plan()
        task, draw = good["tasks"][0], good["tasks"][0]["draws"][0]

        def with_draw(**fields: Any) -> dict[str, Any]:
            return {"tasks": [{**task, "draws": [{**draw, **fields}]}]}

        for fields, words in (
            ({"shots": []}, "'shots' is a list of one or more"),
            ({"shots": [0]}, 'numbers from 1 on, or "all"'),
            ({"shots": [3]}, "2 supports for 3 shots"),
            ({"colour": 1}, "unknown field 'colour'"),
            ({"methods": ["magic"]}, "no method 'magic'"),
            ({"methods": ["adapter", "adapter"]}, "'adapter' comes twice"),
            ({"methods": [{"method": "adapter", "epochs": 0}]}, "from 1 to 1000000, not 0"),
            ({"methods": [{"method": "adapter", "refine": 1}]}, "true or false"),
            ({"methods": [{"method": "adapter", "decoder": "new"}]}, "whole backbone frozen"),
            (with_draw(queries=["a"]), "'a' comes twice"),
            (with_draw(seed=-1), "seed"),
            ({"tasks": [{**task, "groups": {"x": ["lens"]}}]}, "'lens', which is no structure"),
        ):
            with self.subTest(fields), self.assertRaises(InputError) as caught:
                read_plan(self.write(**fields))
            self.assertIn(words, str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    def test_a_case_that_is_not_there_is_named(self) -> None:
        text = json.dumps(self.plan()).replace('"queries": ["c"', '"queries": ["zz"')
        path = self.folder / "small.json"
        path.write_text(text, encoding="utf-8")
        ran = self.benchmark(path)
        self.assertEqual(ran.status, 2)
        self.assertIn("no case 'zz'", ran.err)


class SummaryTest(BenchmarkCase):
    """What rows come to, computed by hand."""

    def setUp(self) -> None:
        super().setUp()
        self.read = read_plan(self.write(), self.world)
        self.cells = list(cells(self.read, Models(self.folder)))
        self.results = Results(self.folder / "rows.jsonl")

    def add(self, method: str, shots: int, draw: int, *scores: tuple[float, float]) -> None:
        """Rows with the pea's Dice before and after transduction."""
        cell = next(
            c for c in self.cells if (c.method.name, c.shots, c.draw.seed) == (method, shots, draw)
        )
        for query, (before, after) in zip(cell.draw.queries, scores, strict=False):
            self.results.add(
                {
                    **{"setting": cell.setting, "task": "peas", "method": method, "shots": shots},
                    **{"draw": draw, "query": query, "parameters": 10, "train_seconds": 1.0},
                    "dice": {"bean": None, "pea": before},
                    "dice_ti": {"bean": None, "pea": after},
                }
            )

    def test_means_spreads_and_what_is_missing(self) -> None:
        self.add("Adapter", 1, 0, (0.2, 0.4), (0.4, 0.6))
        self.add("Adapter", 1, 1, (0.5, 0.5), (0.9, 0.7))
        self.add("Adapter", 2, 0, (0.6, 0.7), (0.8, 0.7))
        self.add("Adapter", 2, 1, (0.6, 0.7))
        summary = Summary(self.read, self.cells, self.results)
        task, adapter = self.read.tasks[0], self.read.methods[0]
        one = summary.score(task, "peas", adapter, 1)
        self.assertEqual(str(one), "0.500 ± 0.283")  # of 0.3 and 0.7
        self.assertEqual(str(summary.score(task, "peas", adapter, 1, "dice_ti")), "0.550 ± 0.071")
        # A draw with a query missing would be compared on other cases: it does not count.
        self.assertEqual(str(summary.score(task, "peas", adapter, 2)), "0.700 (1 of 2)")
        self.assertEqual(str(summary.score(task, "beans", adapter, 1)), "not run")
        self.assertIsNone(summary.score(task, "peas", self.read.methods[1], 1))
        changes = summary.changes()
        self.assertEqual(len(changes), 7)
        self.assertAlmostEqual(
            sum(c.change for c in changes), 0.2 + 0.2 + 0 - 0.2 + 0.1 - 0.1 + 0.1
        )
        page = results_text(self.read, summary)
        self.assertIn("| peas | pea | +0.043 | 4 | 2 |", page)
        self.assertIn("5 of 12 queries were not run", page)

    def test_random_weights_are_counted_apart(self) -> None:
        changes = [
            Change("peas", "pea", "Adapter", 1, 0.5, 0.6),
            Change("peas", "pea", "Adapter, untrained", 1, 0.1, 0.9, untrained=True),
        ]
        self.assertEqual(by_network(changes), (changes[:1], changes[1:]))
        self.assertEqual(by_network(changes[1:]), (changes[1:], []))
        self.add("Adapter", 1, 0, (0.2, 0.4), (0.4, 0.6))
        summary = Summary(self.read, self.cells, self.results)
        self.assertFalse(any(change.untrained for change in summary.changes()))
        with mock.patch.object(summary, "changes", return_value=changes):
            page = results_text(self.read, summary)
        self.assertIn("over 1 segmentations: +0.100. On random weights, over 1", page)
        self.assertIn("| peas | pea | +0.100 | 1 | 0 |", page)

    def test_a_setting_is_what_a_result_depends_on(self) -> None:
        task, method = self.read.tasks[0], self.read.methods[1]
        draw = task.draws[0]
        key = setting_key(task, method, 1, draw, "w")
        self.assertEqual(key, setting_key(task, replace(method, name="other"), 1, draw, "w"))
        for other in (
            setting_key(task, method, 2, draw, "w"),
            setting_key(task, method, 1, draw, "v"),
            setting_key(task, replace(method, epochs=3), 1, draw, "w"),
            setting_key(task, replace(method, refine=True), 1, draw, "w"),
            setting_key(task, method, 1, replace(draw, seed=9), "w"),
            setting_key(task, method, 2, replace(draw, supports=("b", "a")), "w"),
        ):
            self.assertNotEqual(key, other)
        self.assertNotEqual(
            setting_key(task, method, 2, draw, "w"),
            setting_key(task, method, 2, replace(draw, supports=("b", "a")), "w"),
        )

    def test_a_part_that_the_plan_lacks_is_refused(self) -> None:
        self.assertEqual([m.name for m in part_of(self.read, ["Probe"]).methods], ["Probe"])
        for part in ({"methods": ["Magic"]}, {"shots": [7]}, {"tasks": ["lens"]}):
            with self.assertRaises(InputError):
                part_of(self.read, **part)


if __name__ == "__main__":
    unittest.main()
