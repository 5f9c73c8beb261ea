"""What the trainers of both pre-trainings share: the rate of a step, and the means of losses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor

from ..core.errors import InputError

LAST_RATE = 0.01
"""The part of the learning rate that is left at the end."""


def scheduled_rate(peak: float, warm_up: float, angle: float) -> float:
    """Linear warm-up, then half a cosine.

    Args:
        warm_up: the part of the warm-up that is over; it may be beyond 1.
        angle: 0 at the beginning, pi at the end of the training.
    """
    cosine = 0.5 + 0.5 * math.cos(angle)
    return peak * min(1.0, warm_up) * (LAST_RATE + (1 - LAST_RATE) * cosine)


def require_finite(tensors: Iterable[Tensor]) -> None:
    """Tell a training that has diverged, before its state is kept.

    Args:
        tensors: the losses since the last epoch, and the weights: the last step's gradient may have
            ruined them, and no loss shows it yet.

    Raises:
        InputError: one of them is no number.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise InputError(
            "The training has diverged (its loss is no number any more). Lower learning_rate."
        )


def take_means(running: Tensor, terms: Sequence[str], digits: int) -> dict[str, float]:
    """The mean of each term that was there, and ``running`` set back to nothing.

    Args:
        running: (terms, 2), the sum and the number of each term.
    """
    sums = running.cpu().clone()
    running.zero_()
    return {
        name: round(float(total / count), digits)
        for name, (total, count) in zip(terms, sums, strict=True)
        if count
    }
