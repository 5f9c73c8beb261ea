"""``fewshotseg benchmark``: plans, running them once and no more, and what is said of the rows."""

from __future__ import annotations

import json
import unittest
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any
from unittest import mock

from tiny_model import STRUCTURES, TinyWorld, run, write_patient

from FewShotSegLib.benchmark.plan import draw_plan, part_of, read_plan
from FewShotSegLib.benchmark.results import NAME, Results, setting_key
from FewShotSegLib.benchmark.run import Models, cells
from FewShotSegLib.benchmark.summary import Summary
from FewShotSegLib.benchmark.table import results_text
from FewShotSegLib.benchmark.untrained import untrained_model
from FewShotSegLib.errors import InputError
from FewShotSegLib.model_registry import find_model

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
        with mock.patch("FewShotSegLib.benchmark.run.adapt") as adapt:
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

    def test_a_method_without_a_meaning_costs_no_other_row(self) -> None:
        path = self.write(
            methods=["adaptformer", {"method": "linear-probe", "epochs": 1}], shots=[1]
        )
        ran = self.benchmark(path)
        self.assertEqual(ran.status, 0, ran.err)
        self.assertEqual({row["method"] for row in self.rows()}, {"linear-probe"})
        self.assertIn("- adaptformer with 1 of peas: The method 'adaptformer'", ran.out)
        self.assertIn("| adaptformer |  | not run |", ran.out)

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
            ({"methods": [{"method": "adapter", "epochs": 0}]}, "must be 1 or more"),
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
