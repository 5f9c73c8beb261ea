"""Training steps of an adapter: crops one after another on all cores, and a crop for each core.

    python Testing/benchmarks/parallel.py

Synthetic features as of the small U-Nets, two structures. The ratio of the mean times is printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from unittest import mock

import numpy as np
import torch

from FewShotSegLib.core.settings import TrainingSettings
from FewShotSegLib.features.store import VolumeFeatures
from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.training import learner as training
from FewShotSegLib.training.run import Run
from FewShotSegLib.training.support_set import PreparedSupport

CHANNELS, SIDE, STEPS = (16, 32, 64, 128, 192), 96, 10
TURNS = 3
STRIDES = (1, 2, 4, 8, 16)


def main() -> None:
    """Measure and print."""
    if "OMP_WAIT_POLICY" not in os.environ:  # threads that sleep while they wait, as the command's
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        sys.exit(subprocess.run([sys.executable, __file__], env=environment).returncode)
    adapter = ADAPTERS["adapter"](CHANNELS, 2).train()
    learner = training.FeatureLearner(adapter, [make_support()], TrainingSettings())

    def step() -> None:
        adapter.zero_grad()
        dice, entropy = learner.losses(np.random.default_rng(0), Run(torch.device("cpu")))
        (dice + entropy).backward()

    before = after = 0.0
    for _ in range(TURNS):
        after += seconds(step) / TURNS
        with mock.patch.object(training, "differentiable_in_parallel", in_turn):
            before += seconds(step) / TURNS
    print(
        f"{torch.get_num_threads()} threads: {before:.3f} s a step, {after:.3f} s with a crop for "
        f"each, {before / after:.2f} times as fast"
    )


def in_turn(function, pieces, parameters, device):
    """What was done before."""
    return [function(piece) for piece in pieces]


def make_support() -> PreparedSupport:
    """Features of one volume, and two structures in its middle."""
    rng = np.random.default_rng(0)
    levels = tuple(
        rng.standard_normal((channels, *3 * [SIDE // stride])).astype(np.float16)
        for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    )
    features = VolumeFeatures(levels, (1.0,) * len(levels), STRIDES, 3 * (SIDE,), "synthetic")
    targets = torch.zeros(2, *features.shape, dtype=torch.uint8)
    targets[0, 30:50, 30:50, 30:50] = targets[1, 50:70, 30:50, 30:50] = 255
    places = tuple(np.argwhere(target.numpy() > 127) for target in targets)
    return PreparedSupport(features, targets, torch.ones(2), places, {}, frozenset())


def seconds(function) -> float:
    """On average, the first time not counted."""
    function()
    start = time.perf_counter()
    for _ in range(STEPS):
        function()
    return (time.perf_counter() - start) / STEPS


if __name__ == "__main__":
    main()
