"""Events for people: bars on a terminal, plain lines where the output goes to a file."""

from __future__ import annotations

import sys
from typing import IO, Any

from tqdm import tqdm

_LABELS = {
    "read": "reading",
    "features": "foundation model",
    "train": "training adapter",
    "refine": "transduction",
    "segment": "segmenting",
    "write": "writing",
    "prepare": "preparing volumes",
    "pretrain": "pre-training",
    "benchmark": "benchmark",
    "download": "downloading",
    "import": "importing",
}
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_QUICK = ("read", "write")
"""Phases without a bar of their own: they are over before anybody has read it."""


class Progress:
    """An event sink with one bar at a time.

    Args:
        stream: standard error unless said otherwise. Where it is no terminal, a phase is one line.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stderr
        self._bar: tqdm | None = None
        self._said = ""

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event; kinds that a person need not see are passed over."""
        kind = event["event"]
        if kind == "phase" and event["phase"] not in _QUICK:
            self._start(event["phase"], event.get("subject", ""))
        elif kind == "progress":
            self._advance(event["phase"], event["done"], event["total"], "")
        elif kind == "epoch":
            note = f"loss {event['loss']:.3f}"
            if "mean_dice" in event:
                note += f", Dice {event['mean_dice']:.3f}"
            self._advance(event["phase"], event["epoch"], event["epochs"], note)
        elif kind == "estimate":
            self._estimate(event)
        elif kind == "warning":
            self.say(f"Note: {event['message']}")
        elif kind in ("finished", "failed", "cancelled"):
            self.close()

    def say(self, text: str) -> None:
        """One line that does not tear the bar."""
        self.close()
        self.stream.write(text + "\n")
        self.stream.flush()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _start(self, phase: str, subject: str) -> None:
        self.close()
        label = _LABELS.get(phase, phase) + (f": {subject}" if subject else "")
        if self.stream.isatty():
            self._open_bar(label, in_bytes=phase in ("download", "import"))
        elif label != self._said:
            self.stream.write(label + "\n")
            self.stream.flush()
        self._said = label

    def _open_bar(self, label: str, in_bytes: bool = False) -> None:
        self._bar = tqdm(
            desc=label,
            file=self.stream,
            leave=False,
            dynamic_ncols=True,
            total=0,
            bar_format=_BAR,
            unit_scale=in_bytes,
        )

    def _estimate(self, event: dict[str, Any]) -> None:
        """Long work, once its first step was timed; its bar begins anew below the line."""
        on = "this CPU" if event["device"] == "cpu" else "this GPU"
        volumes = "1 volume" if event["volumes"] == 1 else f"{event['volumes']} volumes"
        label, bar = self._said, self._bar
        self.say(
            f"The foundation model needs about {duration_text(event['seconds'])} for "
            f"{event['windows']} windows of {volumes} on {on}, {event['window_seconds']:.1f} s "
            "each. That is once: the features are cached."
        )
        if bar is not None:
            self._open_bar(label)

    def _advance(self, phase: str, done: int, total: int | None, note: str) -> None:
        if self._bar is None:
            return
        self._bar.total = total
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        self._bar.refresh()


def duration_text(seconds: float) -> str:
    """Seconds for a person: 45 s, 12 min, 1 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
