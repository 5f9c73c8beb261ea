"""Every architecture as one record, without torch: the one place where a network is registered.

What a model's entry may say of its network, the sizes and the costs that are known before it is
loaded, the register of classes in ``models.backbones``, and the table in the models' README all
come from here. A package of its own adds one through the entry points ``fewshotseg.backbones``.

An architecture's arguments are a dataclass. The bounds are wide enough for every network that
could be run, and keep an entry from asking for one that fills the memory before its weights are
compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from .errors import InputError
from .json_fields import json_object, shown
from .json_schema import Check, from_json
from .monai_arguments import (
    DynUNetArguments,
    Rows,
    SegResNetArguments,
    SegResNetDSArguments,
    UNetArguments,
    UNETRArguments,
    Width,
    require_small,
)
from .register import Register, require_target

GROUP = "fewshotseg.backbones"
ENCODERS = ("transformer", "convolutional")


@dataclass(frozen=True)
class NetworkCost:
    """What running a network takes, for estimates before it has run on a computer.

    Attributes:
        time: of a window on CPU cores, to the model that comes with FewShotSeg.
        run_bytes, train_bytes: memory a voxel, in half precision, on crops of 64 voxels a side.
        channels: of the finest feature level, where the registry entry does not say.
    """

    time: float
    run_bytes: int
    train_bytes: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class ArchitectureRecord:
    """All that is known of an architecture before its class is loaded.

    Attributes:
        name: as an entry's ``architecture`` has it.
        explanation: which network it is. options: its further arguments; both for the table in
            the models' README.
        implementation: its class, a ``Backbone``, as ``"package.module:Class"``.
        encoder: ``transformer`` or ``convolutional``.
        arguments: a frozen dataclass of what its class takes, as an entry may give it (see
            ``json_schema`` for the types of fields); ``rows`` of it, a field or a property, is
            the number of rows of the published head.
        cost: what running it takes.
        revision: raised when the same weights and options give other features than before. Stored
            features and adapters of another revision are then not used.
        sized_by: those of its arguments that its number of parameters hangs on.
        models: a folder of model entries that its package brings, as ``"package:folder"``; they
            are listed with the others. Weights lie beside them, or are fetched as usual.

    Raises:
        InputError: a value is out of range.
    """

    name: str
    explanation: str
    implementation: str
    encoder: str
    arguments: type
    cost: NetworkCost
    options: str = ""
    revision: int = 1
    sized_by: tuple[str, ...] = ()
    models: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.name):
            raise InputError(
                f"an architecture's name has letters, digits and _, unlike {shown(self.name)}"
            )
        require_target(self.implementation, f"'implementation' of {shown(self.name)}")
        if self.encoder not in ENCODERS:
            raise InputError(f"'encoder' of {shown(self.name)} is one of {', '.join(ENCODERS)}")
        names: set[str] = set()
        if isinstance(self.arguments, type) and is_dataclass(self.arguments):
            names = {field.name for field in fields(self.arguments)}
        if "rows" not in names and not hasattr(self.arguments, "rows"):
            raise InputError(
                f"'arguments' of {shown(self.name)} is a dataclass with 'rows', the number of rows "
                "of the published head"
            )
        if not set(self.sized_by) <= names:
            raise InputError(f"'sized_by' of {shown(self.name)} are among its arguments")
        if self.revision < 1:
            raise InputError(f"'revision' of {shown(self.name)} is a number from 1 on")
        if self.models and not self.models_folder().is_dir():
            raise InputError(f"the folder {shown(self.models)} of models is not there")

    def models_folder(self) -> Path:
        """Where the entries are that its package brings."""
        package, _, folder = self.models.partition(":")
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"the package {shown(package)} of models is not there")
        return Path(spec.submodule_search_locations[0], folder)


@dataclass(frozen=True)
class DynamicUNetArguments:
    """See :class:`FewShotSegLib.models.backbones.dynamic_unet.DynamicUNet`."""

    filters: Annotated[
        tuple[Width, ...], Check("a list of 3 to 8 numbers of channels", lambda v: 3 <= len(v) <= 8)
    ] = (16, 32, 64, 128, 192)
    out_channels: Rows = 1
    norm: Literal["batch", "instance"] = "batch"

    def __post_init__(self) -> None:
        require_small(self.filters)

    @property
    def rows(self) -> int:
        """Rows of the published head."""
        return self.out_channels


Depth = Annotated[int, Check("a number of convolutions from 1 to 16", lambda n: 1 <= n <= 16)]
KernelSize = Annotated[int, Check("an odd number from 1 to 11", lambda n: n in range(1, 12, 2))]
Step = Annotated[int, Check("a stride from 1 to 8", lambda n: 1 <= n <= 8)]


@dataclass(frozen=True)
class NNUNetLevel:
    """A level of nnU-Net's networks.

    Attributes:
        channels: of its features. convolutions: of its part of the encoder, or residual blocks.
        kernel: of these, along each axis. stride: into the level, along each axis.
    """

    channels: Width
    convolutions: Depth = 2
    kernel: tuple[KernelSize, KernelSize, KernelSize] = (3, 3, 3)
    stride: tuple[Step, Step, Step] = (2, 2, 2)


@dataclass(frozen=True)
class NNUNetArguments:
    """See :class:`FewShotSegLib.models.backbones.nnunet.NNUNet`."""

    encoder: Literal["plain", "residual"] = "plain"
    levels: Annotated[
        tuple[NNUNetLevel, ...], Check("a list of 2 to 9 levels", lambda v: 2 <= len(v) <= 9)
    ] = (NNUNetLevel(32, stride=(1, 1, 1)), *map(NNUNetLevel, (64, 128, 256, 320, 320)))
    decoder: tuple[Depth, ...] = (2, 2, 2, 2, 2)
    out_channels: Rows = 1
    norm: Literal["instance", "batch"] = "instance"
    bias: bool = True
    slope: Annotated[float, Check("a number from 0 to 1", lambda x: 0 <= x <= 1)] = 0.01

    def __post_init__(self) -> None:
        if len(self.decoder) != len(self.levels) - 1:
            raise InputError(
                f"'decoder' has one for each of the {len(self.levels) - 1} levels but the last"
            )
        if self.levels[0].stride != (1, 1, 1):
            raise InputError("the 'stride' of the first level is [1, 1, 1]")
        whole = max(
            math.prod(s) for s in zip(*(level.stride for level in self.levels), strict=True)
        )
        if whole > 512:
            raise InputError(f"the strides of 'levels' multiply to {whole}, more than 512")
        require_small([lv.channels for lv in self.levels for _ in range(2 * lv.convolutions)])

    @property
    def rows(self) -> int:
        """Rows of the published head."""
        return self.out_channels


@dataclass(frozen=True)
class ObeliskUNetArguments:
    """See :class:`FewShotSegLib.models.backbones.obelisk_unet.ObeliskUNet`."""

    filters: tuple[Width, Width, Width, Width, Width, Width] = (5, 14, 28, 42, 56, 70)
    out_channels: Rows = 9

    def __post_init__(self) -> None:
        require_small((*self.filters, self.out_channels))

    @property
    def rows(self) -> int:
        """Rows of the published head."""
        return self.out_channels


@dataclass(frozen=True)
class SwinUNETRArguments:
    """See :class:`FewShotSegLib.models.backbones.swin_unetr.SwinUNETRBackbone`."""

    feature_size: Annotated[
        int, Check("a multiple of 12 up to 192", lambda n: n in range(12, 193, 12))
    ] = 48
    out_channels: Rows = 14
    layout: Literal["plain", "universal", "selfsup"] = "plain"
    downsample: Literal["monai-0.9", "monai-1.5", "mergingv2"] | None = None

    def __post_init__(self) -> None:
        if self.downsample is None:
            raise InputError(
                "'architecture' (SwinUNETR) lacks the field 'downsample', the order of its patch "
                'merging: "monai-0.9" for a network that was trained with MONAI before 1.5 or by '
                'the authors of a public checkpoint, "monai-1.5" for one trained with a newer MONAI'
            )

    @property
    def rows(self) -> int:
        """Rows of the published head."""
        return self.out_channels


@dataclass(frozen=True)
class GenesisUNetArguments:
    """See :class:`FewShotSegLib.models.backbones.genesis_unet.GenesisUNet`."""

    out_channels: Rows = 1
    batch_statistics: bool = True

    @property
    def rows(self) -> int:
        """Rows of the published head."""
        return self.out_channels


@dataclass(frozen=True)
class HighRes3DNetArguments:
    """See :class:`FewShotSegLib.models.backbones.highres3dnet.HighRes3DNet`."""

    width: Annotated[int, Check("an even number up to 128", lambda n: n in range(2, 129, 2))] = 16
    wide: Width = 80
    out_channels: Rows = 160

    @property
    def rows(self) -> int:
        """Rows of the published head."""
        return self.out_channels


@dataclass(frozen=True)
class VISTA3DArguments:
    """See :class:`FewShotSegLib.models.backbones.vista3d.VISTA3DBackbone`."""

    width: Annotated[int, Check("a multiple of 8 up to 128", lambda n: n in range(8, 129, 8))] = 48
    blocks: Annotated[
        tuple[Annotated[int, Check("a number of blocks from 1 to 8", lambda n: 1 <= n <= 8)], ...],
        Check("a list of 2 to 6 numbers of blocks", lambda v: 2 <= len(v) <= 6),
    ] = (1, 2, 2, 4, 4)
    classes: Rows = 512

    def __post_init__(self) -> None:
        widths = [self.width * 2**level for level in range(len(self.blocks))]
        require_small([w for w, n in zip(widths, self.blocks, strict=True) for _ in range(n + 1)])

    @property
    def rows(self) -> int:
        """Rows of the published head."""
        return self.classes


_BACKBONES = "FewShotSegLib.models.backbones"

ARCHITECTURES: Register[ArchitectureRecord] = Register(
    GROUP,
    ArchitectureRecord,
    "architecture",
    (
        ArchitectureRecord(
            name="DynamicUNet",
            explanation="MONAI's `DynUNet` with batch or instance normalisation, one input "
            "channel, kernel 3, stride 2 from level to level, no deep supervision",
            options="`filters`: channels of each level, finest first; `out_channels`: rows of the "
            'head; optional `norm` (`"batch"`) or `"instance"`',
            implementation=f"{_BACKBONES}.dynamic_unet:DynamicUNet",
            encoder="convolutional",
            arguments=DynamicUNetArguments,
            cost=NetworkCost(1.0, 350, 1100, 32),
            sized_by=("filters",),
        ),
        ArchitectureRecord(
            name="NNUNet",
            explanation="nnU-Net v2's `PlainConvUNet` and `ResidualEncoderUNet`, one input channel",
            options='`encoder`: `"plain"` or `"residual"`; `levels`, finest first: `channels`, '
            "`convolutions` (2; or residual blocks), `kernel` and `stride` along each axis; "
            "`decoder`: convolutions of each level but the last, coarsest first; `out_channels`; "
            'optional `norm` (`"instance"`) or `"batch"`, `bias` (`true`) and `slope` of the '
            "leaky ReLU (0.01)",
            implementation=f"{_BACKBONES}.nnunet:NNUNet",
            encoder="convolutional",
            arguments=NNUNetArguments,
            cost=NetworkCost(4.6, 950, 2900, 32),
            sized_by=("encoder", "levels", "decoder", "norm", "bias"),
        ),
        ArchitectureRecord(
            name="ObeliskUNet",
            explanation="the all-convolutional U-Net of Heinrich et al. 2019",
            options="optional `filters` (six numbers) and `out_channels` (9)",
            implementation=f"{_BACKBONES}.obelisk_unet:ObeliskUNet",
            encoder="convolutional",
            arguments=ObeliskUNetArguments,
            cost=NetworkCost(2.0, 400, 1300, 18),
            sized_by=("filters", "out_channels"),
        ),
        ArchitectureRecord(
            name="SwinUNETR",
            explanation="MONAI's Swin UNETR, one input channel",
            options="`downsample`: the order of its patch merging (below); optional `feature_size` "
            "(48), `out_channels` (14) and `layout` of the file: `plain`, `universal` (as "
            "CLIP-driven and SuPreM publish it: no head) or `selfsup` (the transformer "
            "alone)",
            implementation=f"{_BACKBONES}.swin_unetr:SwinUNETRBackbone",
            encoder="transformer",
            arguments=SwinUNETRArguments,
            cost=NetworkCost(8.0, 2800, 9600, 48),
            revision=2,
            sized_by=("feature_size",),
        ),
        ArchitectureRecord(
            name="GenesisUNet",
            explanation="the 3D U-Net of Models Genesis and SuPreM",
            options="optional `out_channels` (1) and `batch_statistics`: `true` normalises by each "
            "window's own statistics, as published, `false` by the running ones",
            implementation=f"{_BACKBONES}.genesis_unet:GenesisUNet",
            encoder="convolutional",
            arguments=GenesisUNetArguments,
            cost=NetworkCost(5.0, 1200, 3700, 64),
        ),
        ArchitectureRecord(
            name="VISTA3D",
            explanation="VISTA3D's encoder and automatic branch",
            options="optional `width` (48), `blocks` (five numbers) and `classes` (512)",
            implementation=f"{_BACKBONES}.vista3d:VISTA3DBackbone",
            encoder="convolutional",
            arguments=VISTA3DArguments,
            cost=NetworkCost(8.0, 1100, 8700, 48),
            sized_by=("width", "blocks"),
        ),
        ArchitectureRecord(
            name="HighRes3DNet",
            explanation="HighRes3DNet for brain parcellation (Li et al. 2017), all of it at full "
            "resolution",
            options="optional `width` (16), `wide` (80) and `out_channels` (160)",
            implementation=f"{_BACKBONES}.highres3dnet:HighRes3DNet",
            encoder="convolutional",
            arguments=HighRes3DNetArguments,
            cost=NetworkCost(15.0, 1300, 9000, 80),
            sized_by=("width", "wide"),
        ),
        ArchitectureRecord(
            name="MonaiUNet",
            explanation="MONAI's `UNet` as MONAI saves it, one input channel",
            options="the arguments of its constructor, under MONAI's names",
            implementation=f"{_BACKBONES}.monai_unet:MonaiUNet",
            encoder="convolutional",
            arguments=UNetArguments,
            cost=NetworkCost(2.0, 400, 1300, 32),
        ),
        ArchitectureRecord(
            name="MonaiDynUNet",
            explanation="MONAI's `DynUNet` as MONAI saves it, one input channel",
            options="the arguments of its constructor, under MONAI's names",
            implementation=f"{_BACKBONES}.monai_dynunet:MonaiDynUNet",
            encoder="convolutional",
            arguments=DynUNetArguments,
            cost=NetworkCost(2.0, 600, 2000, 32),
        ),
        ArchitectureRecord(
            name="MonaiSegResNet",
            explanation="MONAI's `SegResNet` as MONAI saves it, one input channel",
            options="the arguments of its constructor, under MONAI's names",
            implementation=f"{_BACKBONES}.monai_segresnet:MonaiSegResNet",
            encoder="convolutional",
            arguments=SegResNetArguments,
            cost=NetworkCost(4.0, 600, 3000, 32),
        ),
        ArchitectureRecord(
            name="MonaiSegResNetDS",
            explanation="MONAI's `SegResNetDS` as MONAI saves it, one input channel",
            options="the arguments of its constructor, under MONAI's names",
            implementation=f"{_BACKBONES}.monai_segresnet_ds:MonaiSegResNetDS",
            encoder="convolutional",
            arguments=SegResNetDSArguments,
            cost=NetworkCost(5.0, 800, 5000, 32),
        ),
        ArchitectureRecord(
            name="MonaiUNETR",
            explanation="MONAI's `UNETR` as MONAI saves it, one input channel",
            options="the arguments of its constructor, under MONAI's names",
            implementation=f"{_BACKBONES}.monai_unetr:MonaiUNETR",
            encoder="transformer",
            arguments=UNETRArguments,
            cost=NetworkCost(6.0, 1500, 6000, 16),
        ),
    ),
)
"""By the ``name`` in an entry's ``architecture``."""


def encoder_of(architecture: str) -> str:
    """``transformer`` or ``convolutional``, by the name of an architecture that there is."""
    return ARCHITECTURES[architecture].encoder


def network_arguments(architecture: Mapping[str, Any]) -> Any:
    """The arguments of a network, from an entry's ``architecture``.

    Raises:
        InputError: the network is not known, or an argument is unknown, of another kind or out of
            its bounds.
    """
    given = dict(json_object(architecture, "'architecture'", ("name",), None))
    name = given.pop("name")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise InputError(
            f"the architecture {shown(name)} is not known; there are {', '.join(ARCHITECTURES)}"
        )
    return from_json(ARCHITECTURES[name].arguments, given, f"'architecture' ({name})")
