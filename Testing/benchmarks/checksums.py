"""What it costs that cached features carry checksums, are verified, and are on the disk for sure.

    python Testing/benchmarks/checksums.py
    python Testing/benchmarks/checksums.py --folder /a/folder/on/the/disk/to/measure

Features as of a CT of 512 x 512 x 300 voxels (0.8 x 0.8 x 1.5 mm) by embedded, and by a Swin
UNETR with 48 features on a part of it. Printed: the speed of each hash of the same bytes in memory,
by one thread and by as many as are used; the seconds to write an entry as it is written, and what
of them the sums and the syncing are; the seconds to open one, verified or not, read from the disk
(where the system can be asked to forget a file) and from memory. Each is the best of three.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from FewShotSegLib.core import checksums
from FewShotSegLib.features import store as feature_store
from FewShotSegLib.features import writer as feature_writer
from FewShotSegLib.features.store import FeatureStore

ENTRIES = {
    "embedded": ((8, 32, 64, 128, 256), (1, 2, 4, 8, 16), (144, 144, 160)),
    "Swin UNETR": ((48, 48, 96, 192, 384), (1, 2, 4, 8, 16), (192, 192, 192)),
}
TURNS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", help="where entries are written")
    args = parser.parse_args()
    hashes()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for name, (channels, strides, shape) in ENTRIES.items():
            entry(Path(folder), name, channels, strides, shape)


def hashes() -> None:
    """The speed of hashes in memory."""
    data = np.random.default_rng(0).bytes(2 * checksums.BLOCK * checksums.MOST_THREADS)
    blocks = [
        memoryview(data)[start : start + checksums.BLOCK]
        for start in range(0, len(data), checksums.BLOCK)
    ]
    threads = min(checksums.MOST_THREADS, os.cpu_count() or 1)
    kinds: dict[str, Callable[[memoryview], object]] = {
        "CRC-32": zlib.crc32,
        "SHA-256": lambda block: hashlib.sha256(block).digest(),
        "BLAKE2b": lambda block: hashlib.blake2b(block).digest(),
    }
    for name, function in kinds.items():
        with ThreadPoolExecutor(threads) as pool:
            alone = best(lambda f=function: [f(block) for block in blocks])
            together = best(lambda f=function: list(pool.map(f, blocks)))
        speeds = [len(data) / seconds / 1e9 for seconds in (alone, together)]
        print(f"{name}: {speeds[0]:.1f} GB/s by 1 thread, {speeds[1]:.1f} by {threads}")


def entry(
    folder: Path, name: str, channels: Sequence[int], strides: Sequence[int], shape: Sequence[int]
) -> None:
    """Writing and opening one entry."""
    levels = [
        torch.randn(1, *(n // stride for n in shape)).expand(width, -1, -1, -1)
        for width, stride in zip(channels, strides, strict=True)
    ]
    store = FeatureStore(folder)

    def write() -> None:
        checksums.forget()
        with store.lock("entry"):
            store.put("entry", levels, strides, shape)

    def read(forget: bool) -> None:
        checksums.forget()
        files = list((folder / "entry").glob("level*.npy"))
        if forget:
            forget_pages(files)
        start = time.perf_counter()
        assert store.get("entry") is not None
        times.append(time.perf_counter() - start)

    written = best(write)
    with mock.patch.object(feature_store, "file_sums", lambda paths: [{} for _ in paths]):
        with mock.patch.object(FeatureStore, "stored", lambda self, key: None):
            unsummed = best(write)
            with (
                mock.patch.object(feature_writer.os, "fsync", lambda file: None),
                mock.patch.object(feature_store, "sync_file", lambda path: None),
                mock.patch.object(feature_store, "sync_folder", lambda path: None),
            ):
                plain = best(write)
    write()
    size = store.size()
    print(
        f"{name}, {size / 1e6:.0f} MB: written in {written:.2f} s, of which sums "
        f"{written - unsummed:.2f} s and syncing {unsummed - plain:.2f} s"
    )
    for what, forget in (("from the disk", True), ("from memory", False)):
        times: list[float] = []
        for _ in range(TURNS):
            read(forget)
        print(f"{name}: verified {what} in {min(times):.3f} s ({size / min(times) / 1e9:.1f} GB/s)")
    times = []
    with mock.patch.object(feature_store, "require_sums", lambda files, check: None):
        read(False)
    print(f"{name}: opened without verifying in {min(times):.4f} s")


def forget_pages(files: Sequence[Path]) -> None:
    """Have the system read the files from the disk again, where it can be asked to."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def best(function: Callable[[], object]) -> float:
    """Seconds of the fastest of some turns."""
    times = []
    for _ in range(TURNS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
