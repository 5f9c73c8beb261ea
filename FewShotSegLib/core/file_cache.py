"""What files say, read again only once they have changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from .errors import ModelError

_T = TypeVar("_T")
_Stamp = tuple[int, ...]


class FileCache(Generic[_T]):
    """Reads files as ``read`` does, each once for as long as it stays the same.

    A file has changed when its time of change, its size or its identity differ: one that takes
    another's place within the clock's tick is reported by the latter. What is given back is shared,
    and must not be changed.

    Args:
        read: makes a value of a path, or raises a ModelError, which is kept likewise.
    """

    def __init__(self, read: Callable[[Path], _T]) -> None:
        self._read = read
        self._known: dict[Path, tuple[_Stamp, _T | None, str]] = {}

    def __call__(self, path: Path) -> _T:
        """What a file says.

        Raises:
            ModelError: as of ``read``.
        """
        stamp = _stamp(path)
        known = self._known.get(path)
        if stamp is None or known is None or known[0] != stamp:
            known = self._read_now(path, stamp)
        _stamped, value, fault = known
        if value is None:
            raise ModelError(fault)  # a new one each time: the old one would grow its traceback
        return value

    def forget(self) -> None:
        """Read every file again when it is asked for next."""
        self._known.clear()

    def _read_now(self, path: Path, stamp: _Stamp | None) -> tuple[_Stamp, _T | None, str]:
        try:
            found: tuple[tuple[int, ...], _T | None, str] = stamp or (), self._read(path), ""
        except ModelError as error:
            found = stamp or (), None, str(error)
        self._known.pop(path, None)
        if stamp is not None:
            self._known[path] = found
        return found


def _stamp(path: Path) -> _Stamp | None:
    """Time of change, size and identity of a file; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_dev, found.st_ino
