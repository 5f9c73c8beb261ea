"""Folders that nobody but the user may change, for what later results rest on."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from .errors import StorageError

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private(folder: Path, instead: str, mixed: Callable[[], bool] = lambda: False) -> None:
    """Make a folder readable by the user alone; one that is there must be writable by no other.

    Args:
        instead, mixed: see :func:`require_private`.

    Raises:
        StorageError: it can't be made, or is refused.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _cannot_write(folder, instead, error) from error
    require_private(folder, instead, mixed)


def require_private(folder: Path, instead: str, mixed: Callable[[], bool] = lambda: False) -> None:
    """Check that nobody but the user, and the system's administrator, can write to a folder.

    A folder of the user's that others can write to becomes the user's alone (0700). One that is
    everybody's (as the temporary folder), or another user's, is refused. Where the system knows
    no such permissions nothing is checked.

    Args:
        instead: how to give another folder, for the message, such as ``with --cache``.
        mixed: whether it holds things that are not this program's; then it is refused, not changed.

    Raises:
        StorageError: it is refused.
    """
    if os.name != "posix":
        return
    try:
        state = os.stat(folder)
        owner, user = state.st_uid, os.geteuid()
        if owner not in (user, 0):
            raise StorageError(
                f"{folder} belongs to another user, who could change what results rest on. Choose "
                f"a folder of your own {instead}."
            )
        if not state.st_mode & _OTHERS_WRITE:
            return
        if owner == user and not state.st_mode & stat.S_ISVTX and not mixed():
            os.chmod(folder, 0o700)
            if not os.stat(folder).st_mode & _OTHERS_WRITE:
                return
    except OSError as error:
        raise _cannot_write(folder, instead, error) from error
    raise StorageError(
        f"Others can write to {folder}, and so change what results rest on. Choose a folder of "
        f"your own {instead}."
    )


def _cannot_write(folder: Path, instead: str, error: OSError) -> StorageError:
    return StorageError(
        f"{folder} can't be written to ({error.strerror or error}). Choose another {instead}."
    )
