"""How much of a benchmark is still to be run, and about how long that takes, method by method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from .cells import Cell
from .results import Results

RUN, ROWS = "run", "rows"
"""What an estimate rests on: cells timed in this run, or the seconds that rows hold."""


@dataclass(frozen=True)
class Timing:
    """How long one cell took: its training, and a query on average, s."""

    cell: Cell
    train: float
    query: float


class Forecast:
    """Counts and estimates of the cells that are to be run.

    A cell timed in this run counts all that it took, features included. Before a method has one,
    its rows of earlier runs tell: they hold no features of supports, and may be of another
    computer, so that the two are never mixed.

    Args:
        todo: the cells of this run, those that are there already included.
        known: cells whose rows may tell how long others take.
    """

    def __init__(self, todo: Sequence[Cell], results: Results, known: Iterable[Cell] = ()) -> None:
        self._results = results
        self._left = [cell for cell in todo if cell.missing(results)]
        self._timed: list[Timing] = []
        self._recorded = [timing for cell in known if (timing := recorded(cell, results))]
        self._counts = {
            "cells": len(todo),
            "cells_done": len(todo) - len(self._left),
            "queries": sum(len(cell.draw.queries) for cell in todo),
            "queries_left": sum(len(cell.missing(results)) for cell in self._left),
        }

    def workload(self) -> dict[str, Any]:
        """Before anything is run: ``cells``, ``cells_done``, ``queries``, ``queries_done`` and
        ``remaining`` (see :meth:`remaining`)."""
        counts = dict(self._counts)
        counts["queries_done"] = counts["queries"] - counts.pop("queries_left")
        return {**counts, "remaining": self.remaining()}

    def finished(self, timing: Timing) -> None:
        """A cell was run and timed."""
        self._left.remove(timing.cell)
        self._timed.append(timing)

    def skipped(self, cell: Cell) -> None:
        """A cell can't be run."""
        self._left.remove(cell)

    def remaining(self) -> list[dict[str, Any]]:
        """By method: ``method``, ``cells`` and ``queries`` still to be run, ``seconds`` that they
        may take (None where nothing tells), and the ``basis`` of that (``run``, ``rows``, None)."""
        groups: dict[str, list[Cell]] = {}
        for cell in self._left:
            groups.setdefault(cell.method.name, []).append(cell)
        return [self._of_method(name, cells) for name, cells in groups.items()]

    def _of_method(self, name: str, cells: list[Cell]) -> dict[str, Any]:
        missing = [len(cell.missing(self._results)) for cell in cells]
        basis, timings = RUN, [t for t in self._timed if t.cell.method.name == name]
        if not timings:
            basis, timings = ROWS, [t for t in self._recorded if t.cell.method.name == name]
        seconds = None
        if timings:
            pairs = zip(cells, missing, strict=True)
            seconds = round(sum(_seconds(cell, count, timings) for cell, count in pairs), 1)
        return {
            "method": name,
            "cells": len(cells),
            "queries": sum(missing),
            "seconds": seconds,
            "basis": basis if timings else None,
        }


def recorded(cell: Cell, results: Results) -> Timing | None:
    """What the rows of a cell say of its time; None without rows."""
    rows = [row for row in cell.rows(results) if "query_seconds" in row]
    if not rows:
        return None
    return Timing(cell, rows[0]["train_seconds"], mean(row["query_seconds"] for row in rows))


def _seconds(cell: Cell, queries: int, timings: Sequence[Timing]) -> float:
    """Those that a cell may take, from the timings of its method that are most like it."""
    same_task = [t for t in timings if t.cell.task.name == cell.task.name]
    same_shots = [t for t in same_task if t.cell.shots == cell.shots]
    alike = same_shots or same_task or timings
    train = mean(t.train / _lengths(t.cell) for t in alike) * _lengths(cell)
    return train + mean(t.query for t in alike) * queries


def _lengths(cell: Cell) -> int:
    """How much longer a training is than with one support: published epochs run over them all."""
    return cell.shots if cell.method.preset == "published" else 1
