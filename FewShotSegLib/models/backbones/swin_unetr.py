"""Swin UNETR as a backbone, and the names under which its public weights go.

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

All of them merge patches in the order of MONAI 0.9. The network is put together here from MONAI's
blocks, with every option said: the arguments and defaults of MONAI's ``SwinUNETR`` changed between
1.4 and 1.6. Its names are kept.

Sources: jusiro/fewshot-finetuning, MrGiovanni/SuPreM, Project-MONAI/research-contributions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrUpBlock
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import Tensor, nn

from .base import Backbone, with_margin
from .layouts import UNIVERSAL, completed, without_prefixes
from .patch_merging import ORDERS, PatchMerging

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
        downsample: the order of the patch merging that the network was trained with, a name of
            :data:`patch_merging.ORDERS`. It has no default, since nothing in a file tells it and a
            wrong one gives wrong features without a word.
    """

    """Up to 1, patches were merged as in the MONAI that was installed."""

    def __init__(
        self,
        feature_size: int = 48,
        out_channels: int = 14,
        layout: str = "plain",
        downsample: str | None = None,
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS:
            raise ValueError(f"layout is one of {', '.join(LAYOUTS)}")
        if downsample not in ORDERS:
            raise ValueError(
                "SwinUNETR needs 'downsample', the order of its patch merging: "
                f"{', '.join(ORDERS)} (monai-0.9 for what was trained with MONAI before 1.5)"
            )
        self.layout, self.downsample = layout, downsample
        self.net = _Network(feature_size, out_channels, downsample)
        widths = (1, 1, 2, 4, 8, 16)
        self.channels = tuple(n * feature_size for n in widths)
        self.strides = (1, 2, 4, 8, 16, 32)

    def features(self, image: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.features`; the last level is the bottleneck."""
        return with_margin(self._features, image, self.strides[-1])

    def _features(self, image: Tensor) -> list[Tensor]:
        net = self.net
        hidden = net.swinViT(image, True)  # every stage's output layer-normalised
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
    def head(self) -> Any:
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
            named = ((self._own_name(str(key)), value) for key, value in state.items())
            state = {key: value for key, value in named if key is not None}
            lacks = {"universal": "net.out.", "selfsup": "net."}.get(self.layout)
            if lacks:
                state = completed(
                    state,
                    lambda name: name.startswith(lacks) and "swinViT" not in name,
                    lambda: type(self)(
                        self.channels[0], self.head.out_channels, self.layout, self.downsample
                    ),
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


class _Network(nn.Module):
    """The modules, under MONAI's names."""

    def __init__(self, width: int, classes: int, downsample: str) -> None:
        super().__init__()
        self.swinViT = SwinTransformer(
            in_chans=1,
            embed_dim=width,
            window_size=(7, 7, 7),
            patch_size=(2, 2, 2),
            depths=(2, 2, 2, 2),
            num_heads=(3, 6, 12, 24),
            mlp_ratio=4.0,
            qkv_bias=True,
            drop_rate=0.0,
            attn_drop_rate=0.0,
            drop_path_rate=0.0,
            norm_layer=nn.LayerNorm,
            patch_norm=False,
            use_checkpoint=False,
            spatial_dims=3,
            use_v2=False,
        )
        for level in range(4):
            stages: Any = self.swinViT.get_submodule(f"layers{level + 1}")
            (stage,) = stages
            stage.downsample = PatchMerging(width * 2**level, downsample)
        common: dict[str, Any] = {
            "spatial_dims": 3,
            "kernel_size": 3,
            "norm_name": "instance",
            "res_block": True,
        }

        def encoder(channels_in: int, channels: int) -> nn.Module:
            return UnetrBasicBlock(
                in_channels=channels_in, out_channels=channels, stride=1, **common
            )

        def decoder(channels_in: int, channels: int) -> nn.Module:
            return UnetrUpBlock(
                in_channels=channels_in, out_channels=channels, upsample_kernel_size=2, **common
            )

        self.encoder1 = encoder(1, width)
        self.encoder2 = encoder(width, width)
        self.encoder3 = encoder(2 * width, 2 * width)
        self.encoder4 = encoder(4 * width, 4 * width)
        self.encoder10 = encoder(16 * width, 16 * width)
        self.decoder5 = decoder(16 * width, 8 * width)
        self.decoder4 = decoder(8 * width, 4 * width)
        self.decoder3 = decoder(4 * width, 2 * width)
        self.decoder2 = decoder(2 * width, width)
        self.decoder1 = decoder(width, width)
        self.out = UnetOutBlock(spatial_dims=3, in_channels=width, out_channels=classes)
