"""Trilinear interpolation of a box, axis by axis as products of matrices.

The same numbers as ``torch.nn.functional.interpolate(..., align_corners=False)``, which on a CPU
takes a quarter of an adapter's training (``Testing/benchmarks/upsampling.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ..core.geometry import Stride, along_axes

Span = tuple[int, int]
"""The first voxel and the one after the last, along an axis."""


def upsample(values: Tensor, stride: Stride, spans: Sequence[Span], box: Sequence[slice]) -> Tensor:
    """Values of a coarse box on a finer grid, where a coarse voxel is ``stride`` fine ones wide.

    Args:
        values: (B, C, *coarse), any floating type. spans: the coarse voxels that they are of.
        box: the fine voxels that are wanted. Beyond the middle of the outermost coarse voxels
            there is nothing to interpolate, and the nearest value stands.

    Returns:
        (B, C, *box), float32.
    """
    weights = [
        _weights(last - first, part.start - first * wide, part.stop - part.start, wide)
        for (first, last), part, wide in zip(spans, box, along_axes(stride), strict=True)
    ]
    # Half precision would do for the values, not for the places between them.
    with torch.autocast(values.device.type, enabled=False):
        result = values.float()
        by_i, by_j, by_k = (weight.to(values.device) for weight in weights)
        result = by_j @ (result @ by_k.T)
        *outer, i, j, k = result.shape
        return (by_i @ result.reshape(*outer, i, j * k)).reshape(*outer, len(by_i), j, k)


@lru_cache(maxsize=4096)
@torch.inference_mode(False)  # whoever asks first, those who train share what is kept
def _weights(coarse: int, start: int, count: int, stride: int) -> Tensor:
    """What each coarse value adds to each fine one along an axis: (count, coarse), float32.

    Args:
        start: of the fine voxels, counted from where the coarse ones begin.
    """
    places = (torch.arange(start, start + count) + 0.5) / stride - 0.5
    places = places.clamp(0, coarse - 1)
    below = places.floor().long().clamp(max=max(coarse - 2, 0))
    part = places - below
    weights = torch.zeros(count, coarse)
    rows = torch.arange(count)
    weights[rows, below] = 1 - part
    weights[rows, (below + 1).clamp(max=coarse - 1)] += part
    return weights
