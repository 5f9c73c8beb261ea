"""Which volumes to annotate next: those that are most unlike what is annotated, by frozen features.

A volume is described by the mean and the spread of each channel of its features, as results are
judged (:mod:`.evidence`). Nothing here reads an annotation, and no backbone runs. How the rule
does, and others: ``Documentation/explanation/what-to-annotate.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .evidence import Description


@dataclass(frozen=True)
class Choice:
    """One volume of an order in which volumes are to be annotated.

    Attributes:
        number: of the volume among those that can be chosen.
        nearest: its distance from the nearest volume that is annotated before it; None where none
            is.
        followers: numbers of the volumes that are nearer to it than to any annotated before it,
            itself not among them; empty where none is.
    """

    number: int
    nearest: float | None
    followers: tuple[int, ...]


def distances(
    volumes: Sequence[Description], others: Sequence[Description], scale: np.ndarray
) -> np.ndarray:
    """(n, m) float64: how far apart volumes are, as :func:`.evidence.volume_distance` has it.

    Args:
        scale: (C,) the unit of each channel.
    """
    if not volumes or not others:
        return np.zeros((len(volumes), len(others)))
    rows = _rows(others, scale)
    channels = len(scale)
    apart = [np.sqrt(((rows - row) ** 2).sum(1) / channels) for row in _rows(volumes, scale)]
    return np.stack(apart)


def _rows(volumes: Sequence[Description], scale: np.ndarray) -> np.ndarray:
    """(n, 2C): mean and deviation of each channel in its unit."""
    return np.stack([np.concatenate([v.mean / scale, v.deviation / scale]) for v in volumes])


def usual_scale(volumes: Sequence[Description]) -> np.ndarray:
    """(C,) the deviation of each channel within the volumes, root mean square: the unit that
    differences are measured in before there is an adapter."""
    scale = np.sqrt(np.mean([np.square(v.deviation.astype(np.float64)) for v in volumes], axis=0))
    return np.where(scale > 0, scale, 1.0)


def farthest_order(between: np.ndarray, known: np.ndarray) -> list[Choice]:
    """All volumes, each next one the farthest from those that are annotated (k-centre).

    The first of all is the most typical one, with the smallest sum of distances (the medoid).

    Args:
        between: (n, n) distances of the volumes. known: (n, m) those from annotated ones.
    """
    count = len(between)
    nearest = known.min(1) if known.shape[1] else np.full(count, np.inf)
    left, order = list(range(count)), []
    while left:
        if np.isinf(nearest).any():
            chosen = left[int(np.argmin(between.sum(0)[left]))]
        else:
            chosen = left[int(np.argmax(nearest[left]))]
        left.remove(chosen)
        order.append(choice_of(chosen, nearest, between))
        nearest = np.minimum(nearest, between[:, chosen])
    return order


def choice_of(chosen: int, nearest: np.ndarray, between: np.ndarray) -> Choice:
    """A volume as it is chosen.

    Args:
        nearest: (n,) of each volume, to what is annotated before. between: (n, n) distances.
    """
    if np.isinf(nearest).any():
        return Choice(chosen, None, ())
    nearer = np.flatnonzero(between[:, chosen] < nearest)
    return Choice(chosen, float(nearest[chosen]), tuple(int(n) for n in nearer if n != chosen))
