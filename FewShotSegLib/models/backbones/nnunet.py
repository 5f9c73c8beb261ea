"""The networks of nnU-Net v2, plain and with a residual encoder, as backbones.

Isensee et al., Nature Methods 18, 2021, and "nnU-Net Revisited", MICCAI 2024. The tensors have the
names that ``dynamic_network_architectures`` (Apache-2.0), which nnU-Net builds them with, gives
them, so that its files load as they are; that package itself is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...core.architecture_catalog import NNUNetArguments, NNUNetLevel
from ...core.errors import ModelError
from ...core.geometry import Stride, three
from .base import Backbone, with_margin

Triple = Sequence[int]
NORMS: dict[str, type[nn.Module]] = {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}
EPSILON = 1e-5


class NNUNet(Backbone):
    """A U-Net of nnU-Net v2; every decoder level is a feature level, the bottleneck the last.

    With instance normalisation, features are those of the window's contrast. What lies around a
    window's middle changes them, so it should have the size of the training's patches.

    Args:
        encoder: ``"plain"`` or ``"residual"`` (``PlainConvUNet``, ``ResidualEncoderUNet``).
        levels: finest first; each may be a mapping with the fields of ``NNUNetLevel``.
        decoder: convolutions of each level of the decoder, coarsest first.
        out_channels: rows of the head.
        norm: ``"instance"`` or ``"batch"``. bias: whether the convolutions have one.
        slope: of the leaky ReLU; 0 is a ReLU.
    """

    def __init__(
        self,
        encoder: str = "plain",
        levels: Sequence[NNUNetLevel | Mapping[str, Any]] = NNUNetArguments.levels,
        decoder: Sequence[int] = NNUNetArguments.decoder,
        out_channels: int = 1,
        norm: str = "instance",
        bias: bool = True,
        slope: float = 0.01,
    ) -> None:
        super().__init__()
        build, self.norm = _Build(out_channels, norm, bias, slope), norm
        known = [lv if isinstance(lv, NNUNetLevel) else NNUNetLevel(**lv) for lv in levels]
        make = _PlainEncoder if encoder == "plain" else _ResidualEncoder
        self.encoder = make(build, known)
        self.decoder = _Decoder(build, known, decoder)
        self.channels = tuple(level.channels for level in known)
        spans = np.cumprod(np.array([level.stride for level in known], int), axis=0).tolist()
        self.strides = tuple(_stride(span) for span in spans)

    def features(self, image: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.features`; the last level is the bottleneck."""
        if self.norm == "instance":
            return with_margin(self._features, image, self.strides[-1])
        return self._features(image)

    def _features(self, image: Tensor) -> list[Tensor]:
        skips = self.encoder(image)
        return self.decoder(skips)

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`."""
        stem = [self.encoder.stem] if isinstance(self.encoder, _ResidualEncoder) else []
        return [*stem, *list(self.encoder.stages)[:-1]]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`."""
        pairs = zip(self.decoder.transpconvs, self.decoder.stages, strict=True)
        return [self.encoder.stages[-1], *(part for pair in pairs for part in pair)]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        return [self.decoder.transpconvs[-1], self.decoder.stages[-1]]

    @property
    def head(self) -> Any:
        """The 1x1x1 convolution on the finest level."""
        return self.decoder.seg_layers[str(len(self.channels) - 2)]

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Backbone.head_weights`."""
        return self.head.weight.detach().flatten(1), self.head.bias.detach()

    def import_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights as nnU-Net saves them: it has most tensors under two or more names, and the
        heads of its deep supervision.

        Raises:
            ModelError: two tensors that should be one differ; or see
                :meth:`Backbone.import_state_dict`; nothing was loaded.
        """
        if isinstance(state, Mapping):
            state = own_tensors(state, len(self.channels) - 2)
        super().import_state_dict(state)


def own_tensors(state: Mapping[str, Tensor], head: int) -> dict[str, Tensor]:
    """The tensors of a file of nnU-Net, once each and without the heads of deep supervision.

    A module holds its convolution and normalisation by name and in a list, and the decoder holds
    the encoder: nnU-Net saves all of these.

    Args:
        head: the number of the head on the finest level.

    Raises:
        ModelError: two tensors are of one name, and differ.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        own = _own_name(str(name))
        if own.startswith("decoder.seg_layers.") and own.split(".")[2] != str(head):
            continue
        if own in result and not _same(result[own], tensor):
            raise ModelError(
                f"The weights file has two different tensors for {own} (one is called {name}), "
                "where nnU-Net has one. It is damaged, or was changed by another program."
            )
        result.setdefault(own, tensor)
    return result


def _same(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)


def _own_name(name: str) -> str:
    """A tensor's name where the convolution and the normalisation of a block are called so."""
    parts = name.removeprefix("decoder.encoder.").split(".")
    if name.startswith("decoder.encoder."):
        parts = ["encoder", *parts]
    if "all_modules" in parts:
        place = parts.index("all_modules")
        # The convolution comes first; the others, of which one has tensors, after it.
        kind = "conv" if parts[place + 1 : place + 2] == ["0"] else "norm"
        parts[place : place + 2] = [kind]
    return ".".join(parts)


