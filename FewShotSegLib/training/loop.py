"""Eq. (3): an adapter fitted to the supports, and to the expected sizes on a query if given.

One loop serves the training of an adapter, joint training for one query, and the refinement of a
trained adapter, which differ in their settings; and the training of the backbone itself, which
differs in its :class:`Recipe`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compute.parallel import differentiable_at_once
from ..compute.precision import at_speed
from ..core.errors import InputError
from ..core.events import EventSink, ignore, make_event
from ..core.limits import COUNT, EPOCHS, LEARNING_RATE, PART, SIZE_WEIGHT, WARM_UP, WEIGHT
from ..core.size_prior import SizePrior
from ..inference.query_sizes import Query
from ..inference.tiles import Box, box_scores
from ..methods.adapters.base import Adapter
from .checkpoint import Checkpoint
from .losses import cross_entropy_loss, soft_dice_loss
from .sampling import draw_crops
from .size_penalty import bounds_tensors, size_penalty
from .support_set import PreparedSupport

SWEEP_EVERY = 5


@dataclass(frozen=True)
class TrainingSettings:
    """How an adapter is trained. The defaults are those measured best on the benchmark.

    Attributes:
        epochs, steps_per_epoch: the schedule; one query step an epoch where there is a query.
        crops: crops a step. crop_size: their side in model voxels.
        learning_rate: None takes the adapter's own.
        cross_entropy: its weight beside soft Dice.
        warm_up: epochs of linear warm-up before the cosine.
        plateau, patience: training stops when the smoothed loss has moved by less than
            ``plateau`` in ``patience`` epochs.
        size_weight: lambda of eq. (3). size_from: the part of the epochs after which it acts.
    """

    epochs: int = 60
    steps_per_epoch: int = 4
    crops: int = 4
    crop_size: int = 32
    learning_rate: float | None = None
    weight_decay: float = 0.0
    cross_entropy: float = 1.0
    warm_up: int = 1
    plateau: float = 0.001
    patience: int = 20
    size_weight: float = 0.1
    size_from: float = 0.5

    def __post_init__(self) -> None:
        EPOCHS.check(self.epochs)
        for count in (self.steps_per_epoch, self.crops, self.crop_size, self.patience):
            COUNT.check(count)
        WARM_UP.check(self.warm_up)
        if self.learning_rate is not None:
            LEARNING_RATE.check(self.learning_rate)
        for weight in (self.weight_decay, self.cross_entropy, self.plateau):
            WEIGHT.check(weight)
        SIZE_WEIGHT.check(self.size_weight)
        PART.check(self.size_from)

    def to_json(self) -> dict[str, Any]:
        """The form kept in an adapter file."""
        return asdict(self)


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


class Recipe:
    """What an epoch of :func:`fit` is made of; this one trains adapters on frozen features."""

    def steps(self, settings: TrainingSettings, supports: Sequence[PreparedSupport]) -> int:
        """Optimiser steps on the supports in an epoch."""
        return settings.steps_per_epoch

    def rate(self, epoch: int, settings: TrainingSettings) -> float:
        """The part of the learning rate that an epoch has: linear warm-up, then half a cosine."""
        if epoch < settings.warm_up:
            return (epoch + 1) / (settings.warm_up + 1)
        progress = (epoch - settings.warm_up) / max(1, settings.epochs - settings.warm_up)
        return 0.5 + 0.5 * math.cos(math.pi * progress)

    def settled(self, history: Sequence[dict[str, Any]], settings: TrainingSettings) -> bool:
        """Whether the smoothed support loss has stopped moving (the published rule)."""
        losses = [record["dice_loss"] for record in history]
        window = settings.patience
        if len(losses) < 2 * window:
            return False
        now, before = np.mean(losses[-window:]), np.mean(losses[-2 * window : -window])
        return bool(abs(now - before) < settings.plateau)

    def losses(
        self,
        adapter: Adapter,
        levels: Sequence[int],
        supports: Sequence[PreparedSupport],
        settings: TrainingSettings,
        rng: np.random.Generator,
        device: torch.device,
        check: Callable[[], None],
    ) -> tuple[Tensor, Tensor]:
        """Soft Dice and cross-entropy over the crops of one step, drawn by ``rng``."""
        drawn = draw_crops(rng, supports, settings.crops, settings.crop_size)

        def scores_of(place: tuple[PreparedSupport, Box]) -> Tensor:
            support, box = place
            with at_speed(device):
                return box_scores(adapter, support.features, levels, box, device)

        check()  # here: it may be somebody's that only the main thread is allowed to call
        scores = differentiable_at_once(scores_of, drawn, list(adapter.parameters()), device)
        targets, masks = [], []
        for support, box in drawn:
            target = support.targets[(slice(None), *box)].to(device)
            targets.append(target.float() / 255)
            masks.append(support.annotated.to(device))
        return soft_dice_loss(scores, targets, masks), cross_entropy_loss(scores, targets, masks)


def fit(
    adapter: Adapter,
    levels: Sequence[int],
    supports: Sequence[PreparedSupport],
    settings: TrainingSettings,
    device: torch.device,
    seed: int = 0,
    query: Query | None = None,
    priors: Sequence[SizePrior] = (),
    phase: str = "train",
    events: EventSink = ignore,
    check: Callable[[], None] = lambda: None,
    checkpoint: Checkpoint | None = None,
    names: Sequence[str] = (),
    recipe: Recipe | None = None,
) -> TrainingResult:
    """Train an adapter in place.

    The crops of an epoch depend on the seed and the epoch alone, so that a resumed run equals an
    uninterrupted one.

    Args:
        supports: may be empty only with a query: then the sizes alone move the adapter.
        query, priors: the transductive term; one prior a structure.
        check: called once a step; raises to stop.
        checkpoint: where the state is kept after every few epochs and found again.
        names: the structures' names, for events.
        recipe: of the epochs; that of adapters where not given.
    """
    recipe = recipe or Recipe()
    if query is not None:
        query.expect(priors)
    start_time = time.perf_counter()
    adapter.to(device).train()
    rate = settings.learning_rate or adapter.learning_rate
    groups = adapter.parameter_groups(rate)
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=settings.weight_decay)
    history: list[dict[str, Any]] = []
    if checkpoint is not None:
        history = checkpoint.restore(adapter, optimizer)
    stopped = bool(supports) and recipe.settled(history, settings)
    for epoch in range(len(history), len(history) if stopped else settings.epochs):
        rng = np.random.default_rng([seed, epoch])
        adapter.begin_epoch(epoch / settings.epochs)
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * recipe.rate(epoch, settings)
        record: dict[str, Any] = {}
        dice_sum = entropy_sum = 0.0
        steps = recipe.steps(settings, supports) if supports else 0
        for _ in range(steps):
            dice, entropy = recipe.losses(adapter, levels, supports, settings, rng, device, check)
            optimizer.zero_grad()
            (dice + settings.cross_entropy * entropy).backward()
            optimizer.step()
            dice_sum += dice.item() / steps
            entropy_sum += entropy.item() / steps
        record |= {"dice_loss": dice_sum, "cross_entropy": entropy_sum}
        record["loss"] = dice_sum + settings.cross_entropy * entropy_sum
        if not math.isfinite(record["loss"]):
            raise InputError(
                f"The training diverged in epoch {epoch + 1}: its loss is no number any more. "
                "Use a smaller learning rate."
            )
        if query is not None and epoch >= settings.size_from * settings.epochs:
            if not query.measured or (epoch and epoch % SWEEP_EVERY == 0):
                query.sweep(adapter)
            record |= _query_step(adapter, optimizer, query, priors, settings, names, device)
            record["loss"] += settings.size_weight * record["size_loss"]
        history.append(record)
        stopped = recipe.settled(history, settings) if supports else record.get("size_loss") == 0.0
        if query is not None and supports:  # the size term needs its time as well
            stopped &= epoch >= settings.size_from * settings.epochs + settings.patience
        # A query's tiles are measured anew after these epochs, and before the first that needs
        # them: nothing else need be kept of it.
        fresh = query is None or not query.measured or (epoch + 1) % SWEEP_EVERY == 0
        if checkpoint is not None and fresh:
            checkpoint.save(adapter, optimizer, history)
        events(make_event("epoch", phase=phase, epoch=epoch + 1, epochs=settings.epochs, **record))
        if stopped and epoch + 1 < settings.epochs:
            break
    adapter.eval()
    return TrainingResult(len(history), stopped, history, time.perf_counter() - start_time)


def _query_step(
    adapter: Adapter,
    optimizer: torch.optim.Optimizer,
    query: Query,
    priors: Sequence[SizePrior],
    settings: TrainingSettings,
    names: Sequence[str],
    device: torch.device,
) -> dict[str, Any]:
    """One step on lambda L_TI; sizes in units of S, so that lambda is a plain number."""
    low, high, mean = bounds_tensors(priors, query.cut_off, device)
    sizes = query.sizes(adapter)
    penalties = size_penalty(sizes / mean, low / mean, high / mean)
    # A structure of which nothing is predicted anywhere has no gradient either.
    if penalties.requires_grad and bool((penalties > 0).any()):
        optimizer.zero_grad()
        (settings.size_weight * penalties.mean()).backward()
        optimizer.step()
    values = sizes.detach().tolist()
    return {
        "size_loss": float(penalties.mean().detach()),
        "sizes_ml": {name: round(v / 1000, 3) for name, v in zip(names, values, strict=False)},
        "bounds_ml": {
            name: [lower / 1000, upper / 1000 if math.isfinite(upper) else None]
            for name, lower, upper in zip(names, low.tolist(), high.tolist(), strict=False)
        },
    }
