"""A foundation model's weights put in their place: fetched, or from a file that is here already.

Either way nothing is put there that is not the announced file, or, where the publisher announces no
checksum, the file that was first used here; nor one that the model's network can't be loaded from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from ..core.atomic import replacing, require_writable
from ..core.errors import Cancelled, ModelError, StorageError
from ..core.events import EventSink, ignore, make_event
from ..core.model_folders import (
    PART,
    PIECE,
    file_sha256,
    own_folder,
    record_sha256,
    recorded_sha256,
    remove_parts,
    require_absent,
)
from .fetching import FetchError, FetchRefused, Progress, fetch, is_safe, remote_size
from .registry import Model, ModelEntry, find_model

Cancel = Callable[[], bool]


def require_downloadable(entry: ModelEntry) -> None:
    """Check that a program can fetch the weights.

    Raises:
        ModelError: the entry names no file to fetch, or not over https; or the weights are here.
    """
    require_absent(entry.id, entry.weights)
    if not entry.weights_url:
        raise ModelError(
            f"The weights of '{entry.id}' have to be fetched by hand from {entry.source_url}. Then "
            f"run: fewshotseg import {entry.id} FILE"
        )
    if not is_safe(entry.weights_url):
        raise ModelError(f"The weights of '{entry.id}' are not offered over https.")


def announced_size(entry: ModelEntry) -> int | None:
    """Bytes of a model's weights: the entry's, or else what their server says before anything is
    fetched; None where it can't be asked or doesn't say."""
    return entry.size or (remote_size(entry.weights_url) if entry.weights_url else None)


def download(
    model_id: str,
    events: EventSink = ignore,
    cancel: Cancel = lambda: False,
    size: int | None = None,
) -> Path:
    """Download the weights of a model of the registry into the user's folder.

    An interrupted download leaves what it has, and the next goes on from there. The checksum is the
    entry's, or the one that was recorded when the file was first here, or is recorded now.

    Args:
        size: bytes that the user was shown where the entry doesn't say; more are not taken.

    Returns:
        the path of the weights.

    Raises:
        ModelError: see :func:`require_downloadable`; or the file can't be fetched, is not the
            announced one, or can't be loaded. StorageError: the disk is full. Cancelled: the user
            stopped.
    """
    from ..core.published_models import published_to_download
    from .published import download_published

    archived = published_to_download(model_id)
    if archived is not None:
        return download_published(archived, events, cancel, size)
    entry = find_model(model_id).entry
    require_downloadable(entry)
    address = entry.weights_url or ""
    target = own_folder("models") / entry.weights.name
    require_writable(target)
    part = target.with_name(f"{PART}{target.name}")

    def check() -> None:
        if cancel():
            raise Cancelled("Stopped; what has come stays, and the same command goes on from it.")

    def progress(done: int, total: int | None) -> None:
        if entry.size and total not in (None, entry.size):
            remove_parts(target.name)
            raise ModelError(f"{entry.weights_url} is {_not_announced('size')}")
        events(make_event("progress", phase="download", done=done, total=total or entry.size))

    with alone(part):
        require_absent(entry.id, target)  # another process may have been quicker
        events(make_event("phase", phase="download", total=entry.size))
        try:
            fetch_in_words(address, part, progress, check, entry.size or size)
        except BrokenPipeError:
            raise  # of whoever listens to the events
        except OSError as error:
            raise StorageError(
                f"The weights can't be written to {target.parent} ({error.strerror or error}). "
                "Free some space and try again: it goes on from where it was."
            ) from error
        try:
            _require_the_announced(entry, part, address)
        except ModelError:
            remove_parts(target.name)
            raise
        os.replace(part, target)
        remove_parts(target.name)
    return target


def fetch_in_words(
    address: str, part: Path, progress: Progress, check: Callable[[], None], size: int | None
) -> None:
    """:func:`.fetching.fetch`, whose failures are reported to a person.

    Raises:
        ModelError: the address is not to be fetched, or can't be. OSError: as :func:`fetch`.
    """
    try:
        fetch(address, part, progress, check, size)
    except FetchRefused as error:
        raise ModelError(f"{address} is not fetched: {error}. Nothing was installed.") from error
    except FetchError as error:
        raise ModelError(
            f"{address} can't be fetched: {error}. Check the network and try again: it goes on "
            "from where it was."
        ) from error


def import_weights(
    model_id: str,
    file: str | os.PathLike[str],
    events: EventSink = ignore,
    cancel: Cancel = lambda: False,
) -> Path:
    """Copy a model's weights from a file into the user's folder; the network is not used.

    The file itself is only read. What an interrupted download had left is no longer needed, and
    goes.

    Returns:
        the path of the weights.

    Raises:
        ModelError: the weights are here already, there is no such file, it can't be read, or it is
            not the announced one or can't be loaded. StorageError: the disk is full. Cancelled: the
            user stopped.
    """
    from ..core.published_models import published_to_download
    from .published import import_published

    archived = published_to_download(model_id)
    if archived is not None:
        return import_published(archived, file, cancel)
    entry, file = find_model(model_id).entry, Path(file)
    require_absent(entry.id, entry.weights)
    if not os.path.isfile(file):
        raise ModelError(f"There is no file {file}.")
    target = own_folder("models") / entry.weights.name
    require_writable(target)
    with alone(target.with_name(f"{PART}{target.name}")):
        require_absent(entry.id, target)
        with replacing(target) as temporary:
            _copy(file, temporary, events, cancel)
            _require_the_announced(entry, temporary, str(file))
        remove_parts(target.name)
    return target


def _copy(file: Path, target: Path, events: EventSink, cancel: Cancel) -> None:
    """Copy a file piece by piece, and say how far it is.

    Raises:
        ModelError: the file can't be read. OSError: the copy can't be written. Cancelled.
    """
    done, total = 0, os.path.getsize(file)
    events(make_event("phase", phase="import", total=total))
    with open(target, "wb") as copy:
        for piece in _pieces(file):
            if cancel():
                raise Cancelled("Stopped; nothing was installed.")
            copy.write(piece)
            done += len(piece)
            events(make_event("progress", phase="import", done=done, total=total))


def _pieces(file: Path) -> Iterator[bytes]:
    """What is in a file of the user's; errors of reading it are distinguished from those of the
    copy."""
    try:
        with open(file, "rb") as stream:
            while piece := stream.read(PIECE):
                yield piece
    except OSError as error:
        raise ModelError(
            f"The file {file} can't be read ({error.strerror or error}). Copy it to a folder of "
            "yours, and import the copy."
        ) from error


def _require_the_announced(entry: ModelEntry, path: Path, source: str) -> None:
    """Check a file before it is put in its place, and record its checksum if nobody gives one.

    Raises:
        ModelError: it is another file than it should be, or no weights of this model.
    """
    digest = file_sha256(path)
    known = recorded_sha256(entry.weights.name)
    if entry.sha256 and digest != entry.sha256:
        raise ModelError(f"{source} is {_not_announced('sha256')}")
    if not entry.sha256 and known and digest != known:
        raise ModelError(
            f"{source} is not the file that was first used here as '{entry.id}' (its sha256 "
            "differs). Nothing was installed. If it was changed on purpose, say so first: "
            f"fewshotseg remove {entry.id}"
        )
    try:
        _ = Model(replace(entry, weights=path, sha256=digest)).backbone
    except ModelError as error:
        reason = str(error).replace(str(path), source)
        raise ModelError(f"Nothing was installed. {reason}") from error
    if not entry.sha256:
        record_sha256(entry.weights.name, digest)


def _not_announced(what: str) -> str:
    return f"not the file that the registry announces (its {what} differs). Nothing was installed."


@contextmanager
def alone(part: Path) -> Iterator[None]:
    """Held while a file is fetched: two processes would write into one another's half."""
    lock = FileLock(part.with_name(f".lock-{part.name}"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ModelError(
            "Another process is downloading these weights. Wait until it has ended."
        ) from None
    except OSError as error:
        raise StorageError(
            f"Nothing can be written to {part.parent} ({error.strerror or error}). Choose another "
            "folder with the environment variable FEWSHOTSEG_HOME."
        ) from error
    try:
        yield
    finally:
        lock.release()
