"""A volume resampled to another shape over the same extent, one axis after another.

It is our own because the inverse has to be exact in extent: voxels are cells, both grids span the
same box, and when shrinking the kernel widens. torch's ``interpolate`` has no such kernel in 3-D.
"""

from __future__ import annotations

import torch
from torch import Tensor


def axis_weights(size_in: int, size_out: int, kernel: str = "linear") -> Tensor:
    """Resampling along one axis as a matrix (size_out, size_in), rows summing to 1.

    Voxels are cells: both sizes cover the same extent. When shrinking, the kernel widens with the
    ratio (anti-aliasing). ``"cubic"`` is Keys' kernel with a = -0.5 (IEEE TASSP 29, 1981): its
    second moment is zero, so that curved surfaces neither shrink nor swell.
    """
    scale = size_in / size_out
    stretch = max(1.0, scale)
    centres = (torch.arange(size_out, dtype=torch.float64) + 0.5) * scale - 0.5
    x = (torch.arange(size_in, dtype=torch.float64)[None] - centres[:, None]).abs() / stretch
    if kernel == "linear":
        weights = (1 - x).clamp(min=0)
    elif kernel == "cubic":
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        weights = torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    else:
        raise ValueError(f"kernel '{kernel}' is neither linear nor cubic")
    return (weights / weights.sum(1, keepdim=True)).float()


def resize(array: Tensor, shape: tuple[int, int, int], kernel: str = "linear") -> Tensor:
    """A 3-D array resampled to another shape over the same extent; float32."""
    # The axis that shrinks most goes first, so that the others have less to do.
    order = sorted(range(3), key=lambda axis: shape[axis] / array.shape[axis])
    for axis in order:
        if array.shape[axis] != shape[axis]:
            weights = axis_weights(array.shape[axis], shape[axis], kernel)
            array = apply_along(array.float(), weights, axis)
    return array.float()


def apply_along(array: Tensor, weights: Tensor, axis: int) -> Tensor:
    """``weights`` times the array along one axis, without copying the array first."""
    if axis == 0:
        return (weights @ array.reshape(array.shape[0], -1)).reshape(-1, *array.shape[1:])
    if axis == 1:
        return torch.matmul(weights, array)
    return torch.matmul(array, weights.T)
