"""The penalty on sizes outside their expected range: L_TI of eq. (2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..core.size_prior import SizePrior


def size_penalty(size: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """L_TI of eq. (2), element by element: 0 within [low, high], else the distance to the bound.

    Args:
        size: soft sizes S^ of the query prediction; any unit, any shape.
        low: (1 - gamma) S, in the same unit. high: (1 + gamma) S.
    """
    # relu, unlike clamp, has no gradient at 0: a size exactly at a bound is left alone.
    below = (low - size).relu()
    above = (size - high).where(high.isfinite(), size.new_zeros(())).relu()
    return below + above


def bounds_tensors(
    priors: Sequence[SizePrior], query_cut_off: Mapping[int, bool], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper bounds, and S, of all structures: three (K,) float32 tensors in mm^3."""
    pairs = [prior.bounds(query_cut_off.get(k, False)) for k, prior in enumerate(priors)]
    columns = (*zip(*pairs, strict=True), [prior.mean for prior in priors])
    return tuple(torch.tensor(c, dtype=torch.float32, device=device) for c in columns)
