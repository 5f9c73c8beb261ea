"""The results of a benchmark as Markdown: a table a task, and what transduction changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from ...core.plain_text import markdown
from ...core.tables import markdown_table
from ..metrics import TOLERANCE_MM
from .comparison import Difference, base_line, differences
from .plan import Plan, Task
from .summary import Change, Summary, Surfaces, by_network, mean_changes


def results_text(plan: Plan, summary: Summary, problems: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        problems: what could not be run, one sentence each.
    """
    parts = [f"# {markdown(plan.title)}"]
    parts += [_group_text(task, group, summary) for task in plan.tasks for group in task.groups]
    changes = summary.changes()
    if changes:
        parts.append(_changes_text(changes))
    missing, total = summary.missing()
    if missing:
        parts.append(
            f"{missing} of {total} queries were not run; the same command goes on with them. Where "
            "not all draws were run, brackets say of how many a mean is."
        )
    parts += [f"- {markdown(problem)}" for problem in problems]
    return "\n\n".join(parts) + "\n"


def _group_text(task: Task, group: str, summary: Summary) -> str:
    queries = sorted({len(draw.queries) for draw in task.draws})
    structures = markdown(", ".join(task.groups[group]))
    shots = summary.shots(task)
    lines = [
        f"## {markdown(group)}",
        "",
        f"Mean Dice over {structures} and {' or '.join(map(str, queries))} "
        f"quer{'y' if queries == [1] else 'ies'} a draw, ± standard "
        f"deviation over {len(task.draws)} draw{'s' * (len(task.draws) != 1)} of the supports.",
        "",
    ]
    rows = []
    for name, method, field in summary.lines():
        scores = [summary.score(task, group, method, count, field) for count in shots]
        counts = [score.parameters for score in scores if score is not None and score.draws]
        texts = ["" if score is None else str(score) for score in scores]
        parameters = f"{mean(counts):,.0f}" if counts else ""
        rows.append([markdown(name), parameters, *texts])
    header = ["method", "trained parameters", *(f"K = {count}" for count in shots)]
    text = "\n".join([*lines, markdown_table(header, rows, " >")])
    more = (_surfaces_text(task, group, summary), _differences_text(task, group, summary))
    return "\n\n".join([text, *filter(None, more)])


def _surfaces_text(task: Task, group: str, summary: Summary) -> str:
    """What overlap doesn't tell; empty where no rows have it."""
    shots, rows = summary.shots(task), []
    for name, method, field in summary.lines():
        found = [summary.surfaces(task, group, method, k, field) for k in shots]
        if any(found):
            rows.append([markdown(name), *(_surface_cell(one) for one in found)])
    about = (
        f"Mean surface Dice within {TOLERANCE_MM:g} mm, median HD95 in mm (a structure that was "
        "missed is infinitely far), and mean error of the volume in ml:"
    )
    return _by_shots(about, shots, rows)


def _by_shots(about: str, shots: Sequence[int], rows: Sequence[Sequence[str]]) -> str:
    """A table with a column a number of shots, and what it is; empty where it has no rows."""
    if not rows:
        return ""
    header = ["method", *(f"K = {count}" for count in shots)]
    return f"{about}\n\n{markdown_table(header, rows)}"


def _surface_cell(one: Surfaces | None) -> str:
    if one is None:
        return ""
    missed = f"; {one.missed} of {one.count} missed" if one.missed else ""
    far = f"{one.hd95_mm:.1f}" if math.isfinite(one.hd95_mm) else "inf"
    return f"{one.surface_dice:.3f}; {far}; {one.volume_error_ml:.2f}{missed}"


def _differences_text(task: Task, group: str, summary: Summary) -> str:
    """Every line against the first; empty where none shares enough patients with it."""
    shots = summary.shots(task)
    found = {k: {d.name: d for d in differences(summary, task, group, k)} for k in shots}
    first, rows = base_line(summary), []
    for name, _, _ in summary.lines():
        own = [found[k].get(name) for k in shots]
        if any(one is not None and one.p is not None for one in own):
            rows.append([markdown(name), *map(_difference_cell, own)])
    about = (
        f"Difference of the mean Dice from {markdown(first)} on the same queries, one value a "
        "patient: mean, 95 % interval (bootstrap over patients), p (Wilcoxon's signed-rank test, "
        "Holm's correction over the lines):"
    )
    return _by_shots(about, shots, rows)


def _difference_cell(one: Difference | None) -> str:
    if one is None:
        return ""
    if one.lower is None or one.p is None:
        return f"{one.mean:+.3f} ({one.patients} patients)"
    p = "p < 0.001" if one.p < 0.001 else f"p = {one.p:.3f}"
    return f"{one.mean:+.3f} ({one.lower:+.3f} to {one.upper:+.3f}), {p}"


def _changes_text(changes: Sequence[Change]) -> str:
    changes, untrained = by_network(changes)
    text = f"Mean change of Dice over {len(changes)} segmentations: {_mean(changes)}."
    if untrained:
        text += f" On random weights, over {len(untrained)} and not below: {_mean(untrained)}."
    rows = []
    for (task, structure), value in mean_changes(changes).items():
        own = [c.change for c in changes if (c.task, c.structure) == (task, structure)]
        better, worse = sum(x > 0 for x in own), sum(x < 0 for x in own)
        rows.append([markdown(task), markdown(structure), f"{value:+.3f}", str(better), str(worse)])
    header = ["task", "structure", "mean change", "better", "worse"]
    table = markdown_table(header, rows, "  >>>")
    return f"## What transduction changed\n\n{text} By structure:\n\n{table}"


def _mean(changes: Sequence[Change]) -> str:
    return f"{mean(change.change for change in changes):+.3f}"
