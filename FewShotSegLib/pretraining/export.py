"""The finished model: half-precision weights, and the registry entry that describes them."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ..atomic import replacing, write_json
from ..errors import InputError
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
    name = assembly.model["id"]
    weights = folder / f"{name}.safetensors"
    recipe = {"assembly": assembly.to_json(with_cases=False), "seed": seed, "steps": step}
    with replacing(weights) as partial:
        partial.write_bytes(save(_halved(network.backbone), {"pretraining": json.dumps(recipe)}))
    data = weights.read_bytes()
    modalities = sorted(assembly.preprocessing)
    entry = {
        **assembly.model,
        "modality": modalities,
        "architecture": {**assembly.architecture, "out_channels": len(assembly.classes)},
        "preprocessing": {m: assembly.preprocessing[m].to_json() for m in modalities},
        "window": list(assembly.training.crop),
        "overlap": OVERLAP,
        "classes": {name: row for row, name in enumerate(assembly.classes)},
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
