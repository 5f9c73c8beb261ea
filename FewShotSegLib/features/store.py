"""Frozen features on disk: half precision, memory-mapped, bounded, shared by processes.

One folder an entry, named by the hash of everything the features depend on. An entry appears by
one rename, on the disk before that, so that it is whole or absent; ``meta.json`` has checksums of
all of it, which are verified when a process first opens it. The least recently used entries go when
the store is over its size. Only numbers derived from images are stored, never names or paths; the
folder is private to the user.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from torch import Tensor

from ..compute.locks import lock_held
from ..core.atomic import sync_file, sync_folder
from ..core.checksums import Damaged, file_sums, require_json_seal, require_sums, seal_json
from ..core.errors import InputError, StorageError
from ..core.geometry import Stride, three
from ..core.json_fields import load_json
from ..core.private_folders import make_private
from .writer import FeatureWriter

DEFAULT_MAX_BYTES = 20 * 2**30
PARTIAL = "partial-"
"""How the name of a half-written entry begins; the entry's own follows."""
META = "meta.json"
_FILE = re.compile(r"meta\.json|level[0-9]+\.npy")
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class VolumeFeatures:
    """The features of one volume.

    Attributes:
        levels: for each level, finest first, a (channels, i, j, k) float16 array (usually a
            memory map); times ``scales[l]`` they are the backbone's output.
        scales: one factor a level, 1 unless half precision would have overflowed.
        strides: model voxels that a voxel of each level spans.
        shape: the model grid without padding. Level l covers ``padded / strides[l]`` voxels.
        key: the store's name for them.
    """

    levels: tuple[np.ndarray, ...]
    scales: tuple[float, ...]
    strides: tuple[Stride, ...]
    shape: tuple[int, int, int]
    key: str


