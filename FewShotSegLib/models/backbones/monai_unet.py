"""MONAI's UNet as a backbone, plain or with residual units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from .monai_network import MonaiNetwork, total_strides


class MonaiUNet(MonaiNetwork):
    """A U-Net whose strides may differ by axis, and which makes its scores while it upsamples.

    Its last block has no features at full resolution: what comes out of it are the logits. So the
    finest level holds these, and a linear head over it starts as exactly the published one (an
    identity); where the first stride is 1, what the block is given is there as well.

    Feature levels, finest first: the logits; what each block of the decoder is given, skip
    connection and all.

    Args:
        arguments: those of MONAI's ``UNet``.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        arguments = {"spatial_dims": 3, "in_channels": 1, **arguments}
        for name in ("act", "norm"):
            if isinstance(arguments.get(name), list):
                arguments[name] = tuple(arguments[name])
        self.net = UNet(**arguments)
        self.rows = int(self.net.out_channels)
        *widths, deepest = self.net.channels
        channels = [2 * width for width in widths]
        channels[-1] = widths[-1] + deepest
        strides = total_strides(self.net.strides)
        self.joined = strides[0] == 1
        if self.joined:
            self.channels = (self.rows + channels[0], *channels[1:])
            self.strides = strides
        else:
            self.channels = (self.rows, *channels)
            self.strides = (1, *strides)

    @property
    def head(self) -> nn.Conv3d:
        """There is none.

        Raises:
            AttributeError: always; see :meth:`head_weights`.
        """
        raise AttributeError("this network has no head of its own")

    def level_modules(self) -> Sequence[tuple[nn.Module, bool]]:
        """See :meth:`MonaiNetwork.level_modules`; here all levels are of them."""
        _, _, ups = self._parts()
        return [(self.net.model, True), *((up, False) for up in ups)]

    def _features(self, image: Tensor) -> list[Tensor]:
        caught: list[Tensor] = []
        _, _, ups = self._parts()
        hooks = [
            up.register_forward_pre_hook(lambda module, inputs: caught.insert(0, inputs[0]))
            for up in ups
        ]
        try:
            logits = self.net(image)
        finally:
            for hook in hooks:
                hook.remove()
        if self.joined:
            return [torch.cat([logits, caught[0]], 1), *caught[1:]]
        return [logits, *caught]

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Backbone.head_weights`: an identity on the logits, zeros on the rest."""
        device = next(self.net.parameters()).device
        identity = torch.eye(self.rows, self.channels[0], device=device)
        return identity, identity.new_zeros(self.rows)

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`."""
        return self._parts()[0]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`."""
        _, bottom, ups = self._parts()
        return [bottom, *ups]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        return [self._parts()[2][0]]

    def _parts(self) -> tuple[list[nn.Module], nn.Module, list[nn.Module]]:
        """The encoder's blocks, the bottom, and the decoder's blocks, finest first."""
        downs, ups = [], []
        block: Any = self.net.model
        while (
            isinstance(block, nn.Sequential) and len(block) == 3 and hasattr(block[1], "submodule")
        ):
            downs.append(block[0])
            ups.append(block[2])
            block = block[1].submodule
        return downs, block, ups
