"""How a running task looks: a bar, a line in words, a Cancel button."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

from FewShotSegLib.core.quantities import duration_text

from ..interface.protocol import LogicProtocol
from ..interface.rows import End, Progress
from ..messages import tooltip
from .tools import Hint, gate

QUIET_SECONDS = 30
KINDS = {
    "finished": "done",
    "cancelled": "missing",
    "failed": "error",
    "crashed": "error",
    "not started": "error",
}
"""Which icon each end gets."""


def progress_text(progress: Progress) -> str:
    """Phase, remaining time, and whether the process has gone quiet."""
    parts = [progress.text]
    if progress.remaining_seconds is not None:
        parts.append(
            _("about {time} left").format(
                time=duration_text(progress.remaining_seconds, rough=True)
            )
        )
    if progress.silent_seconds > QUIET_SECONDS:
        parts.append(
            _("nothing heard for {time}").format(
                time=duration_text(progress.silent_seconds, rough=True)
            )
        )
    return ", ".join(parts)


class TaskView:
    """Bar, Cancel button and, where there is one, the hint that also tells how the task ended."""

    def __init__(self, bar: Any, button: Any, hint: Hint | None, logic: LogicProtocol) -> None:
        self.bar, self.button, self.hint, self.logic = bar, button, hint, logic
        button.connect("clicked()", self.on_cancel)

    def refresh(self, running: bool) -> None:
        """Show the bar and the button while the task runs."""
        self.bar.setVisible(running)
        self.button.setVisible(running)
        gate(self.button, "", _("Stop. What is finished already stays."))
        progress = self.logic.progress()
        if running and progress is not None:
            self.show(progress)

    def show(self, progress: Progress) -> None:
        """Show how far it is."""
        if progress.fraction is None:
            self.bar.setRange(0, 0)
        else:
            self.bar.setRange(0, 1000)
            self.bar.setValue(round(1000 * progress.fraction))
        if self.hint is not None:
            quiet = progress.silent_seconds > QUIET_SECONDS
            self.hint.show(progress_text(progress), "warning" if quiet else "missing")
        else:
            self.bar.setToolTip(tooltip(progress_text(progress)))
        if progress.phase == "stopping":
            gate(self.button, _("Stopping."), "")

    def end(self, end: End) -> None:
        """Say how it ended."""
        if self.hint is not None:
            self.hint.show(end.message, KINDS[end.state])

    def on_cancel(self) -> None:
        """A person wants it stopped."""
        gate(self.button, _("Stopping."), "")
        self.logic.cancel()
