"""Eq. (3): an adapter fitted to the supports, and to the expected sizes on a query if given.

One loop serves the training of an adapter, joint training for one query, and the refinement of a
trained adapter, which differ in their settings; and the training of the backbone itself, which
is another :class:`.learner.Learner`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core.errors import InputError
from ..core.events import make_event
from ..core.settings import TrainingSettings
from ..inference.query_sizes import SizeMeasurement
from ..methods.adapters.base import Adapter
from .learner import Learner
from .run import Run
from .size_penalty import SizeTarget, bounds_tensors, size_penalty

__all__ = ["TrainingResult", "TrainingSettings", "fit"]

SWEEP_EVERY = 5


@dataclass
class TrainingResult:
    """How a training went.

    Attributes:
        epochs: epochs run, those before a resumption included.
        stopped_early: by the plateau rule.
        history: one dictionary an epoch, as in the ``epoch`` events.
        seconds: spent in this run.
    """

    epochs: int
    stopped_early: bool
    history: list[dict[str, Any]]
    seconds: float


def fit(learner: Learner, run: Run, target: SizeTarget | None = None) -> TrainingResult:
    """Train a network in place.

    The crops of an epoch depend on the seed and the epoch alone, so that a resumed run equals an
    uninterrupted one.

    Args:
        learner: what is trained; without supports only with a target: then the sizes alone move it.
        target: the transductive term, for a network that is an adapter on stored features.

    Raises:
        InputError: the training diverged, or its checkpoint is damaged or another's.
    """
    start, settings, network = time.perf_counter(), learner.settings, learner.network
    network.to(run.device).train()
    rate = settings.learning_rate or network.learning_rate
    groups = network.parameter_groups(rate)
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=settings.weight_decay)
    history: list[dict[str, Any]] = []
    if run.checkpoint is not None:
        history = run.checkpoint.restore(network, optimizer)
    measured = None if target is None else target.measured
    stopped = bool(learner.supports) and learner.settled(history)
    for epoch in range(len(history), len(history) if stopped else settings.epochs):
        record = _support_steps(learner, optimizer, epoch, run)
        if target is not None and epoch >= settings.size_from * settings.epochs:
            if measured is None or (epoch and epoch % SWEEP_EVERY == 0):
                measured = target.query.sweep(network, list(target.priors.values()))
            record |= _size_step(network, optimizer, target, measured, settings)
            record["loss"] += settings.size_weight * record["size_loss"]
        history.append(record)
        stopped = _is_over(learner, history, target)
        # A query's tiles are measured anew after these epochs, and before the first that needs
        # them: nothing else need be kept of it.
        fresh = measured is None or (epoch + 1) % SWEEP_EVERY == 0
        if run.checkpoint is not None and fresh:
            run.checkpoint.save(network, optimizer, history)
        number = {"epoch": epoch + 1, "epochs": settings.epochs}
        run.events(make_event("epoch", phase=run.phase, **number, **record))
        if stopped and epoch + 1 < settings.epochs:
            break
    network.eval()
    return TrainingResult(len(history), stopped, history, time.perf_counter() - start)


def _support_steps(
    learner: Learner, optimizer: torch.optim.Optimizer, epoch: int, run: Run
) -> dict[str, Any]:
    """The steps of an epoch on the supports, and their mean losses."""
    settings = learner.settings
    rng = np.random.default_rng([run.seed, epoch])
    learner.network.begin_epoch(epoch / settings.epochs)
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * learner.rate(epoch)
    dice_sum = entropy_sum = 0.0
    steps = learner.steps() if learner.supports else 0
    for _ in range(steps):
        dice, entropy = learner.losses(rng, run)
        optimizer.zero_grad()
        (dice + settings.cross_entropy * entropy).backward()
        optimizer.step()
        dice_sum += dice.item() / steps
        entropy_sum += entropy.item() / steps
    loss = dice_sum + settings.cross_entropy * entropy_sum
    if not math.isfinite(loss):
        raise InputError(
            f"The training diverged in epoch {epoch + 1}: its loss is no number any more. "
            "Use a smaller learning rate."
        )
    return {"dice_loss": dice_sum, "cross_entropy": entropy_sum, "loss": loss}


def _is_over(
    learner: Learner, history: Sequence[dict[str, Any]], target: SizeTarget | None
) -> bool:
    """Whether no further epoch is needed."""
    if not learner.supports:
        return history[-1].get("size_loss") == 0.0
    settled, settings = learner.settled(history), learner.settings
    if target is None:
        return settled
    # The size term needs its time as well.
    begun = settings.size_from * settings.epochs
    return settled and len(history) - 1 >= begun + settings.patience


def _size_step(
    adapter: Adapter,
    optimizer: torch.optim.Optimizer,
    target: SizeTarget,
    measured: SizeMeasurement,
    settings: TrainingSettings,
) -> dict[str, Any]:
    """One step on lambda L_TI; sizes in units of S, so that lambda is a plain number."""
    query, priors = target.query, list(target.priors.values())
    low, high, mean = bounds_tensors(priors, measured.cut_off, query.device)
    sizes = query.sizes(adapter, measured)
    penalties = size_penalty(sizes / mean, low / mean, high / mean)
    # A structure of which nothing is predicted anywhere has no gradient either.
    if penalties.requires_grad and bool((penalties > 0).any()):
        optimizer.zero_grad()
        (settings.size_weight * penalties.mean()).backward()
        optimizer.step()
    values = sizes.detach().tolist()
    return {
        "size_loss": float(penalties.mean().detach()),
        "sizes_ml": {
            name: round(v / 1000, 3) for name, v in zip(target.priors, values, strict=True)
        },
        "bounds_ml": {
            name: [lower / 1000, upper / 1000 if math.isfinite(upper) else None]
            for name, lower, upper in zip(target.priors, low.tolist(), high.tolist(), strict=True)
        },
    }
