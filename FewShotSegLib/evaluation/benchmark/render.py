"""What comes of a benchmark: the page, the tables and the pictures, written to its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...core.atomic import replacing
from .cells import Cell
from .export import write_tables
from .figure import draw_figure
from .plan import Plan
from .plots import draw_plots
from .results import Results
from .summary import Summary
from .table import results_text

PAGE = "table.md"


def render(
    plan: Plan, cells: Sequence[Cell], results: Results, out: Path, problems: Sequence[str] = ()
) -> tuple[str, list[Path]]:
    """Write ``table.md``, its numbers for other programs, and the pictures of what is known by now.

    Args:
        cells: all of the plan's. problems: what could not be run, one sentence each.

    Returns:
        the page's text, and the files.

    Raises:
        StorageError: one can't be written.
    """
    summary = Summary(plan, cells, results)
    figures, more = draw_figure(plan, summary, out)
    text = results_text(plan, summary, [*problems, *more])
    with replacing(out / PAGE) as partial:
        partial.write_text(text, encoding="utf-8")
    tables = write_tables(plan, summary, out)
    return text, [out / PAGE, *tables, *figures, *draw_plots(plan, summary, out)]
