"""What tells, without a reference, whether an adapter works on a volume: its features compared with
the supports', and its result compared with those of adapters that each lacked a support.

All of it is on features that are there already; no backbone runs. What an adapter's file keeps for
it is the supports' features in a few numbers each, and the adapters that were trained to measure
what to expect; both in half precision, which is far finer than what they are used for.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..compute.parallel import MOST, in_parallel
from ..compute.precision import at_speed
from ..core.geometry import Stride, along_axes
from ..features.store import VolumeFeatures
from ..methods.adapters.base import Adapter
from .tiles import Box, box_scores, iterate_boxes

SAMPLED_VOXELS = 20_000
"""Voxels of each level of a volume that it is described by."""
REGION_VOXELS = 4_000
"""Voxels of each level and structure likewise."""
TILE = 24
"""Model voxels a side of the tiles in which adapters are compared."""
POSSIBLE = 0.1
"""A probability from which on a voxel's surroundings are compared."""
AROUND = 4
"""How far these reach, model voxels."""
HELD_OUT = "held_out"
"""How the names of the held-out adapters' tensors begin; a number follows."""


@dataclass(frozen=True)
class Description:
    """The features of one volume in a few numbers, all levels' channels after each other.

    Attributes:
        mean: (C,) float32, over the volume. deviation: (C,) likewise.
        regions: (K, C) float32, the mean within each structure; 0 where it is not there.
        present: (K,) bool, whether it is.
    """

    mean: np.ndarray
    deviation: np.ndarray
    regions: np.ndarray
    present: np.ndarray


@dataclass
class Evidence:
    """What an adapter keeps for judging its results.

    Attributes:
        supports: each in a few numbers.
        held_out: adapters that each lacked some of them; empty where none were trained.
    """

    supports: list[Description]
    held_out: list[Adapter] = field(default_factory=list)

    def keep(self, adapter: Adapter) -> None:
        """Keep a copy of an adapter that lacked some supports, as a file would have it."""
        kept = copy.deepcopy(adapter).cpu().eval()
        with torch.no_grad():
            for tensor in kept.state_dict().values():
                tensor.copy_(_halved(tensor).float())
        self.held_out.append(kept)

    def tensors(self) -> dict[str, Tensor]:
        """The form kept in an adapter file."""
        arrays = {
            name: np.stack([getattr(support, name) for support in self.supports])
            for name in ("mean", "deviation", "regions")
        }
        found = {name: _halved(torch.from_numpy(array)) for name, array in arrays.items()}
        present = np.stack([support.present for support in self.supports])
        found["present"] = torch.from_numpy(present.astype(np.uint8))
        for number, adapter in enumerate(self.held_out):
            for name, tensor in adapter.state_dict().items():
                found[f"{HELD_OUT}{number}.{name}"] = _halved(tensor.detach().cpu())
        return found

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Tensor],
        shape: tuple[int, int],
        load: Callable[[Mapping[str, Tensor]], Adapter],
    ) -> Evidence:
        """What :meth:`tensors` gave.

        Args:
            shape: structures, and channels of all levels that the adapter uses.
            load: an adapter with these tensors.

        Raises:
            KeyError, ValueError: they are not such.
        """
        structures, channels = shape
        parts = {name: tensors[name] for name in ("mean", "deviation", "regions", "present")}
        count = len(parts["present"]) if parts["present"].ndim else 0
        sizes = {
            "mean": (count, channels),
            "deviation": (count, channels),
            "regions": (count, structures, channels),
            "present": (count, structures),
        }
        for name, part in parts.items():
            wanted = torch.uint8 if name == "present" else torch.float16
            if part.shape != sizes[name] or part.dtype != wanted or not part.isfinite().all():
                raise ValueError(f"{name} is not of the supports")
        if not count:
            raise ValueError("there are no supports")
        arrays = {name: part.float().numpy() for name, part in parts.items()}
        supports = [
            Description(
                arrays["mean"][n],
                arrays["deviation"][n],
                arrays["regions"][n],
                arrays["present"][n] > 0,
            )
            for n in range(count)
        ]
        rest = [name for name in tensors if name not in parts]
        states: dict[int, dict[str, Tensor]] = {}
        for name in rest:
            number, _, own = name.removeprefix(HELD_OUT).partition(".")
            if not name.startswith(HELD_OUT) or not number.isdecimal() or int(number) > len(rest):
                raise ValueError(f"{name} is not known")
            states.setdefault(int(number), {})[own] = tensors[name].float()
        if sorted(states) != list(range(len(states))):
            raise ValueError("an adapter is missing")
        return cls(supports, [load(states[n]).eval() for n in range(len(states))])


