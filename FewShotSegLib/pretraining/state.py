"""The state of an unfinished pre-training: two networks, their optimiser, running sums."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.atomic import require_writable
from ..core.errors import InputError
from ..training.state_file import StateFile, restore_optimizer

NAME = "checkpoint.safetensors"


def require_new(out: Path, resume: bool) -> Path:
    """The checkpoint's place in a pre-training's folder.

    Raises:
        InputError: one is there already, and nobody asked to go on with it.
        StorageError: it couldn't be written.
    """
    checkpoint = out / NAME
    require_writable(checkpoint)
    if checkpoint.exists() and not resume:
        raise InputError(
            f"{out} holds a pre-training already; add --resume to go on with it, or choose "
            "another folder."
        )
    return checkpoint


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
    tensors = {"running": running}
    for name, network in networks.items():
        tensors |= {f"{name}.{key}": tensor for key, tensor in own_tensors(network)}
    _file(path, recipe).write(tensors, optimizer, history, step=step)


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
    file = _file(path, recipe)
    state = file.read()
    with file.whole(), torch.no_grad():
        running.copy_(state.tensors["running"])
        for name, network in networks.items():
            for key, tensor in own_tensors(network):
                tensor.copy_(state.tensors[f"{name}.{key}"])
        restore_optimizer(optimizer, state.tensors)
    return state.counts["step"], state.history


def _file(path: Path, recipe: str) -> StateFile:
    return StateFile(
        path,
        recipe,
        other="a pre-training with another assembly, seed, number of steps or of processes",
        way_out="choose another --out, or remove it",
        counts=("step",),
    )
