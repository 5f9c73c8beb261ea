"""A checkpoint as a few small files in half precision, for a slow way between two machines.

What half precision loses of weights and of the optimiser's means is less than one step changes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ...core.atomic import replacing
from ...core.checksums import load_sealed, write_sealed
from ...core.errors import InputError
from ...core.json_fields import parse_json, shown
from ...core.json_schema import from_json
from ...core.plain_text import sentence

MOST_BYTES = 15 * 2**20
KEYS = ("recipe", "step", "history")


def shrink(checkpoint: Path, folder: Path, most: int = MOST_BYTES) -> list[Path]:
    """Write ``part1.safetensors``, ``part2.safetensors``, ... of at most ``most`` bytes each.

    Raises:
        InputError: the checkpoint is damaged, or one of its tensors is larger than a part.
        StorageError: a part can't be written.
    """
    try:
        tensors, metadata = load_sealed(checkpoint, KEYS)
    except OSError as error:
        raise InputError(
            f"The checkpoint {checkpoint} can't be read ({error.strerror or error})."
        ) from error
    except (ValueError, InputError) as error:
        raise InputError(f"The checkpoint {checkpoint} is damaged ({sentence(error)}).") from error
    parts: list[dict[str, Tensor]] = [{}]
    space_left = most
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].numel()):
        small = _small(name, tensor)
        size = small.numel() * small.element_size() + 512
        if size > most:
            raise InputError(f"{name} of {checkpoint} is larger than a part of {most} bytes.")
        if size > space_left:
            parts.append({})
            space_left = most
        parts[-1][name] = small
        space_left -= size
    paths = []
    for number, part in enumerate(parts, 1):
        path = folder / f"part{number}.safetensors"
        facts = {"metadata": json.dumps({k: metadata[k] for k in KEYS}), "parts": str(len(parts))}
        with replacing(path) as partial:
            write_sealed(partial, safetensors.torch.save(part), facts)
        paths.append(path)
    return paths


def grow(folder: Path, checkpoint: Path) -> int:
    """Put the parts in a folder together as a checkpoint; returns the episodes that were done.

    Raises:
        InputError: a part is missing or damaged, or parts are of different checkpoints.
        StorageError: the checkpoint can't be written.
    """
    paths = sorted(folder.glob("part*.safetensors"))
    tensors: dict[str, Tensor] = {}
    facts: list[dict[str, str]] = []
    for path in paths:
        try:
            part, said = load_sealed(path, ("metadata", "parts"))
        except (OSError, ValueError, InputError) as error:
            raise InputError(f"{path} is no part of a checkpoint, or is damaged.") from error
        facts.append(said)
        twice = tensors.keys() & part.keys()
        if twice:
            raise InputError(f"{path} has what another part has ({shown(twice.pop())}).")
        tensors |= {k: t.float() if t.is_floating_point() else t for k, t in part.items()}
    if not facts or any(said != facts[0] for said in facts) or facts[0]["parts"] != str(len(facts)):
        raise InputError(f"The parts of one checkpoint are not all in {folder}.")
    metadata = _metadata(facts[0]["metadata"], folder)
    with replacing(checkpoint) as partial:
        write_sealed(partial, safetensors.torch.save(tensors), metadata)
    return int(metadata["step"])


def _metadata(text: str, folder: Path) -> dict[str, str]:
    """What the parts say of their checkpoint, which is what it will say of itself.

    Raises:
        InputError: it is nothing that a checkpoint says.
    """
    try:
        metadata = from_json(dict[str, str], parse_json(text, "Their description"), "it")
        step, history = metadata["step"], parse_json(metadata["history"], "Their history")
        from_json(list[dict[str, Any]], history, "it")
        if set(metadata) != set(KEYS) or not re.fullmatch(r"[0-9]{1,12}", step):
            raise InputError("it has other fields")
    except (InputError, KeyError) as error:
        raise InputError(f"The parts in {folder} are of no checkpoint.") from error
    return metadata


def _small(name: str, tensor: Tensor) -> Tensor:
    """Weights in half precision; squares of gradients, which may be tiny, in bfloat16."""
    if not tensor.is_floating_point() or tensor.numel() < 1024:
        return tensor
    kind = torch.bfloat16 if name.startswith("optimizer.") else torch.float16
    return tensor.to(kind)
