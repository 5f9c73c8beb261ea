"""Event lines from several threads to a pipe, which may be full, or whose reader may be gone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO, Any

from ..core.events import event_line

ENDS = ("finished", "cancelled", "failed")
"""The events after which nothing follows."""
DROPPED = ("heartbeat", "progress")
"""What nobody misses who reads late."""
WAITING = 100
"""So many lines may wait before those are dropped."""


class EventWriter:
    """A sink that never waits for its reader: a thread of its own writes, line by line.

    Lines are never mixed, and none follows the one that ends the job.

    Args:
        stream: of bytes, without a buffer.
        on_gone: called in the writing thread once a line can't be written: nobody reads any more.
    """

    def __init__(self, stream: IO[bytes], on_gone: Callable[[], None]) -> None:
        self._stream, self._on_gone = stream, on_gone
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._ended = False
        threading.Thread(target=self._write, daemon=True).start()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take an event.

        Raises:
            InputError: a number of it is not finite.
        """
        line = event_line(event).encode()
        with self._changed:
            if self._ended:  # a last heartbeat, say
                return
            if event["event"] in DROPPED and len(self._lines) >= WAITING:
                return
            self._ended = event["event"] in ENDS
            self._lines.append(line)
            self._changed.notify_all()

    def begin(self) -> None:
        """Another job begins: its events follow those of the one before."""
        with self._changed:
            self._ended = False

    def drained(self, seconds: float) -> bool:
        """Wait so long at most; whether every line was written by then."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines, seconds)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                rest = memoryview(self._lines[0])
            try:
                while rest:
                    rest = rest[self._stream.write(rest) :]
            except (OSError, ValueError):  # a broken pipe, a closed stream
                self._on_gone()
                return
            with self._changed:
                self._lines.popleft()
                self._changed.notify_all()