def _halved(tensor: Tensor) -> Tensor:
    """In half precision; what it can't hold is the most that it can."""
    most = torch.finfo(torch.float16).max
    return tensor.clamp(-most, most).half().contiguous()


def describe(
    features: VolumeFeatures, levels: Sequence[int], inside: Sequence[np.ndarray]
) -> Description:
    """A volume in a few numbers.

    Args:
        levels: which of the backbone's.
        inside: for each structure, (n, 3) model voxels of it; empty where none is known.
    """
    means, deviations, regions = [], [], []
    for level in levels:
        array, scale = features.levels[level], features.scales[level]
        flat = array.reshape(array.shape[0], -1)
        sample = flat[:, :: max(1, flat.shape[1] // SAMPLED_VOXELS)].astype(np.float32) * scale
        means.append(sample.mean(1))
        deviations.append(sample.std(1))
        rows = [
            _region_mean(flat, voxels) * scale
            for voxels in _level_voxels(inside, features.strides[level], array.shape[1:])
        ]
        regions.append(np.stack(rows) if rows else np.zeros((0, len(flat)), np.float32))
    return Description(
        _as_kept(np.concatenate(means)),
        _as_kept(np.concatenate(deviations)),
        _as_kept(np.concatenate(regions, 1)),
        np.array([len(places) > 0 for places in inside]),
    )


def _as_kept(array: np.ndarray) -> np.ndarray:
    """As a file would have it."""
    return _halved(torch.from_numpy(array)).float().numpy()


def _level_voxels(
    inside: Sequence[np.ndarray], stride: Stride, shape: Sequence[int]
) -> list[np.ndarray]:
    """For each structure the flat numbers of the level's voxels that it has most of, or some of."""
    found, wide = [], np.array(along_axes(stride))
    for places in inside:
        if not len(places):
            found.append(np.zeros(0, np.int64))
            continue
        cells, counts = np.unique(
            np.ravel_multi_index(tuple((places // wide).T), tuple(shape)), return_counts=True
        )
        cells = cells[counts >= min(0.5 * wide.prod(), counts.max())]
        found.append(cells[:: max(1, len(cells) // REGION_VOXELS)])
    return found


def _region_mean(flat: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    """(C,) over these voxels of (C, voxels)."""
    if not len(voxels):
        return np.zeros(len(flat), np.float32)
    return flat[:, voxels].astype(np.float32).mean(1)


def scale_of(adapter: Adapter) -> np.ndarray:
    """(C,) deviations of the supports' features: the unit that differences are measured in."""
    parts = [getattr(adapter, f"deviation{number}") for number in range(len(adapter.levels))]
    return torch.cat(parts).cpu().numpy()


def volume_distance(
    query: Description, supports: Sequence[Description], adapter: Adapter
) -> float | None:
    """How far a volume's features are from those of the nearest support: the root mean square
    over all channels of the difference of mean and deviation. None without supports."""
    scale = scale_of(adapter)

    def far(support: Description) -> float:
        shift = (query.mean - support.mean) / scale
        spread = (query.deviation - support.deviation) / scale
        return float(np.sqrt(np.mean(shift**2 + spread**2)))

    return min(map(far, supports), default=None)


def region_distance(
    query: Description, supports: Sequence[Description], adapter: Adapter, structure: int
) -> float | None:
    """How far the features within a structure are from those of the nearest support, root mean
    square; None where the structure was not found, or no support shows it."""
    having = [s for s in supports if s.present[structure]]
    if not having or not query.present[structure]:
        return None
    own, scale = query.regions[structure], scale_of(adapter)
    return min(float(np.sqrt(np.mean(((own - s.regions[structure]) / scale) ** 2))) for s in having)


def usual_distances(
    supports: Sequence[Description], adapter: Adapter, structures: int
) -> tuple[float | None, list[float | None]]:
    """:func:`volume_distance` and :func:`region_distance` of each support to the others, the mean:
    what is usual."""

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    rests = [[s for s in supports if s is not own] for own in supports]
    pairs = list(zip(supports, rests, strict=True))
    return (
        mean([volume_distance(own, rest, adapter) for own, rest in pairs]),
        [
            mean([region_distance(own, rest, adapter, k) for own, rest in pairs])
            for k in range(structures)
        ],
    )


@torch.inference_mode()
def agreement(
    probability: Tensor,
    others: Sequence[Adapter],
    features: VolumeFeatures,
    device: torch.device,
    check: Callable[[], None] = lambda: None,
) -> list[tuple[float, float] | None]:
    """For each structure the mean Dice of an adapter's result with those of others, and of these
    with each other; None where nothing is found, or there are no others.

    They are compared where the structure may be: near a probability of :data:`POSSIBLE`.

    Args:
        probability: the adapter's (K, i, j, k) on the model grid.
        check: called now and then; may raise to stop.
    """
    count = len(probability)
    boxes = _possible_boxes(probability)
    if not others or not boxes:
        return [None] * count
    votes = len(others) + 1
    overlaps, sizes = np.zeros((count, votes, votes)), np.zeros((count, votes))
    others = [adapter.to(device).eval() for adapter in others]

    def found_in(box: Box) -> Tensor:
        """(votes, K, *box) bool."""
        own = probability[(slice(None), *box)] > 0.5
        with at_speed(device):
            rest = [box_scores(a, features, box, device) > 0 for a in others]
        return torch.stack([own, *(masks.cpu() for masks in rest)])

    for first in range(0, len(boxes), MOST):
        check()
        for masks in in_parallel(found_in, boxes[first : first + MOST], device):
            flat = masks.transpose(0, 1).flatten(2).float()
            overlaps += (flat @ flat.transpose(1, 2)).numpy()
    sizes = overlaps.diagonal(axis1=1, axis2=2)
    result: list[tuple[float, float] | None] = []
    for k in range(count):
        if not sizes[k, 0]:
            result.append(None)
            continue
        both = np.maximum(sizes[k][:, None] + sizes[k][None], 1)
        dice = 2 * overlaps[k] / both
        upper = dice[1:, 1:][np.triu_indices(votes - 1, 1)]
        own = float(dice[0, 1:].mean())
        result.append((own, float(upper.mean()) if len(upper) else own))
    return result


def _possible_boxes(probability: Tensor) -> list[Box]:
    """The tiles of the model grid in which some structure may be, with their surroundings."""
    possible = (probability > POSSIBLE).any(0).numpy()
    if not possible.any():
        return []
    near = ndimage.maximum_filter(possible, 2 * AROUND + 1)
    return [box for box in iterate_boxes(possible.shape, TILE) if near[box].any()]


def confidence(probability: Tensor) -> list[float | None]:
    """For each structure the Dice that its probabilities expect of the result at one half, if they
    were right; None where nothing is found."""
    found: list[float | None] = []
    for p in probability:
        inside = p > 0.5
        size = int(inside.sum())
        if not size:
            found.append(None)
            continue
        total = float(p.sum(dtype=torch.float32))
        value = 2 * float(p[inside].sum(dtype=torch.float32)) / (size + total)
        found.append(value if math.isfinite(value) else None)
    return found
