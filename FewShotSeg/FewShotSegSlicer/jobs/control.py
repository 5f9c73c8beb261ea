"""Tasks, one at a time: what is in the way of one, what it will take, starting and stopping it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from FewShotSegLib.core.errors import FewShotSegError, InputError
from FewShotSegLib.core.job_protocol import PhantomsJob, write_job

from ..interface.rows import End, Epoch, Estimate, Progress, TaskKind
from .segment import SegmentTask
from .task import Task
from .train import TrainTask


class TaskControl:
    """Part of the logic, whose ``missingPackages``, ``_tell`` and state it uses."""

    missingPackages: Callable[[], list[str]]
    _tell: Callable[[Any], None]
    _task: Task | None
    _end: End | None
    _epochs: list[Epoch]
    _closed: bool

    def blockers(self, kind: TaskKind) -> list[str]:
        missing = self.missingPackages()
        found = []
        if missing:
            names = ", ".join(missing)
            found.append(
                _(
                    "Python packages are missing ({names}). Press Install in the section "
                    "Foundation model."
                ).format(names=names)
            )
        if self.running() not in (None, "devices"):
            found.append(_("Wait until the running task has ended, or cancel it."))
        if kind == "train":
            found += TrainTask(self).blockers()
        elif kind == "segment":
            found += SegmentTask(self).blockers()
        return found

    def estimate(self, kind: TaskKind) -> Estimate | None:
        try:
            if kind == "train":
                return TrainTask(self).estimate()
            if kind == "segment":
                return SegmentTask(self).estimate()
        except FewShotSegError:
            return None
        return None

    def startTraining(self) -> None:
        task = TrainTask(self)
        self._require(task.blockers())
        self._epochs = []
        self._start("train", task.prepare, task.load, task.finish)

    def startSegmentation(self) -> None:
        task = SegmentTask(self)
        self._require(task.blockers())
        self._start("segment", task.prepare, task.load, task.finish)

    def startPhantoms(self, folder: str, count: int = 4) -> None:
        job = PhantomsJob(str(folder), int(count))
        text = _("{n} made-up patients are in {folder}.").format(n=count, folder=folder)
        self._start(
            "phantoms",
            lambda place: job_steps(place, job),
            nothing_to_load,
            lambda: End("phantoms", "finished", text),
        )

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def running(self) -> TaskKind | None:
        return self._task.kind if self._task is not None else None

    def progress(self) -> Progress | None:
        return self._task.progress if self._task is not None else None

    def epochs(self) -> list[Epoch]:
        return list(self._epochs)

    def lastEnd(self) -> End | None:
        return self._end

    def _require(self, blockers: list[str]) -> None:
        if blockers:
            raise InputError(blockers[0])

    def _start(
        self,
        kind: TaskKind,
        prepare: Callable[[Path], Iterator[Any]],
        load: Callable[[Path], Iterator[Any]],
        finish: Callable[[], End],
    ) -> None:
        if self._closed:
            raise InputError(_("This module was closed. Open it again."))
        if self._task is not None and self._task.kind == "devices":
            self._task.abort("", wait=True)  # only a question; what a person wants goes first
        if self._task is not None:
            raise InputError(_("Wait until the running task has ended, or cancel it."))
        self._task = Task(kind, prepare, load, finish, self._tell)
        if self._task is not None:
            self._tell(self._task.progress)


def job_steps(folder: Path, job: Any) -> Iterator[None]:
    """Write a job that hands nothing over."""
    write_job(folder, job)
    yield


def nothing_to_load(folder: Path) -> Iterator[None]:
    """Of a task whose result is not in its folder."""
    yield
