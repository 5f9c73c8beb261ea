"""Probabilities on the model grid, and from them the result on the query's original grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..compute.parallel import MOST, in_parallel
from ..compute.precision import at_speed
from ..core.geometry import three
from ..features.store import VolumeFeatures
from ..methods.adapters.base import Adapter
from ..models.preprocessing import Placement
from .tiles import Box, box_scores, iterate_boxes

TILE = 64
MARGIN = 3
"""Model voxels around a structure beyond which its probability is not interpolated."""
NEGLIGIBLE = 0.01


@torch.inference_mode()
def model_probabilities(
    adapter: Adapter,
    features: VolumeFeatures,
    device: torch.device,
    on_tile: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Probabilities (K, i, j, k) of every structure on the model grid, float16 on the CPU.

    ``on_tile`` is called with tiles done and in all; it may raise to stop.
    """
    adapter.to(device).eval()
    boxes = list(iterate_boxes(features.shape, TILE))
    result: Tensor | None = None

    def probabilities_in(box: Box) -> Tensor:
        with at_speed(device):
            scores = box_scores(adapter, features, box, device)
        return scores.sigmoid().half().cpu()

    for number in range(0, len(boxes), MOST):
        on_tile(number, len(boxes))
        some = boxes[number : number + MOST]
        for box, found in zip(some, in_parallel(probabilities_in, some, device), strict=True):
            if result is None:
                result = torch.empty((len(found), *features.shape), dtype=torch.float16)
            result[(slice(None), *box)] = found
    on_tile(len(boxes), len(boxes))
    assert result is not None  # no grid is empty
    return result


def original_probability(probability: Tensor, placement: Placement) -> np.ndarray:
    """One structure's probability (i, j, k) on the query's original grid, float32 in [0, 1]."""
    return placement.to_original(probability.float()).clamp_(0, 1).numpy()


def original_uncertainty(probabilities: Tensor, placement: Placement) -> np.ndarray:
    """How undecided each voxel (i, j, k) of the original grid is, uint8: 100 where some structure's
    probability is one half, 0 where all are 0 or 1."""
    result = np.zeros(placement.grid.shape, np.uint8, order="F")
    for probability in probabilities:
        for place, values in _nonzero_part(probability, placement):
            undecided = np.rint(100 - np.abs(values - 0.5) * 200).astype(np.uint8)
            result[place] = np.maximum(result[place], undecided)
    return result


def original_masks(
    probabilities: Tensor,
    placement: Placement,
    exclusive: bool = True,
    largest_component: bool = False,
) -> list[np.ndarray]:
    """Each structure's boolean mask (i, j, k) on the original grid.

    A voxel belongs to a structure where its probability is above one half; with ``exclusive`` to
    the most probable one alone.
    """
    shape = placement.grid.shape
    masks = [np.zeros(shape, bool) for _ in range(len(probabilities))]
    # Read where a voxel belongs to one structure alone.
    best = np.full(shape if exclusive else 0, 0.5, np.float32)
    owner = np.full(shape if exclusive else 0, -1, np.int16)
    for k, probability in enumerate(probabilities):
        for place, values in _nonzero_part(probability, placement):
            if exclusive:
                ahead = values > best[place]
                best[place][ahead] = values[ahead]
                owner[place][ahead] = k
            else:
                masks[k][place] = values > 0.5
    if exclusive:
        masks = [np.equal(owner, k) for k in range(len(probabilities))]
    return [_largest(mask) for mask in masks] if largest_component else masks


def _nonzero_part(
    probability: Tensor, placement: Placement
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """The original voxels where a structure may be, and its probability there: most of a large
    volume is nowhere near, and interpolating it would cost seconds and gigabytes."""
    inside = probability > NEGLIGIBLE
    if not bool(inside.any()):
        return
    box = []
    for axis, size in enumerate(probability.shape):
        others = tuple(a for a in range(3) if a != axis)
        found = torch.nonzero(inside.amax(dim=others)).flatten()
        start = max(0, int(found[0]) - MARGIN)
        box.append(slice(start, min(size, int(found[-1]) + 1 + MARGIN)))
    part = three(box)
    place, values = placement.part_to_original(probability[part].float(), part)
    yield place, values.clamp_(0, 1).numpy()


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest connected component of a mask, faces touching."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    return labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
