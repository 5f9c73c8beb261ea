"""What published weight files have in common: prefixes, other networks' parts, no head."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

UNIVERSAL = ("precls_conv", "GAP", "controller", "organ_embedding", "text_to_vision")
"""The Universal Model's parts beside its backbone (CLIP-driven, SuPreM). They score its classes by
a network that an image's own features steer, which no linear head could start from."""


def without_prefixes(name: str) -> str:
    """A tensor's name without those of data-parallel training and of an enclosing model."""
    for prefix in ("module.", "backbone."):
        name = name.removeprefix(prefix)
    return name


def completed(
    state: Mapping[str, Tensor], absent: Callable[[str], bool], build: Callable[[], nn.Module]
) -> dict[str, Tensor]:
    """With random tensors, always the same, where a layout's files have none.

    A file that has some of these must have all of them: then nothing is added.

    Args:
        state: the file's tensors under the backbone's own names.
        absent: whether a name is of the part that such files may lack.
        build: makes the backbone with random weights.
    """
    if any(absent(name) for name in state):
        return dict(state)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = build().state_dict()
    return {name: tensor for name, tensor in fresh.items() if absent(name)} | dict(state)
