"""The state of an unfinished pre-training: two networks, their optimiser, running sums."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..compute.locks import only_one
from ..core.atomic import require_writable
from ..core.errors import InputError
from ..training.state_file import StateFile, restore_optimizer, take

NAME = "checkpoint.safetensors"
MOST_BATCH = 4096
"""Episodes of a step of the optimiser."""


def require_new(out: Path, resume: bool, results: Sequence[str]) -> Path:
    """The checkpoint's place in a pre-training's folder.

    Args:
        results: the names of the files that will be there in the end.

    Raises:
        InputError: one is there already, and nobody asked to go on with it; or a result would take
            the place of a file that is not this run's.
        StorageError: one couldn't be written.
    """
    checkpoint = out / NAME
    for name in (NAME, *results):
        require_writable(out / name)
        if name != NAME and os.path.lexists(out / name) and not checkpoint.exists():
            raise InputError(
                f"{out / name} would be replaced by a result; choose another --out, or another "
                "id in 'model'."
            )
    if checkpoint.exists() and not resume:
        raise InputError(
            f"{out} holds a pre-training already; add --resume to go on with it, or choose "
            "another folder."
        )
    return checkpoint


def alone_in(out: Path) -> AbstractContextManager[None]:
    """Two pre-trainings in one folder would replace each other's checkpoints.

    Raises:
        InputError: another one is running there.
    """
    return only_one(
        out / f"{NAME}.lock",
        f"Another pre-training is running in {out}; wait for it, or choose another --out.",
    )


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
        step = state.counts["step"]
        _require_history(step, state.history)
        take(running, state.tensors["running"])
        for name, network in networks.items():
            for key, tensor in own_tensors(network):
                take(tensor, state.tensors[f"{name}.{key}"])
        restore_optimizer(optimizer, state.tensors)
        taken = [int(own["step"]) for own in optimizer.state.values() if "step" in own]
        if taken and not max(taken) <= step <= max(taken) * MOST_BATCH:
            raise ValueError("its number of steps is not that of its optimiser")
    return state.counts["step"], state.history


def _require_history(step: int, history: list[dict[str, Any]]) -> None:
    """Every epoch says after how many steps or episodes it ended, in order.

    Raises:
        ValueError: it doesn't.
    """
    ends: list[Any] = [record.get("step", record.get("episodes")) for record in history]
    if not all(type(end) is int for end in ends) or ends != sorted(ends):
        raise ValueError("an epoch has no end")
    if ends and ends[-1] > step:
        raise ValueError("an epoch ends after the last step")


def _file(path: Path, recipe: str) -> StateFile:
    return StateFile(
        path,
        recipe,
        other="a pre-training with another assembly, seed, number of steps or of processes",
        way_out="choose another --out, or remove it",
        counts=("step",),
    )
