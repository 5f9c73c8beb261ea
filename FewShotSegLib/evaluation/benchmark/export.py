"""The table of a benchmark for other programs: CSV with every number, and LaTeX to be set."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import stdev

from ...core import tables
from ...core.atomic import replacing
from .comparison import differences
from .plan import Plan
from .summary import Score, Summary

CSV, LATEX = "table.csv", "table.tex"
COLUMNS = (
    *("task", "group", "method", "shots", "draws", "draws_wanted", "mean_dice", "sd_dice"),
    *("trained_parameters", "mean_surface_dice", "median_hd95_mm", "mean_volume_error_ml"),
    *("missed", "structures", "difference", "lower", "upper", "p", "patients"),
)


def write_tables(plan: Plan, summary: Summary, folder: Path) -> list[Path]:
    """Write ``table.csv`` and ``table.tex``.

    Raises:
        StorageError: one can't be written.
    """
    texts = {CSV: csv_text(plan, summary), LATEX: latex_text(plan, summary)}
    for name, text in texts.items():
        with replacing(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def csv_text(plan: Plan, summary: Summary) -> str:
    """A row a line of a table and number of shots; empty where nothing is known."""
    rows = []
    for task in plan.tasks:
        for group in task.groups:
            for shots in summary.shots(task):
                apart = {d.name: d for d in differences(summary, task, group, shots)}
                for name, method, field in summary.lines():
                    score = summary.score(task, group, method, shots, field)
                    if score is None:
                        continue
                    row = {
                        "task": task.name,
                        "group": group,
                        "method": name,
                        "shots": shots,
                        "draws": len(score.draws),
                        "draws_wanted": score.wanted,
                    }
                    if score.draws:
                        row["mean_dice"] = round(score.mean, 5)
                        row["trained_parameters"] = round(score.parameters)
                    if len(score.draws) > 1:
                        row["sd_dice"] = round(stdev(score.draws), 5)
                    surfaces = summary.surfaces(task, group, method, shots, field)
                    if surfaces is not None:
                        row["mean_surface_dice"] = round(surfaces.surface_dice, 5)
                        row["median_hd95_mm"] = round(surfaces.hd95_mm, 3)
                        row["mean_volume_error_ml"] = round(surfaces.volume_error_ml, 4)
                        row |= {"missed": surfaces.missed, "structures": surfaces.count}
                    if name in apart:
                        one = apart[name]
                        row |= {"difference": round(one.mean, 5), "patients": one.patients}
                        if one.lower is not None and one.upper is not None and one.p is not None:
                            row |= {"lower": round(one.lower, 5), "upper": round(one.upper, 5)}
                            row["p"] = round(one.p, 6)
                    rows.append(row)
    return tables.csv_text(COLUMNS, rows)


def latex_text(plan: Plan, summary: Summary) -> str:
    """A ``tabular`` a group, for the package booktabs; the best mean of a column is bold."""
    parts = ["% Written by FewShotSeg; needs \\usepackage{booktabs}."]
    for task in plan.tasks:
        shots = summary.shots(task)
        for group in task.groups:
            lines = [
                (name, [summary.score(task, group, method, k, field) for k in shots])
                for name, method, field in summary.lines()
            ]
            lines = [line for line in lines if any(score and score.draws for score in line[1])]
            best = [
                max((s.mean for _, scores in lines if (s := scores[n]) and s.draws), default=None)
                for n in range(len(shots))
            ]
            parts.append(
                "\n".join(
                    [
                        f"% {latex(group)}: mean Dice, standard deviation over draws of supports",
                        f"\\begin{{tabular}}{{l{'c' * len(shots)}}}",
                        "\\toprule",
                        " & ".join([latex(group), *(f"$K={k}$" for k in shots)]) + r" \\",
                        "\\midrule",
                        *(
                            " & ".join([latex(name), *map(_cell, scores, best)]) + r" \\"
                            for name, scores in lines
                        ),
                        "\\bottomrule",
                        "\\end{tabular}",
                    ]
                )
            )
    return "\n\n".join(parts) + "\n"


def _cell(score: Score | None, best: float | None) -> str:
    if score is None or not score.draws:
        return "--"
    text = f"{score.mean:.3f}"
    if best is not None and text == f"{best:.3f}":
        text = f"\\textbf{{{text}}}"
    if len(score.draws) > 1:
        text += f" {{\\footnotesize $\\pm$ {stdev(score.draws):.3f}}}"
    if len(score.draws) < score.wanted:
        text += f" ({len(score.draws)} of {score.wanted})"
    return text


_SPECIAL = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"},
}


def latex(text: str) -> str:
    """A name as LaTeX sets it."""
    return re.sub(r"[\\&%$#_{}~^|<>]", lambda m: _SPECIAL.get(m[0], "\\" + m[0]), text)
