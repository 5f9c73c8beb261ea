"""One task from start to end: hand over, run, load; whatever happens, an end in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import qt
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import FewShotSegError
from FewShotSegLib.core.quantities import duration_text

from ..interface.rows import End, Epoch, Notice, Progress, TaskKind
from ..machine.stepper import Stepper
from .folder import make_job_folder, remove_job_folder
from .process import Ended, JobProcess
from .words import end_words, phase_text
from .worker_process import WaitingWorker

SHARES = {
    "images": {"hand over": 0.02, "start": 0.04, "prepare": 0.06, "train": 0.98, "load": 1.0},
    "train": {
        **{"hand over": 0.03, "start": 0.07, "features": 0.3, "train": 0.65},
        **{"validate": 0.97, "load": 1.0},
    },
    "best": {
        **{"hand over": 0.01, "start": 0.02, "features": 0.1, "train": 0.2},
        **{"validate": 0.28, "prepare": 0.3, "companion": 0.98, "load": 1.0},
    },
    "segment": {
        **{"hand over": 0.05, "start": 0.15, "features": 0.45, "segment": 0.6},
        **{"refine": 0.9, "write": 0.92, "load": 1.0},
    },
}
"""Part of the whole at which each phase ends; other kinds count their only phase. ``images`` is
a training without stored features; with the ``best`` effort a second network follows."""


class Run(Protocol):
    """What is done of a task in this process: before its job and after it."""

    kind: TaskKind

    def prepare(self, folder: Path) -> Iterator[Any]:
        """Write the job into its folder, step by step."""
        ...

    def take(self, folder: Path) -> None:
        """Put what is complete before the job has ended where it belongs."""
        ...

    def kept(self) -> str:
        """A sentence on what was taken, which stays however the job ends; else empty."""
        ...

    def load(self, folder: Path) -> Iterator[Any]:
        """Put the finished job's results where they belong, step by step."""
        ...

    def finish(self, times: Mapping[str, float]) -> End:
        """The words of a good end, once all is loaded.

        Args:
            times: seconds by phase, from the press of the button on.
        """
        ...

    def shares(self) -> str:
        """Which of :data:`SHARES` its phases are."""
        ...


class WholeRun:
    """What runs have in common whose results come together, when the job has ended."""

    kind: TaskKind

    def take(self, folder: Path) -> None:
        """See :meth:`Run.take`."""
        return None

    def kept(self) -> str:
        """See :meth:`Run.kept`."""
        return ""

    def shares(self) -> str:
        """See :meth:`Run.shares`."""
        return self.kind


