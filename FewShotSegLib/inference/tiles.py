"""An adapter's scores over a box of the model grid, exactly as over the whole volume in one pass.

Every level is read with the context that its convolutions and its interpolation need, so that
tiles meet without seams and a training crop sees what prediction will see.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..compute.upsampling import upsample
from ..core.errors import InputError
from ..core.geometry import Stride, along_axes, three
from ..features.store import VolumeFeatures
from ..methods.adapters.base import Adapter

Box = tuple[slice, slice, slice]
"""A box of model voxels."""


def select_levels(strides: Sequence[Stride], features: str) -> tuple[int, ...]:
    """Which of a backbone's levels are adapted: ``multi`` all, ``last`` the finest alone."""
    if features not in ("multi", "last"):
        raise InputError(f"The features are 'multi' or 'last', not '{features}'.")
    return tuple(range(len(strides))) if features == "multi" else (0,)


def iterate_boxes(shape: Sequence[int], size: int) -> Iterator[Box]:
    """Boxes of at most ``size`` voxels a side that cover a grid, each voxel once."""
    counts = [-(-n // size) for n in shape]
    for place in np.ndindex(*counts):
        yield three(
            slice(n * i // c, n * (i + 1) // c)
            for n, i, c in zip(shape, place, counts, strict=True)
        )


def box_scores(
    adapter: Adapter,
    features: VolumeFeatures,
    box: Box,
    device: torch.device,
) -> Tensor:
    """Scores (structures, *box) before the sigmoid, float32.

    Args:
        features: of the backbone's every level. box: within ``features.shape``.
    """
    total: Tensor | None = None
    for number, level in enumerate(adapter.levels):
        stride, array = features.strides[level], features.levels[level]
        halo, inner, outer = adapter.halo_of(number), [], []
        for part, size, wide in zip(box, array.shape[1:], along_axes(stride), strict=True):
            margin = 1 if wide > 1 else 0
            first = max(0, part.start // wide - margin)
            last = min(size, -(-part.stop // wide) + margin)
            inner.append((first, last))
            outer.append((max(0, first - halo), min(size, last + halo)))
        stored = np.array(array[(slice(None), *[slice(*part) for part in outer])])
        crop = torch.from_numpy(stored).to(device)[None].float() * features.scales[level]
        # The convolutions want it so, and would change it again and again.
        crop = crop.contiguous(memory_format=torch.channels_last_3d)
        scores = adapter.level_scores(number, crop)
        scores = scores[
            (...,)
            + tuple(slice(i[0] - o[0], i[1] - o[0]) for i, o in zip(inner, outer, strict=True))
        ]
        if max(along_axes(stride)) > 1:
            scores = upsample(scores, stride, inner, box)
        total = scores if total is None else total + scores
    assert total is not None  # an adapter has a level at least
    return total[0].float()
