"""The finished model: half-precision weights, and the registry entry that describes them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..core.atomic import replacing, write_json
from ..core.errors import InputError
from ..models.preprocessing import Preprocessing
from .assembly import Assembly
from .network import PretrainingNetwork
from .validation import OVERLAP


def export_model(
    network: PretrainingNetwork, assembly: Assembly, folder: Path, seed: int, step: int
) -> Path:
    """Write ``ID.safetensors`` and ``ID.json``; returns the latter, for ``--model``.

    The weights' metadata hold the assembly, the seed and the steps, so that wherever the file goes
    its figures can be traced; cases are counted there, not named.

    Raises:
        InputError: a weight is too large for half precision.
        StorageError: they can't be written.
    """
    network = copy.deepcopy(network).cpu()
    network.fill_backbone_head()
    recipe = {"assembly": assembly.to_json(with_cases=False), "seed": seed, "steps": step}
    return write_model(
        folder,
        _halved(network.backbone),
        recipe,
        model=assembly.model,
        architecture={**assembly.architecture, "out_channels": len(assembly.classes)},
        preprocessing=assembly.preprocessing,
        window=assembly.training.crop,
        classes={name: row for row, name in enumerate(assembly.classes)},
    )


def write_model(
    folder: Path,
    tensors: Mapping[str, Tensor],
    recipe: Mapping[str, Any],
    *,
    model: Mapping[str, Any],
    architecture: Mapping[str, Any],
    preprocessing: Mapping[str, Preprocessing],
    window: Sequence[int],
    classes: Mapping[str, int],
) -> Path:
    """Write a model's weights and its registry entry; returns the latter.

    Args:
        recipe: what the weights' metadata say of how they came about.
        model: the entry's ``id``, title and the like. preprocessing: by modality.
        classes: the row of the head of each class that the model knows.

    Raises:
        StorageError: they can't be written.
    """
    name = model["id"]
    weights = folder / f"{name}.safetensors"
    data = save(dict(tensors), {"pretraining": json.dumps(recipe)})
    with replacing(weights) as partial:
        partial.write_bytes(data)
    modalities = sorted(preprocessing)
    entry = {
        **model,
        "modality": modalities,
        "architecture": architecture,
        "preprocessing": {m: preprocessing[m].to_json() for m in modalities},
        "window": list(window),
        "overlap": OVERLAP,
        "classes": classes,
        "activation": "sigmoid",
        "weights": weights.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    }
    path = folder / f"{name}.json"
    write_json(path, entry)
    return path


def _halved(module: torch.nn.Module) -> dict[str, Tensor]:
    """Tensors by name in half precision, each once although some have two names."""
    tensors, seen = {}, set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in seen or not tensor.is_floating_point():
            continue
        seen.add(id(tensor))
        tensors[name] = tensor.detach().half().contiguous().clone()
        if not torch.isfinite(tensors[name]).all():
            raise InputError(
                f"The training has diverged: {name} is too large; lower learning_rate."
            )
    return tensors
