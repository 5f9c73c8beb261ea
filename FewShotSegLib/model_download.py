"""Fetching a foundation model's weights: what was announced and agreed to, and nothing else."""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from .atomic import replacing, require_writable
from .errors import Cancelled, ModelError, StorageError
from .events import EventSink, make_event
from .model_files import user_folder
from .model_registry import find_model

PIECE = 2**18
TIMEOUT_SECONDS = 30


def download(model_id: str, events: EventSink, cancel: Callable[[], bool]) -> Path:
    """Download the weights of a model of the registry into the user's folder.

    The entry must give ``weights_url`` (https) and ``sha256``. A file that is not the announced
    one is never put in place.

    Returns:
        the path of the weights.

    Raises:
        ModelError: the entry names no file to fetch, or the file is not the announced one, or
            can't be fetched. StorageError: the disk is full. Cancelled: the user stopped.
    """
    entry = find_model(model_id).entry
    if not (entry.weights_url and entry.sha256):
        raise ModelError(
            f"The weights of '{model_id}' have to be fetched by hand from {entry.source_url}."
        )
    if not entry.weights_url.startswith("https://"):
        raise ModelError(f"The weights of '{model_id}' are not offered over https.")
    target = user_folder() / entry.weights.name
    require_writable(target)
    if entry.size and shutil.disk_usage(target.parent).free < entry.size:
        raise StorageError(
            f"The weights take {entry.size / 2**20:.0f} MB, which {target.parent} has not free."
        )
    request = urllib.request.Request(entry.weights_url, headers={"User-Agent": "FewShotSeg"})
    digest, done = hashlib.sha256(), 0
    events(make_event("phase", phase="download", total=entry.size))
    try:
        with (
            urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as source,
            replacing(target) as temporary,
            open(temporary, "wb") as file,
        ):
            while piece := source.read(PIECE):
                if cancel():
                    raise Cancelled("Stopped; nothing was installed.")
                file.write(piece)
                digest.update(piece)
                done += len(piece)
                if entry.size and done > entry.size:
                    break
                events(make_event("progress", phase="download", done=done, total=entry.size))
            if digest.hexdigest() != entry.sha256:
                raise ModelError(
                    f"What {entry.weights_url} gave is not the file that the registry announces "
                    "(its sha256 differs). Nothing was installed."
                )
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise ModelError(
            f"{entry.weights_url} can't be reached ({getattr(error, 'reason', error)}). Check the "
            "network, and try again."
        ) from error
    return target
