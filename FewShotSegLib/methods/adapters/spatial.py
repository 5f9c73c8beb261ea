"""The spatial adapter of the paper, and the 1x1x1 ablation that shows why *spatial* matters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .base import Adapter

PUBLISHED_HIDDEN = 48
"""Widest hidden layer over a single level: that of the published adapter on SwinUNETR-48."""
HIDDEN = 16
"""Widest over several. Wider ones fit the supports better and new volumes worse (measured)."""
SPATIAL_LEVELS = 3
"""Levels with a residual, finest first. The voxels of coarser ones span centimetres: a
neighbourhood there is a place in the body, which a few supports only teach by heart (measured)."""


class SpatialAdapter(Adapter):
    """Residual ``x + conv(ReLU(conv(x)))``, 3x3x3, no biases, then a 1x1x1 classifier a level.

    The second convolution starts at zero, so that training starts from the linear probe. Levels
    beyond the third are linear.
    """

    kernel = 3
    halo = 2
    learning_rate = 5e-3

    def __init__(
        self, channels: Sequence[int], structures: int, levels: Sequence[int] | None = None
    ) -> None:
        super().__init__(channels, structures, levels)
        widest = PUBLISHED_HIDDEN if len(channels) == 1 else HIDDEN
        self.residuals = nn.ModuleList(
            self._residual(width, min(width, widest)) for width in channels[:SPATIAL_LEVELS]
        )

    def _residual(self, width: int, hidden: int) -> nn.Sequential:
        pad = self.kernel // 2
        first = nn.Conv3d(width, hidden, self.kernel, padding=pad, bias=False)
        second = nn.Conv3d(hidden, width, self.kernel, padding=pad, bias=False)
        nn.init.zeros_(second.weight)
        return nn.Sequential(first, nn.ReLU(inplace=True), second)

    def halo_of(self, level: int) -> int:
        """None where a level is linear."""
        return self.halo if level < len(self.residuals) else 0

    def adapt(self, level: int, features: Tensor) -> Tensor:
        """Features plus what the neighbourhood says."""
        if level >= len(self.residuals):
            return features
        return features + self.residuals[level](features)


class PointwiseAdapter(SpatialAdapter):
    """The same with 1x1x1 convolutions: a voxel sees no neighbour."""

    kernel = 1
    halo = 0
