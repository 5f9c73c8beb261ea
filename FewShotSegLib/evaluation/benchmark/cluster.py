"""A plan's cells on a Dask cluster: a training and its queries are one piece of work.

The coordinator alone keeps rows. A worker that ends in the middle of a cell leaves none of it, and
the cell is begun again on another.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...compute.cluster import Cluster
from ...core.errors import FewShotSegError, InputError
from ...pipeline import Runtime
from .cells import Cell, Models, cells
from .forecast import Forecast, Timing
from .plan import Plan, read_plan
from .results import Results
from .run import CaseReader, CellRun, Tally, cases_of, run_cell


@dataclass(frozen=True)
class Files:
    """Where things are, by paths that all machines have; and until when trainings may start.

    Attributes:
        plan, data: as of :func:`.plan.read_plan`. untrained: the folder of untrained models.
        out: that of the results.
    """

    plan: str
    data: str | None
    untrained: str
    out: str
    minutes: float = math.inf


@dataclass(frozen=True)
class CellTask:
    """What a worker is to do. ``end``: seconds since the epoch, after which it does nothing."""

    files: Files
    setting: str
    queries: tuple[str, ...]
    end: float
    device: str
    cache: str | None
    cache_bytes: int


@dataclass
class CellDone:
    """What a worker has to say; ``ran`` is None where it was too late to begin."""

    ran: CellRun | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


def run_benchmark_on(
    cluster: Cluster,
    files: Files,
    results: Results,
    todo: Sequence[Cell],
    problems: list[str],
    runtime: Runtime,
) -> list[str]:
    """As :func:`.run.run_benchmark`, on a cluster.

    Raises:
        InputError: a task's folder lacks a case. StorageError: rows can't be kept.
    """
    for task in {cell.task.name: cell.task for cell in todo}.values():
        cases_of(task)
    tally = Tally(Forecast(todo, results), results, problems, runtime.events)
    if not tally.begin():
        return []
    left = [cell for cell in todo if cell.missing(results)]
    end, late = time.time() + files.minutes * 60, 0
    cache = None if runtime.cache is None else str(Path(runtime.cache).absolute())
    jobs = [
        CellTask(
            files,
            cell.setting,
            tuple(cell.missing(results)),
            end,
            runtime.device,
            cache,
            runtime.cache_bytes,
        )
        for cell in left
    ]
    for number, said in cluster.run(cell_task, jobs):
        cell = left[number]
        if isinstance(said, FewShotSegError):
            name = f"{cell.method.name} with {cell.shots} of {cell.task.name}"
            said = CellDone(CellRun(failed=[f"{name}: {said}"]))
        assert isinstance(said, CellDone)
        if said.ran is None:
            late += 1
            continue
        for row in said.rows:
            tally.keep(row)
        tally.tell_progress()
        for sentence in said.ran.refused + said.ran.failed:
            tally.warn(sentence)
        # So many are run side by side.
        seconds = (said.ran.train, said.ran.queries / len(jobs[number].queries))
        tally.ended(cell, said.ran, Timing(cell, *(part / cluster.size for part in seconds)))
    return tally.finish(files.minutes, late)


def cell_task(job: CellTask) -> CellDone:
    """On a worker: one training and its queries.

    Raises:
        InputError: the plan has changed since the work was handed out. StorageError.
    """
    if time.time() > job.end:
        return CellDone()
    plan, models, reader = _plan(job.files, os.stat(job.files.plan).st_mtime_ns)
    cell = next((one for one in cells(plan, models) if one.setting == job.setting), None)
    if cell is None:
        raise InputError(f"{job.files.plan} has changed; start the same command again.")
    runtime = Runtime(job.device, job.cache, job.cache_bytes)
    if cell.task.name not in reader.cases:
        reader.cases[cell.task.name] = cases_of(cell.task)
    done = CellDone()
    listeners = (done.rows.append, lambda sentence: None)
    model = models.name(cell.method)
    done.ran = run_cell(cell, job.queries, reader, model, runtime, listeners)
    return done


@lru_cache(maxsize=1)
def _plan(files: Files, changed: int) -> tuple[Plan, Models, CaseReader]:
    """The plan of this worker's last cell, with the hashes of its models and what was read."""
    models = Models(Path(files.untrained))
    return read_plan(files.plan, files.data), models, CaseReader({}, Path(files.out))
