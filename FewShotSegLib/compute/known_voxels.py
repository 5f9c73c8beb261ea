"""Annotations of a part of a volume: which voxels are known, and what the drawn slices tell of a
structure's size.

A person may draw a structure on some slices only, or inside a box. Everywhere else it is *unknown*
whether a voxel is of the structure: neither training nor scores look there. On a slice that is
drawn on, all of the support's structures are known: what is not drawn there is background.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import ndimage

from ..core.errors import InputError
from ..core.geometry import Grid, three
from ..core.sparse import PLANES

THIN = 2
"""Drawn slices in a row, up to which slices were left out for certain."""
FEWEST = 3
"""Slices with the structure, below which they tell nothing of its size."""
UNEVEN = 1.5
"""How many times the mean gap a gap between drawn slices may be where they are evenly spread."""
ENDED = 0.25
"""The part of the largest area, below which the next slice's expected area says that a structure
ends before it."""
LEAST = 0.2
"""The uncertainty of a size by n areas, at least this part of it over n: what every other slice
gives may agree by chance."""
SHIFT = 0.3
"""The deviation of an end that lies anywhere between two slices, as a part of their distance."""


@dataclass(frozen=True)
class Slices:
    """Whole slices of a volume.

    Attributes:
        axis: of the array, along which they follow each other. numbers: which they are, ascending.
    """

    axis: int
    numbers: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """A size that was not measured.

    Attributes:
        size: mm^3. uncertainty: its standard deviation, mm^3.
    """

    size: float
    uncertainty: float


def axis_of(plane: str, grid: Grid) -> int:
    """The array's axis that slices of a plane follow each other along: the nearest to the
    patient's."""
    cosines = np.abs(grid.affine[:3, :3] / np.asarray(grid.spacing))
    order = [three(p) for p in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))]
    best = max(order, key=lambda axes: sum(cosines[row, axis] for row, axis in enumerate(axes)))
    return best[PLANES.index(plane)]


def plane_of(axis: int, grid: Grid) -> str:
    """The name of the slices that follow each other along an axis of the array."""
    return next(plane for plane in PLANES if axis_of(plane, grid) == axis)


def drawn_axis(masks: Iterable[np.ndarray], name: str) -> int | None:
    """The axis along which the slices that were drawn on are separated by empty ones.

    Each structure is looked at by itself: left and right are apart, but not because slices were
    left out.

    Args:
        masks: of a support's structures, (i, j, k). name: what messages call the support.

    Returns:
        the axis; None where no slice was left out: the annotation is whole.

    Raises:
        InputError: slices were left out along more than one axis, or which is not clear.
    """
    longest, left_out = np.zeros(3, int), np.zeros(3, bool)
    for mask in masks:
        for axis in range(3):
            lengths = _runs(np.flatnonzero(_profile(mask, axis)))
            longest[axis] = max(longest[axis], *lengths)
            left_out[axis] |= len(lengths) > 1 or lengths[0] == 1
    candidates = [axis for axis in range(3) if left_out[axis]]
    if not candidates:
        return None
    best = min(candidates, key=lambda axis: longest[axis])
    others = [longest[axis] for axis in range(3) if axis != best]
    if 2 * longest[best] <= min(others):
        return best
    if longest[best] > THIN:
        return None
    raise InputError(
        f"It is not clear from {name} along which axis slices were left out. Say which slices "
        "were drawn on: axial, coronal or sagittal."
    )


def gap_axis(mask: np.ndarray) -> int | None:
    """The axis along which a mask (i, j, k) by itself looks drawn on some slices only; None where
    along none."""
    rows = [_runs(np.flatnonzero(_profile(mask, axis))) for axis in range(3)]
    longest = [max(lengths) for lengths in rows]
    best = min(range(3), key=lambda axis: longest[axis])
    others = [longest[axis] for axis in range(3) if axis != best]
    apart = len(rows[best]) > 1 or longest[best] == 1 < mask.shape[best]
    return best if apart and 2 * longest[best] <= min(others) else None


