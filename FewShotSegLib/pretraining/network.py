"""A backbone with a 1x1x1 head on its finest feature levels, which is what pre-training trains."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.errors import InputError
from ..models.backbones import BACKBONES
from ..models.backbones.base import Backbone
from ..models.registry import Model, find_model
from .assembly import Assembly
from .targets import output_channels

RARE = -6.0
"""The least score that a class starts from: that of 2.5 voxels in a thousand."""
DEEP_LEVELS = 3


class PretrainingNetwork(nn.Module):
    """The backbone and its heads.

    Attributes:
        channels: output channels by target. strides: of each head's level, finest first.
        taken_over: (K,) bool, the classes whose rows of the finest head are another model's.
    """

    def __init__(self, backbone: Backbone, channels: dict[str, int], deep: bool) -> None:
        super().__init__()
        levels = 1 + (min(DEEP_LEVELS, len(backbone.channels) - 1) if deep else 0)
        self.backbone, self.channels = backbone, channels
        self.strides = equal_strides(backbone)[:levels]
        # The backbone's own head is filled from the first of these when the model is exported.
        backbone.head.requires_grad_(False)
        self.heads = nn.ModuleList(
            nn.Conv3d(width, sum(channels.values()), 1) for width in backbone.channels[:levels]
        )
        self.taken_over = torch.zeros(channels["classes"], dtype=torch.bool)
        with torch.no_grad():
            for head in self.heads:
                head.bias[: channels["classes"]] = RARE

    @torch.no_grad()
    def start_at(self, parts: Tensor) -> None:
        """Let every score begin at its class's frequency, except where it was taken over.

        From an even start rare classes sink together and hardly come back; from too low a one large
        classes take thousands of steps to rise, as an optimiser's step moves a bias by its learning
        rate at most.

        Args:
            parts: (K,) of the voxels that are of each class.
        """
        begin = torch.logit(parts.clamp(max=0.5)).clamp(min=RARE)
        for head in self.heads:
            known = self.taken_over & (head is self.heads[0])
            head.bias[: len(parts)] = torch.where(known, head.bias[: len(parts)], begin)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Outputs (B, C, i, j, k) of each head, finest first, of images (B, 1, I, J, K)."""
        levels = self.backbone.features(image)
        return [head(level) for head, level in zip(self.heads, levels, strict=False)]

    def split(self, output: Tensor) -> dict[str, Tensor]:
        """The outputs of one crop (C, i, j, k) by target."""
        parts = torch.split(output, list(self.channels.values()))
        return dict(zip(self.channels, parts, strict=True))

    @torch.no_grad()
    def fill_backbone_head(self) -> None:
        """Give the backbone's own head the classes' rows of the finest one."""
        classes = self.channels["classes"]
        self.backbone.head.weight.copy_(self.heads[0].weight[:classes])
        self.backbone.head.bias.copy_(self.heads[0].bias[:classes])


def build_backbone(assembly: Assembly) -> Backbone:
    """The assembly's backbone with random weights from torch's generator.

    Raises:
        InputError: its options are wrong, pre-training can't fill its head, or the crop does not
            fit its strides.
    """
    options = {k: v for k, v in assembly.architecture.items() if k != "name"}
    name = assembly.architecture["name"]
    try:
        backbone = BACKBONES[name](**options, out_channels=len(assembly.classes))
    except (TypeError, ValueError, RuntimeError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"The architecture {name} can't be built: {line}.") from error
    head = getattr(backbone, "head", None)
    if (
        not isinstance(head, nn.Conv3d)
        or head.kernel_size != (1, 1, 1)
        or head.in_channels != backbone.channels[0]
        or head.bias is None
    ):
        raise InputError(f"The architecture {name} has no 1x1x1 head that could be pre-trained.")
    largest = max(equal_strides(backbone))
    if any(n % largest for n in assembly.training.crop):
        raise InputError(
            f"The crop {list(assembly.training.crop)} must be multiples of {largest}, the largest "
            f"stride of {name}."
        )
    cells = assembly.training.crops * math.prod(n // largest for n in assembly.training.crop)
    if cells < 2:
        raise InputError(
            f"The crop {list(assembly.training.crop)} leaves one voxel at the largest stride of "
            f"{name}, {largest}; make it larger."
        )
    return backbone


def equal_strides(backbone: Backbone) -> list[int]:
    """The strides of a backbone's levels, where they are the same along all axes.

    Raises:
        InputError: they differ by axis, which pre-training's targets can't.
    """
    strides = [stride for stride in backbone.strides if isinstance(stride, int)]
    if len(strides) < len(backbone.strides):
        raise InputError(
            f"The network {type(backbone).__name__} has strides that differ by axis, which "
            "pre-training can't use: give it the same stride along all three."
        )
    return strides


def build_network(assembly: Assembly, seed: int) -> PretrainingNetwork:
    """The network at its start, the same for every process with this seed.

    Raises:
        InputError: see :func:`build_backbone`; or the model to start from has another architecture.
        ModelError: that model can't be read.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PretrainingNetwork(
            build_backbone(assembly), output_channels(assembly), assembly.targets.deep > 0
        )
    if assembly.start_from is not None:
        _start_from(network, find_model(assembly.start_from), assembly.classes)
    return network


@torch.no_grad()
def _start_from(network: PretrainingNetwork, model: Model, classes: Sequence[str]) -> None:
    """Take over a model's weights, and its head's for the classes that it knows."""
    backbone = network.backbone
    head = {id(tensor) for tensor in backbone.head.parameters()}
    wanted = {
        name: tensor
        for name, tensor in backbone.state_dict(keep_vars=True).items()
        if id(tensor) not in head
    }
    given = model.backbone.state_dict()
    if any(name not in given or given[name].shape != t.shape for name, t in wanted.items()):
        raise InputError(f"The model '{model.entry.id}' to start from has another architecture.")
    backbone.load_state_dict({name: given[name] for name in wanted}, strict=False)
    for row, name in enumerate(classes):
        known = model.class_head(name)
        if known is not None:
            network.heads[0].weight[row, :, 0, 0, 0], network.heads[0].bias[row] = known
            network.taken_over[row] = True


@torch.no_grad()
def move_average(averaged: nn.Module, network: nn.Module, step: float, decay: float) -> None:
    """Move averaged weights towards a network's; the first steps, which teach most, move farther.

    Args:
        averaged: of the same kind as ``network``; buffers that are no fractions are copied.
        step: steps made before this one. decay: of the average, at most.
    """
    decay = min(decay, (step + 1) / (step + 10))
    pairs = zip(
        [*averaged.parameters(), *averaged.buffers()],
        [*network.parameters(), *network.buffers()],
        strict=True,
    )
    for mean, value in pairs:
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)
