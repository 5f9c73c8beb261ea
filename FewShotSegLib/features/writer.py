"""The files of one volume's features while they are written, slab by slab, in half precision."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

HALF_MAX = 6.0e4
"""Numbers above it are scaled down: half precision ends at 65,504."""


class FeatureWriter:
    """The level files of one entry while they are written.

    Plain writes, not a memory map: on a full disk that would kill the process.

    Args:
        folder: for the files. sizes: (channels, i, j, k) of each level.
        errors_reported: a block that tells the system's errors in a user's words.

    Attributes:
        scales: of each level, so far.
    """

    def __init__(
        self,
        folder: Path,
        sizes: Sequence[Sequence[int]],
        errors_reported: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.scales = [1.0] * len(sizes)
        self._sizes = [tuple(int(n) for n in size) for size in sizes]
        self._errors_reported = errors_reported
        self._files: list[BinaryIO] = []
        self._starts: list[int] = []
        for number, size in enumerate(self._sizes):
            file = open(folder / f"level{number}.npy", "w+b")
            self._files.append(file)
            header = {"descr": "<f2", "fortran_order": False, "shape": size}
            np.lib.format.write_array_header_1_0(file, header)
            self._starts.append(file.tell())
            file.truncate(file.tell() + 2 * int(np.prod(size, dtype=np.int64)))

    def write(self, number: int, first: int, planes: Tensor) -> None:
        """Write planes (channels, n, j, k) of a level from its plane ``first`` along i on.

        Every plane is written once, in order.

        Raises:
            StorageError: the disk is full.
        """
        largest = max(abs(float(value)) for value in torch.aminmax(planes))
        with self._errors_reported():
            if largest / HALF_MAX > self.scales[number]:
                self._rescale(number, first, largest / HALF_MAX)
            if self.scales[number] > 1:
                planes = planes / self.scales[number]
            for channel, plane in enumerate(planes):
                _write_at(
                    self._files[number], self._place(number, channel, first), plane.half().numpy()
                )

    def close(self) -> list[Path]:
        """Everything is written, and on the disk. Returns the files, finest level first.

        Raises:
            OSError: a full disk did not take all.
        """
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        return [Path(file.name) for file in self._files]

    def abandon(self) -> None:
        """Let go of the files, whatever is in them."""
        for file in self._files:
            try:
                file.close()
            except OSError:
                pass

    def _place(self, number: int, channel: int, plane: int) -> int:
        """Where a plane begins in the level's file."""
        _, planes, j, k = self._sizes[number]
        return self._starts[number] + 2 * (channel * planes + plane) * j * k

    def _rescale(self, number: int, planes: int, scale: float) -> None:
        """Make space for larger numbers than were expected when the first planes were written."""
        file, (channels, _, j, k) = self._files[number], self._sizes[number]
        for channel in range(channels if planes else 0):
            place = self._place(number, channel, 0)
            file.seek(place)
            before = np.frombuffer(file.read(2 * planes * j * k), "<f2").astype(np.float32)
            _write_at(file, place, (before * (self.scales[number] / scale)).astype("<f2"))
        self.scales[number] = scale


def _write_at(file: BinaryIO, place: int, array: np.ndarray) -> None:
    file.seek(place)
    file.write(np.ascontiguousarray(array).data)
