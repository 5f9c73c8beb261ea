"""MONAI's DynUNet as a backbone, with every option of its constructor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from monai.networks.nets import DynUNet
from torch import nn

from .monai_network import MonaiNetwork, total_strides


class MonaiDynUNet(MonaiNetwork):
    """A U-Net of the nnU-Net family, plain or residual, whose strides may differ by axis.

    ``DynamicUNet`` is the same network with fewer options; its weights load here, and these there.

    Feature levels, finest first: the decoder's, then the bottleneck. The heads of deep supervision
    are no part of it.

    Args:
        arguments: those of MONAI's ``DynUNet``.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        plain = {**arguments, "deep_supervision": False}
        plain.setdefault("spatial_dims", 3)
        plain.setdefault("in_channels", 1)
        for name in ("norm_name", "act_name"):  # a list would be taken for several layers
            if isinstance(plain.get(name), list):
                plain[name] = tuple(plain[name])
        self.net = DynUNet(**plain)
        self.channels = tuple(self.net.filters)
        self.strides = total_strides(self.net.strides)

    @property
    def head(self) -> nn.Conv3d:
        """See :attr:`MonaiNetwork.head`."""
        return self.net.output_block.conv.conv

    def level_modules(self) -> Sequence[tuple[nn.Module, bool]]:
        """See :meth:`MonaiNetwork.level_modules`."""
        coarser = [*self.net.upsamples][-2::-1]
        return [(module, True) for module in (*coarser, self.net.bottleneck)]

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`."""
        return [self.net.input_block, *self.net.downsamples]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`."""
        return [self.net.bottleneck, *self.net.upsamples]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        return [self.net.upsamples[-1]]

    def left_out(self, name: str) -> bool:
        """See :meth:`MonaiNetwork.left_out`; MONAI's second names of blocks go as well."""
        return bool(re.search(r"(?:^|\.)(deep_supervision_heads|heads|skip_layers)\.", name))
