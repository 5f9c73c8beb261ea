"""What a person sees of a benchmark: the table's page and the pictures, written to its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.atomic import replacing
from .cells import Cell
from .plan import Plan
from .plots import draw_plots
from .results import Results
from .summary import Summary
from .table import results_text

PAGE = "table.md"


def render(
    plan: Plan, cells: Sequence[Cell], results: Results, out: Path, problems: Sequence[str] = ()
) -> tuple[str, list[Path]]:
    """Write ``table.md`` and the pictures of what is known by now.

    Args:
        cells: all of the plan's. problems: what could not be run, one sentence each.

    Returns:
        the page's text, and the files.

    Raises:
        StorageError: one can't be written.
    """
    summary = Summary(plan, cells, results)
    text = results_text(plan, summary, problems)
    with replacing(out / PAGE) as partial:
        partial.write_text(text, encoding="utf-8")
    return text, [out / PAGE, *draw_plots(plan, summary, out)]
