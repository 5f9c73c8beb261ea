"""The all-convolutional U-Net of Heinrich et al. for abdominal CT, as a backbone.

Architecture and published weights: M. P. Heinrich, O. Oktay, N. Bouteldja, "OBELISK-Net: Fewer
layers to solve 3D multi-organ segmentation with sparse deformable convolutions", Medical Image
Analysis 54, 2019; repository mattiaspaul/OBELISK (MIT), model ``allconvunet_tcia``, trained on the
TCIA Pancreas-CT scans. Its input is CT in raw Hounsfield units, on axes that grow to the left, to
the front and downwards ("LAI"), with voxels of about 2.3 x 1.7 x 1.2 mm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone

_DECODERS = ("6dU", "6cU", "6bU", "6U", "7U")
"""The published names of the decoder's blocks, coarsest first. The encoder's are "0" at full
resolution, then "1" and "11" at stride 2, up to "5" and "55" at stride 32."""


class ObeliskUNet(Backbone):
    """A 3D U-Net of one or two convolutions a level, with batch normalisation and no dropout.

    The published head is a 3x3x3 convolution, which no 1x1x1 head on the features before it could
    reproduce. So the finest level holds those features *and* the logits that the published head
    makes of them: a linear head over it starts as exactly the published one (an identity on the
    logits), and what the network knew before naming classes is still there to learn from.

    Feature levels, finest first: the last decoder block and the logits (2 x ``out_channels``), the
    other decoder blocks, the bottleneck.

    Args:
        filters: channels at full resolution and at strides 2, 4, 8, 16 and 32.
        out_channels: classes of the published head, its background included; the last decoder
            block is as wide.
    """

    def __init__(
        self, filters: Sequence[int] = (5, 14, 28, 42, 56, 70), out_channels: int = 9
    ) -> None:
        super().__init__()
        if len(filters) != len(_DECODERS) + 1:
            raise ValueError(f"filters has {len(_DECODERS) + 1} numbers, not {len(filters)}")
        blocks = {"0": _block(1, filters[0])}
        for level in range(1, len(filters)):
            blocks[f"{level}"] = _block(filters[level - 1], filters[level], stride=2)
            blocks[f"{level}{level}"] = _block(filters[level], filters[level])
        above = filters[-1]
        for name, skip in zip(_DECODERS, reversed(filters[:-1]), strict=True):
            width = out_channels if name == "7U" else skip
            blocks[name] = _block(above + skip, width)
            above = width
        self.blocks = nn.ModuleDict(blocks)
        self.head = nn.Conv3d(out_channels, out_channels, 3, padding=1)
        self.channels = (2 * out_channels, *filters[1:])
        self.strides = tuple(2**level for level in range(len(filters)))

    def features(self, image: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.features`; the first level ends with the logits."""
        x = self.blocks["0"](image)
        skips = [x]
        for level in range(1, len(self.strides)):
            x = self.blocks[f"{level}{level}"](self.blocks[f"{level}"](x))
            skips.append(x)
        levels = [skips.pop()]
        for name in _DECODERS:
            skip = skips.pop()
            above = F.interpolate(
                levels[0], size=skip.shape[2:], mode="trilinear", align_corners=False
            )
            levels.insert(0, self.blocks[name](torch.cat([above, skip], dim=1)))
        levels[0] = torch.cat([levels[0], self.head(levels[0])], dim=1)
        return levels

    def encoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.encoder_parts`; ``5`` and ``55`` are the bottleneck."""
        depth = len(self.strides) - 1
        names = ["0", *(n * k for n in map(str, range(1, depth)) for k in (1, 2))]
        return [self.blocks[name] for name in names]

    def decoder_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.decoder_parts`; the published head makes features here."""
        deepest = str(len(self.strides) - 1)
        names = [deepest, 2 * deepest, *_DECODERS]
        return [*(self.blocks[name] for name in names), self.head]

    def last_parts(self) -> list[nn.Module]:
        """See :meth:`Backbone.last_parts`."""
        return [self.blocks[_DECODERS[-1]], self.head]

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Backbone.head_weights`: zeros on the features, an identity on the logits."""
        classes = self.head.out_channels
        identity = torch.eye(classes, device=self.head.weight.device)
        return torch.cat([torch.zeros_like(identity), identity], dim=1), identity.new_zeros(classes)

    def import_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights under the published names (``conv0.weight``, ``batch6dU.bias``, ...).

        Names of this class (``blocks.6dU.0.weight``) are taken as well.

        Raises:
            ModelError: see :meth:`Backbone.import_state_dict`; nothing was loaded.
        """
        if isinstance(state, Mapping):
            state = {_own_name(str(key)): value for key, value in state.items()}
        super().import_state_dict(state)


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation and leaky ReLU; not in place, a level may be a skip."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, stride=stride, padding=1),
        nn.BatchNorm3d(channels_out),
        nn.LeakyReLU(0.1),
    )


def _own_name(key: str) -> str:
    """Where a published tensor lives in this class; other names stay as they are."""
    if key.startswith("conv77U."):
        return key.replace("conv77U", "head", 1)
    match = re.fullmatch(r"(conv|batch)(\w+)\.(\w+)", key)
    if match is None:
        return key
    kind, name, tensor = match.groups()
    return f"blocks.{name}.{0 if kind == 'conv' else 1}.{tensor}"
