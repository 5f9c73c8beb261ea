"""The query during transduction: its soft sizes, cheap enough to differentiate.

A prediction's size needs every voxel, but nearly all of its gradient comes from the few boxes that
hold some of the structure. A sweep without gradients measures the whole volume; steps then
recompute those boxes and add the rest as it was last measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..compute.parallel import differentiable_in_parallel
from ..compute.pieces import reaches_border
from ..compute.precision import at_speed
from ..core.geometry import Volume, three
from ..core.size_prior import STRAY_VOXELS, SizePrior, field_of_view
from ..features.extraction import FeatureSource
from ..features.store import VolumeFeatures
from ..methods.adapters.base import Adapter
from .prediction import model_probabilities
from .tiles import Box, box_scores, iterate_boxes

BLOCK = 8
"""Model voxels a side of the blocks that boxes are made of."""
COVERED = 0.98
"""The part of a structure's size that its boxes hold, if they may be so large."""
MAX_SIDE = 40
MAX_VOXELS = 400_000
"""Voxels that one step differentiates, in equal parts a structure; one box each at least."""


@dataclass(frozen=True)
class SizeMeasurement:
    """What is known of the predicted sizes on a query when all of it was looked at.

    Attributes:
        sizes: the soft sizes (K,) in mm^3, float32 on the CPU.
        cut_off: for each structure, whether the field of view cuts it off: its largest piece, or
            as many of the largest as its supports show.
        boxes: structure number and box of what steps recompute.
        rest: the part of each size (K,) outside its boxes, which stays as it was measured.
    """

    sizes: Tensor
    cut_off: tuple[bool, ...]
    boxes: tuple[tuple[int, Box], ...]
    rest: Tensor


@dataclass(frozen=True)
class Query:
    """One unlabelled volume whose predicted sizes are compared with priors.

    Attributes:
        features: of the volume. voxel_volume: mm^3 of a model voxel.
        view: the field of view in model voxels; what reaches its border may be cut off.
        device: where sizes are computed.
        check: called many times a second; raises to stop.
    """

    features: VolumeFeatures
    voxel_volume: float
    view: tuple[slice, slice, slice]
    device: torch.device
    check: Callable[[], None] = lambda: None

    def sweep(self, adapter: Adapter, priors: Sequence[SizePrior] = ()) -> SizeMeasurement:
        """Measure the whole volume; ``priors`` as of :meth:`measure`."""
        return self.measure(self.probabilities(adapter), priors)

    def probabilities(self, adapter: Adapter) -> Tensor:
        """An adapter's (K, i, j, k) on the model grid, float16 on the CPU."""
        return model_probabilities(
            adapter, self.features, self.device, lambda done, total: self.check()
        )

    def measure(self, probability: Tensor, priors: Sequence[SizePrior] = ()) -> SizeMeasurement:
        """:meth:`sweep` with the adapter's probabilities (K, i, j, k) at hand.

        Args:
            priors: what is known of the structures, in their order: in how many pieces each is.
                Without, each is in one.
        """
        pieces = [prior.pieces or 1 for prior in priors] or [1] * len(probability)
        cut_off = tuple(
            reaches_border((p > 0.5).numpy(), self.view, STRAY_VOXELS, count)
            for p, count in zip(probability, pieces, strict=True)
        )
        sizes = probability.sum((1, 2, 3), dtype=torch.float32) * self.voxel_volume
        boxes, rest = _choose_boxes(probability), sizes.clone()
        for k, box in boxes:
            rest[k] -= probability[(k, *box)].sum(dtype=torch.float32) * self.voxel_volume
        return SizeMeasurement(sizes, cut_off, tuple(boxes), rest)

    def sizes(self, adapter: Adapter, measured: SizeMeasurement) -> Tensor:
        """Soft sizes (K,) in mm^3 with a gradient through the boxes that matter.

        Args:
            measured: of this adapter, before it has moved far.
        """
        sizes = list(measured.rest.to(self.device))

        def size_in(place: tuple[int, Box]) -> Tensor:
            k, box = place
            with at_speed(self.device):
                scores = box_scores(adapter, self.features, box, self.device)
            return scores[k].sigmoid().sum() * self.voxel_volume

        self.check()
        parts = differentiable_in_parallel(
            size_in, measured.boxes, list(adapter.parameters()), self.device
        )
        for (k, _), part in zip(measured.boxes, parts, strict=True):
            sizes[k] = sizes[k] + part
        return torch.stack(sizes)


def query_for(
    volume: Volume, features: VolumeFeatures, source: FeatureSource, check: Callable[[], None]
) -> Query:
    """A volume's query.

    Args:
        features: of the volume, from ``source``.
        check: called many times a second; raises to stop.
    """
    placement = source.preprocessing.placement(volume)
    view = placement.box_to_model(field_of_view(volume.array))
    return Query(features, placement.voxel_volume, view, source.device, check)


def _choose_boxes(probability: Tensor) -> list[tuple[int, Box]]:
    """Boxes that hold nearly all of each structure; the fullest where that is too much."""
    chosen = []
    for k, p in enumerate(probability):
        boxes = _boxes_around(p)
        boxes.sort(key=lambda box: -float(p[box].sum(dtype=torch.float32)))
        sizes = [np.prod([part.stop - part.start for part in box]) for box in boxes]
        fitting = int((np.cumsum(sizes) <= MAX_VOXELS / len(probability)).sum())
        chosen += [(k, box) for box in boxes[: max(1, fitting)]]
    return chosen


def _boxes_around(probability: Tensor) -> list[Box]:
    """Boxes of at most ``MAX_SIDE`` voxels a side around where one structure (i, j, k) is."""
    shape = probability.shape
    padding = [n for size in reversed(shape) for n in (0, -size % BLOCK)]
    blocks = torch.nn.functional.pad(probability.float(), padding)[None, None]
    blocks = torch.nn.functional.avg_pool3d(blocks, BLOCK)[0, 0]
    total = float(blocks.sum())
    if total == 0:
        return []
    order = blocks.flatten().argsort(descending=True)
    share = blocks.flatten()[order].cumsum(0) / total
    count = int((share < COVERED).sum()) + 1
    active = torch.zeros(blocks.numel(), dtype=torch.bool)
    active[order[:count]] = True
    labels, _ = ndimage.label(active.view(blocks.shape).numpy(), np.ones((3, 3, 3)))
    boxes = []
    for found in ndimage.find_objects(labels):
        whole = [
            slice(part.start * BLOCK, min(part.stop * BLOCK, size))
            for part, size in zip(found, shape, strict=True)
        ]
        sides = [part.stop - part.start for part in whole]
        for inner in iterate_boxes(sides, MAX_SIDE):
            boxes.append(
                three(
                    slice(outer.start + part.start, outer.start + part.stop)
                    for outer, part in zip(whole, inner, strict=True)
                )
            )
    return boxes
