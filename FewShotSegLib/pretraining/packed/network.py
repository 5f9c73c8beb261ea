"""A backbone with what episodes need on top of it; only the backbone is kept in the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.errors import InputError
from ...models.backbones import BACKBONES
from ...models.backbones.base import Backbone
from ..network import equal_strides
from .episodes import Episode
from .losses import contrast_loss, episode_loss, gather
from .pack import Pack
from .recipe import Recipe

TERMS = ("loss", "episode", "right", "place", "template", "contrast")
PROJECTED = 96
ALL_LEVELS = 0.5
"""How often an episode is solved from all feature levels; else from some, so that each carries."""


class EpisodeNetwork(nn.Module):
    """The backbone and its heads.

    Attributes:
        gains: how much each feature level counts in an episode, as logarithms.
    """

    def __init__(self, backbone: Backbone, recipe: Recipe, pack: Pack) -> None:
        super().__init__()
        self.backbone, self.losses = backbone, recipe.losses
        for parameter in backbone.head.parameters():
            parameter.requires_grad_(False)
        width, levels = sum(backbone.channels), len(backbone.channels)
        self.gains = nn.Parameter(torch.zeros(levels))
        self.log_ridge = nn.Parameter(torch.tensor(math.log(recipe.losses.ridge)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(8.0)))
        self.template = pack.template() if recipe.losses.template else []
        self.classifier = nn.Linear(width, len(self.template)) if self.template else None
        self.project = (
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, PROJECTED))
            if recipe.losses.contrast
            else None
        )
        self.normalise = nn.BatchNorm1d(width, affine=False)
        top = max(int(volume.labels.max()) for volume in pack.volumes)
        # No buffer: it follows from the pack, and has no place in a checkpoint.
        self.class_of = torch.full((len(pack.groups), top + 1), -1)
        for row, (group, label) in enumerate(self.template):
            self.class_of[group, label] = row

    def episode(
        self, levels: Sequence[Tensor], episode: Episode, some: Sequence[bool]
    ) -> dict[str, Tensor]:
        """The losses of one episode.

        Args:
            levels: features (2, C, i, j, k) of both views. some: the levels to tell tasks from.
        """
        shape = tuple(episode.images.shape[2:])
        found = gather(list(levels), episode.points, shape)
        terms: dict[str, Tensor] = {}
        # With a gradient even where none of the losses applies to this episode.
        loss = 0 * self.gains.sum()
        if self.losses.episode or self.losses.place:
            lost, terms["right"], place = self._episode(found, episode, some)
            terms["episode"] = lost
            loss = loss + self.losses.episode * lost
            if place is not None:
                terms["place"] = place
                loss = loss + self.losses.place * place
        if self.project is not None and episode.same:
            features = self.normalise(torch.cat(found, -1).flatten(0, 1))
            projected = self.project(features).unflatten(0, (2, -1))
            terms["contrast"] = contrast_loss(projected, episode.tasks)
            loss = loss + self.losses.contrast * terms["contrast"]
        if self.classifier is not None:
            wanted = self.class_of.to(episode.labels.device)[episode.group][
                episode.labels
            ].flatten()
            known = wanted >= 0
            if known.any():
                features = self.normalise(torch.cat(found, -1).flatten(0, 1))
                scores = self.classifier(features[known])
                own = torch.tensor(
                    [group == episode.group for group, _ in self.template], device=scores.device
                )
                scores = scores.masked_fill(~own, -1e4)
                terms["template"] = nn.functional.cross_entropy(scores, wanted[known])
                loss = loss + self.losses.template * terms["template"]
        return terms | {"loss": loss}

    def _episode(
        self, found: list[Tensor], episode: Episode, some: Sequence[bool]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        parts = [features for features, used in zip(found, some, strict=True) if used]
        gains = [
            gain.exp().expand(features.shape[-1])
            for features, gain, used in zip(found, self.gains, some, strict=True)
            if used
        ]
        return episode_loss(
            torch.cat(parts, -1),
            episode.tasks,
            episode.places if self.losses.place and episode.one else None,
            torch.cat(gains),
            self.log_ridge.exp().clamp(min=1e-4),
            self.log_scale.exp(),
        )


def build_backbone(recipe: Recipe) -> Backbone:
    """The recipe's backbone with random weights from torch's generator, and no classes.

    Raises:
        InputError: its options are wrong, or the crop does not fit its strides.
    """
    options = {k: v for k, v in recipe.architecture.items() if k != "name"}
    name = recipe.architecture["name"]
    try:
        backbone = BACKBONES[name](**options, out_channels=1)
    except (TypeError, ValueError, RuntimeError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"The architecture {name} can't be built: {line}.") from error
    largest = max(equal_strides(backbone))
    if any(n % largest or n // largest < 2 for n in recipe.training.crop):
        raise InputError(
            f"The crop {list(recipe.training.crop)} must be multiples of {largest}, the largest "
            f"stride of {name}, and at least twice that."
        )
    return backbone


def build_network(recipe: Recipe, pack: Pack, seed: int) -> EpisodeNetwork:
    """The network at its start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EpisodeNetwork(build_backbone(recipe), recipe, pack)
