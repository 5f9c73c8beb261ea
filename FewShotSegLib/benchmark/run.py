"""Running what a plan asks for and the results don't have yet."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..adapter_file import TrainedAdapter
from ..errors import InputError
from ..evaluation import dice
from ..events import ignore, make_event
from ..model_registry import find_model
from ..pairs import Pair, find_pairs
from ..pipeline import Runtime, adapt, read_support, segment
from ..support_set import Support
from .plan import Draw, Method, Plan, Task
from .results import Results, setting_key
from .untrained import untrained_model


@dataclass(frozen=True)
class Cell:
    """One training and its queries: what the rows of one setting share."""

    task: Task
    method: Method
    shots: int
    draw: Draw
    setting: str


class Models:
    """The models of a plan, by method: paths or ids, and the hashes of their weights."""

    def __init__(self, folder: Path) -> None:
        self._untrained = cache(lambda model: untrained_model(model, folder))
        self._hash = cache(lambda model: find_model(model).weights_sha256)

    def name(self, method: Method) -> str:
        """For ``model`` of :func:`pipeline.adapt`."""
        return self._untrained(method.model) if method.untrained else method.model

    def sha256(self, method: Method) -> str:
        """Of the weights."""
        return self._hash(self.name(method))


def cells(plan: Plan, models: Models) -> Iterator[Cell]:
    """All of a plan, draw by draw, so that what is stopped has some draws complete.

    Raises:
        ModelError: a model isn't there.
    """
    for number in range(max(len(task.draws) for task in plan.tasks)):
        for shots in plan.shots:
            for task in plan.tasks:
                for method in plan.methods:
                    if number >= len(task.draws) or shots not in (method.shots or plan.shots):
                        continue
                    draw = task.draws[number]
                    count = draw.shots(shots)
                    key = setting_key(task, method, count, draw, models.sha256(method))
                    yield Cell(task, method, count, draw, key)


def run_benchmark(
    plan: Plan,
    results: Results,
    todo: Sequence[Cell],
    models: Models,
    problems: list[str],
    minutes: float = math.inf,
    runtime: Runtime | None = None,
) -> None:
    """Run every cell that lacks results. Labels of a query are read once its result is final.

    Args:
        results: gets a row for each query. todo: cells of the plan.
        problems: gets what could not be run and why, one sentence each.
        minutes: no training starts after so many.

    Raises:
        InputError: a task's folder lacks a case. ModelError, StorageError: see each message.
        Cancelled: the user stopped; the rows are kept.
    """
    runtime = runtime or Runtime()
    quiet = replace(runtime, events=ignore)
    end = time.monotonic() + minutes * 60
    cases = {task.name: _cases(task) for task in plan.tasks}
    total = sum(len(cell.draw.queries) for cell in todo)
    done = sum(results.get(c.setting, query) is not None for c in todo for query in c.draw.queries)
    runtime.events(make_event("phase", phase="benchmark", total=total))
    supports = _Supports(cases)
    for cell in todo:
        missing = [q for q in cell.draw.queries if results.get(cell.setting, q) is None]
        if not missing or time.monotonic() > end:
            continue
        try:
            trained = adapt(
                supports.of(cell),
                structures=cell.task.structures,
                model=models.name(cell.method),
                method=cell.method.method,
                decoder=cell.method.decoder,
                features=cell.method.features,
                preset=cell.method.preset,
                seed=cell.draw.seed,
                settings=cell.method.settings,
                runtime=quiet,
            )
        except InputError as error:
            # A method without a meaning on this model must not cost the night's other rows.
            sentence = f"{cell.method.name} with {cell.shots} of {cell.task.name}: {error}"
            problems.append(sentence)
            runtime.events(make_event("warning", message=sentence))
            continue
        for query in missing:
            pair = cases[cell.task.name][query]
            row = _row(cell, query, pair, trained, models.name(cell.method), quiet)
            results.add(row)
            done += 1
            runtime.events(make_event("result", kind="row", path=str(results.path), row=row))
            runtime.events(make_event("progress", phase="benchmark", done=done, total=total))


class _Supports:
    """Supports as they are needed; those of the last task stay read."""

    def __init__(self, cases: dict[str, dict[str, Pair]]) -> None:
        self.cases, self._task = cases, ""
        self._read: dict[str, Support] = {}

    def of(self, cell: Cell) -> list[Support]:
        """The supports of a cell, in the draw's order."""
        if cell.task.name != self._task:
            self._read, self._task = {}, cell.task.name
        names = cell.draw.supports[: cell.shots]
        for name in names:
            if name not in self._read:
                pair = self.cases[cell.task.name][name]
                support = read_support(pair.image, pair.segmentation, cell.task.structures)
                self._read[name] = replace(support, subject=name)
        return [self._read[name] for name in names]


def _cases(task: Task) -> dict[str, Pair]:
    pairs = {pair.name: pair for pair in find_pairs(task.folder)}
    for draw in task.draws:
        for name in (*draw.supports, *draw.queries):
            if name not in pairs:
                raise InputError(f"{task.folder} has no case '{name}', which the plan names.")
    return pairs


def _row(
    cell: Cell, query: str, pair: Pair, trained: TrainedAdapter, model: str, runtime: Runtime
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
        "dice": _scores(truth, result.unrefined),
    }
    if cell.method.refine:
        row["dice_ti"] = _scores(truth, result.masks)
    return {
        **row,
        "parameters": trained.metadata()["trained_parameters"],
        "train_seconds": trained.training["seconds"]["train"],
        "query_seconds": round(seconds, 2),
    }


def _scores(truth: dict[str, np.ndarray], masks: dict[str, np.ndarray]) -> dict[str, float | None]:
    scores = {name: float(dice(mask, masks[name])) for name, mask in truth.items()}
    return {name: None if math.isnan(x) else round(x, 5) for name, x in scores.items()}
