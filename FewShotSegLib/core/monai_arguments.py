"""What an entry may say of a network of MONAI's: the arguments of its constructor, checked.

They have MONAI's names, and its defaults where those were the same from 1.4 to 1.6. Some have no
meaning for a network that only computes features, such as a dropout rate: they are let in and left
alone. ``models.backbones`` has the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from .errors import InputError
from .json_fields import is_number
from .json_schema import Check

MAX_PARAMETERS = 10**9
"""Of a network: 4 GB in float32. The largest of the registry has 0.2 billion."""
NORMS = ("instance", "batch", "group")
ACTIVATIONS = ("relu", "leakyrelu", "prelu", "elu", "gelu", "swish", "mish", "memswish", "relu6")

Width = Annotated[int, Check("a number of channels from 1 to 2048", lambda n: 1 <= n <= 2048)]
Rows = Annotated[int, Check("a number of classes from 1 to 4096", lambda n: 1 <= n <= 4096)]
One = Annotated[
    int, Check("1: a network of several input channels can't be used", lambda n: n == 1)
]
Three = Annotated[int, Check("3: a network of 2D slices can't be used", lambda n: n == 3)]
Blocks = Annotated[int, Check("a number of blocks from 1 to 16", lambda n: 1 <= n <= 16)]
Side = Annotated[int, Check("an odd number of voxels from 1 to 11", lambda n: n in range(1, 12, 2))]
Step = Annotated[int, Check("a number of voxels from 1 to 8", lambda n: 1 <= n <= 8)]
Sides = Side | tuple[Side, Side, Side]
Steps = Step | tuple[Step, Step, Step]
Rate = Annotated[float, Check("a number from 0 to 1", lambda n: 0 <= n <= 1)] | None


def _is_layer(names: tuple[str, ...]) -> Check:
    def holds(value: Any) -> bool:
        name, arguments = value, {}
        if isinstance(value, list) and len(value) == 2:
            name, arguments = value
        if (
            not isinstance(name, str)
            or name.lower() not in names
            or not isinstance(arguments, dict)
        ):
            return False
        plain = (isinstance(v, bool) or is_number(v) for v in arguments.values())
        return all(isinstance(key, str) for key in arguments) and all(plain)

    return Check(f'one of {", ".join(names)}, alone or as ["{names[0]}", {{...}}]', holds)


Norm = Annotated[Any, _is_layer(NORMS)]
Activation = Annotated[Any, _is_layer(ACTIVATIONS)]


@dataclass(frozen=True, kw_only=True)
class _Arguments:
    """Those of every network."""

    out_channels: Rows
    in_channels: One = 1
    spatial_dims: Three = 3

    @property
    def rows(self) -> int:
        """Rows of the published head."""
        return self.out_channels


@dataclass(frozen=True, kw_only=True)
class UNetArguments(_Arguments):
    """See :class:`FewShotSegLib.models.backbones.monai_unet.MonaiUNet`."""

    channels: Annotated[
        tuple[Width, ...], Check("a list of 2 to 8 numbers of channels", lambda v: 2 <= len(v) <= 8)
    ]
    strides: tuple[Steps, ...]
    kernel_size: Sides = 3
    up_kernel_size: Sides = 3
    num_res_units: Annotated[int, Check("a number from 0 to 8", lambda n: 0 <= n <= 8)] = 0
    act: Activation = "PRELU"
    norm: Norm = "INSTANCE"
    dropout: Rate = 0.0
    bias: bool = True
    adn_ordering: Literal["NDA", "NAD", "AND", "ADN", "NA", "AN", "N", "A", "DNA", "DAN"] = "NDA"

    def __post_init__(self) -> None:
        _require_steps(self.strides, len(self.channels) - 1, "'strides'")
        require_small(self.channels)


@dataclass(frozen=True, kw_only=True)
class DynUNetArguments(_Arguments):
    """See :class:`FewShotSegLib.models.backbones.monai_dynunet.MonaiDynUNet`."""

    kernel_size: tuple[Sides, ...]
    strides: tuple[Steps, ...]
    upsample_kernel_size: tuple[Steps, ...]
    filters: tuple[Width, ...] | None = None
    dropout: Rate = None
    norm_name: Norm = ("INSTANCE", {"affine": True})
    act_name: Activation = ("leakyrelu", {"inplace": True, "negative_slope": 0.01})
    deep_supervision: bool = False
    deep_supr_num: Annotated[int, Check("a number from 1 to 8", lambda n: 1 <= n <= 8)] = 1
    res_block: bool = False
    trans_bias: bool = False

    def __post_init__(self) -> None:
        depth = len(self.strides)
        if not 3 <= depth <= 8:
            raise InputError("'strides' is a list of 3 to 8 strides, the first 1")
        _require_steps(self.upsample_kernel_size, depth - 1, "'upsample_kernel_size'")
        if len(self.kernel_size) != depth:
            raise InputError("'kernel_size' has one item for each of 'strides'")
        if self.filters is not None and len(self.filters) < depth:
            raise InputError("'filters' has a number of channels for each of 'strides'")
        if self.strides[1:] != self.upsample_kernel_size or along(self.strides[0]) != (1, 1, 1):
            raise InputError(
                "'strides' begins with 1, and 'upsample_kernel_size' are the others of it"
            )
        require_small(self.widths)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        default = tuple(min(2 ** (5 + level), 320) for level in range(len(self.strides)))
        return (self.filters or default)[: len(self.strides)]


@dataclass(frozen=True, kw_only=True)
class SegResNetArguments(_Arguments):
    """See :class:`FewShotSegLib.models.backbones.monai_segresnet.MonaiSegResNet`."""

    init_filters: Width = 8
    dropout_prob: Rate = None
    act: Activation = ("RELU", {"inplace": True})
    norm: Norm = ("GROUP", {"num_groups": 8})
    norm_name: Literal["", "group", "GROUP"] = ""
    num_groups: Annotated[int, Check("a number from 1 to 64", lambda n: 1 <= n <= 64)] = 8
    use_conv_final: Literal[True] = True
    blocks_down: tuple[Blocks, ...] = (1, 2, 2, 4)
    blocks_up: tuple[Blocks, ...] = (1, 1, 1)
    upsample_mode: Literal["nontrainable", "deconv", "pixelshuffle"] = "nontrainable"

    def __post_init__(self) -> None:
        _require_stages(self.init_filters, self.blocks_down)
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise InputError("'blocks_up' has one number less than 'blocks_down'")


@dataclass(frozen=True, kw_only=True)
class SegResNetDSArguments(_Arguments):
    """See :class:`FewShotSegLib.models.backbones.monai_segresnet_ds.MonaiSegResNetDS`."""

    init_filters: Width = 32
    act: Activation = "relu"
    norm: Norm = "batch"
    blocks_down: tuple[Blocks, ...] = (1, 2, 2, 4)
    blocks_up: tuple[Blocks, ...] | None = None
    dsdepth: Annotated[int, Check("a number from 1 to 8", lambda n: 1 <= n <= 8)] = 1
    preprocess: None = None
    upsample_mode: Literal["deconv", "nontrainable", "pixelshuffle"] = "deconv"
    resolution: (
        Annotated[
            tuple[float, float, float],
            Check("three lengths in mm", lambda v: all(0.01 <= n <= 100 for n in v)),
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        _require_stages(self.init_filters, self.blocks_down)
        if self.blocks_up is not None and len(self.blocks_up) != len(self.blocks_down) - 1:
            raise InputError("'blocks_up' has one number less than 'blocks_down'")


@dataclass(frozen=True, kw_only=True)
class UNETRArguments(_Arguments):
    """See :class:`FewShotSegLib.models.backbones.monai_unetr.MonaiUNETR`."""

    img_size: Annotated[
        tuple[int, int, int],
        Check("three multiples of 16 up to 256", lambda v: all(n in range(16, 257, 16) for n in v)),
    ]
    feature_size: Annotated[int, Check("a number from 1 to 256", lambda n: 1 <= n <= 256)] = 16
    hidden_size: Annotated[int, Check("a number from 12 to 2048", lambda n: 12 <= n <= 2048)] = 768
    mlp_dim: Annotated[int, Check("a number from 1 to 8192", lambda n: 1 <= n <= 8192)] = 3072
    num_heads: Annotated[int, Check("a number from 1 to 64", lambda n: 1 <= n <= 64)] = 12
    proj_type: Literal["conv", "perceptron"] = "conv"
    norm_name: Norm = "instance"
    conv_block: bool = True
    res_block: bool = True
    dropout_rate: Rate = 0.0
    qkv_bias: bool = False
    save_attn: bool = False

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise InputError("'hidden_size' is a multiple of 'num_heads'")


def along(step: int | tuple[int, int, int]) -> tuple[int, int, int]:
    """A stride along each of the three axes."""
    return (step, step, step) if isinstance(step, int) else step


def require_small(widths: Any) -> None:
    """Refuse a network far larger than any that could be run.

    Args:
        widths: channels of its convolutions, finest first. Some 3 of 27 weights a pair of channels
            lie on each level, decoder included.
    """
    count = 27 * sum(a * b + 2 * b * b for a, b in pairwise(widths))
    if count > MAX_PARAMETERS:
        raise InputError(
            f"this network would have about {count / 1e9:.0f} billion parameters, more than any "
            "computer that FewShotSeg runs on can train with"
        )


def _require_stages(width: int, blocks: tuple[int, ...]) -> None:
    if not 2 <= len(blocks) <= 7:
        raise InputError("'blocks_down' is a list of 2 to 7 numbers of blocks")
    widths = [width * 2**level for level in range(len(blocks))]
    require_small([w for w, n in zip(widths, blocks, strict=True) for _ in range(n + 1)])


def _require_steps(steps: tuple[Any, ...], count: int, name: str) -> None:
    if len(steps) != count:
        raise InputError(f"{name} has {count} items, one less than there are levels")
