"""What the header of a DICOM file says of its pixels, their values and where they lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99")
"""Transfer syntaxes of uncompressed little-endian pixels (the last is deflated as a whole)."""
BIG_ENDIAN = "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
LARGEST_RESCALE, LEAST_SLOPE = 1e20, 1e-20
"""What float32 values can be rescaled by without getting lost."""

_PIXELS, _FLOAT_PIXELS, _DOUBLE_PIXELS = 0x7FE00010, 0x7FE00008, 0x7FE00009
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_CONVERT = "convert it to NIfTI with dcm2niix, or load it in 3D Slicer and save it as NRRD"


class DicomError(ValueError):
    """What makes no volume. The message is a clause that follows the name of a file or series."""


@dataclass(frozen=True)
class Storage:
    """How the pixels of a file are stored.

    Attributes:
        shape: frames, rows, columns.
        allocated: bits that a pixel takes: 8, 16 or 32.
        stored: bits of it that hold its value. high: the number of the highest of these.
        signed: whether they are a two's complement.
        syntax: the UID of the transfer syntax; empty where the file does not say.
        inverted: whether small values are to be shown bright (``MONOCHROME1``).
    """

    shape: tuple[int, int, int]
    allocated: int
    stored: int
    high: int
    signed: bool
    syntax: str
    inverted: bool

    @property
    def native(self) -> bool:
        """Whether the pixels are not compressed."""
        return self.syntax in ("", *NATIVE, BIG_ENDIAN)

    @property
    def size(self) -> int:
        """Bytes of all pixels, uncompressed."""
        return math.prod(self.shape) * self.allocated // 8

    @property
    def range(self) -> tuple[int, int]:
        """The least and the largest value that can be stored."""
        if self.signed:
            return -(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1
        return 0, 2**self.stored - 1


@dataclass(frozen=True)
class Frame:
    """One slice.

    Attributes:
        position: centre of its first pixel, LPS mm.
        cosines: direction of growing column number, then that of growing row number.
        spacing: mm between columns and between rows.
        slope, intercept: a value is the stored one times the slope plus the intercept.
    """

    position: tuple[float, ...]
    cosines: tuple[float, ...]
    spacing: tuple[float, ...]
    slope: float
    intercept: float


@dataclass(frozen=True)
class Source:
    """A file of a series.

    Attributes:
        patient, study, frame_of_reference, modality, kind: what it belongs to, as the file says;
            empty where it doesn't. ``kind`` is the UID of its class.
        by_groups: whether functional groups say where its frames lie (enhanced DICOM).
    """

    path: Path
    patient: str
    study: str
    frame_of_reference: str
    modality: str
    kind: str
    storage: Storage
    frames: tuple[Frame, ...]
    by_groups: bool


def text(dataset: Dataset, name: str) -> str:
    """An element as text; empty where it is missing."""
    value = dataset.get(name)
    return "" if value is None else str(value).strip().strip("\0")


def is_segmentation(dataset: Dataset) -> bool:
    """Whether its pixels are segments of another image, such as of a result of ours."""
    return text(dataset, "SOPClassUID") in _SEGMENTATIONS


def is_image(dataset: Dataset) -> bool:
    """Whether there are pixels, of an image."""
    if is_segmentation(dataset):
        return False
    return any(tag in dataset for tag in (_PIXELS, _FLOAT_PIXELS, _DOUBLE_PIXELS))


def source_of(path: Path, dataset: Dataset) -> Source:
    """Everything that is needed of a file.

    Raises:
        DicomError: it is missing, contradicts itself or the pixels, or can't be read here.
    """
    storage = _storage(dataset)
    _require_complete(dataset, storage)
    return Source(
        path,
        text(dataset, "PatientID"),
        text(dataset, "StudyInstanceUID"),
        text(dataset, "FrameOfReferenceUID"),
        text(dataset, "Modality"),
        text(dataset, "SOPClassUID"),
        storage,
        tuple(_frames(dataset, storage.shape[0])),
        "PerFrameFunctionalGroupsSequence" in dataset,
    )


def frames_of(dataset: Dataset) -> list[Frame]:
    """Where the frames of an image lie, by its header alone.

    Raises:
        DicomError: it does not say.
    """
    return list(_frames(dataset, _whole(dataset, "NumberOfFrames", 1)))


def _storage(dataset: Dataset) -> Storage:
    if _PIXELS not in dataset:
        raise DicomError(f"has floating-point pixels, which can't be read here; {_CONVERT}")
    photometric = text(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    if _whole(dataset, "SamplesPerPixel", 1) != 1 or not photometric.startswith("MONOCHROME"):
        raise DicomError("has colours; give one with grey values")
    allocated = _whole(dataset, "BitsAllocated")
    if allocated not in (8, 16, 32):
        raise DicomError(
            f"has pixels of {allocated} bits (8, 16 or 32 are possible); export it again"
        )
    stored = _whole(dataset, "BitsStored", allocated)
    high = _whole(dataset, "HighBit", stored - 1)
    signed = _whole(dataset, "PixelRepresentation", 0)
    if not (1 <= stored <= high + 1 <= allocated and signed in (0, 1)):
        raise DicomError("contradicts itself in how its pixels are stored; export it again")
    shape = (
        _whole(dataset, "NumberOfFrames", 1),
        _whole(dataset, "Rows"),
        _whole(dataset, "Columns"),
    )
    if min(shape) < 1:
        raise DicomError("has no pixels; export it again")
    return Storage(
        shape,
        allocated,
        stored,
        high,
        bool(signed),
        text(dataset.file_meta, "TransferSyntaxUID") if hasattr(dataset, "file_meta") else "",
        photometric == "MONOCHROME1",
    )


def _require_complete(dataset: Dataset, storage: Storage) -> None:
    """Pixels that are fewer than the header says are read from other memory by GDCM."""
    pixels = dataset[_PIXELS].value
    there = len(pixels) if isinstance(pixels, bytes) else 0
    if storage.native and there not in (storage.size, storage.size + storage.size % 2):
        raise DicomError(
            f"is damaged or cut short: it holds {there} bytes of pixels, and its header says"
            f" {storage.size}; copy or export the series again"
        )
    if storage.syntax == BIG_ENDIAN and storage.allocated == 8:
        raise DicomError(f"has big-endian pixels of 8 bits, which can't be read here; {_CONVERT}")


def _frames(dataset: Dataset, count: int) -> Iterator[Frame]:
    """What the header says of each frame: in its functional groups, in those that all frames
    share, or for the whole file."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    if count > 1 and not per_frame:
        raise DicomError(
            f"has {count} frames and does not say where each of them lies; export it as enhanced"
            " DICOM or as single slices, or save it as NRRD or NIfTI with the right spacing"
        )
    if per_frame and len(per_frame) != count:
        raise DicomError(
            f"says that it has {count} frames, and then where {len(per_frame)} lie; export it again"
        )
    for number in range(count):
        place = partial(_placed, dataset, [*per_frame[number : number + 1], *shared[:1]], count)
        spacing = place("PixelMeasuresSequence", "PixelSpacing")
        if spacing is None:  # of captured and scanned images
            spacing = dataset.get("NominalScannedPixelSpacing")
        slope, intercept = _rescale(dataset, place)
        yield Frame(
            _place(place("PlanePositionSequence", "ImagePositionPatient"), 3),
            _place(place("PlaneOrientationSequence", "ImageOrientationPatient"), 6),
            _spacing(spacing),
            slope,
            intercept,
        )


