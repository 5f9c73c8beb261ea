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


class Stepper:
    """Runs a generator piece by piece from the event loop.

    Args:
        steps: each ``next`` should take a few milliseconds.
        done: called once at the end, with the error that ended it or None.
    """

    def __init__(self, steps: Iterator[Any], done: Callable[[BaseException | None], None]) -> None:
        self._steps, self._done = steps, done
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._run)
        self._timer.start()

    def stop(self) -> None:
        """Do no more; ``done`` is not called."""
        self._timer.stop()
        close = getattr(self._steps, "close", None)
        if close is not None:
            close()

    def _run(self) -> None:
        end = time.perf_counter() + SLICE_SECONDS
        try:
            while time.perf_counter() < end:
                next(self._steps)
        except StopIteration:
            self._timer.stop()
            self._done(None)
        except Exception as error:
            self._timer.stop()
            self._done(error)
