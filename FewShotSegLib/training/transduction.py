"""Transductive refinement of a trained adapter for one new query: eq. (3) on copies.

Without the supports (the usual case: an adapter file travels without patients) each structure whose
size is out of its range gets a copy of the adapter for itself, as in the paper, which knows one
structure an adapter. The copy takes steps on the size penalty alone until the size is within its
range, and then goes back along its way to the first point where it is: a bound is reached, never
overshot. What is plausible already is left exactly as it was. (One copy for all moved plausible
structures along with the others, and cost Dice.)

With the supports at hand their loss holds one copy of the whole while the query's sizes pull it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..core.events import EventSink, ignore
from ..core.limits import EPOCHS, FACTOR, SIZE_WEIGHT
from ..core.size_prior import SizePrior
from ..inference.prediction import model_probabilities
from ..inference.query_sizes import Query
from ..methods.adapters.base import Adapter
from .loop import TrainingSettings, fit
from .size_penalty import bounds_tensors, size_penalty
from .support_set import PreparedSupport

BISECTIONS = 5
NEGLIGIBLE = 1e-3
"""Part of a structure's expected size by which a bound may be missed."""


@dataclass(frozen=True)
class RefinementSettings:
    """How a copy is refined.

    Attributes:
        epochs: at most.
        alone_factor, supported_factor: of the learning rate, without supports and with them.
        size_weight: lambda of eq. (3).
    """

    epochs: int = 20
    alone_factor: float = 0.1
    supported_factor: float = 0.5
    size_weight: float = 0.1

    def __post_init__(self) -> None:
        EPOCHS.check(self.epochs)
        FACTOR.check(self.alone_factor)
        FACTOR.check(self.supported_factor)
        SIZE_WEIGHT.check(self.size_weight)


def refine(
    adapter: Adapter,
    probability: Tensor,
    levels: Sequence[int],
    query: Query,
    priors: Mapping[str, SizePrior],
    settings: RefinementSettings,
    device: torch.device,
    supports: Sequence[PreparedSupport] = (),
    training: TrainingSettings | None = None,
    seed: int = 0,
    events: EventSink = ignore,
    check: Callable[[], None] = lambda: None,
) -> tuple[Tensor, dict[str, Any]]:
    """Probabilities by which the sizes on a query are plausible, and what happened.

    Args:
        adapter: stays as it was.
        probability: the adapter's (K, i, j, k) on the query; stay as they were.
        priors: by structure name, in the order of the adapter's structures.
        supports: of the adapter's training, or none.

    Returns:
        the probabilities, like the first (these themselves where nothing had to change), and a
        report: by structure the bounds, the soft size before and after in ml, and whether the
        query cuts it off.
    """
    names, values = list(priors), list(priors.values())
    query.expect(values)
    before = query.measure(probability).tolist()
    cut_off = dict(query.cut_off)
    bounds = [prior.bounds(cut_off[k]) for k, prior in enumerate(values)]
    within = [low <= size <= high for (low, high), size in zip(bounds, before, strict=True)]
    base = training or TrainingSettings()
    factor = settings.supported_factor if supports else settings.alone_factor
    rule = replace(
        base,
        epochs=settings.epochs,
        learning_rate=factor * (base.learning_rate or adapter.learning_rate),
        size_weight=settings.size_weight,
        size_from=0.0,
        warm_up=0,
    )

    def moved(copied: Adapter, numbers: Sequence[int]) -> tuple[Adapter, int]:
        result = fit(
            copied,
            levels,
            supports,
            rule,
            device,
            seed,
            query,
            [values[k] for k in numbers],
            "refine",
            events,
            check,
            names=[names[k] for k in numbers],
        )
        return copied, result.epochs

    refined, after, epochs = probability, list(before), 0
    if supports and not all(within):
        whole, epochs = moved(copy.deepcopy(adapter), range(len(names)))
        refined, sizes = _measured(whole, levels, query, device)
        after, cut_off = sizes.tolist(), dict(query.cut_off)
    elif not all(within):
        refined = probability.clone()
        for k in (k for k, fits in enumerate(within) if not fits):
            query.expect([values[k]])
            query.measure(probability[k : k + 1])
            alone, count = moved(adapter.only(k), [k])
            alone = _first_plausible(adapter.only(k), alone, query, values[k])
            found, sizes = _measured(alone, levels, query, device)
            refined[k], after[k], cut_off[k] = found[0], sizes.item(), query.cut_off[0]
            epochs += count
    bounds = [prior.bounds(cut_off[k]) for k, prior in enumerate(values)]
    report = {
        "epochs": epochs,
        "with_supports": bool(supports),
        "structures": {
            name: {
                "soft_size_before_ml": before[k] / 1000,
                "soft_size_after_ml": after[k] / 1000,
                "lower_bound_ml": bounds[k][0] / 1000 if values[k].enabled else None,
                "upper_bound_ml": bounds[k][1] / 1000 if math.isfinite(bounds[k][1]) else None,
                "lower_bound_trusted": not (values[k].cut_off or cut_off[k]),
                "query_cut_off": cut_off[k],
                "within_before": within[k],
            }
            for k, name in enumerate(names)
        },
    }
    return refined, report


def _measured(
    adapter: Adapter, levels: Sequence[int], query: Query, device: torch.device
) -> tuple[Tensor, Tensor]:
    """An adapter's probabilities (K, i, j, k) on the query, and its soft sizes (K,) in mm^3."""
    found = model_probabilities(
        adapter, query.features, levels, device, lambda done, total: query.check()
    )
    return found, query.measure(found)


def _first_plausible(start: Adapter, end: Adapter, query: Query, prior: SizePrior) -> Adapter:
    """The point closest to ``start``, on the straight way to ``end``, with no more penalty.

    Both are adapters of one structure.
    """

    def penalty(adapter: Adapter) -> float:
        sizes = query.sweep(adapter)
        low, high, mean = bounds_tensors([prior], query.cut_off, sizes.device)
        return float(size_penalty(sizes / mean, low / mean, high / mean).sum())

    allowed = penalty(end) + NEGLIGIBLE
    near, far, best = 0.0, 1.0, end
    for _ in range(BISECTIONS):
        middle = (near + far) / 2
        candidate = copy.deepcopy(end)
        with torch.no_grad():
            for new, old in zip(candidate.parameters(), start.parameters(), strict=True):
                new.lerp_(old.to(new.device), 1 - middle)
        if penalty(candidate) <= allowed:
            far, best = middle, candidate
        else:
            near = middle
    return best
