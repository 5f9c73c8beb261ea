"""Two supports of synthetic features, and an adapter trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from tiny import OneThread, make_features
from torch import Tensor

from FewShotSegLib.core.settings import TrainingSettings
from FewShotSegLib.core.size_prior import SizePrior
from FewShotSegLib.inference.query_sizes import Query
from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.methods.adapters.base import Adapter
from FewShotSegLib.training.learner import FeatureLearner
from FewShotSegLib.training.loop import TrainingResult, fit
from FewShotSegLib.training.run import Run
from FewShotSegLib.training.size_penalty import SizeTarget
from FewShotSegLib.training.support_set import PreparedSupport, standardise

CPU = torch.device("cpu")
SHAPE = (22, 19, 17)
NAMES = ("ball", "bar")
LEVELS = (0, 1)
WIDTHS = (4, 3)
VOXEL = 8.0
"""mm^3 of a model voxel."""
SETTINGS = TrainingSettings(
    epochs=8,
    steps_per_epoch=2,
    crops=2,
    crop_size=12,
    learning_rate=0.05,
    weight_decay=0.0,
    cross_entropy=1.0,
    warm_up=1,
    plateau=0.0,
    patience=50,
    size_weight=0.1,
    size_from=0.5,
)
THOROUGH = replace(SETTINGS, epochs=30, steps_per_epoch=3)


def synthetic(seed: int) -> tuple[Tensor, Tensor]:
    """Targets (2, *SHAPE) of a ball and a bar, and an image-like level that shows both in noise."""
    rng = np.random.default_rng(seed)
    i, j, k = np.ogrid[tuple(slice(n) for n in SHAPE)]
    centre = rng.uniform(7, 9, 3)
    ball = (i - centre[0]) ** 2 + (j - centre[1]) ** 2 + (k - centre[2]) ** 2 <= 4**2
    bar = (abs(i - 18) <= 1) & (abs(j - rng.integers(8, 12)) <= 2) & (k >= 3) & (k <= 13)
    targets = torch.from_numpy(np.stack([ball, bar]))
    level = np.zeros((4, 24, 20, 20), np.float32)
    level[0, :22, :19, :17] = 3 * ball + bar
    level[1, :22, :19, :17] = 3 * bar - ball
    level[2] = level[0] * level[1]
    level += rng.normal(size=level.shape).astype(np.float32) * 0.7
    return targets, torch.from_numpy(level)


def make_support(seed: int, annotated: Sequence[int] = (1, 1)) -> PreparedSupport:
    """One support with features on two levels; what is not annotated has targets of noise."""
    targets, level = synthetic(seed)
    coarse = torch.nn.functional.avg_pool3d(level[None, :3], 2)[0]
    w = torch.tensor(annotated, dtype=torch.float32)
    masks = targets.numpy()
    targets = (targets * 255).to(torch.uint8)
    noise = torch.randint(0, 256, targets.shape, dtype=torch.uint8)
    targets = torch.where(w.bool().view(-1, 1, 1, 1), targets, noise)
    having = [k for k in range(2) if annotated[k]]
    return PreparedSupport(
        make_features([level, coarse], (1, 2), SHAPE, key=str(seed)),
        targets,
        w,
        tuple(np.argwhere(masks[k]) if annotated[k] else np.zeros((0, 3), int) for k in range(2)),
        {NAMES[k]: float(masks[k].sum()) * VOXEL for k in having},
        frozenset(),
        f"case {seed}",
    )


def make_adapter(
    supports: Sequence[PreparedSupport], method: str = "linear-probe", seed: int = 0
) -> Adapter:
    torch.manual_seed(seed)
    adapter = ADAPTERS[method](WIDTHS, 2)
    standardise(adapter, supports)
    return adapter


def make_query(support: PreparedSupport) -> Query:
    """The volume of a support, without what was annotated."""
    return Query(support.features, VOXEL, tuple(slice(0, n) for n in SHAPE), CPU)


def weights(adapter: Adapter) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in adapter.state_dict().items()}


class Training(OneThread):
    """With two supports at hand."""

    def setUp(self) -> None:
        torch.manual_seed(0)
        patch = mock.patch("FewShotSegLib.compute.precision.fast_dtype", return_value=None)
        patch.start()
        self.addCleanup(patch.stop)
        self.supports = [make_support(1), make_support(2)]
        self.events: list[dict[str, Any]] = []

    def train(
        self,
        adapter: Adapter,
        settings: TrainingSettings = SETTINGS,
        *,
        supports: Sequence[PreparedSupport] | None = None,
        query: Query | None = None,
        priors: Sequence[SizePrior] = (),
        **run: Any,
    ) -> TrainingResult:
        """Train on the supports, or on others; ``run`` are fields of :class:`Run`."""
        supports = self.supports if supports is None else supports
        target = query and SizeTarget(query, dict(zip(NAMES, priors, strict=True)))
        learner = FeatureLearner(adapter, supports, settings)
        return fit(learner, Run(CPU, events=self.events.append, **run), target)

    def assert_equal(self, one: Adapter, other: Adapter) -> None:
        """Bit for bit."""
        for name, tensor in one.state_dict().items():
            self.assertTrue(torch.equal(tensor, other.state_dict()[name]), name)

    def differ(self, one: Adapter, other: Adapter) -> bool:
        pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        return any(not torch.equal(a, b) for a, b in pairs)
