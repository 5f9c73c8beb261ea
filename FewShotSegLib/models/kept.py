"""A loaded network, kept for the next job of the same process: as long as its file is the same."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backbones import Backbone
    from .registry import ModelEntry

LARGEST = 300 * 2**20
"""Bytes of weights; a larger network is read anew, since a copy of it waits in memory."""


class KeptModels:
    """The last network that was loaded; a copy is given out, so that nobody changes it."""

    def __init__(self) -> None:
        self._key: Any = None
        self._digest = ""
        self._backbone: Backbone | None = None

    def get(self, entry: ModelEntry) -> Backbone | None:
        """A network of its own for who asks; None where another is kept, or its file has changed
        since."""
        if self.digest(entry) is None:
            return None
        return copy.deepcopy(self._backbone)

    def digest(self, entry: ModelEntry) -> str | None:
        """Hash of the weights of the network that is kept; None as in :meth:`get`."""
        if self._backbone is None or self._key != key_of(entry):
            return None
        return self._digest

    def put(self, key: Any, digest: str, backbone: Backbone) -> None:
        """Keep a network as it is now.

        Args:
            key: :func:`key_of` its entry, from before its file was read. digest: of its weights.
        """
        self._backbone = None
        if key is not None and key[1][2] <= LARGEST:
            self._key, self._digest, self._backbone = key, digest, copy.deepcopy(backbone)


def key_of(entry: ModelEntry) -> Any:
    """What a loaded network depends on: the whole entry, and which file its weights are."""
    try:
        found = os.stat(entry.weights)
    except OSError:
        return None
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return repr(entry), identity
