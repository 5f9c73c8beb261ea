"""Affine: the scales and shifts of the encoder's normalisations."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ...models.backbones.base import Backbone
from .base import EncoderTuning


class AffineTuning(EncoderTuning):
    """The affine numbers of every layer, batch, instance or group normalisation of the encoder.

    The statistics that batch normalisation divides by stay those of pre-training.
    """

    name = "affine"
    learning_rate = 5e-3

    def tune_encoder(self, backbone: Backbone) -> None:
        """See :meth:`Tuning.tune_encoder`."""
        numbers = norm_parameters(self.encoder_modules(backbone))
        self.require(numbers, backbone, "trains the scales of the encoder's normalisations")
        for number in numbers:
            number.requires_grad_(True)


def norm_parameters(modules: list[nn.Module]) -> list[nn.Parameter]:
    """The scales and shifts of those that normalise."""
    norms = (nn.LayerNorm, nn.GroupNorm, _NormBase)
    return [p for m in modules if isinstance(m, norms) for p in m.parameters(recurse=False)]
