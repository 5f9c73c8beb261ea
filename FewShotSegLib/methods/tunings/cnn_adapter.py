"""Residual adapters of a convolutional encoder (Rebuffi et al., CVPR 2018)."""

from __future__ import annotations

from torch import nn

from ...models.backbones.base import Backbone
from .base import EncoderTuning, beside


class ConvolutionAdapter(EncoderTuning):
    """A 1x1x1 convolution beside every larger one of the encoder, zero at first."""

    name = "cnn-adapter"
    learning_rate = 5e-3

    def tune_encoder(self, backbone: Backbone) -> None:
        """See :meth:`Tuning.tune_encoder`."""
        convolutions = [m for m in self.encoder_modules(backbone) if _is_centred(m)]
        self.require(convolutions, backbone, "runs beside the 3x3x3 convolutions of an encoder")
        for module in convolutions:
            small = nn.Conv3d(
                module.in_channels, module.out_channels, 1, stride=module.stride, bias=False
            )
            nn.init.zeros_(small.weight)
            beside(module, small)


def _is_centred(module: nn.Module) -> bool:
    """Whether a 1x1x1 convolution with the same stride sees the middle of what this one sees."""
    return isinstance(module, nn.Conv3d) and all(
        size > 1 and size % 2 == 1 and padding == size // 2
        for size, padding in zip(module.kernel_size, module.padding, strict=True)
    )
