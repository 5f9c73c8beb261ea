"""A checkpoint as a few small files in half precision, for a slow way between two machines.

What half precision loses of weights and of the optimiser's means is less than one step changes.
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ...core.atomic import replacing
from ...core.checksums import load_sealed, write_sealed
from ...core.errors import InputError
from ...core.json_fields import parse_json

MOST_BYTES = 15 * 2**20
KEYS = ("recipe", "step", "history")


def shrink(checkpoint: Path, folder: Path, most: int = MOST_BYTES) -> list[Path]:
    """Write ``part1.safetensors``, ``part2.safetensors``, ... of at most ``most`` bytes each.

    Raises:
        InputError: the checkpoint is damaged, or one of its tensors is larger than a part.
        StorageError: a part can't be written.
    """
    tensors, metadata = load_sealed(checkpoint, KEYS)
    parts: list[dict[str, Tensor]] = [{}]
    room = most
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].numel()):
        small = _small(name, tensor)
        size = small.numel() * small.element_size() + 512
        if size > most:
            raise InputError(f"{name} of {checkpoint} is larger than a part of {most} bytes.")
        if size > room:
            parts.append({})
            room = most
        parts[-1][name] = small
        room -= size
    paths = []
    for number, part in enumerate(parts, 1):
        path = folder / f"part{number}.safetensors"
        facts = {"metadata": json.dumps({k: metadata[k] for k in KEYS}), "parts": str(len(parts))}
        with replacing(path) as partial:
            safetensors.torch.save_file(part, partial, facts)
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
    facts: list[tuple[str, str]] = []
    try:
        for path in paths:
            with safetensors.safe_open(path, "pt") as file:
                head = file.metadata() or {}
                facts.append((head["metadata"], head["parts"]))
                for key in file.keys():
                    tensor = file.get_tensor(key)
                    tensors[key] = tensor.float() if tensor.is_floating_point() else tensor
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is no part of a checkpoint, or is damaged.") from error
    if not facts or len(set(facts)) > 1 or int(facts[0][1]) != len(facts):
        raise InputError(f"The parts of one checkpoint are not all in {folder}.")
    metadata = parse_json(facts[0][0], f"What the parts in {folder} say")
    if not isinstance(metadata, dict) or not str(metadata.get("step")).isdecimal():
        raise InputError(f"The parts in {folder} are of no checkpoint.")
    with replacing(checkpoint) as partial:
        write_sealed(partial, safetensors.torch.save(tensors), metadata)
    return int(metadata["step"])


def _small(name: str, tensor: Tensor) -> Tensor:
    """Weights in half precision; squares of gradients, which may be tiny, in bfloat16."""
    if not tensor.is_floating_point() or tensor.numel() < 1024:
        return tensor
    kind = torch.bfloat16 if name.startswith("optimizer.") else torch.float16
    return tensor.to(kind)
