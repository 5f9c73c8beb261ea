"""Linear Probe: one 1x1x1 convolution a level."""

from __future__ import annotations

from torch import Tensor

from .base import Adapter


class LinearProbe(Adapter):
    """Scores that are linear in the frozen features (the paper's LP, on each level)."""

    halo = 0
    learning_rate = 1e-2

    def adapt(self, level: int, features: Tensor) -> Tensor:
        """Features as they are."""
        return features
