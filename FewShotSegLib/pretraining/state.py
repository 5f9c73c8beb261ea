"""The state of an unfinished pre-training: one safetensors file, replaced atomically; no pickle.

It is sealed (``checksums``): a pre-training never goes on from a damaged one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ..core.atomic import replacing
from ..core.checksums import load_sealed, write_sealed
from ..core.errors import InputError
from ..core.json_fields import parse_json

NAME = "checkpoint.safetensors"


def own_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name, each once although some have two names."""
    yield from network.named_parameters()
    yield from network.named_buffers()


def save_state(
    path: Path,
    recipe: str,
    step: int,
    networks: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    running: Tensor,
    history: list[dict[str, Any]],
) -> None:
    """Replace the file.

    Args:
        recipe: everything the training depends on (a hash). step: steps that are done.
        networks: by a name without dots. running: sums since the last epoch.

    Raises:
        StorageError: it can't be written.
    """
    tensors = {"running": _kept(running)}
    for name, network in networks.items():
        for key, tensor in own_tensors(network):
            tensors[f"{name}.{key}"] = _kept(tensor)
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{number}.{key}"] = _kept(torch.as_tensor(value))
    metadata = {"recipe": recipe, "step": str(step), "history": json.dumps(history)}
    data = safetensors.torch.save(tensors)
    with replacing(path) as partial:
        write_sealed(partial, data, metadata)


def restore_state(
    path: Path,
    recipe: str,
    networks: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    running: Tensor,
) -> tuple[int, list[dict[str, Any]]]:
    """Load the state in place. Returns the steps that were done, and the history.

    Raises:
        InputError: the file is damaged, or belongs to a training with other inputs.
    """
    try:
        tensors, metadata = load_sealed(path, ("recipe", "step", "history"))
        if metadata["recipe"] != recipe:
            raise InputError(
                f"The checkpoint {path} is of a pre-training with another assembly, seed, number "
                "of steps or of processes. Repeat the command as it was, or choose another --out."
            )
        step, history = (
            int(metadata["step"]),
            parse_json(metadata["history"], f"The history in {path}"),
        )
        with torch.no_grad():
            running.copy_(tensors["running"])
            for name, network in networks.items():
                for key, tensor in own_tensors(network):
                    tensor.copy_(tensors[f"{name}.{key}"])
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"The checkpoint {path} is damaged. Choose another --out, or remove it to start again."
        ) from error
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".")
            parameter = parameters[int(number)]
            if value.shape == parameter.shape:
                # In the parameter's own memory order, so that sums are formed as before.
                value = torch.zeros_like(parameter, requires_grad=False).copy_(value)
            optimizer.state[parameter][name] = value
    return step, history


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()
