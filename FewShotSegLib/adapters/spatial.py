"""The spatial adapter of the paper, and the 1x1x1 ablation that shows why *spatial* matters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .base import Adapter

MAX_WIDTH = 48
"""Widest hidden layer: that of the published adapter on SwinUNETR-48; wider levels are squeezed."""


class SpatialAdapter(Adapter):
    """Residual ``x + conv(ReLU(conv(x)))`` a level, 3x3x3, no biases, then a 1x1x1 classifier.

    The second convolution starts at zero, so that training starts from the linear probe.
    """

    kernel = 3
    halo = 2
    learning_rate = 2e-3

    def __init__(self, channels: Sequence[int], structures: int) -> None:
        super().__init__(channels, structures)
        self.residuals = nn.ModuleList(self._residual(width) for width in channels)

    def _residual(self, width: int) -> nn.Sequential:
        hidden, pad = min(width, MAX_WIDTH), self.kernel // 2
        first = nn.Conv3d(width, hidden, self.kernel, padding=pad, bias=False)
        second = nn.Conv3d(hidden, width, self.kernel, padding=pad, bias=False)
        nn.init.zeros_(second.weight)
        return nn.Sequential(first, nn.ReLU(inplace=True), second)

    def adapt(self, level: int, features: Tensor) -> Tensor:
        """Features plus what the neighbourhood says."""
        return features + self.residuals[level](features)


class PointwiseAdapter(SpatialAdapter):
    """The same with 1x1x1 convolutions: a voxel sees no neighbour."""

    kernel = 1
    halo = 0
