"""Several processes as one: under ``torchrun`` each draws its own crops, gradients are averaged.

Without ``torchrun`` there is one process, and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from ..core.errors import InputError
from ..features.extraction import choose_device

PATIENCE = timedelta(hours=4)
"""How long a process waits for the others: they may still prepare their volumes."""


@dataclass(frozen=True)
class Ranks:
    """This process among all.

    Attributes:
        rank: 0 is the one that writes and speaks. world: how many there are.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes; all in one message."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.world
        start = 0
        for tensor in tensors:
            tensor.detach().copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            self.average([torch.zeros(1, device=self.device)])


def _number(variable: str, usual: int) -> int:
    """A number that ``torchrun`` sets.

    Raises:
        InputError: something else has set it.
    """
    text = os.environ.get(variable, str(usual))
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) >= usual):
        raise InputError(
            f"The environment variable {variable} is {text[:40]!r}, which torchrun never sets. "
            "Unset it, or start this with torchrun."
        )
    return int(text)


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """This process's place, from the variables that ``torchrun`` sets.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; of several processes on GPUs each takes
            the one of its local rank.

    Raises:
        InputError: the device does not exist here.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        yield Ranks(choose_device(device))
        return
    chosen = choose_device(device)
    if chosen.type == "cuda":
        local = _number("LOCAL_RANK", 0)
        if local >= torch.cuda.device_count():
            raise InputError(
                f"There are {torch.cuda.device_count()} GPUs here; let torchrun start no more "
                "processes than that, or use --device cpu."
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(chosen, dist.get_rank(), world)
    finally:
        dist.destroy_process_group()
