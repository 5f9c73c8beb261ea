"""Running what a plan asks for and the results don't have yet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from ... import __version__
from ...core.errors import Cancelled, InputError, StorageError, in_words
from ...core.events import EventSink, ignore, make_event
from ...core.geometry import Grid
from ...io.pairs import Pair, find_pairs
from ...pipeline import Runtime, adapt, read_support, segment
from ...pipeline.adapter_file import TrainedAdapter
from ...training.support_set import Support, choose_structures
from ..metrics import evaluate
from .cells import Cell, Models, cells
from .forecast import Forecast, Timing
from .masks import is_kept, mask_path, write_masks
from .plan import Plan, Task
from .results import MEASURED, Results


def run_benchmark(
    plan: Plan,
    results: Results,
    todo: Sequence[Cell],
    models: Models,
    problems: list[str],
    minutes: float = math.inf,
    runtime: Runtime | None = None,
) -> list[str]:
    """Run every cell that lacks results. Labels of a query are read once its result is final.

    A query that fails, whatever the reason, costs no other.

    Args:
        results: gets a row for each query. todo: cells of the plan.
        problems: gets what could not be run and why, one sentence each.
        minutes: no training starts after so many.

    Returns:
        a sentence for each query that failed, and for each training whose supports can't be used;
        they have no row. So have methods that can't be trained at all, which count as failed where
        nothing else was run.

    Raises:
        InputError: a task's folder lacks a case. ModelError, StorageError: see each message.
        Cancelled: the user stopped; the rows are kept.
    """
    runtime = runtime or Runtime()
    quiet = replace(runtime, events=ignore)
    end = time.monotonic() + minutes * 60
    cases = {task.name: cases_of(task) for task in plan.tasks}
    tally = Tally(Forecast(todo, results, cells(plan, models)), results, problems, runtime.events)
    if not tally.begin():
        return []
    supports, late = CaseReader(cases, results.path.parent), 0
    for cell in todo:
        missing = cell.missing(results)
        if missing and time.monotonic() > end:
            late += 1
        if not missing or late:
            continue

        def keep(row: dict[str, Any]) -> None:
            tally.keep(row)
            tally.tell_progress()

        ran = run_cell(cell, missing, supports, models.name(cell.method), quiet, (keep, tally.warn))
        tally.ended(cell, ran, Timing(cell, ran.train, ran.queries / len(missing)))
    return tally.finish(minutes, late)


class Tally:
    """How far a benchmark is and what went wrong, which is said as it goes.

    Args:
        results: gets the rows. problems: gets what could not be run and why, a sentence each.
    """

    def __init__(
        self, forecast: Forecast, results: Results, problems: list[str], events: EventSink
    ) -> None:
        self._forecast, self._results, self._events = forecast, results, events
        self._problems = problems
        self._refused: list[str] = []
        self._failed: list[str] = []
        work = forecast.workload()
        self._before, self._total = work["queries_done"], work["queries"]
        self._done = self._before
        events(make_event("workload", phase="benchmark", **work))

    def begin(self) -> bool:
        """Whether there is anything to be run; then the rows can be written.

        Raises:
            StorageError: they can't.
        """
        if self._done == self._total:
            return False
        self._events(make_event("phase", phase="benchmark", total=self._total))
        self.tell_progress()
        self._results.mend()
        return True

    def keep(self, row: dict[str, Any]) -> None:
        """A query was run.

        Raises:
            StorageError: its row can't be written.
        """
        self._results.add(row)
        self._done += 1
        path = str(self._results.path)
        self._events(make_event("result", kind="row", path=path, row=row))

    def tell_progress(self) -> None:
        """How many queries are done."""
        self._events(make_event("progress", phase="benchmark", done=self._done, total=self._total))

    def warn(self, sentence: str) -> None:
        """Something could not be run."""
        self._events(make_event("warning", message=sentence))

    def ended(self, cell: Cell, ran: CellRun, timing: Timing) -> None:
        """A cell was run, whose rows are kept."""
        self._problems += ran.refused + ran.failed
        self._refused += ran.refused
        self._failed += ran.failed
        if not ran.trained:
            self._forecast.skipped(cell)
            return
        self._forecast.finished(timing)
        seconds = ran.train + ran.queries
        self._events(cell_event(cell, self._results, seconds, self._forecast))

    def finish(self, minutes: float, late: int) -> list[str]:
        """What failed; methods that can't be trained at all count where nothing else was run.

        Args:
            late: so many cells were not started when the minutes were over.
        """
        if late:
            self.warn(
                f"The {minutes:g} minutes are over; {late} cell{'s were' if late > 1 else ' was'} "
                "not started. The same command goes on with them."
            )
        return self._failed if self._done > self._before else [*self._failed, *self._refused]


@dataclass
class CellRun:
    """How a cell went.

    Attributes:
        trained: whether there was an adapter. train, queries: seconds.
        refused: why it can't be trained at all. failed: what else went wrong, a sentence each.
    """

    trained: bool = False
    train: float = 0.0
    queries: float = 0.0
    refused: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def run_cell(
    cell: Cell,
    missing: Sequence[str],
    supports: CaseReader,
    model: str,
    runtime: Runtime,
    listeners: tuple[Callable[[dict[str, Any]], None], Callable[[str], None]],
) -> CellRun:
    """One training, and the queries that lack a row.

    Args:
        listeners: the first gets a row for each query that could be segmented as soon as it is
            known, the second a sentence for each that could not, and for a failed training.

    Raises:
        StorageError, Cancelled: no other cell could be run either.
    """
    keep, warn = listeners
    ran, start = CellRun(), time.perf_counter()
    annotated: list[Support] = []
    try:
        annotated = supports.of(cell)
        trained = adapt(annotated, options=cell.options(model), runtime=runtime)
    except (Cancelled, StorageError):
        raise
    except Exception as error:
        # A method without a meaning on this model must not cost the night's other rows.
        sentence = f"{cell.method.name} with {cell.shots} of {cell.task.name}: {in_words(error)}"
        data = not annotated or not isinstance(error, InputError)
        (ran.failed if data else ran.refused).append(sentence)
        warn(sentence)
        return ran
    between = time.perf_counter()
    for query in missing:
        try:
            pair = supports.pair(cell, query)
            row = _row(cell, query, pair, trained, model, runtime, supports.out)
        except (Cancelled, StorageError):
            raise
        except Exception as error:
            sentence = f"{cell.method.name} on {query} of {cell.task.name}: {in_words(error)}"
            ran.failed.append(sentence)
            warn(sentence)
            continue
        keep(row)
    ran.trained, ran.train = True, between - start
    ran.queries = time.perf_counter() - between
    return ran


def cell_event(cell: Cell, results: Results, seconds: float, forecast: Forecast) -> dict[str, Any]:
    """What a finished cell came to, over all of its queries, and what is left."""
    rows = cell.rows(results)
    means = {}
    for name in ("dice", "dice_ti") if cell.method.refine else ("dice",):
        known = [value for row in rows for value in row[name].values() if value is not None]
        means[f"mean_{name}"] = round(mean(known), 6) if known else None
    return make_event(
        "cell",
        phase="benchmark",
        method=cell.method.name,
        task=cell.task.name,
        shots=cell.shots,
        draw=cell.draw.seed,
        **means,
        seconds=round(seconds, 2),
        remaining=forecast.remaining(),
    )


class CaseReader:
    """Supports as they are needed; those of the last task stay read.

    Attributes:
        cases: the files of each, by task. out: the folder of the results.
    """

    def __init__(self, cases: dict[str, dict[str, Pair]], out: Path) -> None:
        self.cases, self.out, self._task = cases, out, ""
        self._read: dict[str, Support] = {}

    def of(self, cell: Cell) -> list[Support]:
        """The supports of a cell, in the draw's order.

        Raises:
            InputError: one can't be used, or none annotates a structure of the task.
        """
        if cell.task.name != self._task:
            self._read, self._task = {}, cell.task.name
        names = cell.draw.supports[: cell.shots]
        for name in names:
            if name not in self._read:
                pair = self.cases[cell.task.name][name]
                support = read_support(pair.image, pair.segmentation, cell.task.structures)
                self._read[name] = replace(support, subject=name)
        found = [self._read[name] for name in names]
        choose_structures(found, cell.task.structures)
        return found

    def pair(self, cell: Cell, query: str) -> Pair:
        """The files of a case."""
        return self.cases[cell.task.name][query]


def cases_of(task: Task) -> dict[str, Pair]:
    """The files of a task's cases, by name.

    Raises:
        InputError: one that the plan names is not there.
    """
    pairs = {pair.name: pair for pair in find_pairs(task.folder)}
    for draw in task.draws:
        for name in (*draw.supports, *draw.queries):
            if name not in pairs:
                raise InputError(f"{task.folder} has no case '{name}', which the plan names.")
    return pairs


def _row(
    cell: Cell,
    query: str,
    pair: Pair,
    trained: TrainedAdapter,
    model: str,
    runtime: Runtime,
    out: Path,
) -> dict[str, Any]:
    start = time.perf_counter()
    result = segment(
        trained, pair.image, transductive=cell.method.refine, model=model, runtime=runtime
    )
    seconds = time.perf_counter() - start
    truth = read_support(pair.image, pair.segmentation, cell.task.structures).annotation.masks
    row = {
        "setting": cell.setting,
        "task": cell.task.name,
        "method": cell.method.name,
        "shots": cell.shots,
        "draw": cell.draw.seed,
        "query": query,
    }
    masks = {"dice": result.unrefined}
    if cell.method.refine:
        masks["dice_ti"] = result.masks
    for kind, found in masks.items():
        row |= _scores(truth, found, result.grid, kind.removeprefix("dice"))
        if is_kept(cell, query):
            write_masks(mask_path(out, cell, query, kind), found)
    header = trained.metadata()
    return {
        **row,
        "model": header["model"]["id"],
        "weights": header["model"]["weights_sha256"],
        "versions": {"fewshotseg": __version__, "torch": version("torch")},
        "parameters": sum(
            one["trained_parameters"]
            for one in (header, trained.companion.metadata() if trained.companion else None)
            if one
        ),
        "train_seconds": _training_seconds(trained),
        "query_seconds": round(seconds, 2),
    }


def _training_seconds(trained: TrainedAdapter) -> float:
    """Of an adapter, and of its second network if it has one."""
    seconds = trained.training["seconds"]["train"]
    if trained.companion is not None:
        seconds += trained.companion.training["seconds"]["companion"]
    return round(seconds, 3)


def _scores(
    truth: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray], grid: Grid, ending: str
) -> dict[str, Any]:
    """``dice`` and ``scores`` of a row, with this ending of their names."""
    found = evaluate(truth, {name: masks[name] for name in truth}, grid)
    numbers = {name: scores.to_json() for name, scores in found.items()}
    return {
        f"dice{ending}": {
            name: None if math.isnan(one.dice) else round(one.dice, 5)
            for name, one in found.items()
        },
        f"scores{ending}": {
            name: {key: values[key] for key in MEASURED} for name, values in numbers.items()
        },
    }
