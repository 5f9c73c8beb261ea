"""HighRes3DNet for brain parcellation on T1-weighted MR, as a backbone.

Architecture and weights: W. Li et al., "On the compactness, efficiency, and representation of 3D
convolutional networks: brain parcellation as a pretext task", IPMI 2017; the weights as F.
Pérez-García published them for PyTorch (repository fepegar/highresnet-models, MIT). All of it works
at full resolution: convolutions are dilated where other networks would pool.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone

STAGES = 3
"""Of dilation 1, 2 and 4, each twice as wide as the one before."""
BLOCKS = 3
"""Residual blocks a stage, of two convolutions each."""


class HighRes3DNet(Backbone):
    """Dilated residual convolutions at full resolution, with batch normalisation.

    Feature levels, finest first: what the published head classifies; the second and the third
    stage, averaged over as many voxels along each axis as their convolutions are dilated by (2 and
    4). At full resolution these would hold little more and take 8 and 64 times the memory.

    Args:
        width: channels of the first stage.
        wide: channels of the layer before the head.
        out_channels: classes of the published head, its background included.
    """

    def __init__(self, width: int = 16, wide: int = 80, out_channels: int = 160) -> None:
        super().__init__()
        widths = [width * 2**stage for stage in range(STAGES)]
        self.first = _Unit(1, width, kernel=3)
        self.stages = nn.ModuleList(
            _stage(before, after, dilation=2**number)
            for number, (before, after) in enumerate(
                zip([width, *widths[:-1]], widths, strict=True)
            )
        )
        self.wide = _Unit(widths[-1], wide, kernel=1)
        self.head = _Unit(wide, out_channels, kernel=1)
        self.channels = (wide, widths[1], widths[2])
        self.strides = (1, 2, 4)

    def features(self, image: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.features`."""
        x = F.relu(self.first(image))
        coarser = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number:
                coarser.append(F.avg_pool3d(x, 2**number))
        return [F.relu(self.wide(x)), *coarser]

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`: all before the last stage."""
        return [self.first, *self.stages[:-1]]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`."""
        return [self.stages[-1], self.wide]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        return [self.wide]

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Backbone.head_weights`: the convolution with its normalisation folded in."""
        norm = self.head.norm
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
        weights = self.head.conv.weight.detach().flatten(1) * scale[:, None]
        return weights, norm.bias.detach() - norm.running_mean * scale

    def import_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights under the published names, or those of this class.

        Raises:
            ModelError: see :meth:`Backbone.import_state_dict`; nothing was loaded.
        """
        if isinstance(state, Mapping):
            state = {_own_name(str(key)): value for key, value in state.items()}
        super().import_state_dict(state)


class _Unit(nn.Module):
    """A convolution, then batch normalisation."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm3d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class _Layer(nn.Module):
    """Batch normalisation and ReLU, then a dilated convolution."""

    def __init__(self, channels_in: int, channels_out: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(channels_in)
        self.conv = nn.Conv3d(
            channels_in, channels_out, 3, padding=dilation, dilation=dilation, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.norm(x)))


class _Residual(nn.Sequential):
    """Two layers around which the input passes; what it lacks in channels is zero on both sides."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self[1](self[0](x))
        lacking = out.shape[1] - x.shape[1]
        if lacking:
            x = F.pad(x, (0, 0, 0, 0, 0, 0, lacking // 2, lacking // 2))
        return out + x


def _stage(channels_in: int, channels_out: int, dilation: int) -> nn.Sequential:
    blocks = []
    for _ in range(BLOCKS):
        second = _Layer(channels_out, channels_out, dilation)
        blocks.append(_Residual(_Layer(channels_in, channels_out, dilation), second))
        channels_in = channels_out
    return nn.Sequential(*blocks)


_UNITS = {
    "0.convolutional_block.1": "first.conv",
    "0.convolutional_block.2": "first.norm",
    "4.convolutional_block.0": "wide.conv",
    "4.convolutional_block.1": "wide.norm",
    "6.convolutional_block.0": "head.conv",
    "6.convolutional_block.1": "head.norm",
}
"""Names of this class by the published ones; block 5 is dropout, which has no weights."""


def _own_name(key: str) -> str:
    """Where a published tensor lives in this class; other names stay as they are."""
    match = re.fullmatch(r"block\.(.+)\.(\w+)", key)
    if match is None:
        return key
    place, tensor = match.groups()
    if place in _UNITS:
        return f"{_UNITS[place]}.{tensor}"
    match = re.fullmatch(
        r"([1-3])\.dilation_block\.(\d)\.residual_block\.(\d)\.convolutional_block\.([03])", place
    )
    if match is None:
        return key
    stage, block, layer, part = match.groups()
    kind = "norm" if part == "0" else "conv"
    return f"stages.{int(stage) - 1}.{block}.{layer}.{kind}.{tensor}"
