"""Waiting for another process that does the same work: it can be stopped, and it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from filelock import FileLock, Timeout

WAIT_SECONDS = 0.2
TELL_SECONDS = 2.0
"""Who waits longer than this wants to know why nothing happens."""


def _nothing() -> None:
    pass


@contextmanager
def lock_held(
    path: Path,
    failed: Callable[[OSError], Exception],
    check: Callable[[], None] = _nothing,
    waiting: Callable[[], None] = _nothing,
) -> Iterator[None]:
    """Hold a file's lock, among all processes; it goes when the process does, however that ends.

    Args:
        path: of the lock file; its folder must be there.
        failed: what is raised where the file can't be made or locked.
        check: called many times a second while waiting; raises to stop.
        waiting: called once, where it takes longer than two seconds.
    """
    lock, start, told = FileLock(path), monotonic(), False
    while True:
        try:
            lock.acquire(timeout=WAIT_SECONDS)
            break
        except OSError as error:
            if not isinstance(error, Timeout):
                raise failed(error) from error
            check()
            if not told and monotonic() - start >= TELL_SECONDS:
                told = True
                waiting()
    try:
        yield
    finally:
        lock.release()
