"""Long work on the GUI thread in small steps, so that the application stays alive.

Python threads are no help in Slicer: they get no time while the event loop waits in C++.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import qt

SLICE_SECONDS = 0.015
"""Steps are done for so long, then the event loop has its turn."""


class _Loop:
    """One timer for all work: it is never deleted, least of all while it fires."""

    def __init__(self) -> None:
        self._working: list[Stepper] = []
        self._timer: Any = None

    def add(self, stepper: Stepper) -> None:
        self._working.append(stepper)
        if self._timer is None:
            self._timer = qt.QTimer()
            self._timer.setInterval(0)
            self._timer.connect("timeout()", self._turn)
        self._timer.start()

    def remove(self, stepper: Stepper) -> None:
        if stepper in self._working:
            self._working.remove(stepper)
        if not self._working:
            self._timer.stop()

    def _turn(self) -> None:
        for stepper in list(self._working):
            if stepper in self._working:
                stepper.run(SLICE_SECONDS)


_loop = _Loop()


class Stepper:
    """Runs a generator piece by piece from the event loop.

    Args:
        steps: each ``next`` should take a few milliseconds.
        done: called once at the end, with the error that ended it or None.
    """

    def __init__(self, steps: Iterator[Any], done: Callable[[BaseException | None], None]) -> None:
        self._steps, self._done = steps, done
        _loop.add(self)

    def stop(self) -> None:
        """Do no more; ``done`` is not called."""
        _loop.remove(self)
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()

    def run(self, seconds: float) -> None:
        """Work for a while."""
        end = time.perf_counter() + seconds
        try:
            while time.perf_counter() < end:
                next(self._steps)
        except StopIteration:
            _loop.remove(self)
            self._done(None)
        except Exception as error:
            _loop.remove(self)
            self._done(error)
