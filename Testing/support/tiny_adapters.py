"""Adapters whose every weight matters."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.methods.adapters.base import Adapter


def make_adapter(
    name: str,
    channels: Sequence[int],
    structures: int = 2,
    levels: Sequence[int] | None = None,
) -> Adapter:
    """An adapter whose every weight matters."""
    torch.manual_seed(0)
    adapter = ADAPTERS[name](channels, structures, levels).eval().requires_grad_(False)
    for parameter in adapter.parameters():
        parameter.normal_(std=0.3)
    for number, width in enumerate(channels):
        adapter.standardise_by(number, 0.1 * torch.randn(width), 0.5 + torch.rand(width))
    return adapter
