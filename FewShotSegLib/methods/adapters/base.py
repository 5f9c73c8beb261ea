"""What every adapter shares: standardised features in, one score a structure and level out."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

RARE = -4.0
"""First bias of a structure that the foundation model does not know: a voxel is rarely in it."""


def statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (channels,) of features (channels, voxels).

    A single voxel, which is all that a small volume has on the coarsest level, has no deviation:
    it is 1, so that features keep their scale.
    """
    mean = values.mean(1)
    return mean, values.std(1) if values.shape[1] > 1 else torch.ones_like(mean)


class Adapter(nn.Module, ABC):
    """The trained phi of the paper, which replaces the class head of a frozen backbone.

    Each feature level is adapted and classified at its own resolution; the scores of the levels
    are interpolated to the model grid and added (:mod:`FewShotSegLib.inference.tiles` does that).
    Over the last level alone that is the published adapter.

    Features are standardised by the supports' mean and deviation, which the adapter keeps.

    Args:
        channels: channels of each level that is adapted.
        structures: number of structures, each with its own sigmoid.
        levels: which of the backbone's feature levels these are, finest first; the first ones
            where not given.

    Attributes:
        levels: the same.
    """

    halo: int
    """Level voxels on each side that a score depends on."""
    mean0: Tensor
    deviation0: Tensor
    """Of the finest level's features in the supports, (channels[0],); others by their number."""
    learning_rate: float
    """A good first step size, found on the benchmark."""

    def __init__(
        self, channels: Sequence[int], structures: int, levels: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.levels = tuple(range(len(channels)) if levels is None else levels)
        if len(self.levels) != len(channels):
            raise ValueError(f"{len(self.levels)} levels for channels of {len(channels)}")
        self.classifiers = nn.ModuleList(nn.Conv3d(c, structures, 1) for c in channels)
        for level, (classifier, width) in enumerate(zip(self.classifiers, channels, strict=True)):
            nn.init.normal_(classifier.weight, std=0.01)
            nn.init.constant_(classifier.bias, RARE if level == 0 else 0.0)
            self.register_buffer(f"mean{level}", torch.zeros(width))
            self.register_buffer(f"deviation{level}", torch.ones(width))

    def halo_of(self, level: int) -> int:
        """:attr:`halo` of one level; less where it is adapted without its neighbourhood."""
        return self.halo

    @abstractmethod
    def adapt(self, level: int, features: Tensor) -> Tensor:
        """Standardised features (B, C, i, j, k) of one level, adapted; the same shape."""

    def level_scores(self, level: int, features: Tensor) -> Tensor:
        """Scores (B, structures, i, j, k) that one level adds, from its raw features."""
        shape = (1, -1, 1, 1, 1)
        mean = getattr(self, f"mean{level}").view(shape)
        deviation = getattr(self, f"deviation{level}").view(shape)
        return self.classifiers[level](self.adapt(level, (features - mean) / deviation))

    def standardise_by(self, level: int, mean: Tensor, deviation: Tensor) -> None:
        """Keep the supports' feature statistics (channels,) of one level."""
        getattr(self, f"mean{level}").copy_(mean)
        getattr(self, f"deviation{level}").copy_(deviation.clamp(min=1e-3))

    @torch.no_grad()
    def start_from(self, structure: int, weight: Tensor, bias: Tensor) -> None:
        """Begin a known organ's score as the foundation model's own (its zero-shot result).

        Call after :meth:`standardise_by`. ``weight`` (channels[0],) and ``bias`` () are the
        published head's; every coarser level starts at zero for this structure.
        """
        for level, classifier in enumerate(self.classifiers):
            classifier.weight[structure] = 0
            classifier.bias[structure] = 0
            if level == 0:
                mean, deviation = self.mean0, self.deviation0
                classifier.weight[structure] = (weight * deviation).view(-1, 1, 1, 1)
                classifier.bias[structure] = bias + weight @ mean

    def only(self, structure: int) -> Adapter:
        """A copy that scores one structure alone, exactly as this one does."""
        alone = copy.deepcopy(self)
        for classifier in alone.classifiers:
            classifier.out_channels = 1
            for name in ("weight", "bias"):
                row = getattr(classifier, name).detach()[structure : structure + 1].clone()
                setattr(classifier, name, nn.Parameter(row))
        return alone

    def trained_parameters(self) -> int:
        """How many parameters are trained."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def parameter_groups(self, rate: float) -> list[dict[str, Any]]:
        """What an optimiser trains, and how fast: groups of ``params`` with their ``rate``."""
        return [{"params": list(self.parameters()), "rate": rate}]

    def trained_state(self) -> dict[str, Tensor]:
        """The tensors of an interrupted training, by name."""
        return self.state_dict()

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a :meth:`trained_state`."""
        self.load_state_dict(state)

    def begin_epoch(self, progress: float) -> None:
        """Called before each epoch with the part of the training that is over, 0 to 1."""
        self.train()
