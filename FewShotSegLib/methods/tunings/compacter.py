"""Compacter: layers of Kronecker products after every sub-layer (Mahabadi et al., NeurIPS 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...models.backbones.base import Backbone
from .affine import norm_parameters
from .base import EncoderTuning, after

FACTORS = 4


class Kronecker(nn.Module):
    """``H x + b`` with H a sum of ``FACTORS`` Kronecker products, zero at first (PHM layer)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        part = width // FACTORS
        self.rule = nn.Parameter(0.1 * torch.randn(FACTORS, FACTORS, FACTORS))
        self.weight = nn.Parameter(torch.zeros(FACTORS, part, part))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """What is added to a sub-layer's output (..., width), from that output."""
        return x @ torch.stack([*map(torch.kron, self.rule, self.weight)]).sum(0) + self.bias


class Compacter(EncoderTuning):
    """After every attention and every MLP of a transformer; normalisations are trained as well.

    The published code puts such a layer in place of the output, which begins near zero and throws
    the pre-trained features away; here it is added, as in the Compacter paper.
    """

    name = "compacter"
    learning_rate = 5e-3

    def tune_encoder(self, backbone: Backbone) -> None:
        """See :meth:`Tuning.tune_encoder`."""
        blocks = self.transformer_blocks(backbone)
        self.require(blocks, backbone, "follows the sub-layers of a transformer")
        for number in norm_parameters(self.encoder_modules(backbone)):
            number.requires_grad_(True)
        for block in blocks:
            for part in (block.attn, block.mlp):
                after(part, Kronecker(block.norm2.normalized_shape[0]))