def _stride(span: Sequence[int]) -> Stride:
    i, j, k = three(int(n) for n in span)
    return i if i == j == k else (i, j, k)


class _Build:
    """Makes the parts of one network, which agree in normalisation and non-linearity."""

    def __init__(
        self, out_channels: int, norm: str = "instance", bias: bool = True, slope: float = 0.01
    ) -> None:
        self.out_channels, self.norm, self.bias, self.slope = out_channels, norm, bias, slope

    def nonlinearity(self) -> nn.Module:
        return nn.LeakyReLU(self.slope, inplace=True) if self.slope else nn.ReLU(inplace=True)

    def normalisation(self, channels: int) -> nn.Module:
        return NORMS[self.norm](channels, eps=EPSILON, affine=True)

    def stack(
        self,
        count: int,
        channels_in: int,
        channels: int,
        kernel: Triple,
        stride: Triple = (1, 1, 1),
    ) -> nn.Module:
        """Convolutions one after the other; the first has the stride."""
        convs = [_Conv(self, channels_in, channels, kernel, stride)]
        convs += [_Conv(self, channels, channels, kernel) for _ in range(1, count)]
        return _Stack(convs)


class _Conv(nn.Module):
    """A convolution, its normalisation and non-linearity."""

    def __init__(
        self,
        build: _Build,
        channels_in: int,
        channels: int,
        kernel: Triple,
        stride: Triple = (1, 1, 1),
        last: bool = True,
    ) -> None:
        super().__init__()
        size, padding = three(kernel), three((n - 1) // 2 for n in kernel)
        stride = three(stride)
        self.conv = nn.Conv3d(channels_in, channels, size, stride, padding, bias=build.bias)
        self.norm = build.normalisation(channels)
        self.nonlin = build.nonlinearity() if last else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlin(self.norm(self.conv(x)))


class _Stack(nn.Module):
    def __init__(self, convs: Sequence[nn.Module]) -> None:
        super().__init__()
        self.convs = nn.Sequential(*convs)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class _PlainEncoder(nn.Module):
    def __init__(self, build: _Build, levels: Sequence[NNUNetLevel]) -> None:
        super().__init__()
        stages, channels = [], 1
        for level in levels:
            stack = build.stack(
                level.convolutions, channels, level.channels, level.kernel, level.stride
            )
            stages.append(nn.Sequential(stack))
            channels = level.channels
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


class _ResidualEncoder(nn.Module):
    def __init__(self, build: _Build, levels: Sequence[NNUNetLevel]) -> None:
        super().__init__()
        channels = levels[0].channels
        self.stem, stages = build.stack(1, 1, channels, levels[0].kernel), []
        for level in levels:
            width, kernel = level.channels, level.kernel
            blocks = [_ResidualBlock(build, channels, width, kernel, level.stride)]
            blocks += [
                _ResidualBlock(build, width, width, kernel, (1, 1, 1))
                for _ in range(1, level.convolutions)
            ]
            stages.append(_Blocks(blocks))
            channels = width
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


class _Blocks(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class _ResidualBlock(nn.Module):
    """Two convolutions and a way around them: pooling where there is a stride, then a 1x1x1
    convolution where the channels differ (He et al., "Bag of tricks", CVPR 2019)."""

    def __init__(
        self, build: _Build, channels_in: int, channels: int, kernel: Triple, stride: Triple
    ) -> None:
        super().__init__()
        self.conv1 = _Conv(build, channels_in, channels, kernel, stride)
        self.conv2 = _Conv(build, channels, channels, kernel, last=False)
        self.nonlin2 = build.nonlinearity()
        around: list[nn.Module] = []
        if max(stride) > 1:
            around.append(nn.AvgPool3d(three(stride), three(stride)))
        if channels_in != channels:
            plain = _Build(build.out_channels, build.norm, False, build.slope)
            around.append(_Conv(plain, channels_in, channels, (1, 1, 1), last=False))
        self.skip = nn.Sequential(*around)

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))


class _Decoder(nn.Module):
    """From the bottleneck up, coarsest level first."""

    def __init__(self, build: _Build, levels: Sequence[NNUNetLevel], counts: Sequence[int]) -> None:
        super().__init__()
        stages, ups = [], []
        pairs = list(pairwise(levels))[::-1]
        for (above, below), count in zip(pairs, counts, strict=True):
            width, stride = above.channels, three(below.stride)
            ups.append(nn.ConvTranspose3d(below.channels, width, stride, stride, bias=build.bias))
            stages.append(build.stack(count, 2 * width, width, above.kernel))
        self.transpconvs, self.stages = nn.ModuleList(ups), nn.ModuleList(stages)
        # Under nnU-Net's number; the other heads are for its training alone.
        head = nn.Conv3d(levels[0].channels, build.out_channels, 1)
        self.seg_layers = nn.ModuleDict({str(len(levels) - 2): head})

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        levels = [skips[-1]]
        for up, stage, skip in zip(self.transpconvs, self.stages, skips[-2::-1], strict=True):
            levels.insert(0, stage(torch.cat((up(levels[0]), skip), 1)))
        return levels
