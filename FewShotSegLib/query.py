"""The query during transduction: its soft sizes, exact, and cheap enough to differentiate.

A prediction's size needs every voxel, but nearly all of its gradient comes from the few tiles that
hold some of the structure. A sweep without gradients measures every tile; steps then recompute the
tiles that matter and add the rest as it was last measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .adapters.base import Adapter
from .feature_store import VolumeFeatures
from .size_prior import STRAY_VOXELS, touches_border
from .tiles import box_scores, iterate_boxes

TILE = 40
COVERED = 0.98
MAX_ACTIVE = 10


class Query:
    """One unlabelled volume whose predicted sizes are compared with priors.

    Args:
        features: of the volume. levels: those that the adapter uses.
        voxel_volume: mm^3 of a model voxel.
        view: the field of view in model voxels; what reaches its border may be cut off.
    """

    def __init__(
        self,
        features: VolumeFeatures,
        levels: Sequence[int],
        voxel_volume: float,
        view: tuple[slice, slice, slice],
        device: torch.device,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.features, self.levels, self.voxel_volume = features, levels, voxel_volume
        self.view, self.device, self.check = view, device, check
        self.boxes = list(iterate_boxes(features.shape, TILE))
        self.masses = torch.zeros(0)
        self.active: list[int] = []
        self.cut_off: dict[int, bool] = {}

    @torch.no_grad()
    def sweep(self, adapter: Adapter) -> Tensor:
        """Measure every tile. Returns the soft sizes (K,) in mm^3."""
        masses, labels = [], None
        for box in self.boxes:
            self.check()
            probability = box_scores(
                adapter, self.features, self.levels, box, self.device
            ).sigmoid()
            masses.append(probability.sum((1, 2, 3)).cpu())
            if labels is None:
                labels = np.zeros((len(probability), *self.features.shape), bool)
            labels[(slice(None), *box)] = (probability > 0.5).cpu().numpy()
        self.masses = torch.stack(masses) * self.voxel_volume
        self.active = self._choose_active()
        self.cut_off = {
            k: touches_border(mask, self.view, STRAY_VOXELS) for k, mask in enumerate(labels)
        }
        return self.masses.sum(0)

    def sizes(self, adapter: Adapter) -> Tensor:
        """Soft sizes (K,) in mm^3 with a gradient through the tiles that matter.

        Call :meth:`sweep` first, and again after the adapter has moved far.
        """
        rest = self.masses.sum(0) - self.masses[self.active].sum(0)
        total = rest.to(self.device)
        for number in self.active:
            self.check()
            scores = box_scores(
                adapter, self.features, self.levels, self.boxes[number], self.device
            )
            mass = scores.sigmoid().sum((1, 2, 3)) * self.voxel_volume
            self.masses[number] = mass.detach().cpu()
            total = total + mass
        return total

    def _choose_active(self) -> list[int]:
        """Tiles that hold nearly all of each structure, at most a few of them."""
        share = self.masses / self.masses.sum(0).clamp(min=1e-9)
        needed: dict[int, float] = {}
        for k in range(share.shape[1]):
            order = share[:, k].argsort(descending=True)
            before = share[order, k].cumsum(0) - share[order, k]
            for tile in order[before < COVERED].tolist():
                needed[tile] = max(needed.get(tile, 0.0), float(share[tile, k]))
        return sorted(sorted(needed, key=needed.get, reverse=True)[:MAX_ACTIVE])
