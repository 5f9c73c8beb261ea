"""Events for people: bars on a terminal and in a notebook, plain lines where the output goes to a
file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from tqdm import tqdm

from ..core.plain_text import indented, printable
from ..core.quantities import duration_text
from .progress_words import (
    cell_text,
    estimate_text,
    left_text,
    remaining_text,
    workload_text,
)

_LABELS = {
    "read": "reading",
    "features": "foundation model",
    "train": "training",
    "validate": "the adapter is written; measuring what Dice to expect",
    "companion": "the adapter is written; training a second network to average with",
    "refine": "transduction",
    "segment": "segmenting",
    "volumes": "segmenting volumes",
    "write": "writing",
    "prepare": "preparing volumes",
    "pretrain": "pre-training",
    "benchmark": "benchmark",
    "download": "downloading",
    "import": "importing",
}
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_BAR_WITHOUT_REST = _BAR.replace("<{remaining}", "")
"""Where steps differ too much for a bar's own guess, which would take rows of yesterday for fast.
"""
_ENDS = ("finished", "failed", "cancelled")
_QUICK = ("read", "write")
"""Phases without a bar of their own: they are over before anybody has read it."""
_LEAST_COLUMNS = 20
_LINE_SECONDS, _LINE_PERCENT = 20, 10
"""Where there is no bar: what must have passed, both of them, before another line is due."""


def has_space(stream: IO[str]) -> bool:
    """Whether a stream is a terminal that a bar fits on. Some say that they have no columns."""
    if not stream.isatty():
        return False
    try:
        return os.get_terminal_size(stream.fileno()).columns >= _LEAST_COLUMNS
    except (OSError, ValueError, AttributeError):
        return True  # it can't be asked


def notebook_bar() -> type[tqdm] | None:
    """The bar of a notebook; None outside of one, and where ipywidgets is not installed."""
    shell = sys.modules.get("IPython")
    if shell is None or getattr(shell.get_ipython(), "kernel", None) is None:
        return None
    from tqdm import notebook

    return None if notebook.IProgress is None else notebook.tqdm


class _Clearing:
    """A stream before whose lines the bar goes."""

    def __init__(self, stream: IO[str], clear: Callable[[], None]) -> None:
        self._stream, self._clear = stream, clear

    def write(self, text: str) -> int:
        self._clear()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Progress:
    """An event sink with one bar at a time, on a terminal or in a notebook.

    From Python: ``fss.adapt(pairs, runtime=fss.Runtime(events=fss.Progress()))``.

    Args:
        stream: standard error unless said otherwise. Where it is no terminal, a phase is one line,
            and some more where it takes long.
        clock: seconds that never go back.
    """

    def __init__(
        self, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.stream = stream or sys.stderr
        self._clock = clock
        self._line: tuple[float, float] = (clock(), 0.0)
        self._begun: tuple[float, float] | None = None
        self._bar: tqdm | None = None
        self._shown = False
        self._said = ""
        self._timed: set[str] = set()
        self._note = ""

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event; kinds that a person need not see are passed over."""
        kind = event["event"]
        if kind == "phase" and event["phase"] not in _QUICK:
            self._start(event["phase"], event.get("subject", ""))
        elif kind == "progress":
            note = self._note if event["phase"] == "benchmark" else ""
            self._advance(event["phase"], event["done"], event["total"], note)
        elif kind == "epoch":
            note = f"loss {event['loss']:.3f}"
            if "mean_dice" in event:
                note += f", Dice {event['mean_dice']:.3f}"
            self._advance(event["phase"], event["epoch"], event["epochs"], note)
        elif kind == "estimate":
            self._between(estimate_text(event))
        elif kind == "workload":
            self._workload(event)
        elif kind == "cell":
            self._cell(event)
        elif kind == "waiting":
            self._between(event["message"])
        elif kind == "model":
            self.say(f"Foundation model: {event['id']}, the default for {event['modality']}")
        elif kind == "warning":
            # A benchmark goes on after it; elsewhere it is the last that a phase says.
            tell = self._between if self._said == _LABELS["benchmark"] else self.say
            tell(f"Note: {indented(event['message'])}")
        elif kind in _ENDS or (kind == "result" and event["kind"] == "benchmark"):
            self.close()

    def say(self, text: str) -> None:
        """One line that does not tear the bar."""
        self.close()
        self.stream.write(printable(text) + "\n")
        self.stream.flush()

    def clear(self) -> None:
        """Make space for a line of other output; the bar comes back with its next step."""
        if self._bar is not None and self._shown:
            self._bar.clear()
            self._shown = False

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Inside, whatever Python prints (warnings of libraries too) finds the bar gone."""
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (_Clearing(stream, self.clear) for stream in before)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def when_done(self) -> None:
        """A training or a segmentation is over: see :func:`.runtime.ends_progress`."""
        self.close()

    def _start(self, phase: str, subject: str) -> None:
        self.close()
        label = _LABELS.get(phase, phase) + (
            f": {printable(subject, lines=False)}" if subject else ""
        )
        bar = tqdm if has_space(self.stream) else notebook_bar()
        if bar is not None:
            self._open_bar(bar, label, phase)
        elif label != self._said:
            self.say(label)
        self._said, self._line, self._begun = label, (self._clock(), 0.0), None

    def _open_bar(self, bar: type[tqdm], label: str, phase: str) -> None:
        self._bar = bar(
            desc=label,
            file=self.stream,
            leave=False,
            dynamic_ncols=True,
            total=0,
            bar_format=_BAR_WITHOUT_REST if phase == "benchmark" else _BAR,
            unit_scale=phase in ("download", "import"),
        )
        self._shown = True

    def _workload(self, event: dict[str, Any]) -> None:
        """What a benchmark is about to run."""
        self.say(workload_text(event))
        self._timed = set()
        self._note = ""

    def _cell(self, event: dict[str, Any]) -> None:
        """A finished cell; and the estimates by method where one has its first."""
        text, remaining = cell_text(event), event["remaining"]
        if event["method"] not in self._timed and remaining:
            text += f"\n{remaining_text(remaining)}"
        self._timed.add(event["method"])
        self._note = left_text(remaining)
        self._between(text)

    def _between(self, text: str) -> None:
        """Lines above the bar, which stays."""
        if self._bar is None:
            self.say(text)
        else:
            self._bar.write(printable(text), file=self.stream)
            self._shown = True
            self._bar.set_postfix_str(self._note)

    def _advance(self, phase: str, done: int, total: int | None, note: str) -> None:
        if self._bar is None:
            # A benchmark has a line a cell.
            if total and phase not in (*_QUICK, "benchmark"):
                self._advance_in_lines(100 * done / total, note)
            return
        self._shown = True
        if type(self._bar) is not tqdm and total != self._bar.total:
            self._bar.reset(total)  # a notebook's has its length elsewhere, too
        self._bar.total = total
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        self._bar.refresh()

    def _advance_in_lines(self, percent: float, note: str) -> None:
        """A line now and then, so that a log shows that long work lives."""
        (since, last), now = self._line, self._clock()
        if self._begun is None:  # not at the start of the phase: resumed work is there already
            self._begun = now, percent
        if now - since < _LINE_SECONDS or percent - last < _LINE_PERCENT:
            return
        self._line = now, percent
        text = f"{self._said}: {percent:.0f}%" + (f", {note}" if note else "")
        begin, first = self._begun
        if first < percent < 100:
            seconds = (now - begin) * (100 - percent) / (percent - first)
            text += f", about {duration_text(seconds)} to go"
        self.say(text)
