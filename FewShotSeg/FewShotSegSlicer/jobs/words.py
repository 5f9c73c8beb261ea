"""What a running task and its end are called: one sentence a person can act on."""

from __future__ import annotations

from slicer.i18n import tr as _

from FewShotSegLib.core.job_protocol import MISSING

from ..engine_words import panel_words
from .process import Ended

LAUNCHER_WORDS = "exit abnormally"
"""What Slicer's launcher of Python says of a process that was killed; it ends well itself."""
MUCH = 0.6
"""Part of this computer's memory; a process that held more and was killed most likely ran out."""
LITTLE = 0.05
"""Part of it; where less was left, of which the process held a good deal, likewise."""
SHARE = 0.2
"""What a good deal is."""


def phase_text(phase: str) -> str:
    """A phase for a person."""
    texts = {
        "hand over": _("Copying the volumes"),
        "start": _("Starting the background process"),
        "read": _("Reading"),
        "features": _("Foundation model"),
        "prepare": _("Preparing the images"),
        "train": _("Training"),
        "validate": _("The adapter is there; measuring what to expect of it"),
        "companion": _("The adapter is there; training a second network to average with"),
        "segment": _("Segmenting"),
        "refine": _("Adjusting to the expected volumes"),
        "write": _("Writing"),
        "load": _("Loading the result"),
        "download": _("Downloading"),
        "import": _("Importing"),
        "add": _("Reading the model"),
        "compare": _("Comparing the volumes"),
        "volumes": _("Segmenting the volumes"),
        "phantoms": _("Making patients"),
        "stopping": _("Stopping"),
    }
    return texts.get(phase, phase)


def end_words(kind: str, ended: Ended, stopping: str) -> tuple[str, str]:
    """State and message of a process that did not finish.

    Args:
        stopping: why it was stopped (a sentence), or empty where nobody stopped it.
    """
    final = ended.final or {}
    if stopping:
        return "cancelled", stopping
    if ended.state == "not started":
        return "not started", _(
            "The background process could not be started ({error}). Restart Slicer; if that does "
            "not help, install Slicer again."
        ).format(error=ended.error)
    if final.get("event") == "failed":
        return "failed", _failed_words(final)
    if final.get("event") == "cancelled":
        return "cancelled", _("Stopped.")
    last = ended.lines[-1] if ended.lines else _("it said nothing")
    if ended.state == "crashed" or LAUNCHER_WORDS in last:
        return "crashed", _crashed_words(ended)
    return "crashed", _(
        "The background process ended unexpectedly with status {status} ({last}). The log says "
        "more."
    ).format(status=ended.status, last=last)


def _failed_words(final: dict) -> str:
    if final.get("kind") == "OutOfMemory":
        return _(
            "The memory is not enough for this volume and model. Close other programs, crop the "
            "volume (module Crop Volume), or choose the CPU as device."
        )
    if final.get("kind") == MISSING:
        return _(
            "The Python package «{package}» is not installed. Press Install at the top of "
            "the panel, and try again."
        ).format(package=final.get("package"))
    message = panel_words(final.get("message") or final.get("kind") or "")
    if final.get("kind", "").endswith(("Error", "Cancelled")) and " " in message:
        return message
    return _("The background process failed: {message}. The log says more.").format(message=message)


def _crashed_words(ended: Ended) -> str:
    """By what the process itself reported of the memory: Slicer may be unable to ask its system."""
    held, total = ended.memory_bytes, ended.total_bytes
    if held and total and _ran_out(held, ended.available_bytes, total):
        return _(
            "The background process was killed, most likely because the memory ran out (it held "
            "{held:.1f} of {total:.1f} GB). Close other programs, or crop the volume."
        ).format(held=held / 2**30, total=total / 2**30)
    return _(
        "The background process was killed or crashed. Nothing of the scene was changed. If it "
        "happens again, memory may be short: close other programs. The log says more."
    )


def _ran_out(held: int, available: int | None, total: int) -> bool:
    if held > MUCH * total:
        return True
    return available is not None and available < LITTLE * total and held > SHARE * total