class FeatureStore:
    """A folder of features.

    Args:
        folder: made when first written to, readable by the user alone.
        max_bytes: least recently used entries beyond this are removed.
    """

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes

    @contextmanager
    def lock(
        self,
        key: str,
        check: Callable[[], None] = lambda: None,
        waiting: Callable[[], None] = lambda: None,
    ) -> Iterator[None]:
        """Held while an entry is computed, so that a second process waits instead of repeating.

        Args:
            check, waiting: see :func:`.locks.lock_held`.

        Raises:
            StorageError: the folder can't be written to, or others can.
        """
        self._make_folder()
        path = self.folder / f"{key}.lock"
        with lock_held(path, lambda error: self._storage_error(error, 0), check, waiting):
            yield

    def get(
        self,
        key: str,
        check: Callable[[], None] = lambda: None,
        damaged: Callable[[str], None] = lambda reason: None,
    ) -> VolumeFeatures | None:
        """The entry of this name, or None. Marks it as just used.

        Args:
            check: called often while a large entry is verified; raises to stop.
            damaged: reported in a few words what is wrong with an entry that is there. (One from
                before entries had checksums is absent.)
        """
        folder = self.folder / key
        try:
            meta = require_json_seal(load_json(folder / META, "entry"))
            if meta is None:
                return None
            if meta["key"] != key:
                raise Damaged("it is another volume's or model's")
            paths = [folder / f"level{number}.npy" for number in range(len(meta["levels"]))]
            require_sums(dict(zip(paths, meta["levels"], strict=True)), check)
            levels = tuple(np.load(path, mmap_mode="r") for path in paths)
            os.utime(folder)
        except InputError:  # of reading its JSON
            if folder.is_dir():
                damaged(f"{META} is missing or can't be read")
            return None
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            if folder.is_dir():
                damaged((isinstance(error, OSError) and error.strerror) or str(error))
            return None
        scales, strides = tuple(meta["scales"]), _strides(meta["strides"])
        return VolumeFeatures(levels, scales, strides, tuple(meta["shape"]), key)

    def has(self, key: str) -> bool:
        """Whether there is an entry of this name; it may be damaged."""
        return (self.folder / key / META).is_file()

    def put(
        self,
        key: str,
        levels: Sequence[Tensor],
        strides: Sequence[Stride],
        shape: Sequence[int],
    ) -> VolumeFeatures:
        """Store the levels (channels, i, j, k) of one volume and give them back memory-mapped.

        See :meth:`writing` for when and what it raises.
        """
        with self.writing(key, [level.shape for level in levels], strides, shape) as writer:
            for number, level in enumerate(levels):
                writer.write(number, 0, level)
        return self.stored(key)

    @contextmanager
    def writing(
        self,
        key: str,
        sizes: Sequence[Sequence[int]],
        strides: Sequence[Stride],
        shape: Sequence[int],
    ) -> Iterator[FeatureWriter]:
        """Store one volume's features slab by slab. They are an entry once the block ends well.

        Call it holding the entry's :meth:`lock`: whatever is half written without a lock is taken
        for the leavings of a killed process.

        Args:
            sizes: (channels, i, j, k) of each level.

        Raises:
            StorageError: the disk is full or the folder can't be written to. Nothing is left.
        """
        self._make_folder()
        needed = sum(2 * int(np.prod(size, dtype=np.int64)) for size in sizes)
        partial = self.folder / f"{PARTIAL}{key}"
        writer = None
        try:
            with self._errors_reported(needed):
                shutil.rmtree(partial, ignore_errors=True)
                # A backbone may run for an hour before its last plane finds no place.
                if shutil.disk_usage(self.folder).free < needed:
                    raise OSError(errno.ENOSPC, "No space left on device")
                partial.mkdir(mode=0o700)
                writer = FeatureWriter(partial, sizes, lambda: self._errors_reported(needed))
            yield writer
            with self._errors_reported(needed):
                sums = file_sums(writer.close())
                meta = {"scales": writer.scales, "strides": list(strides), "shape": list(shape)}
                meta = seal_json({"key": key, **meta, "levels": sums})
                (partial / META).write_text(json.dumps(meta), encoding="utf-8")
                sync_file(partial / META)
                sync_folder(partial)
                target = self.folder / key
                if target.exists():  # damaged, or of before entries had checksums
                    self._discard(target)
                partial.rename(target)
                sync_folder(self.folder)
        finally:
            if writer is not None:
                writer.abandon()
            shutil.rmtree(partial, ignore_errors=True)
        self.evict(keep=key)

    def stored(self, key: str) -> VolumeFeatures:
        """The entry that was just written.

        Raises:
            StorageError: it can't be read back.
        """
        features = self.get(key)
        if features is None:
            raise StorageError(
                f"Features written to {self.folder} could not be read back. Choose another "
                "cache folder with --cache."
            )
        return features

    def evict(self, keep: str | None = None) -> None:
        """Remove the least recently used entries until the store is within its size.

        What killed processes left half written goes in any case.
        """
        entries = []
        for folder in self._folders():
            if folder.name.startswith(PARTIAL):
                self._remove(folder)
                continue
            try:
                size = sum(file.stat().st_size for file in folder.iterdir())
                entries.append((folder.stat().st_mtime, size, folder))
            except OSError:
                continue  # another process is just removing it
        total = sum(size for _, size, _ in entries)
        for _, size, folder in sorted(entries, key=lambda entry: entry[0]):
            if total <= self.max_bytes:
                break
            if folder.name != keep and self._remove(folder):
                total -= size

    def size(self) -> int:
        """Bytes on disk."""
        if not self.folder.exists():
            return 0
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def clear(self) -> None:
        """Remove every entry."""
        if self.folder.exists():
            for folder in self._folders():
                self._remove(folder)

    def _folders(self) -> list[Path]:
        """The entries and what is half written; anything else in the folder is the user's."""
        return [folder for folder in self.folder.iterdir() if _is_entry(folder)]

    def _remove(self, folder: Path) -> bool:
        """Remove an entry, or a half-written one, unless another process is just writing it."""
        lock = self.folder / f"{folder.name.removeprefix(PARTIAL)}.lock"
        try:
            with FileLock(lock, timeout=0):
                self._discard(folder)
            lock.unlink(missing_ok=True)
        except (OSError, Timeout):
            return False  # in use on a system that does not remove open files
        return True

    def _discard(self, folder: Path) -> None:
        """Remove a folder, which stops being an entry immediately: half of one, left by a kill,
        would be neither taken for an entry nor for what may go."""
        doomed = self.folder / f"{PARTIAL}{secrets.token_hex(8)}"
        folder.rename(doomed)
        shutil.rmtree(doomed)

    def _make_folder(self) -> None:
        def mixed() -> bool:
            return any(f.suffix != ".lock" and not _is_entry(f) for f in self.folder.iterdir())

        make_private(self.folder, "with --cache", mixed)

    @contextmanager
    def _errors_reported(self, needed: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._storage_error(error, needed) from error

    def _storage_error(self, error: OSError, needed: int) -> StorageError:
        # Where the disk fills up in the middle of an array, numpy's error has no number.
        if error.errno in _FULL or error.errno is None:
            return StorageError(
                f"The disk of the feature cache {self.folder} is full ({needed / 1e6:.0f} MB "
                "were needed). Free some space, or choose another folder with --cache."
            )
        if error.errno == errno.EFBIG:
            return StorageError(
                f"The features ({needed / 1e6:.0f} MB) are a larger file than the disk of the "
                f"feature cache {self.folder}, or the limit set for your account (ulimit -f), "
                "allows. Raise the limit, or choose another folder with --cache."
            )
        return StorageError(
            f"The feature cache {self.folder} can't be written to ({error.strerror}). Choose "
            "another folder with --cache."
        )


def _is_entry(folder: Path) -> bool:
    """Whether it is an entry, or half of one, and nothing else is in it."""
    try:
        names = {file.name for file in folder.iterdir()}
    except OSError:
        return False  # a file; or another process is just removing it
    whole = folder.name.startswith(PARTIAL) or META in names
    return whole and all(_FILE.fullmatch(name) for name in names)


def _strides(given: Sequence[Any]) -> tuple[Stride, ...]:
    """Strides from JSON, which has lists where they differ by axis."""
    return tuple(three(stride) if isinstance(stride, list) else stride for stride in given)
