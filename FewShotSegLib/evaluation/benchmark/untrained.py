"""A foundation model's network without its pre-training: what the pre-training is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ...core.atomic import replacing, write_json
from ...models.backbones import BACKBONES
from ...models.registry import find_model


def untrained_model(model: str, folder: Path) -> str:
    """Write an entry like a model's, with random weights (seed 0) and no classes.

    Returns:
        the entry's path, for ``model`` of :func:`pipeline.adapt`.

    Raises:
        ModelError: there is no such model. StorageError: the entry can't be written.
    """
    entry = find_model(model).entry.to_json()
    options = {key: value for key, value in entry["architecture"].items() if key != "name"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = BACKBONES[entry["architecture"]["name"]](**options)
    name = f"untrained-{Path(model).stem}"
    # Not save_model: its header is in another order every time, and so the file's hash.
    tensors = {
        id(tensor): (key, tensor) for key, tensor in network.state_dict(keep_vars=True).items()
    }
    with replacing(folder / f"{name}.safetensors") as partial:
        data = save({key: tensor.detach().clone() for key, tensor in tensors.values()})
        partial.write_bytes(data)
    fields: dict[str, Any] = {
        "id": name,
        "title": f"{entry['title']}, untrained",
        "classes": {},
        "weights": f"{name}.safetensors",
        "sha256": None,
        "size": None,
    }
    del entry["installed"]
    write_json(folder / f"{name}.json", {**entry, **fields})
    return str(folder / f"{name}.json")
