"""Models that are published as archives: fetched, unpacked safely, and added as entries."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..core.atomic import require_writable
from ..core.errors import Cancelled, ModelError, StorageError
from ..core.events import EventSink, ignore, make_event
from ..core.model_answers import Answers
from ..core.model_folders import PART, own_folder, remove_parts
from ..core.published_models import PublishedModel
from .archives import unpack
from .download import Cancel, alone, fetch_in_words
from .fetching import is_safe, remote_size


def announced_size(model: PublishedModel) -> int | None:
    """Bytes of the archive, as its makers or their server say; None where neither does."""
    return model.size or remote_size(model.archive_url)


def download_published(
    model: PublishedModel,
    events: EventSink = ignore,
    cancel: Cancel = lambda: False,
    size: int | None = None,
) -> Path:
    """Fetch a published model's archive and add the model in it under the published id.

    An interrupted download goes on from where it was. The archive does not stay; the weights are
    converted to one safetensors file in the user's folder.

    Args:
        size: bytes that the user was shown; more are not taken.

    Returns:
        the path of the new entry.

    Raises:
        ModelError: the archive can't be fetched, unpacked or understood, or is another model.
            StorageError: the disk is full. Cancelled: the user stopped.
    """
    if not is_safe(model.archive_url):
        raise ModelError(f"The model '{model.id}' is not offered over https.")
    part = own_folder("models") / f"{PART}{model.id}.zip"
    require_writable(part)

    def check() -> None:
        if cancel():
            raise Cancelled("Stopped; what has come stays, and the same command goes on from it.")

    def progress(done: int, total: int | None) -> None:
        events(make_event("progress", phase="download", done=done, total=total or size))

    with alone(part):
        events(make_event("phase", phase="download", total=size))
        try:
            fetch_in_words(model.archive_url, part, progress, check, size)
            with tempfile.TemporaryDirectory(prefix=".adding-", dir=part.parent) as folder:
                try:
                    path = _add(model, part, Path(folder), check)
                except ModelError:
                    _remove(part)
                    raise
            _remove(part)
            return path
        except BrokenPipeError:
            raise  # of whoever listens to the events
        except OSError as error:
            raise StorageError(
                f"The model can't be written to {part.parent} ({error.strerror or error}). Free "
                "some space and try again."
            ) from error


def import_published(
    model: PublishedModel, archive: str | os.PathLike[str], cancel: Cancel = lambda: False
) -> Path:
    """Add a published model from its archive on this computer; the network is not used.

    Raises:
        ModelError: see :func:`download_published`. StorageError, Cancelled: likewise.
    """

    def check() -> None:
        if cancel():
            raise Cancelled("Stopped; nothing was installed.")

    if not os.path.isfile(archive):
        raise ModelError(f"There is no file {archive}.")
    home = own_folder("models")
    try:
        with tempfile.TemporaryDirectory(prefix=".adding-", dir=home) as folder:
            return _add(model, Path(archive), Path(folder), check)
    except OSError as error:
        raise StorageError(
            f"The model can't be written to {home} ({error.strerror or error}). Free some space "
            "and try again."
        ) from error


def _add(model: PublishedModel, part: Path, folder: Path, check: Callable[[], None]) -> Path:
    """Unpack, read, name the classes, install; the path of the entry."""
    from .formats import adding, nnunet
    from .formats.base import Open

    unpack(part, folder, _needed, check)
    place = folder / model.folder
    if not place.is_dir():
        raise ModelError(f"The archive of '{model.id}' has no folder {model.folder}.")
    if not nnunet.recognise(place):
        raise ModelError(f"The archive of '{model.id}' holds no nnU-Net v2 result folder.")
    answers = Answers(orientation=model.orientation, modality=",".join(model.modality))
    found = nnunet.read(place, answers)
    if isinstance(found, Open):
        raise ModelError(
            f"The files of '{model.id}' are not as they were: "
            f"{' '.join(str(question) for question in found.questions)}"
        )
    rows = set(found.entry["classes"].values())
    if rows != set(model.classes.values()):
        raise ModelError(
            f"The archive of '{model.id}' holds a model of {len(rows)} classes, not of "
            f"{len(model.classes)}: it is another one than was published here."
        )
    entry = {
        **found.entry,
        "id": model.id,
        "title": model.title,
        "description": model.description,
        "classes": dict(model.classes),
        "licence": model.licence,
        "licence_url": model.licence_url,
        "checked": model.checked,
        "citation": model.citation,
        "source_url": model.source_url,
    }
    return adding.install(replace(found, entry=entry), Answers(), found.facts).path


def _needed(name: str) -> bool:
    """Of an archive with the whole training: what a model is made of."""
    return name.endswith((".json", ".pth")) and not name.startswith("__MACOSX")


def _remove(part: Path) -> None:
    os.unlink(part)
    remove_parts(part.name.removeprefix(PART))
