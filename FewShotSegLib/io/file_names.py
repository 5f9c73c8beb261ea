"""Paths that every library can open, whatever language it is written in."""

from __future__ import annotations

import os
from pathlib import Path

from ..core.errors import InputError
from ..core.plain_text import path_text


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
            f"The name {path_text(path)} is not in UTF-8, which the image reader needs; rename the"
            " file or folder."
        ) from None
    if "\0" in name:
        raise InputError(
            f"The name {path_text(path)} has a character that no file's name can have; check the"
            " path."
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
            f"The folder {path_text(folder)} can't be opened ({error.strerror}); check the path"
            " and its permissions."
        ) from error
