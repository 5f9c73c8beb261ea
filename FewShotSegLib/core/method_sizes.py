"""How many parameters each method trains on the networks that were counted; without torch.

``methods.counting`` counted them on the networks themselves, and wrote ``Resources/sizes.json``; a
test counts again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from .architecture_catalog import ARCHITECTURES, network_arguments
from .errors import InputError
from .json_fields import load_json
from .method_catalog import METHODS

FILE = Path(__file__).resolve().parents[1] / "Resources" / "sizes.json"


@cache
def counted_sizes() -> Mapping[str, Any]:
    """By architecture, a list of counted networks.

    Each has the ``arguments`` that its size hangs on, its ``parameters`` before the published
    head, what a method trains for one structure of its ``heads`` (by feature levels, ``multi`` or
    ``last``, and by method; ``backbone`` is the head on a backbone that is trained) and of its
    ``backbone`` (by method and by what happens to the decoder).
    """
    return load_json(FILE, "list of counted parameters")


def trained_parameters(
    method: str, decoder: str, features: str, architecture: Mapping[str, Any]
) -> int | None:
    """How many parameters a method trains for one structure; None where they were not counted.

    Args:
        decoder: ``auto`` is the method's own choice. features: ``multi`` or ``last``.
        architecture: of the model's registry entry.
    """
    sizes, record = sizes_of(architecture), METHODS[method]
    if sizes is None:
        return None
    heads = sizes["heads"][features]
    if not record.trains_backbone:
        return heads.get(method)
    choice = record.decoders[0] if decoder == "auto" else decoder
    count = sizes["backbone"].get(method, {}).get(choice)
    return None if count is None else count + heads["backbone"]


def network_parameters(architecture: Mapping[str, Any]) -> int | None:
    """How many parameters a network has without its head; None where they were not counted."""
    sizes = sizes_of(architecture)
    return sizes["parameters"] if sizes else None


def sizing_arguments(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a network's arguments that its size hangs on, given or not; plain JSON.

    Raises:
        InputError: see :func:`architecture_catalog.network_arguments`.
    """
    arguments = asdict(network_arguments(architecture))
    names = ARCHITECTURES[architecture["name"]].sized_by
    return json.loads(json.dumps({name: arguments[name] for name in names}))


def sizes_of(architecture: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was counted of a network; None where it was not, or is not known."""
    try:
        arguments = sizing_arguments(architecture)
    except InputError:
        return None
    counted = counted_sizes().get(architecture["name"], ())
    return next((sizes for sizes in counted if sizes["arguments"] == arguments), None)