class Task:
    """A task that runs, from :meth:`start` to the end that it tells.

    Args:
        run: what is done here.
        tell: hears every :class:`Progress`, :class:`Epoch`, log line (as text) and the end.
        waiting: where a process may wait for the next job.
    """

    def __init__(
        self,
        run: Run,
        tell: Callable[[Notice | str], None],
        waiting: WaitingWorker | None = None,
    ) -> None:
        self.kind, self._waiting = run.kind, waiting
        self.epochs: list[Epoch] = []
        self.times: dict[str, float] = {}
        self.progress = Progress(self.kind, "hand over", phase_text("hand over"), 0.0)
        self._run, self._tell = run, tell
        self._started = time.monotonic()
        self._phase_start = self._started
        self._stopping = ""
        self._features_end: float | None = None
        self._done = 0.0
        self._over = False
        self._process: JobProcess | None = None
        self._ticker = qt.QTimer()
        self._ticker.setInterval(1000)
        self._ticker.connect("timeout()", self._tick)
        self._folder: Path | None = None
        self._stepper: Stepper | None = None

    def start(self) -> None:
        """Begin; where not even that can be done, the end is reported immediately."""
        try:
            self._folder = make_job_folder()
        except OSError as error:
            self._end("failed", _("No temporary folder can be made ({e}).").format(e=error))
            return
        self._stepper = Stepper(self._run.prepare(self._folder), self._handed_over)
        self._ticker.start()
        self._tell(self.progress)

    def cancel(self) -> None:
        """Stop; the end comes from the event loop."""
        kept = self._run.kept()
        self._stop_with(
            _("Stopped. {kept}").format(kept=kept)
            if kept
            else _("Stopped. Nothing of the scene was changed.")
        )
        if self._over or self._process is None:
            return
        self._process.cancel()
        self._show("stopping")

    def abort(self, why: str, wait: bool = False) -> None:
        """Kill now, for a reason that the end tells. ``wait``: no event loop will follow."""
        self._stop_with(why)
        if self._process is not None and not self._over:
            self._process.kill_and_wait() if wait else self._process.kill()
        if wait and not self._over:
            self._end("cancelled", why)

    def _stop_with(self, why: str) -> None:
        self._stopping = self._stopping or why
        if self._stepper is not None and not self._over:
            self._stepper.stop()
            self._stepper = None
            if self._process is None or self.progress.phase == "load":
                self._end("cancelled", self._stopping)

    # --- phases

    def _handed_over(self, error: BaseException | None) -> None:
        self._stepper = None
        if error is not None:
            self._end_with(error)
            return
        self._show("start")
        try:
            self._process = JobProcess(
                self._folder, self._on_event, self._tell, self._on_process_end, self._waiting
            )
            self._process.start()
        except Exception as error:  # whatever it is, the panel must not wait for ever
            self._end_with(error)

    def _on_event(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if self._over:
            return
        if kind == "heartbeat":
            self.progress = replace(self.progress, memory_bytes=event.get("memory_bytes"))
        elif kind == "phase":
            self._show(event["phase"])
        elif kind == "progress" and event.get("total"):
            self._show(event["phase"], event["done"] / event["total"])
        elif kind == "estimate":
            self._on_estimate(event)
        elif kind == "epoch" and not self._stopping:
            self._on_epoch(event)
        elif kind in ("warning", "waiting"):
            self._tell(event["message"])
        elif kind == "result" and event["kind"] == "adapter" and not self._stopping:
            self._take()

    def _take(self) -> None:
        """The adapter is complete; the process goes on with what to expect of it."""
        try:
            self._run.take(self._folder)
        except (FewShotSegError, OSError) as error:  # it comes, or fails, with the whole result
            self._tell(str(error))

    def _on_estimate(self, event: dict[str, Any]) -> None:
        """The engine timed the first window of a slow foundation model."""
        self._features_end = time.monotonic() + event["seconds"]
        text = _(
            "The foundation model needs about {time} for {n} windows ({volumes} volume(s)), once: "
            "its features are kept."
        )
        time_text = duration_text(event["seconds"], rough=True)
        self._tell(text.format(time=time_text, n=event["windows"], volumes=event["volumes"]))
        self._show(event["phase"], self._done)

    def _on_epoch(self, event: dict[str, Any]) -> None:
        epoch = Epoch(
            event["phase"],
            event["epoch"],
            event["epochs"],
            event["loss"],
            event.get("sizes_ml") or {},
            {k: tuple(v) for k, v in (event.get("bounds_ml") or {}).items()},
        )
        self.epochs.append(epoch)
        self._tell(epoch)
        self._show(event["phase"], event["epoch"] / event["epochs"])

    def _on_process_end(self, ended: Ended) -> None:
        finished = (ended.final or {}).get("event") == "finished" and ended.status == 0
        if finished and not self._stopping and ended.state == "exited":
            self._show("load")
            self._stepper = Stepper(self._run.load(self._folder), self._loaded)
            return
        state, message = end_words(self.kind, ended, self._stopping)
        if self._run.kept() and not self._stopping:
            message = _("The background process ended too early. {kept}").format(
                kept=self._run.kept()
            )
        self._end(state, message)

    def _loaded(self, error: BaseException | None) -> None:
        self._stepper = None
        if error is not None:
            self._end_with(error)
        else:
            self._close()
            self._count(time.monotonic())
            self._tell(self._run.finish(self.times))

    # --- ends

    def _end_with(self, error: BaseException) -> None:
        if isinstance(error, FewShotSegError):
            self._end("failed", str(error))
            return
        import logging

        logging.error("FewShotSeg", exc_info=error)
        if isinstance(error, MemoryError):
            text = _("The memory is not enough to copy the volumes. Close other programs.")
        elif isinstance(error, OSError):
            text = _("The volumes could not be copied for the background process ({e}).").format(
                e=error.strerror or error
            )
        else:
            text = _("Something went wrong in the module ({e}). The log says more.").format(e=error)
            self._tell(repr(error))
        self._end("failed", text)

    def _end(self, state: str, message: str) -> None:
        if not self._over:
            self._close()
            self._tell(End(self.kind, state, message))

    def _close(self) -> None:
        self._over = True
        self._ticker.stop()
        if not remove_job_folder(self._folder):
            folder = self._folder  # Windows lets go of it a moment later
            qt.QTimer.singleShot(2000, lambda: remove_job_folder(folder))

    # --- progress

    def _tick(self) -> None:
        if self._over or self._process is None:
            return
        silent = time.monotonic() - self._process.last_heard
        if silent > 3 or self.progress.silent_seconds:
            self.progress = replace(self.progress, silent_seconds=silent if silent > 3 else 0.0)
            self._tell(self.progress)

    def _show(self, phase: str, done: float = 0.0) -> None:
        now = time.monotonic()
        self._done = done
        if phase != self.progress.phase:
            self._count(now)
        fraction = self._fraction(phase, done)
        remaining = None
        if phase in ("train", "validate", "companion") and done > 0:
            remaining = (now - self._phase_start) * (1 - done) / done
        elif phase == "features" and self._features_end is not None:
            left = self._features_end - now
            remaining = left if left > 0 else None
        elif fraction is not None and fraction > 0.1:
            remaining = (now - self._started) * (1 - fraction) / fraction
        text = phase_text(phase)
        if phase in ("train", "companion", "refine") and self.epochs and done > 0:
            last = self.epochs[-1]
            text = _("{phase}, epoch {n} of {all}").format(
                phase=text, n=last.epoch, all=last.epochs
            )
        elif done > 0:
            text = f"{text}, {done:.0%}"
        self.progress = Progress(
            self.kind, phase, text, fraction, remaining, 0.0, self.progress.memory_bytes
        )
        self._tell(self.progress)

    def _count(self, now: float) -> None:
        """The phase that was on is over."""
        phase = self.progress.phase
        self.times[phase] = self.times.get(phase, 0.0) + now - self._phase_start
        self._phase_start = now

    def _fraction(self, phase: str, done: float) -> float | None:
        shares = SHARES.get(self._run.shares())
        if shares is None:
            return done or None
        names = list(shares)
        if phase not in shares:
            return self.progress.fraction
        start = shares[names[names.index(phase) - 1]] if phase != names[0] else 0.0
        # Several volumes count their windows each anew: the bar never goes back.
        return max(self.progress.fraction or 0.0, start + (shares[phase] - start) * done)
