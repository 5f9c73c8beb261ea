"""AdaptFormer: a bottleneck beside every MLP of a transformer (Chen et al., NeurIPS 2022)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ...models.backbones.base import Backbone
from .base import EncoderTuning, beside

WIDTH, SCALE = 16, 0.1


class Bottleneck(nn.Module):
    """``s Up(ReLU(Down(x)))`` on the last axis, zero at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, WIDTH), nn.Linear(WIDTH, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """What is added to the MLP's output, from its input."""
        return SCALE * self.up(self.down(x).relu())


class AdaptFormer(EncoderTuning):
    """Parallel bottlenecks of width 16, scaled by 0.1; their input is the MLP's, normalised."""

    name = "adaptformer"
    learning_rate = 5e-3

    def tune_encoder(self, backbone: Backbone) -> None:
        """See :meth:`Tuning.tune_encoder`."""
        blocks = self.transformer_blocks(backbone)
        self.require(blocks, backbone, "runs beside the MLPs of a transformer")
        for block in blocks:
            beside(block.mlp, Bottleneck(block.norm2.normalized_shape[0]))
