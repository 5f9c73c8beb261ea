"""The values of DICOM pixels, in a type that holds those of all slices."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal

import numpy as np
import SimpleITK as sitk

from .files import read
from .headers import BIG_ENDIAN, RLE, DicomError, Frame, Source, Storage

WHOLE = (np.uint8, np.int16, np.uint16, np.int32, np.uint32)
"""The types of whole values, in the order in which they are taken."""
_EXACT = 2**53

_ENHANCED = (
    *("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"),  # CT
    *("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"),  # MR
    *("1.2.840.10008.5.1.4.1.1.130", "1.2.840.10008.5.1.4.1.1.128.1"),  # PET
    *("1.2.840.10008.5.1.4.1.1.13.1.1", "1.2.840.10008.5.1.4.1.1.13.1.2"),  # 3-D X-ray
)
"""Classes of which GDCM takes slope and intercept from the functional groups."""


def common_type(sources: Sequence[Source]) -> np.dtype:
    """The type that holds every value that the slices can have: of ``WHOLE``, or float32."""
    low, high = 0, 0
    for source in sources:
        for frame in set(source.frames):
            if not (_is_whole(frame.slope) and _is_whole(frame.intercept)):
                return np.dtype(np.float32)
            ends = [int(frame.slope) * x + int(frame.intercept) for x in source.storage.range]
            low, high = min(low, *ends), max(high, *ends)
    for kind in WHOLE:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float32)


def values(source: Source, kind: np.dtype) -> np.ndarray:
    """The values of a file, (frame, row, column), of a :func:`common_type`.

    Raises:
        DicomError: they can't be read. RuntimeError: GDCM can't decode them.
    """
    storage = source.storage
    if not storage.native:
        decoded = _decoded(source)
        if kind.kind != "f":
            limits = np.iinfo(kind)
            if decoded.dtype.kind == "f" or not (
                limits.min <= decoded.min() and decoded.max() <= limits.max
            ):
                raise DicomError(
                    "is damaged: it has values that its header rules out; export it again"
                )
        return decoded.astype(kind)
    stored = _stored(source)
    result = np.empty(storage.shape, kind)
    with np.errstate(over="ignore"):  # an infinite value is refused with all others
        for number, frame in enumerate(source.frames):
            result[number] = _rescaled(stored[number], frame, kind)
    return result


def _rescaled(stored: np.ndarray, frame: Frame, kind: np.dtype) -> np.ndarray:
    if kind.kind == "f":
        return stored.astype(np.float64) * frame.slope + frame.intercept
    # Exact: every value, and the product before it, is within the range of a 64-bit integer.
    return stored.astype(np.int64) * int(frame.slope) + int(frame.intercept)


def _stored(source: Source) -> np.ndarray:
    """The stored values of uncompressed pixels, (frame, row, column)."""
    storage = source.storage
    order: Literal[">", "<"] = ">" if storage.syntax == BIG_ENDIAN else "<"
    kind = np.dtype(f"{'i' if storage.signed else 'u'}{storage.allocated // 8}")
    raw = np.frombuffer(_element(source), kind.newbyteorder(order), np.prod(storage.shape))
    pixels = raw.reshape(storage.shape).astype(kind)
    # Bits above the value (overlays, in old files) are not part of it, nor are those below.
    pixels <<= storage.allocated - 1 - storage.high
    pixels >>= storage.allocated - storage.stored
    return pixels


def _element(source: Source) -> bytes:
    pixels = read(source.path).PixelData
    if source.storage.native and len(pixels) < source.storage.size:
        raise DicomError("was changed while it was read; try again")
    return pixels


def _decoded(source: Source) -> np.ndarray:
    """The values of compressed pixels through GDCM, which rescales them by one slope a file."""
    storage, frames = source.storage, source.frames
    if storage.inverted:
        raise DicomError(
            "has compressed pixels that are inverted (MONOCHROME1), which can't be read here;"
            " export it uncompressed"
        )
    rescales = {(frame.slope, frame.intercept) for frame in frames}
    known = not source.by_groups or source.kind in _ENHANCED
    if len(rescales) > 1 or not (known or rescales == {(1.0, 0.0)}):
        raise DicomError(
            "has compressed pixels with a rescaling of their own for each frame, which can't be"
            " read here; export it uncompressed"
        )
    if storage.syntax == RLE:
        _require_length(_element(source), storage)
    decoded = sitk.GetArrayFromImage(sitk.ReadImage(str(source.path), imageIO="GDCMImageIO"))
    if decoded.ndim == 2:
        decoded = decoded[None]
    if decoded.shape != storage.shape:
        raise DicomError(
            f"is damaged: its header says {_size(storage.shape)} pixels, and it holds"
            f" {_size(decoded.shape)}; copy or export the series again"
        )
    return decoded


def _require_length(pixels: bytes, storage: Storage) -> None:
    """GDCM doesn't mind run-length encoded frames that are longer than the header says.

    Raises:
        DicomError: the first run of a frame is not one byte for each pixel.
    """
    fragments = _fragments(pixels)
    if len(fragments) == storage.shape[0]:
        expected = storage.shape[1] * storage.shape[2]
        for fragment in fragments:
            first, second = struct.unpack_from("<2I", fragment, 4)
            length = _run_length(fragment[first : second or None])
            # A byte may have been added for an even length.
            if length not in (expected, expected + 1):
                raise DicomError(
                    f"is damaged: its header says {expected} pixels a frame, and it holds"
                    f" {length}; copy or export the series again"
                )


def _fragments(pixels: bytes) -> list[bytes]:
    """The items of an encapsulated element but for the first, which is a table of where they are.

    Raises:
        DicomError: that is not what it is made of.
    """
    found, place = [], 0
    while place + 8 <= len(pixels):
        group, element, length = struct.unpack_from("<HHI", pixels, place)
        if (group, element) != (0xFFFE, 0xE000):
            break
        found.append(pixels[place + 8 : place + 8 + length])
        place += 8 + length
    if len(found) < 2 or min(map(len, found[1:])) < 64:
        raise DicomError("is damaged: its compressed pixels can't be found; export it again")
    return found[1:]


def _run_length(runs: bytes) -> int:
    """How many bytes PackBits runs hold."""
    length, place = 0, 0
    while place < len(runs):
        head = runs[place]
        if head < 128:
            length += min(head + 1, len(runs) - place - 1)
            place += head + 2
        else:
            length += 257 - head if head > 128 and place + 1 < len(runs) else 0
            place += 2 if head > 128 else 1
    return length


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape[::-1]))


def _is_whole(number: float) -> bool:
    return abs(number) < _EXACT and number == int(number)
