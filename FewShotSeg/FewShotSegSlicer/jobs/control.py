"""Tasks, one at a time: what is in the way of one, what it will take, starting and stopping it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from FewShotSegLib.core.errors import FewShotSegError, InputError
from FewShotSegLib.core.job_protocol import PhantomsJob, write_job

from ..interface.rows import End, Epoch, Estimate, Progress, TaskKind
from ..scene.session import Session
from . import segment, suggest, train
from .task import Run, Task, WholeRun
from .worker_process import WaitingWorker

WORK = {"train": train, "segment": segment}
"""What has an estimate, by kind of task."""
BLOCKERS = {
    "train": train.blockers,
    "segment": segment.blockers,
    "suggest": suggest.blockers,
}
"""What is in the way of a task, by its kind."""


class TaskControl:
    """Part of the logic, whose ``missingPackages`` it uses; ``_task`` is there while one runs."""

    session: Session
    missingPackages: Callable[[], list[str]]
    _task: Task | None
    _end: End | None
    _epochs: list[Epoch]
    _closed: bool
    _waiting: WaitingWorker

    def blockers(self, kind: TaskKind) -> list[str]:
        missing = self.missingPackages()
        found = []
        if missing:
            names = ", ".join(missing)
            found.append(
                _(
                    "Python packages are missing ({names}). Press Install at the top of the panel."
                ).format(names=names)
            )
        if self.running() not in (None, "devices"):
            found.append(_("Wait until the running task has ended, or cancel it."))
        return found + (BLOCKERS[kind](self.session) if kind in BLOCKERS else [])

    def doubt(self, kind: TaskKind) -> str:
        try:
            return segment.doubt(self.session) if kind == "segment" else ""
        except FewShotSegError:
            return ""

    def estimate(self, kind: TaskKind) -> Estimate | None:
        try:
            if kind not in WORK:
                return None
            return WORK[kind].estimate(self.session, self._waiting.is_there())
        except FewShotSegError:
            return None

    def startTraining(self, goOn: bool = False) -> None:
        self._require(train.blockers(self.session))
        self._epochs = []
        before = train.adapter_to_go_on_with(self.session) if goOn else ""
        self._start(train.TrainRun(self.session, self._waiting.is_there(), before))

    def startSegmentation(self) -> None:
        self._require(segment.blockers(self.session))
        self._start(segment.SegmentRun(self.session, self._waiting.is_there()))

    def startPhantoms(self, folder: str, count: int = 4) -> None:
        job = PhantomsJob(str(folder), int(count))
        text = _("{n} synthetic patients are in {folder}.").format(n=count, folder=folder)
        self._start(PlainRun("phantoms", job, lambda: End("phantoms", "finished", text)))

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

    def _start(self, run: Run) -> None:
        if self._closed:
            raise InputError(_("This module was closed. Open it again."))
        if self._task is not None and self._task.kind == "devices":
            self._task.abort("", wait=True)  # only a question; what a person wants goes first
        if self._task is not None:
            raise InputError(_("Wait until the running task has ended, or cancel it."))
        self._task = Task(run, self.session.tell, self._waiting)
        self._task.start()  # whose end, which may come immediately, takes it away


class PlainRun(WholeRun):
    """A job that hands nothing over.

    Args:
        finish: the words of a good end.
        read: takes what the job left in its folder.
    """

    def __init__(
        self,
        kind: TaskKind,
        job: Any,
        finish: Callable[[], End],
        read: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        self.kind, self._job, self._finish, self._read = kind, job, finish, read

    def prepare(self, folder: Path) -> Iterator[None]:
        """Write the job."""
        write_job(folder, self._job)
        yield

    def load(self, folder: Path) -> Iterator[None]:
        """Take what it left."""
        self._read(folder)
        yield

    def finish(self, times: Mapping[str, float]) -> End:
        """The words of a good end."""
        return self._finish()
