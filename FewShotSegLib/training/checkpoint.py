"""The state of an unfinished training: one safetensors file, replaced atomically; no pickle.

It is sealed (``checksums``): a training never goes on from a damaged one.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ..core.atomic import replacing
from ..core.checksums import load_sealed, write_sealed
from ..core.errors import InputError
from ..core.json_fields import parse_json
from ..methods.adapters.base import Adapter

SAVE_EVERY_SECONDS = 5.0
CHEAP_SECONDS = 0.25
"""A state that takes longer to write is written in proportion less often."""


class Checkpoint:
    """Keeps and restores the state of one training.

    Args:
        path: the file; it belongs to exactly this training.
        recipe: everything the training depends on (a hash). A checkpoint of another recipe is
            refused rather than continued.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        self.path, self.recipe = Path(path), recipe
        self._last, self._cost = -math.inf, 0.0  # the first epoch is kept, whatever the clock says

    def save(
        self,
        adapter: Adapter,
        optimizer: torch.optim.Optimizer,
        history: list[dict[str, Any]],
    ) -> None:
        """Replace the file, at most every few seconds; more rarely where writing it takes long."""
        start = time.monotonic()
        if start - self._last < SAVE_EVERY_SECONDS * max(1.0, self._cost / CHEAP_SECONDS):
            return
        tensors = {
            f"adapter.{k}": v.detach().cpu().contiguous().clone()
            for k, v in adapter.trained_state().items()
        }
        for number, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"optimizer.{number}.{key}"] = (
                    torch.as_tensor(value).cpu().contiguous().clone()
                )
        metadata = {"recipe": self.recipe, "history": json.dumps(history)}
        data = safetensors.torch.save(tensors)
        with replacing(self.path) as partial:
            write_sealed(partial, data, metadata)
        self._last = time.monotonic()
        self._cost = self._last - start

    def restore(self, adapter: Adapter, optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
        """Load the state if there is one. Returns the history of the epochs that it holds.

        Raises:
            InputError: the file is damaged, or belongs to a training with other inputs.
        """
        if not self.path.exists():
            return []
        try:
            tensors, metadata = load_sealed(self.path, ("recipe", "history"))
            history = parse_json(metadata["history"], "Its history")
        except (InputError, OSError, ValueError, KeyError) as error:
            raise InputError(
                f"The checkpoint {self.path} is damaged. Remove it to start again."
            ) from error
        if metadata.get("recipe") != self.recipe:
            raise InputError(
                f"The checkpoint {self.path} is of a training with other supports or settings. "
                "Repeat the command as it was, or remove the file to start again."
            )
        adapter.load_trained_state(
            {k.removeprefix("adapter."): v for k, v in tensors.items() if k.startswith("adapter.")}
        )
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, number, name = key.split(".")
                state.setdefault(int(number), {})[name] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        return history

    def remove(self) -> None:
        """The training is complete."""
        self.path.unlink(missing_ok=True)
