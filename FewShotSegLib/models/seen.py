"""Which volumes a foundation model has seen, so that no benchmark takes them for new ones.

Hashes of their voxels, whatever the files are called, in the metadata of the weights: they go where
those go. A hash names nobody.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.json_fields import parse_json
from .registry import find_model

SUFFIX = ".safetensors"
MOST_BYTES = 2**26


def seen_by(model: str) -> frozenset[str] | None:
    """``content_hash`` of the volumes that a model was pre-trained on; None where it is not known.

    Args:
        model: its id, or the path of its entry.

    Raises:
        ModelError: there is no such model, or its weights are not here.
    """
    found = find_model(model)
    _ = found.weights_sha256  # raises where they are not here
    weights = found.entry.weights
    recorded = _of_metadata(weights) if weights.suffix == SUFFIX else None
    return None if recorded is None else frozenset(recorded)


def _of_metadata(weights: Path) -> list[str] | None:
    """What ``pretraining.export`` has written of it."""
    from safetensors import safe_open

    try:
        with safe_open(weights, "pt") as file:
            text = (file.metadata() or {}).get("pretraining", "{}")
        data: Any = parse_json(text.encode(), "The metadata", max_bytes=MOST_BYTES)
        recorded = data.get("seen")
    except (OSError, InputError, AttributeError):  # weights of others may say there what they like
        return None
    return recorded if isinstance(recorded, list) and all(map(_is_hash, recorded)) else None


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 16
