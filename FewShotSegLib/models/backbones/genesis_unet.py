"""The 3D U-Net of Models Genesis, in which SuPreM's U-Net was trained.

Architecture: Z. Zhou et al., "Models Genesis", Medical Image Analysis 67, 2021; weights: W. Li, A.
Yuille, Z. Zhou, "How well do supervised 3D models transfer to medical imaging tasks?", ICLR 2024
(repository MrGiovanni/SuPreM, ``supervised_suprem_unet_2100.pth``). Its files hold, under ``net``,
``module.backbone.`` before every name and the Universal Model's other parts beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone, with_margin
from .layouts import UNIVERSAL, completed, without_prefixes

WIDTHS = (64, 128, 256, 512)
NAMES = {"classifier.final_conv": "head", "out_tr.final_conv": "head"}
"""Names that heads go under, where there is one."""


class CropNorm(nn.BatchNorm3d):
    """Batch normalisation by the statistics of what it is given, in evaluation as well.

    The published network was trained and is used so. Its running statistics, which files hold, are
    read only without ``batch_statistics``, and never changed here.
    """

    batch_statistics = True

    def forward(self, x: Tensor) -> Tensor:
        """Normalised (B, C, i, j, k)."""
        if not self.batch_statistics:
            return super().forward(x)
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


class GenesisUNet(Backbone):
    """Two convolutions a level, max-pooling, transposed convolutions; every decoder level counts.

    Feature levels, finest first: the three decoder blocks and the bottleneck.

    Args:
        out_channels: classes of the head. Published files have none; a head then means nothing.
        batch_statistics: normalise by each window's own statistics, as published: what else is in
            the window changes a voxel's features. Otherwise by the running ones.
    """

    def __init__(self, out_channels: int = 1, batch_statistics: bool = True) -> None:
        super().__init__()
        below = (1, *WIDTHS)
        for width, before in zip(WIDTHS, below, strict=False):
            self.add_module(f"down_tr{width}", _Down(before, width))
        for width, under in zip(WIDTHS[-2::-1], WIDTHS[:0:-1], strict=True):
            self.add_module(f"up_tr{width}", _Up(under, width))
        self.head = nn.Conv3d(WIDTHS[0], out_channels, 1)
        self.out_channels = out_channels
        for module in self.modules():
            if isinstance(module, CropNorm):
                module.batch_statistics = batch_statistics
        self.channels = WIDTHS
        self.strides = (1, 2, 4, 8)

    def features(self, image: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.features`; the last level is the bottleneck."""
        return with_margin(self._features, image, self.strides[-1])

    def _features(self, image: Tensor) -> list[Tensor]:
        x = image
        skips: list[Tensor] = []
        for width in WIDTHS:
            x = self.get_submodule(f"down_tr{width}")(F.max_pool3d(x, 2) if skips else x)
            skips.append(x)
        levels = [skips.pop()]
        for width in WIDTHS[-2::-1]:
            levels.insert(0, self.get_submodule(f"up_tr{width}")(levels[0], skips.pop()))
        return levels

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`."""
        return [self.get_submodule(f"down_tr{width}") for width in WIDTHS[:-1]]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`."""
        ups = [self.get_submodule(f"up_tr{width}") for width in WIDTHS[-2::-1]]
        return [self.get_submodule(f"down_tr{WIDTHS[-1]}"), *ups]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        return [self.get_submodule(f"up_tr{WIDTHS[0]}")]

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Backbone.head_weights`."""
        bias = self.head.bias
        assert bias is not None
        return self.head.weight.detach().flatten(1), bias.detach()

    def import_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights as published, or under the names of this class.

        Raises:
            ModelError: see :meth:`Backbone.import_state_dict`; nothing was loaded.
        """
        if isinstance(state, Mapping):
            named = {_own_name(str(key)): value for key, value in state.items()}
            state = completed(
                {key: value for key, value in named.items() if key.split(".")[0] not in UNIVERSAL},
                lambda name: name.startswith("head."),
                lambda: type(self)(self.out_channels),
            )
        super().import_state_dict(state)


def _own_name(key: str) -> str:
    """Where a published tensor lives in this class; other names stay as they are."""
    name = without_prefixes(key)
    for published, own in NAMES.items():
        if name.startswith(f"{published}."):
            return name.replace(published, own, 1)
    return name


class _Convolution(nn.Module):
    """Convolution, normalisation, ReLU; the names are the published ones."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels_in, channels_out, 3, padding=1)
        self.bn1 = CropNorm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn1(self.conv1(x)).relu()


class _Down(nn.Module):
    def __init__(self, channels_in: int, width: int) -> None:
        super().__init__()
        middle = width // 2
        self.ops = nn.Sequential(_Convolution(channels_in, middle), _Convolution(middle, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.ops(x)


class _Up(nn.Module):
    def __init__(self, channels_in: int, width: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(channels_in, channels_in, 2, stride=2)
        both = channels_in + width
        self.ops = nn.Sequential(_Convolution(both, width), _Convolution(width, width))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.ops(torch.cat([self.up_conv(x), skip], 1))
