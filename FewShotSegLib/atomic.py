"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NAME_TAIL = 80


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place once the block ends well.

    The temporary name ends as ``path`` does, so that writers that go by the suffix (``.nii.gz``)
    work. Where the block fails or is interrupted, the temporary file goes and what was at ``path``
    stays as it was. A missing parent folder is made.

    Raises:
        StorageError: the disk is full, or the place can't be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name[-_NAME_TAIL:]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        # Without this a power cut after the renaming could still leave an empty file.
        with open(temporary, "r+b") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        ours = error.filename in (None, str(temporary), str(path.parent))
        if _is_full(error) or (ours and error.errno is not None):
            raise _storage_error(path, error) from error
        raise
    except Exception as error:
        # Writers in other languages (safetensors, torch) wrap the system's error in their own.
        if _is_full(error):
            raise _storage_error(path, error) from error
        raise
    finally:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass


def require_writable(path: str | Path) -> None:
    """Check, before long work, that a file can be written at ``path``.

    Missing parent folders are made. A file is really created for the check, because permission
    bits say little on network shares and nothing to an administrator.

    Raises:
        StorageError: it can't; one sentence says why.
    """
    path = Path(path)
    if path.is_dir():
        raise StorageError(f"Cannot write {path}: it is a folder; give the name of a file.")
    probe = path.with_name(f".{secrets.token_hex(4)}-probe")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(probe, "xb") as stream:
            stream.write(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        try:
            probe.unlink(missing_ok=True)
        except OSError:
            pass
        raise _storage_error(path, error) from error


def write_json(path: str | Path, obj: Any) -> None:
    """Write ``obj`` as indented UTF-8 JSON, atomically.

    Raises:
        StorageError: the disk is full, or the place can't be written to.
        TypeError, ValueError: ``obj`` has no JSON form (NaN and infinity have none).
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _is_full(error: Exception) -> bool:
    # numpy says how much it could write of an array, and drops the system's error number.
    return (
        getattr(error, "errno", None) in _FULL
        or "No space left on device" in str(error)
        or re.fullmatch(r"\d+ requested and \d+ written", str(error)) is not None
    )


def _storage_error(path: Path, error: Exception) -> StorageError:
    if _is_full(error):
        return StorageError(
            f"Cannot write {path}: the disk (or your quota on it) is full; free some space or"
            " choose another place."
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
    reason = reasons.get(code) or getattr(error, "strerror", None) or str(error)
    return StorageError(f"Cannot write {path}: {reason}; choose another place.")
