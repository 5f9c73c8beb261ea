"""The file of an unfinished training or pre-training: safetensors, replaced atomically; no pickle.

It is sealed (``core.checksums``): a training never goes on from a damaged one. Which tensors it
holds besides the optimiser's, and when it is written, is its training's own
(``training.checkpoint``, ``pretraining.state``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..core.atomic import replacing
from ..core.checksums import load_sealed, write_sealed
from ..core.errors import InputError
from ..core.json_fields import parse_json

_OPTIMIZER = "optimizer."


@dataclass(frozen=True)
class SavedState:
    """What a file held: tensors on the CPU by name, whole numbers, a dictionary an epoch."""

    tensors: dict[str, Tensor]
    counts: dict[str, int]
    history: list[dict[str, Any]]


@dataclass(frozen=True)
class StateFile:
    """Where the state of one training is kept.

    Args:
        path: it belongs to exactly this training.
        recipe: everything the training depends on (a hash). The state of another recipe is refused
            rather than continued.
        other: what such a state is of, for the message.
        way_out: what to do in order to start again, for messages.
        counts: the names of the whole numbers that it holds.
    """

    path: Path
    recipe: str
    other: str = "a training with other supports or settings"
    way_out: str = "remove it"
    counts: tuple[str, ...] = ()

    def write(
        self,
        tensors: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        history: list[dict[str, Any]],
        **counts: int,
    ) -> None:
        """Replace the file.

        Args:
            tensors: by names that don't start with ``optimizer.``; on any device.

        Raises:
            StorageError: it can't be written.
        """
        kept = {name: _kept(tensor) for name, tensor in tensors.items()}
        for number, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                kept[f"{_OPTIMIZER}{number}.{key}"] = _kept(torch.as_tensor(value))
        texts = {name: str(counts[name]) for name in self.counts}
        metadata = {"recipe": self.recipe, "history": json.dumps(history), **texts}
        data = safetensors.torch.save(kept)
        with replacing(self.path) as partial:
            write_sealed(partial, data, metadata)

    def read(self) -> SavedState:
        """What the file holds.

        Raises:
            InputError: it is damaged, or of a training with other inputs.
        """
        with self.whole():
            tensors, metadata = load_sealed(self.path, ("recipe", "history", *self.counts))
            history = parse_json(metadata["history"], "Its history")
            if not isinstance(history, list) or not all(isinstance(r, dict) for r in history):
                raise ValueError("a history is a list of records")
            counts = {name: _count(metadata[name]) for name in self.counts}
            recipe = metadata["recipe"]
        if recipe != self.recipe:
            raise InputError(
                f"The checkpoint {self.path} is of {self.other}. Repeat the command as it was, or "
                f"{self.way_out} to start again."
            )
        return SavedState(tensors, counts, history)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Around whatever takes the state in: what it lacks, or has in another shape, is damage.

        Raises:
            InputError: it is.
        """
        try:
            yield
        except (InputError, OSError, ValueError, LookupError, RuntimeError) as error:
            way_out = self.way_out[0].upper() + self.way_out[1:]
            raise InputError(
                f"The checkpoint {self.path} is damaged. {way_out} to start again."
            ) from error


def take(tensor: Tensor, saved: Tensor) -> None:
    """Put a tensor of a state back in place: one of its shape, of finite numbers.

    Raises:
        ValueError: it is another.
    """
    if saved.shape != tensor.shape or not bool(torch.isfinite(saved).all()):
        raise ValueError("a tensor has another shape, or numbers that are none")
    tensor.copy_(saved)


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put the optimiser's own tensors of a state back, where its parameters are.

    Not ``load_state_dict``: values get their parameter's own memory order, so that sums are formed
    as before.

    Raises:
        ValueError, LookupError: a tensor is none of these parameters.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, value in tensors.items():
        if name.startswith(_OPTIMIZER):
            _, number, key = name.split(".")
            parameter = parameters[_count(number)]
            if key == "step":  # which stays on the CPU, in single precision
                own = torch.zeros(())
            elif key in ("exp_avg", "exp_avg_sq"):
                own = torch.zeros_like(parameter, requires_grad=False)
            else:
                raise ValueError(f"{key} is nothing of an optimiser")
            take(own, value)
            optimizer.state[parameter][key] = own


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def _count(text: str) -> int:
    """A whole number as it is written here: ASCII digits, few enough to be one.

    Raises:
        ValueError: it is something else.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise ValueError("a count is no number")
    return int(text)