def is_regular(mask: np.ndarray, axis: int) -> bool:
    """Whether a mask (i, j, k) is on thin slices along an axis with even gaps between them: no
    structure is so by nature."""
    places = np.flatnonzero(_profile(mask, axis))
    lengths = _runs(places)
    if len(lengths) < FEWEST or max(lengths) > THIN:
        return False
    steps = np.diff(places)
    gaps = steps[steps > 1]
    return bool(gaps.max() <= UNEVEN * gaps.mean())


def alternating(masks: Mapping[str, np.ndarray], axis: int) -> list[str]:
    """The structures that are missing again and again on slices between their own, on which
    others are drawn: they were drawn in turns, it seems, and not all on each slice.

    Args:
        masks: (i, j, k), of a support's structures.
    """
    profiles = {name: _profile(mask, axis) for name, mask in masks.items()}
    known = np.any(list(profiles.values()), axis=0)
    found = {name for name, used in profiles.items() if _comes_and_goes(used[known])}
    for (one, first), (other, second) in combinations(profiles.items(), 2):
        turns = first[first | second]  # each slice is of one of them or of both
        switches = np.count_nonzero(turns[1:] != turns[:-1])
        if not (first & second).any() and switches >= FEWEST:
            found |= {one, other}
    return [name for name in masks if name in found]


def drawn_slices(masks: Iterable[np.ndarray], axis: int) -> np.ndarray:
    """Known voxels (i, j, k), bool: the slices on which any of the structures has voxels."""
    arrays = list(masks)
    used = np.any([_profile(mask, axis) for mask in arrays], axis=0)
    known = np.zeros(arrays[0].shape, bool, order="F")
    known[_at(axis, used)] = True
    return known


def known_slices(known: np.ndarray) -> Slices | None:
    """The slices that known voxels (i, j, k) are made of; None where they are something else."""
    parts = product_of(known)
    if parts is None:
        return None
    open_axes = [axis for axis, part in enumerate(parts) if not part.all()]
    if len(open_axes) != 1:
        return None
    return Slices(open_axes[0], np.flatnonzero(parts[open_axes[0]]))


