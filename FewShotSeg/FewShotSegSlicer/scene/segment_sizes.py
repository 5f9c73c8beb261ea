"""How large segments are, counted piece by piece and remembered until a user draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..machine.stepper import Stepper
from .geometry import labelmap_affine, labelmap_array
from .segments import labelmap_of

VOXELS_A_STEP = 2_000_000


class SegmentSizes:
    """Volumes of segments in ml.

    Args:
        changed: called when sizes that were asked for have become known.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._counts: dict[tuple[str, str], tuple[int, int]] = {}
        self._wanted: dict[tuple[str, str], tuple[Any, str]] = {}
        self._stepper: Stepper | None = None

    def ml(self, segmentation: Any, segment_id: str) -> float | None:
        """A segment's volume; None where it is being counted, 0 where nothing is drawn."""
        found = labelmap_of(segmentation, segment_id)
        if found is None:
            return 0.0
        labelmap, _ = found
        key = (segmentation.GetID() or "", segment_id)
        stamp, count = self._counts.get(key, (-1, 0))
        if stamp != labelmap.GetMTime():
            self._wanted[key] = (segmentation, segment_id)
            if self._stepper is None:
                self._stepper = Stepper(self._count_all(), self._done)
            return None
        affine = labelmap_affine(labelmap, segmentation)
        return count * float(abs(np.linalg.det(affine[:3, :3]))) / 1000

    def stop(self) -> None:
        """Count no more, and forget what is wanted."""
        if self._stepper is not None:
            self._stepper.stop()
        self._stepper = None
        self._wanted.clear()
        self._counts.clear()

    def _count_all(self) -> Iterator[None]:
        while self._wanted:
            key = next(iter(self._wanted))
            segmentation, segment_id = self._wanted.pop(key)
            yield from self._count(key, segmentation, segment_id)

    def _count(self, key: tuple[str, str], segmentation: Any, segment_id: str) -> Iterator[None]:
        """Each step looks the array up anew: VTK may have moved it since."""
        start, total, stamp = 0, 0, None
        while True:
            found = labelmap_of(segmentation, segment_id)
            if found is None:
                return
            labelmap, value = found
            array = labelmap_array(labelmap)
            if array is None or (stamp is not None and labelmap.GetMTime() != stamp):
                return  # drawn on meanwhile: whoever asks again starts anew
            stamp = labelmap.GetMTime()
            planes = max(1, VOXELS_A_STEP // max(1, array.shape[0] * array.shape[1]))
            total += int(np.count_nonzero(array[..., start : start + planes] == value))
            start += planes
            yield
            if start >= array.shape[2]:
                self._counts[key] = (stamp, total)
                return

    def _done(self, error: BaseException | None) -> None:
        self._stepper = None
        if error is None:
            self._changed()
