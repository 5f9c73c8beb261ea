"""Optimiser steps over episodes, on a CPU or a GPU, resumed after any of them."""

from __future__ import annotations

import copy
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...compute.precision import at_speed
from ..network import move_average
from ..steps import require_finite, scheduled_rate, take_means
from .episodes import Episode, Episodes
from .network import ALL_LEVELS, TERMS, build_network
from .pack import Pack
from .recipe import Recipe, Schedule

MOST_WORKERS = 16


def learning_rate(plan: Schedule, done: int) -> float:
    """Linear warm-up, then half a cosine over all episodes.

    Args:
        done: episodes, so that a schedule goes on where another device had another batch.
    """
    warm_up = (done / plan.batch + 1) / (plan.warm_up + 1)
    angle = math.pi * min(1.0, done / plan.episodes)
    return scheduled_rate(plan.learning_rate, warm_up, angle)


class EpisodeTrainer:
    """A network in training.

    Attributes:
        network: what is trained. averaged: the running average of its weights.
        done: episodes that were learned from.
        running: (terms, 2), the sum and the number of each term since it was last reset.
    """

    def __init__(self, recipe: Recipe, pack: Pack, seed: int, device: torch.device) -> None:
        self.recipe, self.plan, self.device, self.seed = recipe, recipe.training, device, seed
        # On the CPU whatever the device, so that a run goes on elsewhere with the same crops.
        self.episodes = Episodes(pack, recipe, seed, torch.device("cpu"))
        network = build_network(recipe, pack, seed)
        self.network = network.to(device, memory_format=torch.channels_last_3d)
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, self.plan.learning_rate, weight_decay=self.plan.weight_decay
        )
        self.done = 0
        self.running = torch.zeros(len(TERMS), 2, device=device)

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        """Take the steps that are left, or until ``stop``; yields after each."""
        for episodes in self._drawn():
            if stop():
                return
            self.step(episodes)
            yield

    def step(self, episodes: list[Episode]) -> None:
        """One optimiser step."""
        self._set_mode()
        images = torch.cat([episode.images for episode in episodes]).to(self.device)
        images = images.contiguous(memory_format=torch.channels_last_3d)
        with at_speed(self.device):
            levels = self.network.backbone.features(images)
        terms = []
        for number, episode in enumerate(episodes):
            pair = [level[2 * number : 2 * number + 2] for level in levels]
            episode = self._moved(episode)
            terms.append(self.network.episode(pair, episode, self._levels(number, len(levels))))
        loss = torch.stack([t["loss"] for t in terms]).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.plan, self.done)
        nn.utils.clip_grad_norm_(self.parameters, self.plan.clip)
        self.optimizer.step()
        move_average(self.averaged, self.network, self.done / self.plan.batch, self.plan.average)
        for row, name in enumerate(TERMS):
            values = [t[name].detach() for t in terms if name in t]
            if values:
                self.running[row, 0] += torch.stack(values).sum()
                self.running[row, 1] += len(values)
        self.done += len(episodes)

    def _moved(self, episode: Episode) -> Episode:
        if self.device.type == "cpu":
            return episode
        return Episode(
            episode.images,
            episode.points.to(self.device),
            episode.tasks.to(self.device),
            episode.labels.to(self.device),
            episode.places.to(self.device),
            episode.group,
            episode.one,
            episode.same,
        )

    def _levels(self, number: int, count: int) -> list[bool]:
        """The feature levels that an episode is solved from."""
        rng = np.random.default_rng([self.seed, self.done + number, 2**20])
        if rng.random() < ALL_LEVELS:
            return [True] * count
        some = rng.random(count) < 0.5
        some[rng.integers(count)] = True
        return some.tolist()

    def reset_running(self) -> dict[str, float]:
        """The mean of each term since the last call.

        Raises:
            InputError: the training has diverged.
        """
        self.require_finite()
        return take_means(self.running, TERMS, 5)

    def require_finite(self) -> None:
        """Tell a training that has diverged, before its state is kept.

        Raises:
            InputError: a loss or a weight is no number.
        """
        require_finite((self.running, *self.parameters))

    def _set_mode(self) -> None:
        self.network.train()
        frozen_from = self.plan.freeze_statistics * self.plan.episodes
        if self.done < frozen_from:
            return
        pairs = zip(self.network.backbone.modules(), self.averaged.backbone.modules(), strict=True)
        for module, mean in pairs:
            if isinstance(module, _BatchNorm):
                module.eval()
                if self.done - self.plan.batch < frozen_from:
                    # A batch is one region in one contrast; the average has seen them all.
                    module.load_state_dict({**module.state_dict(), **_statistics(mean)})

    def _drawn(self) -> Iterator[list[Episode]]:
        """The episodes of every step; drawn ahead in threads where a GPU would wait for them."""
        plan = self.plan
        steps = [
            range(first, min(first + plan.batch, plan.episodes))
            for first in range(self.done, plan.episodes, plan.batch)
        ]
        if self.device.type == "cpu":
            for numbers in steps:
                yield [self.episodes.draw(number) for number in numbers]
            return
        workers = max(1, min(MOST_WORKERS, (os.cpu_count() or 2) - 1))
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
        try:
            ahead: deque[list[Future[Episode]]] = deque()
            waiting = iter(steps)
            for _ in steps:
                while len(ahead) * plan.batch < 2 * workers + plan.batch:
                    numbers = next(waiting, None)
                    if numbers is None:
                        break
                    ahead.append([pool.submit(self.episodes.draw, n) for n in numbers])
                yield [future.result() for future in ahead.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)


def _statistics(norm: nn.Module) -> dict[str, Tensor]:
    return {k: v for k, v in norm.state_dict().items() if k.startswith("running_")}
