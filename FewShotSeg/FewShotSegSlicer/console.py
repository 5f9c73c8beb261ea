"""The logic's face in Slicer's Python console: ``train`` and ``segment``, waiting or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import Cancelled, FewShotSegError, InputError

from .interface.rows import End, Epoch, Progress, Result

SETTINGS = {
    "train": (
        *("method", "decoder", "preset", "features", "modality"),
        *("effort", "epochs", "learningRate", "seed", "overlapAllowed"),
        *("onlyDrawnSlices", "drawnPlane"),
    ),
    "segment": ("transductive", "uncertainty", "largestComponent", "seed"),
}
OnProgress = Callable[[Progress | Epoch], None]
POLL_SECONDS = 0.01


class TaskFailed(FewShotSegError):
    """A task ended in another way than it should; the message says how."""


class ConsoleApi:
    """Part of the logic; see ``Documentation/how-to/slicer-console.md``."""

    listen: Callable[..., Any]
    getParameterNode: Callable[[], Any]
    startTraining: Callable[..., None]
    startSegmentation: Callable[[], None]
    lastEnd: Callable[[], End | None]
    running: Callable[[], Any]

    def train(
        self,
        *,
        wait: bool = True,
        progress: OnProgress | None = None,
        done: Callable[[End], None] | None = None,
        **settings: Any,
    ) -> str | None:
        """Train on the ticked supports.

        Args:
            wait: return when it has ended; the application stays alive meanwhile.
            progress: called with each :class:`Progress` and :class:`Epoch`.
            done: called with the :class:`End`.
            settings: ``method``, ``decoder``, ``preset``, ``features``, ``modality``, ``effort``,
                ``epochs``, ``learningRate``, ``seed``, ``overlapAllowed``, ``onlyDrawnSlices``,
                ``drawnPlane``; they stay set in the parameter node.

        Returns:
            the adapter's id, or None where it did not wait.

        Raises:
            InputError: something is missing; the sentence says what.
            TaskFailed, Cancelled: how it ended, where it waited.
        """
        self._set("train", settings)
        end = self._run(self.startTraining, wait, progress, done)
        return end.adapter_id if end is not None else None

    def segment(
        self,
        query: Any,
        adapter: str | None = None,
        *,
        wait: bool = True,
        progress: OnProgress | None = None,
        done: Callable[[End], None] | None = None,
        **settings: Any,
    ) -> Result | None:
        """Segment a volume.

        Args:
            query: a volume node, or its name.
            adapter: an adapter's id; the one chosen on the panel where not given.
            settings: ``transductive``, ``uncertainty``, ``largestComponent``, ``seed``; they stay
                set in the parameter node. The rest as in :meth:`train`.

        Returns:
            the :class:`Result`, or None where it did not wait.
        """
        self._set("segment", settings)
        parameters = self.getParameterNode()
        parameters.queryVolume = slicer.util.getNode(query) if isinstance(query, str) else query
        if adapter is not None:
            parameters.adapterId = adapter
        end = self._run(self.startSegmentation, wait, progress, done)
        return end.result if end is not None else None

    def wait(self) -> End | None:
        """Return when the running task has ended; the application stays alive meanwhile."""
        while self.running() is not None:
            slicer.app.processEvents()
            time.sleep(POLL_SECONDS)
        return self.lastEnd()

    def _set(self, kind: str, settings: dict[str, Any]) -> None:
        unknown = sorted(set(settings) - set(SETTINGS[kind]))
        if unknown:
            raise InputError(
                _("There is no setting «{name}». There are: {known}.").format(
                    name=unknown[0], known=", ".join(SETTINGS[kind])
                )
            )
        for name, value in settings.items():
            try:
                setattr(self.getParameterNode(), name, value)
            except (ValueError, TypeError) as error:
                raise InputError(f"{name}: {error}") from error

    def _run(
        self,
        start: Callable[[], None],
        wait: bool,
        progress: OnProgress | None,
        done: Callable[[End], None] | None,
    ) -> End | None:
        def hear(notice: Any) -> None:
            if isinstance(notice, (Progress, Epoch)) and progress is not None:
                progress(notice)
            elif isinstance(notice, End):
                stop()
                if done is not None:
                    done(notice)

        stop = self.listen(hear)
        try:
            start()
        except FewShotSegError:
            stop()
            raise
        if not wait:
            return None
        end = self.wait()
        if end.state == "cancelled":
            raise Cancelled(end.message)
        if end.state != "finished":
            raise TaskFailed(end.message)
        return end
