"""MONAI's UNETR as a backbone (A. Hatamizadeh et al., WACV 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from monai.networks.nets import UNETR
from torch import Tensor, nn

from ...core.errors import ModelError
from .monai_network import MonaiNetwork

STRIDES = (1, 2, 4, 8, 16)
"""Of the levels; patches have 16 voxels a side."""


class MonaiUNETR(MonaiNetwork):
    """A vision transformer with a convolutional decoder.

    Its positions are those of one size of window, ``img_size``: a smaller one is made larger by
    repeating its border, and the features are cut back; the entry's ``window`` is that size.

    Feature levels, finest first: the four decoder levels, and the transformer's output.

    Args:
        img_size: voxels of a window. arguments: the others of MONAI's ``UNETR``.
    """

    def __init__(self, img_size: Sequence[int], **arguments: Any) -> None:
        super().__init__()
        arguments.setdefault("in_channels", 1)
        arguments.pop("pos_embed", None)
        self.size = tuple(int(n) for n in img_size)
        self.net = UNETR(img_size=self.size, **arguments)
        width = self.head.in_channels
        self.channels = (width, 2 * width, 4 * width, 8 * width, self.net.hidden_size)
        self.strides = STRIDES

    def features(self, image: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.features`.

        Raises:
            ModelError: the window is larger than ``img_size``.
        """
        lacking = [n - m for n, m in zip(self.size, image.shape[2:], strict=True)]
        if min(lacking) < 0:
            raise ModelError(
                f"This UNETR takes windows of {self.size} voxels and none that are larger. Set "
                "'window' in its entry to that size."
            )
        around = [n for missing in reversed(lacking) for n in (0, missing)]
        levels = self._features(F.pad(image, around, mode="replicate"))
        i, j, k = image.shape[2:]
        return [
            level[:, :, : i // stride, : j // stride, : k // stride]
            for level, stride in zip(levels, STRIDES, strict=True)
        ]

    @property
    def head(self) -> nn.Conv3d:
        """See :attr:`MonaiNetwork.head`."""
        return self.net.out.conv.conv

    def level_modules(self) -> Sequence[tuple[nn.Module, bool]]:
        """See :meth:`MonaiNetwork.level_modules`."""
        net = self.net
        coarser = [(module, True) for module in (net.decoder3, net.decoder4, net.decoder5)]
        return [*coarser, (net.decoder5.transp_conv, False)]

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`: the transformer."""
        return [self.net.vit]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`; the convolutions on the skip connections are here."""
        net = self.net
        skips = [net.encoder1, net.encoder2, net.encoder3, net.encoder4]
        return [*skips, net.decoder5, net.decoder4, net.decoder3, net.decoder2]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        return [self.net.decoder2]
