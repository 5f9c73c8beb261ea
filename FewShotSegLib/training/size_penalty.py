"""The penalty on sizes outside their expected range: L_TI of eq. (2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.geometry import three
from ..core.size_prior import SizePrior
from ..inference.query_sizes import Query, SizeMeasurement


@dataclass(frozen=True)
class SizeTarget:
    """The transductive term of a training: a query, and what is expected of it.

    Attributes:
        query: the volume.
        priors: by structure name, in the order of the adapter's structures.
        measured: the sizes that the adapter predicts before its first step, where they are known.
    """

    query: Query
    priors: Mapping[str, SizePrior]
    measured: SizeMeasurement | None = None


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
    priors: Sequence[SizePrior], query_cut_off: Sequence[bool], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper bounds, and S, of all structures: three (K,) float32 tensors in mm^3.

    Args:
        query_cut_off: for each, whether the query's field of view cuts it off.
    """
    pairs = [prior.bounds(cut) for prior, cut in zip(priors, query_cut_off, strict=True)]
    columns = (*zip(*pairs, strict=True), [prior.mean for prior in priors])
    return three(torch.tensor(c, dtype=torch.float32, device=device) for c in columns)
