"""The method ``local-mean``: the surroundings of a voxel count as much as is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from FewShotSegLib.methods.adapters.base import Adapter


class LocalMean(Adapter):
    """Features plus a learned part, for each channel, of their mean over 3x3x3 voxels."""

    halo = 1
    learning_rate = 1e-2

    def __init__(self, channels: Sequence[int], *arguments: Any, **more: Any) -> None:
        super().__init__(channels, *arguments, **more)
        self.parts = nn.ParameterList(torch.zeros(width) for width in channels)

    def adapt(self, level: int, features: Tensor) -> Tensor:
        """See :meth:`Adapter.adapt`."""
        mean = F.avg_pool3d(features, 3, stride=1, padding=1, count_include_pad=False)
        return features + self.parts[level].view(1, -1, 1, 1, 1) * mean
