"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import StorageError
from .limits import StrPath
from .plain_text import half_characters_shown
from .temporary_files import beside

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replacing(path: StrPath) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place once the block ends well.

    The temporary name ends as ``path`` does, so that writers that go by the suffix (``.nii.gz``)
    work. Where the block fails or is interrupted, the temporary file goes and what was at ``path``
    stays as it was. A missing parent folder is made.

    The file and its name are on the disk, not only on their way there, when the block has ended.
    What killed processes left half written in the folder goes.

    Raises:
        StorageError: the disk is full, or the place can't be written to.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as temporary:
            yield temporary
            # Without this a power cut after the renaming could still leave an empty file.
            sync_file(temporary)
            os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        ours = temporary is None or error.filename in (None, str(temporary), str(path.parent))
        if _is_full(error) or _is_too_large(error) or (ours and error.errno is not None):
            raise _storage_error(path, error) from error
        raise
    except Exception as error:
        # Writers in other languages (safetensors, torch) wrap the system's error in their own.
        if _is_full(error) or _is_too_large(error):
            raise _storage_error(path, error) from error
        raise


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk.

    Raises:
        OSError: it can't be put there; network shares tell a full disk only now.
    """
    with open(path, "r+b") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can be asked for that.

    The files themselves are there already: what can fail here is the asking (Windows and some
    network shares have no such thing), which is no reason to call the work lost.
    """
    if os.name == "nt":
        return
    try:
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError:
        pass


def require_writable(path: StrPath) -> None:
    """Check, before long work, that a file can be written at ``path``.

    Missing parent folders are made. A file is really created for the check, because permission
    bits say little on network shares and nothing to an administrator.

    Raises:
        StorageError: it can't; one sentence says why.
    """
    path = Path(path)
    if path.is_dir():
        raise StorageError(f"Cannot write {path}: it is a folder; give the name of a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as probe, open(probe, "wb") as stream:
            stream.write(b"\0" * 4096)
    except OSError as error:
        raise _storage_error(path, error) from error


def write_json(path: str | Path, obj: Any) -> None:
    """Write ``obj`` as indented UTF-8 JSON, atomically.

    What UTF-8 has no form for, the odd bytes in a file's name, is written as ``path_text`` says.

    Raises:
        StorageError: the disk is full, or the place can't be written to.
        TypeError, ValueError: ``obj`` has no JSON form (NaN and infinity have none).
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    text = half_characters_shown(text, mark="\\\\")
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _is_full(error: Exception) -> bool:
    # numpy says how much it could write of an array, and drops the system's error number.
    return (
        getattr(error, "errno", None) in _FULL
        or "No space left on device" in str(error)
        or re.fullmatch(r"\d+ requested and \d+ written", str(error)) is not None
    )


def _is_too_large(error: Exception) -> bool:
    return getattr(error, "errno", None) == errno.EFBIG or "File too large" in str(error)


def _storage_error(path: Path, error: Exception) -> StorageError:
    if _is_full(error):
        return StorageError(
            f"Cannot write {path}: the disk (or your quota on it) is full; free some space or"
            " choose another place."
        )
    if _is_too_large(error):
        return StorageError(
            f"Cannot write {path}: the file is larger than this disk, or the limit set for your "
            "account (ulimit -f), allows; choose another place or raise the limit."
        )
    reasons = {
        errno.EACCES: f"no permission to write in the folder {path.parent}",
        errno.EPERM: f"no permission to write in the folder {path.parent}",
        errno.EROFS: "the disk is read-only",
        errno.ENOENT: f"the folder {path.parent} does not exist",
        errno.ENOTDIR: f"{path.parent} is not a folder",
        errno.EEXIST: f"{path.parent} is not a folder",
        errno.EISDIR: "it is a folder",
    }
    code = getattr(error, "errno", None)
    reason = (
        (reasons.get(code) if code is not None else None)
        or getattr(error, "strerror", None)
        or str(error)
    )
    return StorageError(f"Cannot write {path}: {reason}; choose another place.")
