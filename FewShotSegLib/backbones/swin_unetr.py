"""MONAI's Swin UNETR as a backbone, and the names under which its public weights go.

Architecture: Hatamizadeh et al., "Swin UNETR", BrainLes 2021. With feature size 48 it is that of
most public checkpoints for abdominal CT, whose files differ:

====================  ===========================================================================
``fseft``             ``module.`` before every name; the head is ``classifier``
``clipdriven``,       under ``net``; ``module.backbone.`` before the network's names, and beside
``suprem_swinunetr``  them the Universal Model's other parts (``controller``, ...); no head
``btcv``              under ``state_dict``; the head is ``out.conv.conv``, MONAI's own name
``selfsup``           under ``state_dict``; ``module.`` and MONAI's older ``mlp.fc1``, the
                      transformer alone without its name, and the heads of its pretext tasks
====================  ===========================================================================

Sources: jusiro/fewshot-finetuning, MrGiovanni/SuPreM, Project-MONAI/research-contributions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from monai.networks.nets import SwinUNETR
from torch import Tensor, nn

from .base import Backbone, with_room
from .layouts import UNIVERSAL, completed, without_prefixes

LAYOUTS = ("plain", "universal", "selfsup")
PRETEXT = ("rotation_pre", "rotation_head", "contrastive_pre", "contrastive_head", "conv", "norm")
"""The heads of self-supervised pre-training."""


class SwinUNETRBackbone(Backbone):
    """A Swin transformer with a convolutional decoder, every level of which is a feature level.

    Its instance normalisation makes a voxel's features depend on what else is in the window.

    Feature levels, finest first: the five decoder blocks and the bottleneck.

    Args:
        feature_size: channels of the finest level.
        out_channels: classes of the published head.
        layout: what a weights file may hold beside the network and may lack of it: ``plain``
            (nothing), ``universal`` (the Universal Model's other parts; no head) or ``selfsup``
            (the transformer alone: all else keeps random weights and is to be trained).
    """

    def __init__(
        self, feature_size: int = 48, out_channels: int = 14, layout: str = "plain"
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS:
            raise ValueError(f"layout is one of {', '.join(LAYOUTS)}")
        self.layout = layout
        self.net = SwinUNETR(in_channels=1, out_channels=out_channels, feature_size=feature_size)
        widths = (1, 1, 2, 4, 8, 16)
        self.channels = tuple(n * feature_size for n in widths)
        self.strides = (1, 2, 4, 8, 16, 32)

    def features(self, image: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.features`; the last level is the bottleneck."""
        return with_room(self._features, image, self.strides[-1])

    def _features(self, image: Tensor) -> list[Tensor]:
        net = self.net
        hidden = net.swinViT(image, net.normalize)
        skips = [
            net.encoder1(image),
            net.encoder2(hidden[0]),
            net.encoder3(hidden[1]),
            net.encoder4(hidden[2]),
            hidden[3],
        ]
        levels = [net.encoder10(hidden[4])]
        for block, skip in zip(self._decoders(), reversed(skips), strict=True):
            levels.insert(0, block(levels[0], skip))
        return levels

    def _decoders(self) -> list[nn.Module]:
        net = self.net
        return [net.decoder5, net.decoder4, net.decoder3, net.decoder2, net.decoder1]

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`: the transformer."""
        return [self.net.swinViT]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`; the convolutions on the skip connections are here."""
        net = self.net
        skips = [net.encoder1, net.encoder2, net.encoder3, net.encoder4]
        return [*skips, net.encoder10, *self._decoders()]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        return [self.net.decoder1]

    @property
    def head(self) -> nn.Module:
        """The 1x1x1 convolution on the finest level."""
        return self.net.out.conv.conv

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Backbone.head_weights`; of a layout without a head they mean nothing."""
        return self.head.weight.detach().flatten(1), self.head.bias.detach()

    def import_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights as their makers publish them.

        Names of this class (``net.swinViT...``) are taken as well. What the layout says a file
        lacks keeps its random weights; everything else is there or the file is refused.

        Raises:
            ModelError: see :meth:`Backbone.import_state_dict`; nothing was loaded.
        """
        if isinstance(state, Mapping):
            state = {self._own_name(str(key)): value for key, value in state.items()}
            state = {key: value for key, value in state.items() if key is not None}
            lacks = {"universal": "net.out.", "selfsup": "net."}.get(self.layout)
            if lacks:
                state = completed(
                    state,
                    lambda name: name.startswith(lacks) and "swinViT" not in name,
                    lambda: type(self)(self.channels[0], self.head.out_channels, self.layout),
                )
        super().import_state_dict(state)

    def _own_name(self, key: str) -> str | None:
        """Where a published tensor lives in this class; None for one that the layout leaves out."""
        name = without_prefixes(key)
        name = name.replace("swin_vit.", "swinViT.")
        name = re.sub(r"^classifier\.", "out.conv.conv.", name)
        name = re.sub(r"\.mlp\.fc(\d)\.", r".mlp.linear\1.", name)
        first = name.split(".")[0]
        if self.layout == "universal" and first in UNIVERSAL:
            return None
        if self.layout == "selfsup":
            if first in PRETEXT:
                return None
            if re.match(r"(patch_embed|layers\d)\.", name):
                name = f"swinViT.{name}"
        known = name.split(".")[0] in dict(self.net.named_children())
        return f"net.{name}" if known else name
