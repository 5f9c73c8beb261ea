"""``fewshotseg benchmark``: running plans once and no more, and what is said meanwhile."""

from __future__ import annotations

import csv
import io
import json
import unittest
from statistics import mean, stdev
from typing import Any
from unittest import mock

from benchmark_case import BenchmarkCase, refused_method

from FewShotSegLib.cli.progress import Progress
from FewShotSegLib.evaluation.benchmark.results import NAME
from FewShotSegLib.evaluation.benchmark.untrained import untrained_model
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import find_model


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
        for name in ("shots", "parameters", "transduction", "results"):
            data = (self.folder / "small" / f"{name}.png").read_bytes()
            self.assertEqual(data[:4], b"\x89PNG")
        self.check_rows(rows)
        self.check_tables(rows)
        with mock.patch("FewShotSegLib.evaluation.benchmark.run.adapt") as adapt:
            again = self.benchmark(path)
        adapt.assert_not_called()
        self.assertEqual(again.status, 0, again.err)
        self.assertEqual(self.rows(), rows)

    def check_rows(self, rows: list[dict[str, Any]]) -> None:
        """Sizes and surfaces, and of what they are."""
        for row in rows:
            self.assertEqual(row["model"], find_model(str(self.model)).entry.id)
            self.assertEqual(row["weights"], find_model(str(self.model)).weights_sha256)
            self.assertEqual(set(row["versions"]), {"fewshotseg", "torch"})
            truth = read_image(self.data / f"{row['query']}_seg.nii.gz")
            size = (truth.array == 5).sum() * truth.grid.voxel_volume / 1000
            self.assertAlmostEqual(row["scores"]["pea"]["reference_ml"], size, 3)
            for scores in row["scores"].values():
                self.assertGreaterEqual(scores["volume_ml"], 0)

    def check_tables(self, rows: list[dict[str, Any]]) -> None:
        """What other programs read."""
        text = (self.folder / "small" / "table.csv").read_text(encoding="utf-8")
        table = list(csv.DictReader(io.StringIO(text)))
        # Two groups: the adapter with and without transduction at two numbers, the probe at one.
        self.assertEqual(len(table), 2 * (2 * 2 + 1))
        line = next(r for r in table if (r["group"], r["method"]) == ("peas", "Probe"))
        own = [r for r in rows if r["method"] == "Probe"]
        self.assertAlmostEqual(float(line["mean_dice"]), mean(r["dice"]["pea"] for r in own), 4)
        surfaces = mean(r["scores"]["pea"]["surface_dice"] for r in own)
        self.assertAlmostEqual(float(line["mean_surface_dice"]), surfaces, 4)
        first = {(r["draw"], r["query"]): r["dice_ti"]["pea"] for r in rows
                 if (r["method"], r["shots"]) == ("Adapter", 2)}  # fmt: skip
        apart = mean(r["dice"]["pea"] - first[r["draw"], r["query"]] for r in own)
        self.assertAlmostEqual(float(line["difference"]), apart, 4)
        self.assertEqual((line["patients"], line["p"]), ("4", ""))
        latex = (self.folder / "small" / "table.tex").read_text(encoding="utf-8")
        self.assertEqual(latex.count(r"\begin{tabular}"), 2)
        self.assertIn("Probe & -- & ", latex.replace(r"\textbf", ""))

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
        reported = [event for event in events if event["event"] == "cell"]
        self.assertEqual(len(reported), 4)
        self.assertEqual(reported[-1]["remaining"], [])
        left = reported[0]["remaining"]
        bases = {part["method"]: part["basis"] for part in left}
        self.assertEqual(bases, {"refused": None, "linear-probe": "run"})

    def test_a_method_without_a_meaning_is_reported_once_and_counted_nowhere(self) -> None:
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

    def test_minutes_that_are_over_are_reported_with_what_they_left(self) -> None:
        events = self.benchmark(self.write(), "--events", "--minutes", "0").events
        reported = [event["message"] for event in events if event["event"] == "warning"]
        self.assertEqual(
            reported,
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


if __name__ == "__main__":
    unittest.main()