def _placed(dataset: Dataset, groups: list[Dataset], count: int, group: str, name: str) -> Any:
    """An element of one of ``count`` frames; None where it is missing.

    Args:
        groups: the functional groups of the frame, and those of all frames.
    """
    for item in groups:
        inner = item.get(group)
        if inner and inner[0].get(name) is not None:
            return inner[0].get(name)
    # One position can't be that of several frames.
    return None if count > 1 and name == "ImagePositionPatient" else dataset.get(name)


def _place(value: object, count: int) -> tuple[float, ...]:
    numbers = _numbers(value)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise DicomError("does not say where its slices lie; export it again")
    return numbers


def _spacing(value: object) -> tuple[float, ...]:
    """mm between columns and between rows, which DICOM has the other way round."""
    numbers = _numbers(value)
    if len(numbers) != 2 or not np.isfinite(numbers).all() or min(numbers) <= 0:
        raise DicomError(
            "does not say how far its pixels are apart (PixelSpacing is missing, or not two numbers"
            " above 0); export it again"
        )
    return numbers[::-1]


def _rescale(dataset: Dataset, place: Callable[[str, str], Any]) -> tuple[float, float]:
    if dataset.get("ModalityLUTSequence"):
        raise DicomError(f"has its values in a lookup table, which can't be read here; {_CONVERT}")
    found = []
    for name, usual in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        value = place("PixelValueTransformationSequence", name)
        # Empty text is how some programs leave it out.
        numbers = (usual,) if value is None or str(value).strip() == "" else _numbers(value)
        if len(numbers) != 1 or not abs(numbers[0]) <= LARGEST_RESCALE:
            raise DicomError(f"has a {name} that is no usable number; export it again")
        found.append(numbers[0])
    if abs(found[0]) < LEAST_SLOPE:
        raise DicomError(
            f"has a RescaleSlope of {found[0]:g}, which makes all its values the same; export it"
            " again"
        )
    return found[0], found[1]


def _numbers(value: Any) -> tuple[float, ...]:
    """The numbers of an element; none where it is missing or has something else."""
    if value is None:
        return ()
    several = isinstance(value, (list, tuple)) or hasattr(value, "__iter__")
    try:
        values = value if several and not isinstance(value, (str, bytes)) else [value]
        return tuple(float(number) for number in values)
    except (TypeError, ValueError):
        return ()


def _whole(dataset: Dataset, name: str, usual: int | None = None) -> int:
    value = dataset.get(name)
    if value is None and usual is not None:
        return usual
    try:
        return int(value)
    except (TypeError, ValueError):
        raise DicomError(f"has no usable {name} in its header; export it again") from None
