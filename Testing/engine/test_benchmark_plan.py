"""``fewshotseg benchmark``: plans, estimates and summaries, computed by hand."""

from __future__ import annotations

import hashlib
import json
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from benchmark_case import CASES, BenchmarkCase
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_model import STRUCTURES, run, write_patient

from FewShotSegLib.cli.progress_words import left_text
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.evaluation.benchmark.cells import Cell, Models, cells
from FewShotSegLib.evaluation.benchmark.forecast import Forecast, Timing
from FewShotSegLib.evaluation.benchmark.plan import draw_plan, part_of, read_plan
from FewShotSegLib.evaluation.benchmark.results import Results, setting_key
from FewShotSegLib.evaluation.benchmark.summary import Change, Summary, by_network
from FewShotSegLib.evaluation.benchmark.table import results_text
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline.adapter_file import content_hash


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
        folder = self.patients(7)
        for queries, least in ((5, 5), (10, 6)):
            with self.subTest(queries):
                new = draw_plan(folder, STRUCTURES, model=str(self.model), shots=(1, "all"),
                                queries=queries)  # fmt: skip
                read = read_plan(self.write(**new.plan))
                self.assertEqual(len(read.tasks[0].draws), 3)
                for draw in read.tasks[0].draws:
                    self.assertEqual(len(draw.queries), least)
                    self.assertEqual(len({*draw.supports, *draw.queries}), 7)
                again = draw_plan(folder, STRUCTURES, model=str(self.model), shots=(1, "all"),
                                  queries=queries)  # fmt: skip
                self.assertEqual(new, again)

    def patients(self, count: int) -> Path:
        """A folder of so many, with the tasks' names."""
        folder = self.folder / f"{count} patients"
        for name in range(count):
            patient = write_patient(folder, f"p{name}", name)
            patient.segmentation.rename(folder / f"p{name}_seg.nii.gz")
        return folder

    def test_few_cases_take_turns(self) -> None:
        new = draw_plan(self.data, STRUCTURES, model=str(self.model))
        read = read_plan(self.write(**new.plan))
        self.assertEqual(read.shots, (1, "all"), "of 3 supports at most")
        self.assertEqual([draw.queries for draw in read.tasks[0].draws], [(c,) for c in CASES])
        for draw in read.tasks[0].draws:
            self.assertEqual(sorted([*draw.supports, *draw.queries]), list(CASES))
        self.assertIn("each is the query of one draw", new.notes[-1])
        self.assertIn("is not recorded", new.notes[0])
        with self.assertRaisesRegex(InputError, "has 3 of 3 cases .*; 4 are needed"):
            draw_plan(self.patients(3), STRUCTURES, model=str(self.model))

    def test_what_a_model_has_seen_is_no_query_whatever_it_is_called(self) -> None:
        folder = self.patients(6)
        seen = content_hash(read_image(folder / "p4.nii.gz"))
        for path in folder.glob("p4*"):
            path.rename(folder / path.name.replace("p4", "new name"))
        with safe_open(find_model(str(self.model)).entry.weights, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        entry = json.loads(self.model.read_text(encoding="utf-8"))
        weights = self.folder / "seen.safetensors"
        recipe = json.dumps({"seen": [seen, "0" * 16]})
        save_file(tensors, weights, {"pretraining": recipe})
        sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        entry |= {"id": "seen", "weights": weights.name, "sha256": sha256, "size": None}
        path = self.folder / "seen.json"
        path.write_text(json.dumps(entry), encoding="utf-8")
        new = draw_plan(folder, STRUCTURES, model=str(path))
        cases = {case for draw in new.plan["tasks"][0]["draws"] for case in draw["supports"]}
        self.assertEqual(cases, {"p0", "p1", "p2", "p3", "p5"})
        self.assertIn("1 of 6 cases were left out", new.notes[0])

    def test_the_command_writes_a_plan_and_never_over_one(self) -> None:
        path = self.folder / "new.json"
        command = ("benchmark", str(path), "--new", str(self.data), "--structures", STRUCTURES)
        ran = run(*command, "--model", str(self.model))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertIn("is not recorded", ran.out)
        self.assertIn("each is the query of one draw", ran.out)
        path.write_text("mine", encoding="utf-8")
        self.assertIn("is there already", run(*command).err)
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
            setting_key(task, replace(method, effort="best"), 1, draw, "w"),
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
