"""MONAI's DynUNet as a backbone: the architecture of the embedded models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from .base import Backbone, with_margin

NORMS: dict[str, dict[str, bool]] = {"batch": {}, "instance": {"affine": True}}


class DynamicUNet(Backbone):
    """A 3D U-Net whose every decoder level is a feature level.

    With batch normalisation, statistics are frozen with the rest of the backbone, so that a voxel's
    features do not depend on what else lies in the same window; with instance normalisation they
    are those of the window, whatever its contrast. The network itself is MONAI's ``DynUNet`` (the
    nnU-Net architecture: Isensee et al., Nature Methods 18, 2021).

    Args:
        filters: channels from the finest level down to the bottleneck; each level below the first
            halves the resolution.
        out_channels: channels of the published 1x1x1 head; the known classes are its first rows.
        norm: ``"batch"`` or ``"instance"``.
    """

    def __init__(
        self,
        filters: Sequence[int] = (16, 32, 64, 128, 192),
        out_channels: int = 1,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm is one of {', '.join(NORMS)}, not '{norm}'")
        self.norm = norm
        depth = len(filters)
        strides = [1] + [2] * (depth - 1)
        self.net = DynUNet(
            spatial_dims=3,
            in_channels=1,
            out_channels=out_channels,
            kernel_size=[3] * depth,
            strides=strides,
            upsample_kernel_size=strides[1:],
            filters=list(filters),
            norm_name=(norm, NORMS[norm]),
            act_name=("relu", {"inplace": True}),
        )
        self.channels = tuple(filters)
        self.strides = tuple(2**level for level in range(depth))

    def features(self, image: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.features`; the last level is the bottleneck."""
        if self.norm == "instance":
            return with_margin(self._features, image, self.strides[-1])
        return self._features(image)

    def _features(self, image: Tensor) -> list[Tensor]:
        net = self.net
        skips = [net.input_block(image)]
        for block in net.downsamples:
            skips.append(block(skips[-1]))
        levels = [net.bottleneck(skips[-1])]
        for block, skip in zip(net.upsamples, reversed(skips), strict=True):
            levels.insert(0, block(levels[0], skip))
        return levels

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`."""
        return [self.net.input_block, *self.net.downsamples]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`."""
        return [self.net.bottleneck, *self.net.upsamples]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        return [self.net.upsamples[-1]]

    @property
    def head(self) -> Any:
        """The 1x1x1 convolution on the finest level."""
        return self.net.output_block.conv.conv

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Backbone.head_weights`."""
        weight, bias = self.head.weight, self.head.bias
        bias = torch.zeros(len(weight)) if bias is None else bias
        return weight.detach().flatten(1), bias.detach()
