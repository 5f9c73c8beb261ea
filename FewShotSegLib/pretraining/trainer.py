"""One optimiser step at a time: crops, losses, averaged gradients, AdamW, averaged weights."""

from __future__ import annotations

import copy
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..compute.interruption import make_stoppable
from ..compute.precision import at_speed
from ..core.errors import Cancelled
from .assembly import Assembly
from .cases import Case
from .ddp import Ranks
from .losses import crop_losses, mean_losses
from .network import build_network, move_average
from .sampling import Sampler
from .settings import TrainingPlan
from .steps import require_finite, scheduled_rate, take_means
from .targets import Sample

TERMS = (
    *("loss", "dice_loss", "cross_entropy", "voxels"),
    *("tissue", "position", "distance", "clean"),
)
STOPPED = "Stopped. Repeat the command with --resume to go on from here."


def learning_rate(plan: TrainingPlan, step: int) -> float:
    """Linear warm-up, then half a cosine."""
    warm_up = (step + 1) / (plan.warm_up + 1)
    return scheduled_rate(plan.learning_rate, warm_up, math.pi * step / plan.steps)


class Trainer:
    """A network in training.

    Attributes:
        network: what is trained. averaged: the running average of its weights, in evaluation mode.
        done: steps taken.
        running: (terms, 2), the sum and the number of each loss since it was last reset.

    Args:
        cases: for each data set, its training cases.
        cancelled: asked many times a second; true stops with :class:`Cancelled`, the weights
            those after the last whole step.
    """

    def __init__(
        self,
        assembly: Assembly,
        cases: Sequence[Sequence[Case]],
        ranks: Ranks,
        seed: int,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.assembly, self.ranks, self.cancelled = assembly, ranks, cancelled
        self.plan, self.device = assembly.training, ranks.device
        self.sampler = Sampler(assembly, cases, seed, ranks.world)
        network = build_network(assembly, seed)
        # The start is the same however many processes there are, and so are these crops.
        network.start_at(Sampler(assembly, cases, seed, world=1).class_parts())
        self.network = network.to(self.device, memory_format=torch.channels_last_3d)
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        make_stoppable(self.network, self.check)
        make_stoppable(self.averaged, self.check)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, self.plan.learning_rate, weight_decay=self.plan.weight_decay
        )
        self.done = 0
        self.running = torch.zeros(len(TERMS), 2, device=self.device)

    def check(self) -> None:
        """Raise :class:`Cancelled` if the user stopped the work.

        Several processes stop together, between steps: one alone would leave the others waiting.
        """
        if self.ranks.world == 1 and self.cancelled():
            raise Cancelled(STOPPED)

    def run(self) -> Iterator[None]:
        """Take the steps that are left; yields after each.

        Raises:
            Cancelled: the user stopped.
        """
        for samples in self._samples(self.done):
            self.step(self.done, samples)
            yield

    def step(self, step: int, samples: Sequence[Sample]) -> None:
        """One optimiser step, over the crops of all processes together."""
        # A pass that is cut short has already moved the batch statistics.
        kept = [buffer.clone() for buffer in self.network.buffers()]
        try:
            terms = self.gradients(step, samples)
        except Cancelled:
            for buffer, value in zip(self.network.buffers(), kept, strict=True):
                buffer.copy_(value)
            raise
        stop = torch.tensor([float(self.cancelled())], device=self.device)
        self.ranks.average([*self.shared(), terms, stop])
        self.update(step)
        self.running += terms
        self.done = step + 1
        if self.ranks.world > 1 and stop.item() > 0:
            raise Cancelled(STOPPED)

    def shared(self) -> list[Tensor]:
        """What is averaged over the processes: gradients, and the batch statistics."""
        statistics = [b for b in self.network.buffers() if b.is_floating_point()]
        return [p.grad for p in self.parameters] + statistics

    def gradients(self, step: int, samples: Sequence[Sample]) -> Tensor:
        """Leave the gradients of these crops on the parameters; returns the terms (terms, 2)."""
        self._set_mode(step)
        self.optimizer.zero_grad(set_to_none=False)
        samples = [sample.to(self.device) for sample in samples]
        images = torch.stack([sample.image for sample in samples])
        images = images.contiguous(memory_format=torch.channels_last_3d)
        with at_speed(self.device):
            levels = self.network(images)
        total = torch.zeros((), device=self.device)
        finest: dict[str, Tensor] = {}
        for number, (outputs, stride) in enumerate(zip(levels, self.network.strides, strict=True)):
            crops = []
            for output, sample in zip(outputs, samples, strict=True):
                self.check()
                parts = self.network.split(output.float())
                crops.append(crop_losses(parts, sample, self.assembly.targets, stride))
            losses = mean_losses(crops)
            total = total + losses["loss"] * (self.assembly.targets.deep if number else 1)
            finest = finest or losses
        total.backward()
        for parameter in self.parameters:
            # Not every part of every architecture need lead to a head.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        zero = torch.zeros((), device=self.device)
        values = torch.stack([finest.get(name, zero).detach().float() for name in TERMS])
        there = torch.tensor([float(name in finest) for name in TERMS], device=self.device)
        return torch.stack([values, there], 1)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """AdamW with the gradients on the parameters, and the averaged weights."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.plan, step)
        nn.utils.clip_grad_norm_(self.parameters, self.plan.clip)
        self.optimizer.step()
        move_average(self.averaged, self.network, step, self.plan.average)

    def require_finite(self) -> None:
        """Tell a training that has diverged, before its state is kept.

        Raises:
            InputError: a loss since the last reset is no number, or a weight is none.
        """
        require_finite((self.running, *self.parameters))

    def reset_running(self) -> dict[str, float]:
        """The mean of each term that was there since the last call.

        Raises:
            InputError: see :meth:`require_finite`.
        """
        self.require_finite()
        return take_means(self.running, TERMS, 6)

    def _set_mode(self, step: int) -> None:
        self.network.train()
        if step >= self.plan.freeze_statistics * self.plan.steps:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _samples(self, start: int) -> Iterator[list[Sample]]:
        """The crops of every step; drawn ahead in threads where a GPU would wait for them."""
        rank, steps = self.ranks.rank, range(start, self.plan.steps)
        if self.device.type == "cpu":
            for step in steps:
                self.check()
                yield self.sampler.draw(step, rank)
            return
        workers = max(1, min(8, (os.cpu_count() or 2) // self.ranks.world - 1))
        pool = ThreadPoolExecutor(workers)
        try:
            ahead: deque[Future[list[Sample]]] = deque()
            for step in steps:
                while len(ahead) <= 2 * workers and step + len(ahead) < self.plan.steps:
                    ahead.append(pool.submit(self.sampler.draw, step + len(ahead), rank))
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
