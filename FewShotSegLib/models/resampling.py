"""A volume resampled to another shape over the same extent, one axis after another.

It is our own because the inverse has to be exact in extent: voxels are cells, both grids span the
same box, and when shrinking the kernel widens. torch's ``interpolate`` has no such kernel in 3-D.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def axis_weights(
    size_in: int,
    size_out: int,
    kernel: str = "linear",
    line: tuple[float, float] | None = None,
    widens: bool = True,
) -> Tensor:
    """Resampling along one axis as a matrix (size_out, size_in), rows summing to 1.

    Voxels are cells: both sizes cover the same extent. When shrinking, the kernel widens with the
    ratio (anti-aliasing). ``"cubic"`` is Keys' kernel with a = -0.5 (IEEE TASSP 29, 1981): its
    second moment is zero, so that curved surfaces neither shrink nor swell.

    Args:
        line: of grids that do not span the same box: input voxels that an output voxel spans, and
            where the first of these begins. Beyond the input its outermost voxels go on.
        widens: False for a kernel that stays as narrow as the input's voxels.
    """
    scale, begin = line or (size_in / size_out, 0.0)
    stretch = max(1.0, scale) if widens else 1.0
    centres = (torch.arange(size_out, dtype=torch.float64) + 0.5) * scale + begin - 0.5
    if line is not None:
        centres = centres.clamp(0, size_in - 1)
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


ANISOTROPIC = 3
"""nnU-Net: where voxels are more than so many times as long along one axis as along another, the
slices across it are resampled one by one."""


def thick_axis(spacing: Sequence[float], other: Sequence[float]) -> int | None:
    """The axis along which nnU-Net takes the nearest slice; None where it interpolates everywhere.

    Args:
        spacing: of the grid that is resampled, mm. other: of the grid that it is resampled to.
    """
    for lengths in (spacing, other):
        if max(lengths) / min(lengths) > ANISOTROPIC:
            longest = [axis for axis, length in enumerate(lengths) if length == max(lengths)]
            return longest[0] if len(longest) == 1 else None
    return None


def as_nnunet(
    array: Tensor, shape: tuple[int, int, int], thick: int | None, order: int = 3
) -> Tensor:
    """An array (i, j, k) resampled to another shape over the same extent as nnU-Net does it.

    That is by splines along each axis, cut off at the values that there were, or slice by slice
    and then with the nearest slice where one axis is ``thick``. No kernel widens where voxels
    become larger: a network that learned from images with that grain should see it.

    Args:
        order: of the splines: 3 for images, 1 for scores.
    """
    if tuple(array.shape) == shape:
        return array.float()
    result = array.double()
    # nnU-Net goes through the slices one by one; the least and the largest value are a slice's.
    across = [axis for axis in range(3) if axis != thick]
    low, high = result.amin(across, keepdim=True), result.amax(across, keepdim=True)
    if any(array.shape[axis] != shape[axis] for axis in across):
        for axis in across:
            weights = spline_weights(array.shape[axis], shape[axis], order)
            result = apply_along(result, weights, axis)
        result = torch.minimum(torch.maximum(result, low), high)
    if thick is not None and array.shape[thick] != shape[thick]:
        places = (torch.arange(shape[thick]) + 0.5) * (array.shape[thick] / shape[thick]) - 0.5
        nearest = (places + 0.5).floor().long().clamp(0, array.shape[thick] - 1)
        result = result.index_select(thick, nearest)
    return result.float()


@lru_cache(maxsize=64)
def spline_weights(size_in: int, size_out: int, order: int) -> Tensor:
    """Spline interpolation along one axis as a matrix (size_out, size_in), float64.

    scipy's own, with the nearest value beyond the ends; voxels are cells.
    """
    from scipy.ndimage import zoom

    if size_in == size_out:
        return torch.eye(size_in, dtype=torch.float64)
    # Slightly off the wanted size in zoom's own rounding: it takes the size from the factor.
    factor = (size_out / size_in, 1)
    weights = zoom(np.eye(size_in), factor, order=order, mode="nearest", grid_mode=True)
    if weights.shape[0] != size_out:
        raise AssertionError(f"{size_in} to {size_out} gave {weights.shape[0]}")
    return torch.from_numpy(weights)
