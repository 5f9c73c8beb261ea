"""Two lines of a table compared on the same queries: an interval of the difference, and a test.

What is compared is one value a patient, the mean over the draws in which it was a query, so that
no patient counts twice. The interval is about other patients with these supports; how much other
supports change is the spread of the table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import mean

import numpy as np

from .plan import Task
from .summary import Summary

LEAST_PATIENTS = 6
"""With fewer, no arrangement of signs has a probability below 0.05 in a two-sided test."""
RESAMPLES, LEVEL = 9999, 0.95


@dataclass(frozen=True)
class Difference:
    """Of a line's mean Dice from that of the first line.

    Attributes:
        name: of the line. patients: how many both have. mean: positive where the line is better.
        lower, upper: the 95 % interval of the mean, by the percentiles of its bootstrap over
            patients (Efron & Tibshirani, 1993). None, as ``p``, with fewer than six patients.
        p: of Wilcoxon's signed-rank test, two-sided; corrected for the number of lines of the same
            table and number of shots by Holm's method.
    """

    name: str
    patients: int
    mean: float
    lower: float | None = None
    upper: float | None = None
    p: float | None = None


def base_line(summary: Summary) -> str:
    """The line that the others are compared with: the first method, refined where it is."""
    method = summary.plan.methods[0]
    return next(
        name for name, own, field in reversed(summary.lines())
        if own is method and field == ("dice_ti" if method.refine else "dice")
    )  # fmt: skip


def differences(summary: Summary, task: Task, group: str, shots: int) -> list[Difference]:
    """Of every other line that shares patients with the first, in the table's order."""
    first = base_line(summary)
    lines = {name: (method, field) for name, method, field in summary.lines()}
    method, field = lines.pop(first)
    own = summary.queries(task, group, method, shots, field)
    found = []
    for name, (method, field) in lines.items():
        other = summary.queries(task, group, method, shots, field)
        by_patient: dict[str, list[float]] = {}
        for key in own.keys() & other.keys():
            by_patient.setdefault(key[1], []).append(other[key] - own[key])
        values = [mean(by_patient[patient]) for patient in sorted(by_patient)]
        if values:
            found.append(_difference(name, values))
    return holm(found)


def _difference(name: str, values: list[float]) -> Difference:
    from scipy.stats import wilcoxon

    if len(values) < LEAST_PATIENTS:
        return Difference(name, len(values), mean(values))
    array = np.array(values)
    drawn = np.random.default_rng(0).integers(len(array), size=(RESAMPLES, len(array)))
    lower, upper = np.quantile(array[drawn].mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    p = float(wilcoxon(array).pvalue) if array.any() else 1.0
    return Difference(name, len(values), mean(values), float(lower), float(upper), p)


def holm(found: list[Difference]) -> list[Difference]:
    """Probabilities for all of them together (Holm, Scand. J. Statist. 6, 1979)."""
    order = sorted((d for d in found if d.p is not None), key=lambda d: d.p or 0)
    corrected, least = {}, 0.0
    for place, one in enumerate(order):
        assert one.p is not None
        least = max(least, min(1.0, (len(order) - place) * one.p))
        corrected[one.name] = least
    return [replace(one, p=corrected.get(one.name)) for one in found]
