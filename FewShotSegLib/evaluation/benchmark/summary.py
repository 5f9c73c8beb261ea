"""From rows to numbers: means over queries and structures, their spread over draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Any

from .cells import Cell
from .plan import Method, Plan, Task
from .results import Results

TI = " + TI"
"""How the line of a method with transduction ends."""


@dataclass(frozen=True)
class Score:
    """One cell of the table.

    Attributes:
        draws: of each complete draw, the mean Dice over the group's structures and its queries.
        wanted: how many draws the plan has.
        parameters: trained.
        suited: whether the method has a meaning on the model's network.
    """

    draws: tuple[float, ...]
    wanted: int
    parameters: float = 0
    suited: bool = True

    @property
    def mean(self) -> float:
        """Over the draws."""
        return mean(self.draws)

    def __str__(self) -> str:
        if not self.draws:
            return "not run" if self.suited else "no meaning"
        spread = f" ± {stdev(self.draws):.3f}" if len(self.draws) > 1 else ""
        part = "" if len(self.draws) == self.wanted else f" ({len(self.draws)} of {self.wanted})"
        return f"{self.mean:.3f}{spread}{part}"


@dataclass(frozen=True)
class Change:
    """What transduction did to one structure of one query; ``untrained``: on random weights."""

    task: str
    structure: str
    method: str
    shots: int
    dice: float
    dice_ti: float
    untrained: bool = False

    @property
    def change(self) -> float:
        """Of the Dice."""
        return self.dice_ti - self.dice


@dataclass(frozen=True)
class Surfaces:
    """What the overlap doesn't tell, over the queries of all draws and the structures of a group.

    Attributes:
        surface_dice: the mean. hd95_mm: the median, in which a structure that was missed, or found
            where there is none, counts as infinitely far; so none is left out.
        volume_error_ml: the mean of how far sizes are off. missed: of ``count`` structures.
    """

    surface_dice: float
    hd95_mm: float
    volume_error_ml: float
    missed: int
    count: int


class Summary:
    """The scores of a plan.

    Args:
        cells: all of the plan's.
    """

    def __init__(self, plan: Plan, cells: Sequence[Cell], results: Results) -> None:
        self.plan, self._results = plan, results
        self._cells: dict[tuple[str, str, int], list[Cell]] = {}
        for cell in cells:
            key = (cell.task.name, cell.method.name, cell.shots)
            self._cells.setdefault(key, []).append(cell)

    def shots(self, task: Task) -> list[int]:
        """Every number of shots of a task, ascending."""
        return sorted({shots for name, _, shots in self._cells if name == task.name})

    def lines(self) -> list[tuple[str, Method, str]]:
        """What each line of the table is called, its method, and which scores of the rows."""
        lines = []
        for method in self.plan.methods:
            lines.append((method.name, method, "dice"))
            if method.refine:
                lines.append((method.name + TI, method, "dice_ti"))
        return lines

    def cell(self, task: Task, method: Method, shots: int) -> Cell | None:
        """The first draw's; None where the plan doesn't ask for it."""
        cells = self._cells.get((task.name, method.name, shots), [])
        return next((cell for cell in cells if cell.draw is task.draws[0]), None)

    def score(
        self, task: Task, group: str, method: Method, shots: int, field: str = "dice"
    ) -> Score | None:
        """One cell of a group's table; None where the plan doesn't ask for it."""
        names = task.groups[group]
        cells = self._cells.get((task.name, method.name, shots))
        if cells is None:
            return None
        draws, parameters = [], []
        for cell in cells:
            rows = self._rows(cell)
            values = [row[field].get(name) for row in rows for name in names]
            values = [value for value in values if value is not None]
            if len(rows) == len(cell.draw.queries) and values:
                draws.append(mean(values))
                parameters.append(rows[0]["parameters"])
        if not draws:
            return Score((), len(cells), suited=cells[0].suited)
        return Score(tuple(draws), len(cells), mean(parameters))

    def queries(
        self, task: Task, group: str, method: Method, shots: int, field: str = "dice"
    ) -> dict[tuple[int, str], float]:
        """By draw and query, the mean Dice over the group's structures that it annotates."""
        found = {}
        for cell in self._cells.get((task.name, method.name, shots), ()):
            for row in self._rows(cell):
                values = [row[field].get(name) for name in task.groups[group]]
                known = [value for value in values if value is not None]
                if known:
                    found[cell.draw.seed, row["query"]] = mean(known)
        return found

    def surfaces(
        self, task: Task, group: str, method: Method, shots: int, field: str = "dice"
    ) -> Surfaces | None:
        """How far surfaces and sizes are apart; None where not all rows of the cell say so."""
        scores, whole = field.replace("dice", "scores"), True
        missed, near, apart, sizes = 0, [], [], []
        for cell in self._cells.get((task.name, method.name, shots), ()):
            rows = self._rows(cell)
            whole = whole and len(rows) == len(cell.draw.queries)
            for row in rows:
                for name in task.groups[group]:
                    if row[field].get(name) is None:
                        continue
                    if scores not in row:
                        return None
                    one = row[scores][name]
                    near.append(one["surface_dice"])
                    sizes.append(abs(one["volume_ml"] - one["reference_ml"]))
                    missed += one["hd95_mm"] is None
                    apart.append(math.inf if one["hd95_mm"] is None else one["hd95_mm"])
        if not near or not whole:
            return None
        return Surfaces(mean(near), median(apart), mean(sizes), missed, len(near))

    def changes(self) -> list[Change]:
        """Of every structure of every query that was segmented with and without transduction."""
        return [
            Change(task, name, method, shots, dice, row["dice_ti"][name], cell.method.untrained)
            for (task, method, shots), cells in self._cells.items()
            for cell in cells
            for row in self._rows(cell)
            if "dice_ti" in row
            for name, dice in row["dice"].items()
            if dice is not None and row["dice_ti"][name] is not None
        ]

    def missing(self) -> tuple[int, int]:
        """How many queries were not run, and how many there are."""
        cells = [cell for group in self._cells.values() for cell in group if cell.suited]
        total = sum(len(cell.draw.queries) for cell in cells)
        return total - sum(len(self._rows(cell)) for cell in cells), total

    def _rows(self, cell: Cell) -> list[dict[str, Any]]:
        return cell.rows(self._results)


def by_network(changes: Sequence[Change]) -> tuple[list[Change], list[Change]]:
    """Those on trained networks, and those on random weights, where transduction has more to mend.

    Where all are of one kind, they are the first.
    """
    trained = [change for change in changes if not change.untrained]
    untrained = [change for change in changes if change.untrained]
    return (trained, untrained) if trained else (untrained, trained)


def mean_changes(changes: Sequence[Change]) -> Mapping[tuple[str, str], float]:
    """The mean change by task and structure."""
    groups: dict[tuple[str, str], list[float]] = {}
    for change in changes:
        groups.setdefault((change.task, change.structure), []).append(change.change)
    return {key: mean(values) for key, values in groups.items()}
