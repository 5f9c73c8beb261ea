"""Paired differences of a benchmark, against values computed apart; and LaTeX."""

from __future__ import annotations

import unittest
from statistics import mean
from typing import Any

import numpy as np
from benchmark_case import BenchmarkCase
from scipy.stats import wilcoxon

from FewShotSegLib.evaluation.benchmark.cells import Models, cells
from FewShotSegLib.evaluation.benchmark.comparison import (
    Difference,
    base_line,
    differences,
    holm,
)
from FewShotSegLib.evaluation.benchmark.export import csv_text, latex, latex_text
from FewShotSegLib.evaluation.benchmark.figure import draw_figure
from FewShotSegLib.evaluation.benchmark.plan import read_plan
from FewShotSegLib.evaluation.benchmark.results import Results
from FewShotSegLib.evaluation.benchmark.summary import Summary
from FewShotSegLib.evaluation.benchmark.table import results_text

PATIENTS = 8


class DifferencesTest(BenchmarkCase):
    """Rows as they would be of two draws that share their queries, and nothing trained."""

    def summary(self, gains: list[float], **fields: Any) -> Summary:
        """Adapter + TI at 0.5 and the probe better by these, by patient; twice as much in the
        second draw."""
        queries = [f"q{n}" for n in range(PATIENTS)]
        draws = [{"seed": n, "supports": ["a", "b"], "queries": queries} for n in (0, 1)]
        task = {**self.plan()["tasks"][0], "draws": draws}
        plan = read_plan(self.write(tasks=[task], shots=["all"], **fields), self.world)
        found = list(cells(plan, Models(self.folder)))
        results = Results(self.folder / "rows.jsonl")
        for cell in found:
            for gain, query in zip(gains, queries, strict=True):
                base = 0.5 if cell.method.refine else 0.5 + gain * (1 + cell.draw.seed)
                row = {"setting": cell.setting, "query": query, "parameters": 1}
                row |= {"train_seconds": 1.0, "dice": {"bean": 0.5, "pea": base}}
                if cell.method.refine:
                    row["dice_ti"] = {"bean": 0.5, "pea": base}
                results.add(row)
        return Summary(plan, found, results)

    def test_one_value_a_patient_with_its_interval_and_test(self) -> None:
        gains = [0.04, 0.01, 0.03, -0.01, 0.05, 0.02, 0.06, 0.015]
        summary = self.summary(gains)
        self.assertEqual(base_line(summary), "Adapter + TI")
        found = {d.name: d for d in differences(summary, summary.plan.tasks[0], "peas", 2)}
        self.assertEqual(set(found), {"Adapter", "Probe"})
        values = [1.5 * gain for gain in gains]  # the mean of both draws
        probe = found["Probe"]
        self.assertEqual(probe.patients, PATIENTS, "no patient counts twice")
        self.assertAlmostEqual(probe.mean, mean(values))
        assert probe.lower is not None and probe.upper is not None and probe.p is not None
        spread = np.std(values) / np.sqrt(PATIENTS)  # the interval is about 1.96 of it to each side
        self.assertAlmostEqual(probe.lower, probe.mean - 1.96 * spread, delta=0.2 * spread)
        self.assertAlmostEqual(probe.upper, probe.mean + 1.96 * spread, delta=0.2 * spread)
        # The other line does not differ at all: p is 1, and Holm's factor is that of two lines.
        self.assertAlmostEqual(probe.p, 2 * wilcoxon(values).pvalue)
        self.assertEqual(found["Adapter"].p, 1.0)
        self.assertEqual(differences(summary, summary.plan.tasks[0], "peas", 2)[1], probe)
        text = results_text(summary.plan, summary)
        self.assertIn(f"| Probe | {probe.mean:+.3f} ({probe.lower:+.3f} to {probe.upper:+.3f}), p",
                      text)  # fmt: skip
        self.assertIn("Difference of the mean Dice from Adapter + TI", text)
        self.assertNotIn("surface Dice", text, "no row has it")
        self.assertIn(f",{round(probe.lower, 5)},{round(probe.upper, 5)},", csv_text(
            summary.plan, summary))  # fmt: skip

    def test_no_picture_without_masks_and_no_surfaces_without_scores(self) -> None:
        summary = self.summary([0.0] * PATIENTS)
        self.assertEqual(draw_figure(summary.plan, summary, self.folder), ([], []))
        method = summary.plan.methods[0]
        self.assertIsNone(summary.surfaces(summary.plan.tasks[0], "peas", method, 2))

    def test_holm(self) -> None:
        given = [Difference(n, 9, 0.0, 0.0, 0.0, p) for n, p in
                 (("a", 0.04), ("b", 0.01), ("c", 0.03), ("d", None))]  # fmt: skip
        found = {one.name: one.p for one in holm(given)}
        self.assertEqual({k: round(v, 6) for k, v in found.items() if v is not None},
                         {"b": 0.03, "c": 0.06, "a": 0.06})  # fmt: skip
        self.assertIsNone(found["d"])

    def test_names_in_latex(self) -> None:
        for name, wanted in (
            ("a_b & 50 %", r"a\_b \& 50 \%"),
            ("a|b<c", r"a\textbar{}b\textless{}c"),
            ("x^{$", r"x\textasciicircum{}\{\$"),
            ("C:\\~", r"C:\textbackslash{}\textasciitilde{}"),
        ):
            self.assertEqual(latex(name), wanted)
        odd = {"name": "$x^{$ #1", "method": "linear-probe", "epochs": 2}
        summary = self.summary([0.1] * PATIENTS, methods=[self.plan()["methods"][0], odd])
        text = latex_text(summary.plan, summary)
        self.assertIn(r"\$x\textasciicircum{}\{\$ \#1 & ", text)
        self.assertEqual(text.count("{"), text.count("}") + 2)  # the name, in two groups


if __name__ == "__main__":
    unittest.main()
