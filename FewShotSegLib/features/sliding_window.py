"""A Gaussian sliding window over an image whose results are complete slab by slab.

A foundation model's features of one large CT take gigabytes. Windows go through the image row by
row along its first axis, and only the planes that a window still adds to are kept in memory: what
no later window touches is handed over immediately.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.geometry import Stride, along_axes, three

SIGMA = 0.125
"""Standard deviation of a window's weights, as a part of its side: MONAI's, and the papers'."""
Predict = Callable[[Tensor], Sequence[Tensor]]
Write = Callable[[int, int, Tensor], None]


@dataclass(frozen=True)
class Windows:
    """Where the windows over an image lie.

    Attributes:
        padded: voxels of the image continued to multiples of the largest stride.
        side: voxels of a window along each axis.
        starts: along each axis, the first voxel of each row of windows.
    """

    padded: tuple[int, int, int]
    side: tuple[int, int, int]
    starts: tuple[tuple[int, ...], ...]

    @property
    def count(self) -> int:
        """Windows in all."""
        return int(np.prod([len(starts) for starts in self.starts]))


def place_windows(
    shape: Sequence[int], window: Sequence[int], overlap: float, stride: Stride
) -> Windows:
    """Windows that cover an image.

    Args:
        shape: (i, j, k) of the image.
        window: voxels of a window; cut down to the image where that is smaller.
        overlap: part of a window shared with its neighbour, at least.
        stride: the network's largest: windows start and end on its multiples, where every feature
            level has a voxel.
    """
    strides = along_axes(stride)
    padded = tuple(-(-n // s) * s for n, s in zip(shape, strides, strict=True))
    side = tuple(min(-(-n // s) * s, p) for n, p, s in zip(window, padded, strides, strict=True))
    starts = []
    for whole, part, s in zip(padded, side, strides, strict=True):
        step = max(s, int(part * (1 - overlap)) // s * s)
        count = -(-(whole - part) // step) + 1
        starts.append(tuple(min(n * step, whole - part) for n in range(count)))
    return Windows(three(padded), three(side), tuple(starts))


def blend_windows(image: Tensor, windows: Windows, predict: Predict, write: Write) -> None:
    """Run a network over all windows and hand over the weighted means of what it gives.

    Args:
        image: (1, 1, *windows.padded).
        predict: gives the levels of one window (1, 1, *windows.side), each (1, channels, ...) and
            along each axis a whole number of times smaller than the window; on any device.
        write: takes a level's number, the first of its planes along i that are complete, and these
            planes (channels, n, j, k), float32 on the CPU. They are overwritten afterwards.
    """
    slabs: list[_Slab] = []
    rows, *across = windows.starts
    for start, following in pairwise((*rows, windows.padded[0])):
        for j in across[0]:
            for k in across[1]:
                place = (start, j, k)
                parts = three(slice(a, a + n) for a, n in zip(place, windows.side, strict=True))
                levels = predict(image[(..., *parts)])
                slabs = slabs or _make_slabs(levels, windows)
                for slab, level in zip(slabs, levels, strict=True):
                    slab.add(level[0], j, k)
        for number, slab in enumerate(slabs):
            first, planes = start // slab.strides[0], (following - start) // slab.strides[0]
            write(number, first, slab.complete(planes))
            slab.move_on(planes)


class _Slab:
    """The planes of one level that windows still add to."""

    def __init__(self, channels: int, weight: Tensor, windows: Windows) -> None:
        strides = three(n // m for n, m in zip(windows.side, weight.shape, strict=True))
        size = (windows.side[0], *windows.padded[1:])
        shape = tuple(n // s for n, s in zip(size, strides, strict=True))
        self.strides, self._weight = strides, weight
        self._sum = torch.zeros(channels, *shape)
        self._weights = torch.zeros(shape)

    def add(self, level: Tensor, j: int, k: int) -> None:
        """Add what one window (channels, i, j, k) gave."""
        parts = [slice(0, level.shape[1])]
        for start, size, stride in zip((j, k), level.shape[2:], self.strides[1:], strict=True):
            parts.append(slice(start // stride, start // stride + size))
        self._sum[(slice(None), *parts)] += (level.float() * self._weight).cpu()
        self._weights[tuple(parts)] += self._weight.cpu()

    def complete(self, planes: int) -> Tensor:
        """The weighted means of the first planes."""
        return self._sum[:, :planes].div_(self._weights[:planes])

    def move_on(self, planes: int) -> None:
        """Leave the first planes behind."""
        left = self._weights.shape[0] - planes
        for tensor in (self._sum.transpose(0, 1), self._weights):
            tensor[:left] = tensor[planes:].clone()
            tensor[left:] = 0


def _make_slabs(levels: Sequence[Tensor], windows: Windows) -> list[_Slab]:
    from monai.data.utils import compute_importance_map  # not needed where features are cached

    weight = compute_importance_map(
        windows.side, mode="gaussian", sigma_scale=SIGMA, device=levels[0].device
    )[None, None].float()
    slabs = []
    for level in levels:
        # A coarser level's weights are taken from the finer one's, as MONAI's inferer does.
        weight = F.interpolate(weight, level.shape[2:], mode="nearest-exact")
        slabs.append(_Slab(level.shape[1], weight[0, 0], windows))
    return slabs
