"""LoRA: a low-rank change of the encoder's weights (Hu et al., ICLR 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...models.backbones.base import Backbone
from .base import EncoderTuning

RANK = 4


class LowRank(nn.Module):
    """A weight (O, I, ...) plus ``B A`` of a low rank, which is zero at first.

    A convolution's weight is taken as the matrix (O, I k^3).
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        rank = min(rank, rows, columns)
        self.a = nn.Parameter(torch.empty(rank, columns))
        self.b = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight in use."""
        return weight + (self.b @ self.a).view(weight.shape)


class LoRA(EncoderTuning):
    """Rank 4 on the query, key and value of every attention, as published; where an encoder has no
    attention, on every convolution."""

    name = "lora"
    learning_rate = 2e-3

    def tune_encoder(self, backbone: Backbone) -> None:
        """See :meth:`Tuning.tune_encoder`."""
        modules = self.encoder_modules(backbone)
        attentions = [m.qkv for m in modules if isinstance(getattr(m, "qkv", None), nn.Linear)]
        convolutions = [m for m in modules if isinstance(m, nn.Conv3d)]
        chosen = attentions or convolutions
        self.require(chosen, backbone, "changes attentions or convolutions of the encoder")
        # One matrix makes query, key and value: the published one has three times the rank.
        rank = 3 * RANK if attentions else RANK
        for module in chosen:
            change = LowRank(module.weight, rank)
            parametrize.register_parametrization(module, "weight", change, unsafe=True)


def merge(backbone: Backbone) -> None:
    """Add the changes to the weights themselves, in place: the same features without their cost."""
    for module in backbone.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
