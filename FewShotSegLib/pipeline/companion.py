"""The best effort: a second network beside the adapter, and the average of both.

An adapter on frozen features and a network that a few volumes alone have taught make different
mistakes. The mean of their probabilities is better than either (deep ensembles: Lakshminarayanan
et al., NeurIPS 2017, with members of two kinds). What that brings and costs is measured in
``Documentation/explanation/results.md``.

The adapter is complete before, in its file too: whatever goes wrong here, or stops it, costs the
second network alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ..core.geometry import Volume
from ..features.extraction import FeatureSource
from ..inference.prediction import model_probabilities
from ..models.registry import Model
from ..training.run import Run
from .adapter_file import TrainedAdapter
from .expectation import after_the_adapter
from .runtime import Runtime

PHASE = "companion"


def add_companion(
    trained: TrainedAdapter, train: Callable[[Run], TrainedAdapter], run: Run
) -> None:
    """Give an adapter its second network.

    It stays without where this is stopped, or fails, which is a warning.

    Args:
        train: trains the network as an adapter of its own.
    """
    with after_the_adapter(run, "The adapter is complete, but not its second network."):
        trained.companion = train(replace(run, phase=PHASE, checkpoint=None))


def companion_probabilities(
    trained: TrainedAdapter,
    foundation: Model,
    volume: Volume,
    source: FeatureSource,
    runtime: Runtime,
) -> Tensor | None:
    """Probabilities (K, i, j, k) of an adapter's second network on the model grid, float16.

    Args:
        source: of the adapter's own features. None where it has no second network.
    """
    second = trained.companion
    if second is None:
        return None
    own = runtime.source(second.tuned_model(foundation), second.preprocessing)
    own.upcoming = [volume]
    features = own(volume, "")
    return model_probabilities(
        second.adapter, features, source.device, lambda done, total: runtime.check()
    )


def averaged(scores: Tensor, second: Tensor | None) -> Tensor:
    """The mean of two networks' probabilities (K, i, j, k), float16; ``scores`` where there is one
    alone."""
    if second is None:
        return scores
    # Structure by structure: all of them in single precision take memory.
    means = [(a.float() + b.float()).div_(2).half() for a, b in zip(scores, second, strict=True)]
    return torch.stack(means)
