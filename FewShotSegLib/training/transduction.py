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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.settings import RefinementSettings, TrainingSettings
from ..core.size_prior import SizePrior
from ..inference.query_sizes import Query, SizeMeasurement
from ..methods.adapters.base import Adapter
from .learner import FeatureLearner
from .loop import fit
from .run import Run
from .size_penalty import SizeTarget, bounds_tensors, size_penalty
from .support_set import PreparedSupport

__all__ = ["RefinementSettings", "refine"]

BISECTIONS = 5
NEGLIGIBLE = 1e-3
"""Part of a structure's expected size by which a bound may be missed."""


def refine(
    adapter: Adapter,
    probability: Tensor,
    target: SizeTarget,
    settings: RefinementSettings,
    run: Run,
    supports: Sequence[PreparedSupport] = (),
    training: TrainingSettings | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Probabilities by which the sizes on a query are plausible, and what happened.

    Args:
        adapter: stays as it was.
        probability: the adapter's (K, i, j, k) on the query; stay as they were.
        target: the query, and what is expected of it.
        run: its events are of the phase ``refine``.
        supports: of the adapter's training, or none. training: how that went.

    Returns:
        the probabilities, like the first (these themselves where nothing had to change), and a
        report: by structure the bounds, the soft size before and after in ml, and whether the
        query cuts it off.
    """
    query, names, values = target.query, list(target.priors), list(target.priors.values())
    before = query.measure(probability, values)
    bounds = zip(values, before.cut_off, before.sizes.tolist(), strict=True)
    within = [_plausible(size, prior.bounds(cut)) for prior, cut, size in bounds]
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
    run = replace(run, phase="refine")
    refined, epochs = probability, 0
    after, cut_off = before.sizes.tolist(), list(before.cut_off)
    if supports and not all(within):
        whole = copy.deepcopy(adapter)
        learner = FeatureLearner(whole, supports, rule)
        epochs = fit(learner, run, replace(target, measured=before)).epochs
        refined = query.probabilities(whole)
        measured = query.measure(refined, values)
        after, cut_off = measured.sizes.tolist(), list(measured.cut_off)
    elif not all(within):
        refined = probability.clone()
        for k in (k for k, fits in enumerate(within) if not fits):
            own = {names[k]: values[k]}
            start = query.measure(probability[k : k + 1], [values[k]])
            alone = adapter.only(k)
            learner = FeatureLearner(alone, (), rule)
            epochs += fit(learner, run, SizeTarget(query, own, start)).epochs
            alone = _first_plausible(adapter.only(k), alone, query, values[k])
            found = query.probabilities(alone)
            measured = query.measure(found, [values[k]])
            refined[k], after[k] = found[0], measured.sizes.item()
            cut_off[k] = measured.cut_off[0]
    report = {
        "epochs": epochs,
        "with_supports": bool(supports),
        "structures": _structures_report(target.priors, before, after, cut_off),
    }
    return refined, report


def _plausible(size: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= size <= bounds[1]


def _structures_report(
    priors: Mapping[str, SizePrior],
    before: SizeMeasurement,
    after: Sequence[float],
    cut_off: Sequence[bool],
) -> dict[str, dict[str, Any]]:
    """By structure name, what a refinement did.

    Args:
        before: as first measured. after: soft sizes (mm^3) in the end.
        cut_off: for each structure, whether the query cuts it off in the end.
    """
    report, sizes = {}, before.sizes.tolist()
    for k, (name, prior) in enumerate(priors.items()):
        low, high = prior.bounds(cut_off[k])
        report[name] = {
            "soft_size_before_ml": sizes[k] / 1000,
            "soft_size_after_ml": after[k] / 1000,
            "lower_bound_ml": low / 1000 if prior.enabled else None,
            "upper_bound_ml": high / 1000 if math.isfinite(high) else None,
            "lower_bound_trusted": not (prior.cut_off or cut_off[k]),
            "query_cut_off": cut_off[k],
            "within_before": _plausible(sizes[k], prior.bounds(before.cut_off[k])),
        }
    return report


def _first_plausible(start: Adapter, end: Adapter, query: Query, prior: SizePrior) -> Adapter:
    """The point closest to ``start``, on the straight way to ``end``, with no more penalty.

    Both are adapters of one structure.
    """

    def penalty(adapter: Adapter) -> float:
        found = query.sweep(adapter, [prior])
        low, high, mean = bounds_tensors([prior], found.cut_off, found.sizes.device)
        return float(size_penalty(found.sizes / mean, low / mean, high / mean).sum())

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
