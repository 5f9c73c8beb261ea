"""What published weight files have in common: prefixes, other networks' parts, no head."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
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

    They are the same with every version of torch and MONAI, since features are made with them: of
    torch's generator and of the order in which MONAI builds a network, nobody promises that.
    A file that has some of these must have all of them: then nothing is added.

    Args:
        state: the file's tensors under the backbone's own names.
        absent: whether a name is of the part that such files may lack.
        build: makes the backbone with random weights.
    """
    if any(absent(name) for name in state):
        return dict(state)
    with torch.random.fork_rng(devices=[]):
        fresh = build().state_dict()
    return {name: _initial(name, tensor) for name, tensor in fresh.items() if absent(name)} | dict(
        state
    )


def _initial(name: str, tensor: Tensor) -> Tensor:
    """A tensor's weights before any training, which its name and shape tell.

    Those of convolutions and linear layers are uniform in 1 / sqrt(inputs), as torch's own are;
    their biases 0. A normalisation's weights and statistics stay the constants that they are.
    """
    if tensor.ndim < 2:
        return torch.zeros_like(tensor) if name.endswith(".bias") else tensor
    # numpy promises the raw stream of a bit generator, and nothing of what is drawn from it.
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(tensor.numel()) >> np.uint64(11)
    values = torch.from_numpy(raw * 2.0**-52 - 1).reshape(tensor.shape)
    return (values / tensor[0].numel() ** 0.5).to(tensor.dtype)
