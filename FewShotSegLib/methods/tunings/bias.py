"""Bias: the encoder's additive parameters alone (Ben Zaken et al., BitFit, ACL 2022)."""

from __future__ import annotations

from torch import nn

from ...models.backbones.base import Backbone
from .base import EncoderTuning


class BiasTuning(EncoderTuning):
    """Every bias of the encoder's linear layers, convolutions and batch or instance normalisations.

    Those of layer normalisations are left to the method ``affine``, as published.
    """

    name = "bias"
    learning_rate = 5e-3

    def tune_encoder(self, backbone: Backbone) -> None:
        """See :meth:`Tuning.tune_encoder`."""
        biases = [
            module.bias
            for module in self.encoder_modules(backbone)
            if isinstance(getattr(module, "bias", None), nn.Parameter)
            and not isinstance(module, nn.LayerNorm)
        ]
        self.require(biases, backbone, "trains the encoder's biases")
        for bias in biases:
            bias.requires_grad_(True)
