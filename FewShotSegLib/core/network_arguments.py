"""What a registry entry may say of its architecture, without torch: a class of arguments a network.

``backbones`` has the networks themselves; a test holds both against each other. The bounds are wide
enough for every network that could be run and keep an entry from asking for one that fills the
memory before its weights are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

from .errors import InputError
from .json_fields import json_object, shown
from .json_schema import Check, from_json

MAX_PARAMETERS = 10**9
"""Of a network: 4 GB in float32. The largest of the registry has 0.2 billion."""

Width = Annotated[int, Check("a number of channels from 1 to 2048", lambda n: 1 <= n <= 2048)]
Rows = Annotated[int, Check("a number of classes from 1 to 4096", lambda n: 1 <= n <= 4096)]


@dataclass(frozen=True)
class DynamicUNetArguments:
    """See :class:`FewShotSegLib.models.backbones.dynamic_unet.DynamicUNet`."""

    filters: Annotated[
        tuple[Width, ...], Check("a list of 3 to 8 numbers of channels", lambda v: 3 <= len(v) <= 8)
    ] = (16, 32, 64, 128, 192)
    out_channels: Rows = 1
    norm: Literal["batch", "instance"] = "batch"

    def __post_init__(self) -> None:
        _require_small(self.filters)

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
        _require_small((*self.filters, self.out_channels))

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
        _require_small([w for w, n in zip(widths, self.blocks, strict=True) for _ in range(n + 1)])

    @property
    def rows(self) -> int:
        """Rows of the published head."""
        return self.classes


ARGUMENTS: dict[str, type] = {
    "DynamicUNet": DynamicUNetArguments,
    "ObeliskUNet": ObeliskUNetArguments,
    "SwinUNETR": SwinUNETRArguments,
    "GenesisUNet": GenesisUNetArguments,
    "VISTA3D": VISTA3DArguments,
}
"""By the ``name`` in an entry's ``architecture``."""


def network_arguments(architecture: Mapping[str, Any]) -> Any:
    """The arguments of a network, from an entry's ``architecture``.

    Raises:
        InputError: the network is not known, or an argument is unknown, of another kind or out of
            its bounds.
    """
    given = dict(json_object(architecture, "'architecture'", ("name",), None))
    name = given.pop("name")
    if not isinstance(name, str) or name not in ARGUMENTS:
        raise InputError(
            f"the architecture {shown(name)} is not known; there are {', '.join(ARGUMENTS)}"
        )
    return from_json(ARGUMENTS[name], given, f"'architecture' ({name})")


def _require_small(widths: Any) -> None:
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
