"""MONAI's SegResNet as a backbone (A. Myronenko, BrainLes 2018, without its autoencoder)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import SegResNet
from torch import nn

from .monai_network import MonaiNetwork


class MonaiSegResNet(MonaiNetwork):
    """A residual U-Net whose decoder adds its skip connections.

    Feature levels, finest first: what its head is given, the coarser decoder levels, the
    bottleneck.

    Args:
        arguments: those of MONAI's ``SegResNet``.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.net = SegResNet(**arguments)
        depth = len(self.net.blocks_down)
        self.channels = tuple(self.net.init_filters * 2**level for level in range(depth))
        self.strides = tuple(2**level for level in range(depth))

    @property
    def head(self) -> nn.Conv3d:
        """See :attr:`MonaiNetwork.head`."""
        return self.net.conv_final[-1].conv

    def level_modules(self) -> Sequence[tuple[nn.Module, bool]]:
        """See :meth:`MonaiNetwork.level_modules`."""
        coarser = [*self.net.up_layers][-2::-1]
        return [(module, True) for module in (*coarser, self.net.down_layers[-1])]

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`."""
        return [self.net.convInit, *self.net.down_layers[:-1]]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`; the head's normalisation is among them."""
        ups = [part for pair in self._ups() for part in pair]
        return [self.net.down_layers[-1], *ups, self.net.conv_final[0]]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        return [*self._ups()[-1], self.net.conv_final[0]]

    def _ups(self) -> list[tuple[nn.Module, nn.Module]]:
        return list(zip(self.net.up_samples, self.net.up_layers, strict=True))
