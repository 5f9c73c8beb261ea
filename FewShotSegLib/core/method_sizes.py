"""About how many numbers each method trains on the networks of the registry; without torch.

They were counted on the networks themselves, and a test counts again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .method_catalog import METHODS

HEADS = ("adapter", "linear-probe", "adapter-1x1")
"""Order of the numbers under ``multi`` and ``last``."""
SIZES: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "DynamicUNet": (
        {
            "options": {"filters": [16, 32, 64, 128, 192]},
            **{"multi": (97205, 437, 4021), "last": (13841, 17, 529)},
            **{"encoder": 879216, "decoder": 3705792, "ft-last": 24896},
            **{"bias": 480, "affine": 960, "lora": 40044, "cnn-adapter": 32528},
        },
        {
            "options": {"filters": [16, 32, 64, 128]},
            **{"multi": (97012, 244, 3828), "last": (13841, 17, 529)},
            **{"encoder": 215152, "decoder": 1185984, "ft-last": 24896},
            **{"bias": 224, "affine": 448, "lora": 18284, "cnn-adapter": 7952},
        },
    ),
    "ObeliskUNet": (
        {
            "options": {},
            **{"multi": (50562, 234, 2098), "last": (17515, 19, 667)},
            **{"encoder": 267480, "decoder": 616260, "ft-last": 6840},
            **{"bias": 570, "affine": 570, "lora": 25980, "cnn-adapter": 9875},
        },
    ),
    "SwinUNETR": (
        {
            "options": {"feature_size": 48},
            **{"multi": (167430, 1542, 7686), "last": (124465, 49, 4657)},
            **{"encoder": 8062002, "decoder": 54124608, "ft-last": 209664},
            **{"bias": 13008, "affine": 17280, "lora": 69120},
            **{"adaptformer": 47648, "compacter": 217024},
        },
    ),
    "GenesisUNet": (
        {
            "options": {},
            **{"multi": (388036, 964, 15300), "last": (165953, 65, 6209)},
            **{"encoder": 1717056, "decoder": 17356544, "ft-last": 573952},
            **{"bias": 1344, "affine": 1344, "lora": 47724, "cnn-adapter": 63520},
        },
    ),
    "VISTA3D": (
        {
            "options": {},
            **{"multi": (291797, 1493, 12245), "last": (124465, 49, 4657)},
            **{"encoder": 47536848, "decoder": 148819056, "ft-last": 500208},
            **{"bias": 4320, "affine": 8640, "lora": 567660, "cnn-adapter": 1760304},
        },
    ),
}
"""By architecture, for each network that was counted. ``options`` are that network's. ``multi`` and
``last``: :data:`HEADS` for one structure, by feature levels. Others: what a method trains of the
encoder."""


def trained_numbers(
    method: str, decoder: str, features: str, architecture: Mapping[str, Any]
) -> int | None:
    """How many numbers a method trains for one structure; None where that isn't known.

    Args:
        decoder: ``auto`` is the method's own choice. features: ``multi`` or ``last``.
        architecture: of the model's registry entry.
    """
    chosen, sizes = METHODS[method], _counted(architecture)
    if sizes is None or not chosen.suits(architecture["name"]):
        return None
    heads = dict(zip(HEADS, sizes[features], strict=True))
    if not chosen.trains_backbone:
        return heads[method]
    if method == "ft-last":
        return sizes["ft-last"] + heads["linear-probe"]
    encoder = sizes["encoder"] if method in ("ft", "scratch") else sizes[method]
    trained = chosen.decoders[0] if decoder == "auto" else decoder
    return encoder + heads["linear-probe"] + (sizes["decoder"] if trained != "frozen" else 0)


def network_numbers(architecture: Mapping[str, Any]) -> int | None:
    """How many numbers a network has without its head; None where they were not counted."""
    sizes = _counted(architecture)
    return sizes["encoder"] + sizes["decoder"] if sizes else None


def _counted(architecture: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for sizes in SIZES.get(architecture["name"], ()):
        if all(architecture.get(name) == value for name, value in sizes["options"].items()):
            return sizes
    return None
