"""Paths that every library can open, whatever language it is written in."""

from __future__ import annotations

import os
from pathlib import Path

from ..core.errors import InputError


def require_usable_name(path: str | os.PathLike[str]) -> None:
    """ITK takes names as UTF-8 and ends the process where they are not; nothing opens a NUL.

    Raises:
        InputError: the path can't be handed on.
    """
    name = os.fspath(path)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"The name {shown(path)} is not in UTF-8, which the image reader needs; rename the file"
            " or folder."
        ) from None
    if "\0" in name:
        raise InputError(
            f"The name {shown(path)} has a character that no file's name can have; check the path."
        )


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder; False too where the system won't tell (a name too long)."""
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def children(folder: str | os.PathLike[str]) -> list[Path]:
    """What a folder has in it, unsorted.

    Raises:
        InputError: it can't be opened.
    """
    try:
        return list(Path(folder).iterdir())
    except OSError as error:
        raise InputError(
            f"The folder {shown(folder)} can't be opened ({error.strerror}); check the path and "
            "its permissions."
        ) from error


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed: bytes that are no UTF-8 as backslash and number."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return text.replace("\0", "\\x00")
