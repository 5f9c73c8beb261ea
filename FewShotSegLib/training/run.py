"""How a training runs, whatever it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..core.events import EventSink, ignore
from .checkpoint import Checkpoint


@dataclass(frozen=True)
class Run:
    """Where and how a training loop runs.

    Attributes:
        device: where the steps are computed.
        seed: decides, with the number of the epoch, all that an epoch draws.
        phase: what its ``epoch`` events are called. events: gets them.
        check: called once a step; raises to stop.
        checkpoint: where the state is kept after every few epochs and found again; None keeps none.
    """

    device: torch.device
    seed: int = 0
    phase: str = "train"
    events: EventSink = ignore
    check: Callable[[], None] = lambda: None
    checkpoint: Checkpoint | None = None
