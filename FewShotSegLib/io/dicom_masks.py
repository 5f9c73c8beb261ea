"""DICOM segmentations (SEG, binary) as masks: of ours, and of other programs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.annotation import Structure
from ..core.errors import InputError
from ..core.geometry import Grid, three
from ..core.plain_text import printable
from .file_names import is_folder

ENDING = ".dcm"
MOST_BYTES = 2**32
"""Of all planes, a byte a voxel: more is no segmentation of one image."""
MOST_OFF = 0.2
"""How far a frame may lie from its place in a regular grid, in slice distances."""
NEAR, NEAR_MM = 0.05, 0.1
"""How far a frame may lie from a voxel of an image's grid to be on it, in voxels and in mm:
positions are rounded, and slices displaced a little, where the image's grid is regular."""
MOST_STRETCHED = 0.01
"""How much its slice distance may differ from the image's, as a part of it."""
_UNSPECIFIC = "85756007"
_MASTER = "Segmentation category and type - DICOM master list"
_REGIONS = "Anatomic codes - DICOM master list"


@dataclass(frozen=True)
class DicomMasks:
    """What a file holds.

    Attributes:
        grid: that its frames lie on, from the first to the last that it has.
        structures: its segments; label values are segment numbers.
        masks: of each, boolean (i, j, k) on ``grid``.
        positions: (frames, 3), LPS mm: where each frame says that its first pixel is.
        places: the k of each frame on ``grid``.
    """

    grid: Grid
    structures: list[Structure]
    masks: list[np.ndarray]
    positions: np.ndarray
    places: list[int]

    def on_lattice(self, image: Grid) -> DicomMasks:
        """The same voxels on an image's lattice, where every frame lies on it but for a rounding,
        in this order of slices or the other; else as it is.

        Args:
            image: of any handedness; masks may be a part of it, or stick out.
        """
        if not self.places or self.grid.offset_in(image) is not None:
            return self
        to_index = np.linalg.inv(np.reshape(image.direction, (3, 3)) * image.spacing)
        start = (self.positions - image.origin) @ to_index.T
        within = np.reshape(self.grid.direction, (3, 3))[:, :2] * self.grid.spacing[:2]
        ends = np.subtract(self.grid.shape[:2], 1)
        turned = np.abs((to_index @ within - np.eye(3, 2)) * ends).max(axis=1)
        whole = np.rint(start).astype(int)
        off = np.abs(start - whole).max(axis=0) + turned
        allowed = np.minimum(NEAR, NEAR_MM / np.asarray(image.spacing))
        slices = to_index[2] @ np.reshape(self.grid.direction, (3, 3))[:, 2] * self.grid.spacing[2]
        sign = 1 if slices > 0 else -1
        last = self.grid.shape[2] - 1 if sign < 0 else 0
        first = whole - np.outer(sign * np.asarray(self.places) + last, [0, 0, 1])
        # A thick slice's one plane is none of thin ones.
        alike = abs(sign * slices - 1) <= MOST_STRETCHED and (first == first[0]).all()
        if (off > allowed).any() or not alike:
            return self
        step = np.reshape(image.direction, (3, 3)) * image.spacing
        origin = three((np.asarray(image.origin) + step @ first[0]).tolist())
        return DicomMasks(
            Grid(self.grid.shape, image.spacing, origin, image.direction),
            self.structures,
            [mask[..., ::sign] for mask in self.masks],
            self.positions,
            [last + sign * place for place in self.places],
        )


def is_dicom_file(path: Path) -> bool:
    """Whether a segmentation is given as one DICOM file."""
    return path.name.lower().endswith(ENDING) and not is_folder(path)


