"""What is known of an annotation on the model's grid: a mask is interpolated, knowledge is not."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .preprocessing import Placement
from .resampling import apply_along


def known_on_model(placement: Placement, known: np.ndarray) -> Tensor:
    """The model voxels that something is known of.

    Along each axis a model voxel is of the original voxels whose centres lie in it; where none does
    because the original ones are larger, of the one that its own centre lies in. So each slice that
    was drawn on is known to the model, however thin, and no more of the next than its own.

    Args:
        known: (i, j, k) bool, on the original grid.

    Returns:
        (I, J, K) bool, on the model's; False in what is around the volume.
    """
    result = placement.turned(known[placement.box])
    for axis, (size, line) in enumerate(zip(placement.inner, placement.lines, strict=True)):
        if result.shape[axis] != size or line != (1, 0):
            sources = _sources(result.shape[axis], size, line)
            result = apply_along(result.float(), sources, axis) > 0
    return placement.padded(result)


def _sources(size_in: int, size_out: int, line: tuple[float, float]) -> Tensor:
    """(size_out, size_in) float32: 1 where an original voxel stands for a model voxel.

    Args:
        line: original voxels that a model voxel spans, and where the first of these begins.
    """
    step, begin = line
    found = torch.zeros(size_out, size_in)
    inside = np.floor((np.arange(size_in) + 0.5 - begin) / step).astype(int)
    kept = (inside >= 0) & (inside < size_out)
    found[inside[kept], np.flatnonzero(kept)] = 1
    nearest = np.floor(begin + (np.arange(size_out) + 0.5) * step).astype(int)
    empty = found.sum(1) == 0
    found[torch.arange(size_out)[empty], torch.from_numpy(nearest.clip(0, size_in - 1))[empty]] = 1
    return found
