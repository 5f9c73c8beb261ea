"""Several files of one folder that belong together: all of them take their places, or none does.

They are written into a hidden folder beside their places. Once all are complete, a journal says
which they are, and they are moved. A process that is killed before the journal leaves what can be
thrown away; one that is killed after it leaves what the next run (:func:`recover`) moves on. So a
result is never without its report, whatever stopped the run between the two.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from ..core.atomic import sync_folder, write_json
from ..core.errors import InputError, StorageError
from ..core.json_fields import load_json
from ..core.model_folders import own_folder
from ..core.plain_text import path_text
from ..core.processes import is_the_process, process_start
from .locks import lock_held

JOURNAL = "journal.json"
OTHERS_SECONDS = 7 * 86400.0
"""What a process on another computer left is only taken for abandoned after so long."""
_NAME = re.compile(r"\.fewshotseg-([0-9a-f]{8})-(\d{1,19})-(\w*)-[0-9a-f]{8}\.part")
_State = tuple[int, int] | None
"""Size and time of a file, None where there is none."""


class Transaction:
    """Files of a folder that take their places together.

    As a context: what was not committed at its end is thrown away.

    Args:
        folder: where they belong; it exists.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        start = re.sub(r"\W", "", process_start(os.getpid()))
        name = f".fewshotseg-{_host()}-{os.getpid()}-{start}-{secrets.token_hex(4)}.part"
        self._staging = self.folder / name
        self._names: list[str] = []

    def path(self, name: str) -> Path:
        """Where the file that will be ``folder / name`` is to be written now.

        Raises:
            StorageError: nothing can be written there.
        """
        if Path(name).name != name or name == JOURNAL:
            raise ValueError(f"{name} is not the plain name of a file")
        if not self._staging.exists():
            try:
                self._staging.mkdir(parents=True)
            except OSError as error:
                raise StorageError(
                    f"Cannot write in {self.folder}: {error.strerror}; choose another place."
                ) from error
        if name not in self._names:
            self._names.append(name)
        return self._staging / name

    def workspace(self) -> Path:
        """A folder for what other processes prepare; it goes with the transaction, and is thrown
        away as what it left is.

        Raises:
            StorageError: nothing can be written there.
        """
        folder = self.path("work")
        self._names.remove("work")
        folder.mkdir(exist_ok=True)
        return folder

    def commit(self) -> None:
        """Put every file in its place, in the order in which they were named.

        Raises:
            StorageError: one can't be put there.
        """
        for name in self._names:
            _require_replaceable(self.folder / name)
        files = {name: _state(self.folder / name) for name in self._names}
        write_json(self._staging / JOURNAL, {"files": files})
        try:
            _move(self._staging, self.folder, files)
        except BaseException as error:
            # The decision is made: what was interrupted goes on, and only then the interruption.
            if isinstance(error, OSError):
                raise StorageError(
                    f"Cannot write {error.filename2 or error.filename}: {error.strerror}; close "
                    "what uses it, and run this again."
                ) from error
            _move(self._staging, self.folder, files)
            raise
        self._names = []

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)
        if isinstance(error, StorageError) and self._staging.name in str(error):
            text = str(error).replace(str(self._staging), str(self.folder))
            raise StorageError(text) from error


def _require_replaceable(path: Path) -> None:
    """Find out before the first file is moved what would stop the second.

    Raises:
        StorageError: it can't be replaced.
    """
    if path.is_dir():
        raise StorageError(f"Cannot write {path}: it is a folder.")
    if os.name == "nt" and path.exists():  # a program that shows it may hold it
        try:
            with open(path, "r+b"):
                pass
        except OSError as error:
            raise StorageError(
                f"Cannot write {path}: {error.strerror}; close what uses it, and run this again."
            ) from error


@contextmanager
def alone(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Held while what several processes share in a folder is read and written again.

    Raises:
        StorageError: the locks' own folder, in the user's FewShotSeg folder, can't be written to.
    """
    digest = hashlib.sha256(os.fsencode(Path(folder).resolve())).hexdigest()[:24]
    locks = own_folder("locks")

    def failed(error: OSError) -> StorageError:
        return StorageError(
            f"Cannot write in {locks}: {error.strerror or error}; choose another place with "
            "FEWSHOTSEG_HOME."
        )

    with lock_held(locks / f"{digest}.lock", failed):
        yield


def recover(folder: str | os.PathLike[str]) -> int:
    """Bring to its end what killed processes left in a folder; how many were found.

    Files that were complete take their places, but where another process wrote there meanwhile; the
    rest is thrown away. What processes that still live are about is left to them.
    """
    folder = Path(folder)
    if not _abandoned(folder):
        return 0
    with alone(folder):
        found = _abandoned(folder)
        for staging in found:
            try:
                _move(staging, folder, _journal(staging))
            except OSError:
                continue  # a full disk or a file in use: the next run tries once more
            shutil.rmtree(staging, ignore_errors=True)
    return len(found)


def _abandoned(folder: Path) -> list[Path]:
    """Our hidden folders whose process is no more."""
    found = []
    try:
        matches = [match for name in os.listdir(folder) if (match := _NAME.fullmatch(name))]
    except OSError:
        return []
    for match in sorted(matches, key=lambda match: match.group()):
        name, (host, pid, start) = match.group(), match.groups()
        try:
            status = os.lstat(folder / name)
        except OSError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            continue
        if host == _host():
            now = re.sub(r"\W", "", process_start(int(pid)))
            gone = not is_the_process(int(pid), "") or (start and now and start != now)
        else:
            gone = time.time() - status.st_mtime > OTHERS_SECONDS
        if gone:
            found.append(folder / name)
    return found


def _journal(staging: Path) -> dict[str, _State]:
    """What a transaction had decided; nothing where it had not come so far."""
    try:
        data = load_json(staging / JOURNAL, "journal")
        files = {
            name: None if before is None else (int(before[0]), int(before[1]))
            for name, before in data["files"].items()
        }
    except (InputError, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return {}
    # A journal holds names as JSON can: what lies there says which bytes they are.
    names = {path_text(name): name for name in os.listdir(staging)}
    files = {names.get(name, name): before for name, before in files.items()}
    return {name: before for name, before in files.items() if Path(name).name == name}


def _move(staging: Path, folder: Path, files: dict[str, _State]) -> None:
    """Move what is still to be moved. A second call goes on where a first was stopped."""
    for name, before in files.items():
        staged = staging / name
        if staged.is_file() and not staged.is_symlink() and _state(folder / name) == before:
            os.replace(staged, folder / name)
    sync_folder(folder)


def _state(path: Path) -> _State:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]
