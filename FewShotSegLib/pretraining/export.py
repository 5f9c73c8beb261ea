"""The finished model: half-precision weights, and the registry entry that describes them."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class FinishedModel:
    """What a registry entry says of a model beside its weights.

    Attributes:
        model: the entry's ``id``, title and the like. architecture: with its every option.
        preprocessing: by modality. window: voxels of a sliding window (i, j, k).
        classes: the row of the head of each class that the model knows.
    """

    model: Mapping[str, Any]
    architecture: Mapping[str, Any]
    preprocessing: Mapping[str, Preprocessing]
    window: Sequence[int]
    classes: Mapping[str, int]


def export_model(
    network: PretrainingNetwork,
    assembly: Assembly,
    folder: Path,
    seed: int,
    step: int,
    seen: Sequence[str] = (),
) -> Path:
    """Write ``ID.safetensors`` and ``ID.json``; returns the latter, for ``--model``.

    The weights' metadata hold the assembly, the seed and the steps, so that wherever the file goes
    its figures can be traced; cases are counted there, not named.

    Args:
        seen: hashes of the images that it was trained on, which ``models.seen`` reads.

    Raises:
        InputError: a weight is too large for half precision.
        StorageError: they can't be written.
    """
    network = copy.deepcopy(network).cpu()
    network.fill_backbone_head()
    recipe = {"assembly": assembly.to_json(with_cases=False), "seed": seed, "steps": step}
    recipe["seen"] = sorted(seen)
    about = FinishedModel(
        model=assembly.model,
        architecture={**assembly.architecture, "out_channels": len(assembly.classes)},
        preprocessing=assembly.preprocessing,
        window=assembly.training.crop,
        classes={name: row for row, name in enumerate(assembly.classes)},
    )
    return write_model(folder, halved(network.backbone), recipe, about)


def write_model(
    folder: Path,
    tensors: Mapping[str, Tensor],
    recipe: Mapping[str, Any],
    about: FinishedModel,
) -> Path:
    """Write a model's weights and its registry entry; returns the latter.

    Args:
        recipe: what the weights' metadata say of how they came about.

    Raises:
        StorageError: they can't be written.
    """
    name = about.model["id"]
    weights = folder / f"{name}.safetensors"
    data = save(dict(tensors), {"pretraining": json.dumps(recipe)})
    with replacing(weights) as partial:
        partial.write_bytes(data)
    modalities = sorted(about.preprocessing)
    entry = {
        **about.model,
        "modality": modalities,
        "architecture": about.architecture,
        "preprocessing": {m: about.preprocessing[m].to_json() for m in modalities},
        "window": list(about.window),
        "overlap": OVERLAP,
        "classes": about.classes,
        "activation": "sigmoid",
        "weights": weights.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
    }
    path = folder / f"{name}.json"
    write_json(path, entry)
    return path


def halved(module: torch.nn.Module) -> dict[str, Tensor]:
    """Tensors by name for the registry, each once although some have two names: weights in half
    precision, statistics of norms in single.

    Raises:
        InputError: a weight is too large for half precision.
    """
    tensors, seen = {}, set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) in seen or not tensor.is_floating_point():
            continue
        seen.add(id(tensor))
        # A norm makes up for weights of any size, so that variances may be beyond half precision.
        kind = torch.float32 if name.split(".")[-1].startswith("running_") else torch.float16
        tensors[name] = tensor.detach().to("cpu", kind).contiguous().clone()
        if not torch.isfinite(tensors[name]).all():
            raise InputError(
                f"The training has diverged: {name} is too large; lower learning_rate."
            )
    return tensors
