"""Counts what every method trains of every network that ships: ``python -m`` this module.

It writes ``Resources/sizes.json``, which ``core.method_sizes`` tells from before torch is loaded.
Networks are built on torch's meta device, where they have names and sizes and no values.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..compute.meta import without_values
from ..core.atomic import replacing
from ..core.errors import InputError
from ..core.method_catalog import METHODS
from ..core.method_sizes import FILE, sizing_arguments
from ..core.model_folders import EMBEDDED_FOLDER
from ..models.backbones.base import Backbone
from ..models.registry import ModelEntry
from .adapters import ADAPTERS, HEAD
from .tunings import TUNINGS


def count_all() -> dict[str, list[dict[str, Any]]]:
    """Every network of the registry that ships, by architecture; see
    :func:`core.method_sizes.counted_sizes`."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(EMBEDDED_FOLDER.glob("*.json")):
        entry = ModelEntry.read(path)
        known = found.setdefault(entry.architecture["name"], [])
        arguments = sizing_arguments(entry.architecture)
        if all(arguments != sizes["arguments"] for sizes in known):
            known.append({"arguments": arguments, **count(entry)})
    for networks in found.values():
        networks.sort(key=lambda sizes: json.dumps(sizes["arguments"]))
    return dict(sorted(found.items()))


def count(entry: ModelEntry) -> dict[str, Any]:
    """What is counted of one network, by each of the project's own methods."""
    with without_values():
        plain = entry.build()
        return {
            "parameters": _all(nn.ModuleList([*plain.encoder_parts(), *plain.decoder_parts()])),
            "heads": {
                "multi": _heads(plain.channels),
                "last": _heads(plain.channels[:1]),
            },
            "backbone": _backbones(plain),
        }


def _heads(channels: Sequence[int]) -> dict[str, int]:
    black_box = {
        name: _trained(ADAPTERS[name](channels, 1)) for name in METHODS.own if name in ADAPTERS
    }
    return {**black_box, "backbone": _trained(HEAD(channels, 1))}


def _backbones(plain: Backbone) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for name in METHODS.own:
        for decoder in METHODS[name].decoders:
            backbone = copy.deepcopy(plain)
            try:
                TUNINGS[name](decoder).apply(backbone, lambda: copy.deepcopy(plain))
            except InputError:
                break  # the method has no meaning on this architecture
            found.setdefault(name, {})[decoder] = _trained(backbone)
    return found


def _trained(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _all(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def write(path: Path = FILE) -> None:
    """Count, and write what was counted."""
    text = json.dumps(count_all(), indent=1) + "\n"
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
