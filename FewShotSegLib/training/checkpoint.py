"""The state of an unfinished training of an adapter, kept now and then."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch

from ..methods.adapters.base import Adapter
from ..methods.tuned_model import TunedNetwork
from .state_file import StateFile, restore_optimizer

SAVE_EVERY_SECONDS = 5.0
CHEAP_SECONDS = 0.25
"""A state that takes longer to write is written in proportion less often."""
_ADAPTER = "adapter."


class Checkpoint:
    """Keeps and restores the state of one training.

    Args:
        path: the file; it belongs to exactly this training.
        recipe: everything the training depends on (a hash). A checkpoint of another recipe is
            refused rather than continued.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        self.path = Path(path)
        self._file = StateFile(self.path, recipe)
        self._last, self._cost = -math.inf, 0.0  # the first epoch is kept, whatever the clock says

    def save(
        self,
        adapter: Adapter | TunedNetwork,
        optimizer: torch.optim.Optimizer,
        history: list[dict[str, Any]],
    ) -> None:
        """Replace the file, at most every few seconds; more rarely where writing it takes long."""
        start = time.monotonic()
        if start - self._last < SAVE_EVERY_SECONDS * max(1.0, self._cost / CHEAP_SECONDS):
            return
        own = {_ADAPTER + name: tensor for name, tensor in adapter.trained_state().items()}
        self._file.write(own, optimizer, history)
        self._last = time.monotonic()
        self._cost = self._last - start

    def restore(
        self, adapter: Adapter | TunedNetwork, optimizer: torch.optim.Optimizer
    ) -> list[dict[str, Any]]:
        """Load the state if there is one. Returns the history of the epochs that it holds.

        Raises:
            InputError: the file is damaged, or belongs to a training with other inputs.
        """
        if not self.path.exists():
            return []
        state = self._file.read()
        with self._file.whole():
            adapter.load_trained_state(
                {
                    name.removeprefix(_ADAPTER): tensor
                    for name, tensor in state.tensors.items()
                    if name.startswith(_ADAPTER)
                }
            )
            restore_optimizer(optimizer, state.tensors)
        return state.history

    def remove(self) -> None:
        """The training is complete."""
        self.path.unlink(missing_ok=True)
