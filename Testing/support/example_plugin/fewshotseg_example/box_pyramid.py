"""The architecture ``BoxPyramid``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from FewShotSegLib.models.backbones.base import Backbone


class BoxPyramid(Backbone):
    """One convolution on the image's box means, level by level.

    It names no parts to train, so that methods which train the backbone are refused on it.

    Args:
        width: channels of each level. levels: how many; each halves the resolution.
        rows: classes of the head.
    """

    def __init__(self, width: int = 4, levels: int = 3, rows: int = 1) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv3d(1, width, 3, padding=1) for _ in range(levels))
        self.head = nn.Conv3d(width, rows, 1)
        self.channels = (width,) * levels
        self.strides = tuple(2**level for level in range(levels))

    def features(self, image: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.features`."""
        pairs = zip(self.filters, self.strides, strict=True)
        return [layer(F.avg_pool3d(image, stride)).relu() for layer, stride in pairs]

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Backbone.head_weights`."""
        return self.head.weight.detach().flatten(1), self.head.bias.detach()
