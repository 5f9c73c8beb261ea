"""A foundation model with part of its backbone trained: the network in training, and the model."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..compute.upsampling import upsample
from ..core.errors import InputError
from ..models.backbones.base import Backbone
from ..models.registry import Model
from .adapters.base import Adapter, statistics
from .tunings.base import Tuning, count_parameters

FREEZE_STATISTICS = 0.5
"""The part of a training after which new batch statistics stay as they are: with few crops a step
they wander, and what reads them must settle (pre-training does the same)."""
BACKBONE = "backbone."
"""How the names of the backbone's tensors begin beside the head's."""


class TunedNetwork(nn.Module):
    """A backbone that is trained, and the adapter on its features that is its new head.

    For :func:`training.fit` it is what an adapter alone is otherwise.

    Attributes:
        backbone: a copy of the model's own, changed by ``tuning``.
        learning_rate: a good first step size.
        levels: the feature levels that the head uses, finest first.
    """

    def __init__(self, model: Model, tuning: Tuning, head: Adapter) -> None:
        super().__init__()
        self.tuning, self.head, self.levels = tuning, head, head.levels
        self.backbone: Backbone = copy.deepcopy(model.backbone)
        tuning.apply(self.backbone, model.entry.build)
        self.learning_rate = tuning.learning_rate
        self._moving = tuning.moving(self.backbone)
        self._progress = 0.0

    def forward(self, images: Tensor) -> list[Tensor]:
        """The features (B, C, i, j, k) that the head uses, of images (B, 1, I, J, K)."""
        levels = self.backbone.features(images)
        return [levels[level] for level in self.levels]

    def scores(self, images: Tensor) -> Tensor:
        """Scores (B, structures, I, J, K) of images (B, 1, I, J, K)."""
        total: Tensor | None = None
        whole = [slice(0, size) for size in images.shape[2:]]
        for number, features in enumerate(self(images)):
            part = self.head.level_scores(number, features).float()
            if part.shape[2:] != images.shape[2:]:
                stride = self.backbone.strides[self.levels[number]]
                part = upsample(part, stride, [(0, size) for size in part.shape[2:]], whole)
            total = part if total is None else total + part
        assert total is not None  # a head has a level at least
        return total

    def train(self, mode: bool = True) -> TunedNetwork:
        """Training mode for the head alone: what is frozen in a backbone stays as it is.

        New batch normalisations measure their statistics in the first part of a training.
        """
        super().train(mode)
        self.backbone.eval()
        for module in self._moving.values():
            module.train(mode and self._progress < FREEZE_STATISTICS)
        return self

    def begin_epoch(self, progress: float) -> None:
        """See :meth:`Adapter.begin_epoch`."""
        self._progress = progress
        self.train()

    def parameter_groups(self, rate: float) -> list[dict[str, Any]]:
        """See :meth:`Adapter.parameter_groups`; the head's rate is a multiple of the backbone's."""
        trained = [p for p in self.backbone.parameters() if p.requires_grad]
        head = list(self.head.parameters())
        return [
            {"params": head, "rate": rate * self.tuning.head_factor},
            *([{"params": trained, "rate": rate}] if trained else []),
        ]

    def trained_state(self) -> dict[str, Tensor]:
        """See :meth:`Adapter.trained_state`: the head, and what is trained of the backbone."""
        tuned = self.tuning.trained_tensors(self.backbone)
        return self.head.state_dict() | {BACKBONE + name: t for name, t in tuned.items()}

    def load_trained_state(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Adapter.load_trained_state`."""
        head, backbone = split_state(state)
        self.head.load_state_dict(head)
        self.tuning.load(self.backbone, backbone)

    def tuned_tensors(self) -> dict[str, Tensor]:
        """Copies of what was trained of the backbone, on the CPU."""
        tuned = self.tuning.trained_tensors(self.backbone)
        return {name: t.detach().cpu().contiguous().clone() for name, t in tuned.items()}

    def trained_parameters(self) -> int:
        """How many parameters are trained, the head's among them."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @torch.no_grad()
    def standardise(self, crops: Sequence[Tensor]) -> None:
        """Give the head the statistics of the first features, on images (B, 1, I, J, K).

        New batch normalisations begin with those of these crops as well.
        """
        self.train()
        samples: list[list[Tensor]] = [[] for _ in self.levels]
        for images in crops:
            for sample, features in zip(samples, self(images), strict=True):
                sample.append(features.float().transpose(0, 1).flatten(1))
        for number, parts in enumerate(samples):
            values = torch.cat(parts, 1)
            self.head.standardise_by(number, *statistics(values))


class TunedModel(Model):
    """The model that a training left: its features are those of the trained backbone.

    Its hash is one of the trained parameters as well, so that nothing that was computed with the
    frozen backbone is ever taken for it.

    Args:
        base: the foundation model that was trained on.
        tensors: what the tuning trained, by name.
    """

    def __init__(self, base: Model, tuning: Tuning, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(base.entry)
        self.base, self.tuning, self.tensors = base, tuning, dict(tensors)

    @cached_property
    def weights_sha256(self) -> str:
        """Hash of the foundation model's weights and of everything trained."""
        digest = hashlib.sha256(self.base.weights_sha256.encode())
        digest.update(f"{self.tuning.name} {self.tuning.decoder}".encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def backbone(self) -> Backbone:
        """The trained network, in evaluation mode on the CPU.

        Raises:
            InputError: the tensors are not of this method and model.
            ModelError: see :attr:`Model.backbone`.
        """
        backbone = copy.deepcopy(self.base.backbone).cpu()
        with torch.random.fork_rng(devices=[]):
            self.tuning.apply(backbone, self.entry.build)
        try:
            self.tuning.load(backbone, self.tensors)
        except ValueError as error:
            raise InputError(
                f"The trained backbone in this adapter is not of the model '{self.entry.id}': "
                f"{error}. Train it again, or copy its file again."
            ) from error
        return backbone.eval().requires_grad_(False)

    def class_head(self, name: str) -> tuple[Tensor, Tensor] | None:
        """The foundation model's."""
        return self.base.class_head(name)


def split_state(
    state: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The head's tensors, and the backbone's, of a :meth:`TunedNetwork.trained_state`."""
    head = {name: t for name, t in state.items() if not name.startswith(BACKBONE)}
    backbone = {
        name.removeprefix(BACKBONE): t for name, t in state.items() if name.startswith(BACKBONE)
    }
    return head, backbone


def count_tuned(tensors: Mapping[str, Tensor]) -> int:
    """How many of a backbone's numbers these are; measured statistics do not count."""
    return count_parameters((name, tensor.numel()) for name, tensor in tensors.items())
