"""Transductive refinement of a trained adapter for one new query: eq. (3) on a copy.

With the supports at hand their loss holds the adapter while the query's sizes pull it. Without
them (the usual case: an adapter file travels without patients) the copy takes steps on the size
penalty alone until every size is within its range, and then goes back along its way to the first
point where they are: a bound is reached, never overshot, and a query that is already plausible is
left exactly as it was.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .adapters.base import Adapter
from .events import EventSink, ignore
from .query import Query
from .size_prior import SizePrior, bounds_tensors, size_penalty
from .support_set import PreparedSupport
from .training import TrainingSettings, fit

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


def refine(
    adapter: Adapter,
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
) -> tuple[Adapter, dict[str, Any]]:
    """A refined copy of an adapter, and what happened.

    Args:
        adapter: stays as it was.
        priors: by structure name, in the order of the adapter's structures.
        supports: of the adapter's training, or none.

    Returns:
        the copy (the adapter itself where nothing had to change), and a report: by structure the
        bounds, the soft size before and after in ml, and whether the query cuts it off.
    """
    names, values = list(priors), list(priors.values())
    refined = copy.deepcopy(adapter)
    before = query.sweep(refined)
    bounds = [prior.bounds(query.cut_off.get(k, False)) for k, prior in enumerate(values)]
    within = [
        low <= size <= high for (low, high), size in zip(bounds, before.tolist(), strict=True)
    ]
    epochs = 0
    if not all(within):
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
        result = fit(
            refined,
            levels,
            supports,
            rule,
            device,
            seed,
            query,
            values,
            "refine",
            events,
            check,
            names=names,
        )
        epochs = result.epochs
        if not supports:
            refined = _first_plausible(adapter, refined, query, values)
    after = query.sweep(refined) if epochs else before
    bounds = [prior.bounds(query.cut_off.get(k, False)) for k, prior in enumerate(values)]
    report = {
        "epochs": epochs,
        "with_supports": bool(supports),
        "structures": {
            name: {
                "soft_size_before_ml": before[k].item() / 1000,
                "soft_size_after_ml": after[k].item() / 1000,
                "lower_bound_ml": bounds[k][0] / 1000 if values[k].enabled else None,
                "upper_bound_ml": bounds[k][1] / 1000 if math.isfinite(bounds[k][1]) else None,
                "lower_bound_trusted": not (values[k].cut_off or query.cut_off.get(k, False)),
                "query_cut_off": query.cut_off.get(k, False),
                "within_before": within[k],
            }
            for k, name in enumerate(names)
        },
    }
    return (refined if epochs else adapter), report


def _first_plausible(
    start: Adapter, end: Adapter, query: Query, priors: Sequence[SizePrior]
) -> Adapter:
    """The point closest to ``start``, on the straight way to ``end``, with no more penalty."""

    def penalty(adapter: Adapter) -> float:
        sizes = query.sweep(adapter)
        low, high, mean = bounds_tensors(priors, query.cut_off, sizes.device)
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
