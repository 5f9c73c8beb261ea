"""MONAI's SegResNetDS as a backbone: the network that Auto3DSeg trains most."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from monai.networks.nets import SegResNetDS
from torch import nn

from .monai_network import MonaiNetwork, total_strides


class MonaiSegResNetDS(MonaiNetwork):
    """A residual U-Net with deep supervision, whose first levels may be anisotropic.

    Feature levels, finest first: the decoder's, then the bottleneck. The heads of deep supervision
    are no part of it, apart from the finest one.

    Args:
        arguments: those of MONAI's ``SegResNetDS``.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.net = SegResNetDS(**{**arguments, "dsdepth": 1})
        depth = len(self.net.blocks_down)
        self.channels = tuple(self.net.init_filters * 2**level for level in range(depth))
        scales: Any = self.net.anisotropic_scales or [2] * depth
        self.strides = total_strides([1, *scales[: depth - 1]])

    @property
    def head(self) -> nn.Conv3d:
        """See :attr:`MonaiNetwork.head`."""
        return self.net.up_layers[-1]["head"]

    def level_modules(self) -> Sequence[tuple[nn.Module, bool]]:
        """See :meth:`MonaiNetwork.level_modules`."""
        coarser = [level["blocks"] for level in self.net.up_layers][-2::-1]
        # The bottleneck is what is upsampled first: the encoder's last block changes nothing of it.
        return [*((module, True) for module in coarser), (self.net.up_layers[0]["upsample"], False)]

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`."""
        encoder = self.net.encoder
        return [encoder.conv_init, *encoder.layers[:-1]]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`."""
        ups = [level[name] for level in self.net.up_layers for name in ("upsample", "blocks")]
        return [self.net.encoder.layers[-1], *ups]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        last = self.net.up_layers[-1]
        return [last["upsample"], last["blocks"]]

    def left_out(self, name: str) -> bool:
        """See :meth:`MonaiNetwork.left_out`."""
        match = re.search(r"(?:^|\.)up_layers\.(\d+)\.head\.", name)
        return match is not None and int(match[1]) < len(self.net.up_layers) - 1
