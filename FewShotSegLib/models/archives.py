"""A zip file from elsewhere, unpacked into a folder and nowhere else."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ..core.errors import ModelError
from ..core.json_fields import shown

MAX_BYTES = 8 * 2**30
"""Of all files together when unpacked; the largest published model has 2."""
MAX_FILES = 5_000
MAX_RATIO = 200
"""Weights hardly become smaller when packed; JSON does, tenfold or so."""
PIECE = 2**20
SMALL = 2**20
"""Bytes of a file whose ratio is not looked at."""


def unpack(
    archive: Path,
    folder: Path,
    wanted: Callable[[str], bool] = lambda name: True,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write the files of a zip archive below a folder that exists and is empty.

    All names are judged before the first byte is written, and bytes are counted while they come,
    whatever the archive announces.

    Args:
        wanted: whether a file, by its path in the archive, is needed. check: raises to stop.

    Raises:
        ModelError: it is no zip file, or damaged, or something in it would be written elsewhere, is
            no plain file, or is too much. OSError: the disk is full.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            items = _judged(opened.infolist(), archive)
            left = MAX_BYTES
            for path, item in items.items():
                if not wanted(str(path)):
                    continue
                target = folder.joinpath(*path.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(item) as source, open(target, "xb") as copy:
                    while piece := source.read(PIECE):
                        check()
                        left -= len(piece)
                        if left < 0 or copy.tell() + len(piece) > item.file_size:
                            raise _refused(archive, "it becomes larger than it announces")
                        copy.write(piece)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
        raise _refused(archive, "it is damaged, or no zip file") from error


def _judged(items: list[zipfile.ZipInfo], archive: Path) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Every plain file by its path, after all were judged."""
    if len(items) > MAX_FILES:
        raise _refused(archive, f"it has {len(items)} files")
    found: dict[PurePosixPath, zipfile.ZipInfo] = {}
    names: set[str] = set()
    total = 0
    for item in items:
        name = item.filename
        path = PurePosixPath(name)
        bad = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
        if bad or not path.parts or not name.isprintable():
            raise _refused(archive, f"its entry {shown(name)} would be written elsewhere")
        kind = stat.S_IFMT(item.external_attr >> 16)
        if item.is_dir():
            continue
        if kind not in (0, stat.S_IFREG):
            raise _refused(archive, f"its entry {shown(name)} is no plain file")
        if item.flag_bits & 1:
            raise _refused(archive, f"its entry {shown(name)} is encrypted")
        if str(path).casefold() in names:
            raise _refused(archive, f"it has {shown(name)} twice")
        names.add(str(path).casefold())
        total += item.file_size
        if item.file_size > SMALL and item.file_size > MAX_RATIO * max(1, item.compress_size):
            raise _refused(archive, f"its entry {shown(name)} becomes far larger when unpacked")
        if total > MAX_BYTES:
            raise _refused(archive, f"unpacked it has more than {MAX_BYTES // 2**30} GB")
        found[path] = item
    return found


def _refused(archive: Path, reason: str) -> ModelError:
    return ModelError(
        f"The archive {archive.name} is not unpacked: {reason}. Get it again from its makers."
    )