def product_of(known: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Along each axis which places are known, where these alone decide: as of slices, or a box."""
    parts = three(_profile(known, axis) for axis in range(3))
    total = np.prod([float(np.count_nonzero(part)) for part in parts])
    return parts if np.count_nonzero(known) == total else None


def filled(array: np.ndarray, known: np.ndarray) -> np.ndarray:
    """An array (i, j, k) with the value of the nearest known voxel wherever it is not known.

    So resampling meets at the border of what is known no more than what is known. Of slices and of
    boxes the nearest is that along each axis.
    """
    parts = product_of(known)
    if parts is not None:
        return array[np.ix_(*(_nearest(part) for part in parts))]
    margin = 4  # beyond it no resampling to a model's grid reaches, for what is known is there
    box = [_extent(_profile(known, axis), margin) for axis in range(3)]
    place = three(box)
    near = ndimage.distance_transform_edt(
        ~known[place], return_distances=False, return_indices=True
    )
    result = np.array(array, order="F")
    result[place] = array[place][tuple(near)]
    return result


def between(mask: np.ndarray, slices: Slices) -> np.ndarray:
    """A mask (i, j, k) that was drawn on some slices, on those between them as on the nearest."""
    used = slices.numbers[_profile(mask, slices.axis)[slices.numbers]]
    if not len(used):
        return mask
    part = np.zeros(mask.shape[slices.axis], bool)
    part[used] = True
    near = _nearest(part)
    near[: used[0]] = used[0] - 1 if used[0] else used[0]
    near[used[-1] + 1 :] = min(used[-1] + 1, len(part) - 1)
    return mask[_at(slices.axis, near)]


def shows_whole(mask: np.ndarray, known: np.ndarray) -> bool:
    """Whether known background is all around a mask (i, j, k), so that its size is known too."""
    box = three(_extent(_profile(mask, axis), 1) for axis in range(3))
    inside = mask[box]
    return bool((known[box] | ~ndimage.binary_dilation(inside)).all())


def estimate_size(mask: np.ndarray, slices: Slices, grid: Grid) -> Estimate | None:
    """A structure's size from its areas on slices that are evenly spread over all of it.

    It is Cavalieri's sum, each area times half the way to the slices beside it; beyond the last
    area that there is, half the way on to the next slice, drawn or not. Its uncertainty is half the
    difference of what every other slice gives, and where between two slices the ends are.

    Args:
        mask: (i, j, k), drawn on the slices.

    Returns:
        None where too few slices have the structure, they are not evenly spread, it is missing
        again and again between them, it has gaps as if it were drawn on slices along another axis,
        or it seems to go on beyond them: their areas say nothing of it all then.
    """
    axis, numbers = slices.axis, slices.numbers
    if gap_axis(mask) not in (None, axis):
        return None
    across = tuple(a for a in range(3) if a != axis)
    counts = np.count_nonzero(mask, axis=across)[numbers]
    used = np.flatnonzero(counts)
    if len(used) < FEWEST or _comes_and_goes(counts > 0):
        return None
    first, last = int(used[0]), int(used[-1])
    own = numbers[first : last + 1].astype(float)
    areas = counts[first : last + 1] * grid.voxel_volume / grid.spacing[axis]
    gaps = np.diff(own)
    step = float(gaps.mean())
    if gaps.max() > UNEVEN * step:
        return None
    # How far the next slice is that is known to be empty, or would have been drawn.
    before = own[0] - numbers[first - 1] if first > 0 else None
    after = numbers[last + 1] - own[-1] if last + 1 < len(numbers) else None
    if before is None and not _ends(areas) or after is None and not _ends(areas[::-1]):
        return None
    tails = [step if way is None else min(float(way), UNEVEN * step) for way in (before, after)]
    weights = (np.r_[tails[0], gaps] + np.r_[gaps, tails[1]]) / 2
    parts = weights * areas * grid.spacing[axis]
    alternate = abs(float((parts * (-1.0) ** np.arange(len(parts))).sum()))
    ends = SHIFT * grid.spacing[axis] * np.hypot(tails[0] * areas[0], tails[1] * areas[-1])
    size = float(parts.sum())
    return Estimate(size, max(alternate / 2, float(ends), LEAST * size / len(used)))


def restricted(masks: Mapping[str, np.ndarray], known: np.ndarray) -> dict[str, np.ndarray]:
    """Masks without what is drawn where nothing is known; without those that are empty then."""
    inside = {name: mask & known for name, mask in masks.items()}
    return {name: mask for name, mask in inside.items() if mask.any()}


def _ends(areas: Sequence[float] | np.ndarray) -> bool:
    """Whether a structure ends before the next slice, by its areas from its end on: those of an
    ellipsoid go on as a parabola, those of a cone as a line or less."""
    line, parabola = 2 * areas[0] - areas[1], 3 * areas[0] - 3 * areas[1] + areas[2]
    return bool(min(line, parabola) <= ENDED * max(areas))


def _comes_and_goes(used: np.ndarray) -> bool:
    """Whether there are two gaps or more: one is between a structure's two parts."""
    return len(_runs(np.flatnonzero(used))) >= FEWEST


def _profile(mask: np.ndarray, axis: int) -> np.ndarray:
    """(n,) bool: the places along an axis with something."""
    return np.any(mask, axis=tuple(a for a in range(3) if a != axis))


def _runs(places: np.ndarray) -> list[int]:
    """How many of ascending numbers follow each other without a gap, of each such row of them."""
    if not len(places):
        return [0]
    return [len(run) for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)]


def _nearest(known: np.ndarray) -> np.ndarray:
    """For each place along an axis the nearest that is known; itself where none is."""
    places = np.flatnonzero(known)
    everywhere = np.arange(len(known))
    if not len(places):
        return everywhere
    after = np.searchsorted(places, everywhere).clip(0, len(places) - 1)
    before = (after - 1).clip(0)
    nearer = abs(places[before] - everywhere) <= abs(places[after] - everywhere)
    return np.where(nearer, places[before], places[after])


def _extent(used: np.ndarray, margin: int) -> slice:
    places = np.flatnonzero(used)
    if not len(places):
        return slice(0, 0)
    return slice(max(0, int(places[0]) - margin), int(places[-1]) + 1 + margin)


def _at(axis: int, index: np.ndarray) -> tuple[slice | np.ndarray, ...]:
    return tuple(index if a == axis else slice(None) for a in range(3))
