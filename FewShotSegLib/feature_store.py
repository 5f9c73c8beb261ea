"""Frozen features on disk: half precision, memory-mapped, bounded, shared by processes.

One folder an entry, named by the hash of everything the features depend on. An entry appears by
one rename, so that it is whole or absent; the least recently used entries go when the store is
over its size. Only numbers derived from images are stored, never names or paths; the folder is
private to the user.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from torch import Tensor

from .errors import InputError, StorageError
from .feature_writer import FeatureWriter
from .json_fields import load_json

DEFAULT_MAX_BYTES = 20 * 2**30
PARTIAL = "partial-"
"""How the name of a half-written entry begins; the entry's own follows."""
WAIT_SECONDS = 0.2
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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
    strides: tuple[int, ...]
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
    def lock(self, key: str, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Held while an entry is computed, so that a second process waits instead of repeating.

        Args:
            check: called many times a second while waiting; raises to stop.

        Raises:
            StorageError: the folder can't be written to.
        """
        self._make_folder()
        lock = FileLock(self.folder / f"{key}.lock")
        while True:
            try:
                lock.acquire(timeout=WAIT_SECONDS)
                break
            except Timeout:
                check()
            except OSError as error:
                raise self._storage_error(error, 0) from error
        try:
            yield
        finally:
            lock.release()

    def get(self, key: str) -> VolumeFeatures | None:
        """The entry of this name, or None. Marks it as just used."""
        folder = self.folder / key
        try:
            meta = load_json(folder / "meta.json", "entry")
            levels = tuple(
                np.load(folder / f"level{number}.npy", mmap_mode="r")
                for number in range(len(meta["strides"]))
            )
            os.utime(folder)
            scales, strides = tuple(meta["scales"]), tuple(meta["strides"])
            shape = tuple(meta["shape"])
        except (InputError, OSError, EOFError, ValueError, KeyError, TypeError):
            return None  # absent or damaged
        return VolumeFeatures(levels, scales, strides, shape, key)

    def put(
        self,
        key: str,
        levels: Sequence[Tensor],
        strides: Sequence[int],
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
        strides: Sequence[int],
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
            with self._errors_told(needed):
                shutil.rmtree(partial, ignore_errors=True)
                # A backbone may run for an hour before its last plane finds no place.
                if shutil.disk_usage(self.folder).free < needed:
                    raise OSError(errno.ENOSPC, "No space left on device")
                partial.mkdir(mode=0o700)
                writer = FeatureWriter(partial, sizes, lambda: self._errors_told(needed))
            yield writer
            with self._errors_told(needed):
                writer.close()
                meta = {"scales": writer.scales, "strides": list(strides), "shape": list(shape)}
                (partial / "meta.json").write_text(json.dumps(meta))
                target = self.folder / key
                if target.exists():  # damaged, or stored by another process meanwhile
                    shutil.rmtree(target)
                partial.rename(target)
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
        return [
            folder
            for folder in self.folder.iterdir()
            if (folder.name.startswith(PARTIAL) and folder.is_dir())
            or (folder / "meta.json").is_file()
        ]

    def _remove(self, folder: Path) -> bool:
        """Remove an entry, or a half-written one, unless another process is just writing it."""
        lock = self.folder / f"{folder.name.removeprefix(PARTIAL)}.lock"
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(folder)
            lock.unlink(missing_ok=True)
        except (OSError, Timeout):
            return False  # in use on a system that does not remove open files
        return True

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise self._storage_error(error, 0) from error

    @contextmanager
    def _errors_told(self, needed: int) -> Iterator[None]:
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
        return StorageError(
            f"The feature cache {self.folder} can't be written to ({error.strerror}). Choose "
            "another folder with --cache."
        )
