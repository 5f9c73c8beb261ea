"""CT that was stored without a sign, 1024 too high: recognised by its values, and put right.

Some programs write Hounsfield units plus 1024 into unsigned files and nothing of it into the header
(TotalSegmentator's issue 494 is one report). Nobody sees it, since viewers choose the window, and
every network that learned from Hounsfield units fails on it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .geometry import Volume
from .limits import OFFSET as OFFSET_RANGE
from .modality import LOWEST_MR

OFFSET = 1024
SAMPLES = 300_000
"""Voxels that are looked at, evenly over the volume."""

_AIR, _GAP, _TISSUE, _BODY = (-1100, -900), (-600, -250), (-250, 250), (-300, np.inf)
_FAT, _MUSCLE, _ABOVE, _BONE = (-150, -50), (-20, 100), (120, 250), (250, np.inf)
_PEAK, _AROUND = (-160, 120), 40
"""HU: where the commonest value of the body lies, and how far most others are from it."""
_HIGHEST = (100, 4500)
"""HU that one voxel in a thousand exceeds."""


def is_offset_ct(array: np.ndarray) -> bool:
    """Whether these are the values of a CT plus 1024.

    CT has air and soft tissue in two places that physics fixes, 1000 apart, the tissue within a
    narrow peak, hardly anything between the two, and little (bone) above. MR has background and
    tissue too, but its values run on from one to the other. A CT that shows no air is not
    distinguished from MR.

    Args:
        array: any shape, any real dtype.
    """
    values = array.ravel(order="K")  # a view where it is contiguous
    values = values[:: max(1, values.size // SAMPLES)].astype(np.float32)
    if not values.size or values.min() < LOWEST_MR or float(array.min()) < LOWEST_MR:
        return False
    values = values - OFFSET

    def part(low: float, high: float) -> float:
        return float(np.count_nonzero((values >= low) & (values < high)) / values.size)

    body, tissue = part(*_BODY), part(*_TISSUE)
    if tissue < 0.04 or part(*_AIR) < 0.05 or part(*_GAP) > 0.2 * tissue:
        return False
    counts, edges = np.histogram(values, bins=np.arange(-300, 301, 10))
    peak = float(edges[np.convolve(counts, [1, 1, 1], "same").argmax()] + 5)
    return (
        _PEAK[0] < peak < _PEAK[1]
        and part(peak - _AROUND, peak + _AROUND) > 0.28 * body
        and part(*_FAT) + part(*_MUSCLE) > 0.5 * body
        and part(*_ABOVE) < 0.15 * body
        and part(*_BONE) < 0.35 * body
        and _HIGHEST[0] < np.percentile(values, 99.9) < _HIGHEST[1]
    )


def in_hounsfield(volume: Volume, modality: str, offset: float | None = None) -> Volume:
    """A volume with the values that a CT of it would have; what was changed is in its notes.

    Args:
        modality: what is known of it, ``CT``, ``MR`` or ``auto``; an MR is never changed.
        offset: added to every value, whatever it is; None recognises CT that was stored 1024 too
            high.

    Raises:
        InputError: the offset is no finite number, or too large.
    """
    if offset is not None:
        OFFSET_RANGE.check(offset)
        return replace(volume, array=_shifted(volume.array, offset)) if offset else volume
    if "MR" in (modality, volume.modality) or not is_offset_ct(volume.array):
        return volume
    note = (
        f"The values are those of a CT that was stored {OFFSET} too high (air near"
        f" {OFFSET - 1000}, soft tissue near {OFFSET + 40}), so {OFFSET} was subtracted from them."
        " If that is wrong, say --intensity-offset 0, or --modality MR where it is MR."
    )
    return replace(volume, array=_shifted(volume.array, -OFFSET), notes=(*volume.notes, note))


def _shifted(array: np.ndarray, offset: float) -> np.ndarray:
    """The array plus an offset, in a dtype that holds every value."""
    if array.dtype.kind == "f" or not float(offset).is_integer():
        return array.astype(np.float32) + np.float32(offset)
    low, high = int(array.min()) + int(offset), int(array.max()) + int(offset)
    for dtype in (np.int16, np.int32, np.int64):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.add(array, int(offset), dtype=np.int64).astype(dtype)
    return array.astype(np.float32) + np.float32(offset)
