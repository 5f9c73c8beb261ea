"""Waiting for another process that does the same work: it can be stopped, and it is reported."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

from filelock import FileLock, Timeout

from ..core.errors import InputError, StorageError

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
    lock, start, announced = FileLock(path), monotonic(), False
    while True:
        try:
            lock.acquire(timeout=WAIT_SECONDS)
            break
        except OSError as error:
            if not isinstance(error, Timeout):
                raise failed(error) from error
            check()
            if not announced and monotonic() - start >= TELL_SECONDS:
                announced = True
                waiting()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def only_one(path: Path, busy: str) -> Iterator[None]:
    """Hold a file's lock, or refuse where another process has it. The file goes at the end.

    Args:
        path: of the lock file; its folder must be there. busy: what is said where it is held.

    Raises:
        InputError: it is held. StorageError: the file can't be made.
    """
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(busy) from error
        except OSError as error:
            raise StorageError(
                f"Cannot write {path}: {error.strerror or error}; choose another place."
            ) from error
        if path.exists():
            break
        lock.release()  # who held it before has removed the file since we opened it
    try:
        yield
    finally:
        if os.name != "nt":  # while it is held, so that nobody is left with a file of no name
            path.unlink(missing_ok=True)
        lock.release()
        if os.name == "nt":
            with suppress(OSError):  # a user holds it by now
                path.unlink()