def read_dicom_masks(path: Path) -> DicomMasks:
    """Read a binary DICOM segmentation.

    Raises:
        InputError: it is none, is damaged, or its frames are not planes of one regular grid.
    """
    from .dicom.files import read  # loads pydicom
    from .dicom.headers import frames_of, is_segmentation, text

    if not path.is_file():
        raise InputError(f"There is no file {path}; check the path.")
    try:
        dataset = read(path)
        known = is_segmentation(dataset)
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises of any kind on damaged files
        raise InputError(f"{path} is no DICOM file, or a damaged one; copy it again.") from error
    if not known:
        raise InputError(
            f"{path} is DICOM, but no segmentation (SEG). For images, give the folder of a series."
        )
    if text(dataset, "SegmentationType") != "BINARY":
        raise InputError(
            f"{path} is a DICOM segmentation of the type {text(dataset, 'SegmentationType')}, of "
            "which binary ones can be read; save it as a label map or a .seg.nrrd."
        )
    try:
        count = int(dataset.NumberOfFrames)
        _require_small(path, count * int(dataset.Rows) * int(dataset.Columns))
        frames = frames_of(dataset)
        groups = dataset.PerFrameFunctionalGroupsSequence
        shared = dataset.SharedFunctionalGroupsSequence[0]
        numbers = [_segment_of(group, shared) for group in groups]
        structures = [_structure(item) for item in dataset.SegmentSequence]
        measures = shared.get("PixelMeasuresSequence") or [dataset]
        grid, places = _grid(frames, _step(measures[0]), (dataset.Columns, dataset.Rows))
        _require_small(path, math.prod(grid.shape) * len(structures))
        pixels = dataset.pixel_array.reshape(count, dataset.Rows, dataset.Columns)
        masks = {s.value: np.zeros(grid.shape, bool, order="F") for s in structures}
        for number, place, plane in zip(numbers, places, pixels, strict=True):
            masks[number][..., place] |= plane.T != 0
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = printable(str(error), lines=False)[:200]
        raise InputError(
            f"{path} can't be read as a DICOM segmentation ({reason}); export it again."
        ) from error
    positions = np.array([frame.position for frame in frames]).reshape(-1, 3)
    return DicomMasks(grid, structures, [masks[s.value] for s in structures], positions, places)


def _require_small(path: Path, count: int) -> None:
    if count > MOST_BYTES:
        raise InputError(f"{path} is larger than a segmentation of one image; give another.")


def _segment_of(group: Any, shared: Any) -> int:
    """The number of the segment that a frame belongs to."""
    item = group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
    return int(item[0].ReferencedSegmentNumber)


def _step(measures: Any) -> float:
    """mm between slices, as far as the file says; NaN where it doesn't."""
    value = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
    return math.nan if value is None else abs(float(value))


def _grid(frames: Any, step: float, shape: tuple[int, int]) -> tuple[Grid, list[int]]:
    """The grid of the frames, and which k each is.

    Raises:
        ValueError: they make none.
    """
    cosines = np.array([frame.cosines for frame in frames])
    if np.ptp(cosines, axis=0).max() > 1e-3:
        raise ValueError("its frames have different directions")
    column, row = cosines[0].reshape(2, 3)
    axes = np.stack([column, row, np.cross(column, row)], axis=1)
    offsets = np.array([frame.position for frame in frames]) - frames[0].position
    along = offsets @ axes[:, 2]
    first = int(along.argmin())
    along = along - along[first]
    if not step > 0:
        apart = np.diff(np.unique(np.round(along, 3)))
        step = float(apart.min()) if len(apart) else 1.0
    places = np.rint(along / step).astype(int)
    sideways = np.abs((offsets - offsets[first]) @ axes[:, :2]).max()
    if max(np.abs(along / step - places).max(), sideways / step) > MOST_OFF:
        raise ValueError("its frames are not the planes of one regular grid")
    grid = Grid(
        three((int(shape[0]), int(shape[1]), int(places.max()) + 1)),
        three((*frames[0].spacing, step)),
        three(frames[first].position),
        tuple(axes.ravel().tolist()),
    )
    return grid, places.tolist()


def _structure(item: Any) -> Structure:
    number = int(item.SegmentNumber)
    name = str(item.get("SegmentLabel") or "").strip() or f"segment_{number}"
    return Structure(name, number, None, _terminology(item))


def _terminology(item: Any) -> str | None:
    """Slicer's string of a segment's codes; None where they say nothing in particular."""
    category, kind = (
        item.get(f"SegmentedProperty{which}CodeSequence") or [None]
        for which in ("Category", "Type")
    )
    if category[0] is None or kind[0] is None or str(kind[0].get("CodeValue")) == _UNSPECIFIC:
        return None
    modifier = kind[0].get("SegmentedPropertyTypeModifierCodeSequence") or [None]
    region = item.get("AnatomicRegionSequence") or [None]
    beside = (region[0] or {}).get("AnatomicRegionModifierSequence") or [None]
    texts = [_code(part[0]) for part in (category, kind, modifier, region, beside)]
    return "~".join([_MASTER, *texts[:3], _REGIONS, *texts[3:]])


def _code(item: Any) -> str:
    if item is None:
        return "^^"
    names = ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
    parts = [str(item.get(name) or "").translate({ord(c): " " for c in "~^|"}) for name in names]
    return "^".join(parts)
