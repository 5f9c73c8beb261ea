"""Patch merging of Swin UNETR: the orders in which networks were trained, whatever MONAI is here.

Merging halves the resolution: of every 2x2x2 voxels it concatenates slices of the features, and a
linear layer with trained weights reduces them. So the order of the slices belongs to the weights.
MONAI changed it under one name ("merging"): up to 1.4 it took two of the eight voxels twice and
two never, as the copies that the authors of public checkpoints trained with still do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ORDERS: dict[str, tuple[str, ...]] = {
    "monai-0.9": ("000", "100", "010", "001", "101", "010", "001", "111"),
    "monai-1.5": ("000", "100", "010", "001", "110", "101", "011", "111"),
    "mergingv2": ("000", "001", "010", "011", "100", "101", "110", "111"),
}
"""Which voxel of each 2x2x2 along (i, j, k) every part of the concatenation is, by name:

``monai-0.9``: "merging" of MONAI 0.9 to 1.4; ``monai-1.5``: "merging" since 1.5;
``mergingv2``: MONAI's "mergingv2", the same in all its versions.
"""


class PatchMerging(nn.Module):
    """Concatenate the voxels of each 2x2x2, normalise, reduce; tensors have MONAI's names.

    Args:
        channels: of the input; twice as many come out.
        order: a name of :data:`ORDERS`.
    """

    def __init__(self, channels: int, order: str) -> None:
        super().__init__()
        self.corners = tuple(tuple(map(int, corner)) for corner in ORDERS[order])
        self.norm = nn.LayerNorm(8 * channels)
        self.reduction = nn.Linear(8 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, i, j, k, C), even sizes, to (B, i / 2, j / 2, k / 2, 2 C)."""
        parts = [x[:, i::2, j::2, k::2] for i, j, k in self.corners]
        return self.reduction(self.norm(torch.cat(parts, -1)))
