"""MetaImage, in one file or two, by its definition (itk.org/Wiki/MetaIO/Documentation)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from ...core.errors import InputError
from ...core.geometry import Grid
from .base import (
    CHUNK,
    MAX_DEFLATED,
    MAX_PLAIN,
    MAX_TEXT,
    Header,
    Readable,
    cut_short,
    data_file,
    grid_from,
    misplaced,
    numbers,
    require_memory,
    require_unpacked,
    unreadable,
    whole_numbers,
)

_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}
_SAME = {
    **dict.fromkeys(("Offset", "Position", "Origin"), "Offset"),
    **dict.fromkeys(("TransformMatrix", "Rotation", "Orientation"), "TransformMatrix"),
    **dict.fromkeys(("BinaryDataByteOrderMSB", "ElementByteOrderMSB"), "BinaryDataByteOrderMSB"),
}
"""Several names of one field."""
_KNOWN = {
    *("ObjectType", "NDims", "BinaryData", "BinaryDataByteOrderMSB", "CompressedData"),
    *("CompressedDataSize", "TransformMatrix", "Offset", "CenterOfRotation", "ElementSpacing"),
    *("AnatomicalOrientation", "DimSize", "HeaderSize", "ElementType", "ElementNumberOfChannels"),
    *("ElementSize", "ElementDataFile", "Comment", "ElementMin", "ElementMax", "Modality"),
    "ITK_InputFilterName",
}
"""Fields whose use is known here. All others are left to ITK."""
_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")


def read_header(path: Path) -> Header:
    """
    Raises:
        InputError: it is no MetaImage header, or one that nothing can be read by.
    """
    fields, understood, end = _fields(path)
    for field in ("NDims", "DimSize", "ElementType", "ElementDataFile"):
        if field not in fields:
            raise cut_short(path, f"its header has no '{field}'")
    if fields.get("ObjectType", "Image").lower() != "image":
        raise unreadable(path, f"it holds {fields['ObjectType']!r:.40}, not an image")
    (dimension,) = whole_numbers(path, "NDims", fields["NDims"], 1, 1)
    if dimension > 10:
        raise unreadable(path, f"its header says that it is {dimension}-dimensional")
    sizes = whole_numbers(path, "DimSize", fields["DimSize"], dimension, 1)
    value_bytes = _BYTES.get(fields["ElementType"])
    if value_bytes is None:
        raise InputError(
            f"{path} has voxels of the type {fields['ElementType']!r:.40}, which can't be read"
            " here; save it as integers or as 32-bit floating point numbers."
        )
    channels_text = fields.get("ElementNumberOfChannels", "1")
    (channels,) = whole_numbers(path, "ElementNumberOfChannels", channels_text, 1, 1)
    claimed = require_memory(path, [*sizes, channels], value_bytes)
    found, verify = _require_data(path, fields, claimed, end)
    understood &= found
    grids: tuple[Grid, ...] = ()
    placed = _affine(path, fields, dimension)
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes = sizes[:-1]
    if len(sizes) == 3:
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = placed[:3, :3], placed[:3, -1]
        grids = (grid_from(path, sizes, affine),)
    return Header("MetaImageIO", tuple(sizes), grids, understood, verify)


def _fields(path: Path) -> tuple[dict[str, str], bool, int]:
    """The fields by name, whether all of them are known here, and where the header ends."""
    fields: dict[str, str] = {}
    with open(path, "rb") as stream:
        for raw in iter(lambda: stream.readline(MAX_TEXT), b""):
            line = raw.decode("latin-1").rstrip("\r\n")
            name, equals, value = (part.strip() for part in line.partition("="))
            if not equals or not name or stream.tell() > MAX_TEXT or not name.isprintable():
                if not line.strip():
                    continue
                raise unreadable(path, "it is not MetaImage, as its name says")
            name = _SAME.get(name, name)
            if name in fields:
                raise unreadable(path, f"its header has {name!r:.60} twice")
            fields[name] = value
            if name == "ElementDataFile":
                break
        else:
            raise cut_short(path, "it ends within its header")
        plain = all(len(value) <= MAX_PLAIN and value.isprintable() for value in fields.values())
        return fields, plain and fields.keys() <= _KNOWN, stream.tell()


def _require_data(
    path: Path, fields: Mapping[str, str], claimed: int, end: int
) -> tuple[bool, Callable[[], None]]:
    """Whether it is known where the voxels are, and what verifies them.

    Raises:
        InputError: the file is too small for them.
    """
    flags = {}
    for field, usual in (
        ("BinaryData", "true"),
        ("BinaryDataByteOrderMSB", "false"),
        ("CompressedData", "false"),
    ):
        text = fields.get(field, usual).lower()
        if text not in _TRUE + _FALSE:
            raise unreadable(path, f"its header has {text!r:.40} for '{field}'")
        flags[field] = text in _TRUE
    name = fields["ElementDataFile"]
    if name.upper().startswith("LIST") or "%" in name:
        if flags["CompressedData"]:
            raise unreadable(path, "its voxels are compressed, and spread over several files")
        return False, lambda: None
    local = name.upper() == "LOCAL"
    file = path if local else data_file(path, name)
    (skip,) = whole_numbers(path, "HeaderSize", fields.get("HeaderSize", "0"), 1, -1)
    there = file.stat().st_size - (end if local else 0) - max(skip, 0)
    if flags["CompressedData"]:
        (size,) = whole_numbers(
            path, "CompressedDataSize", fields.get("CompressedDataSize", str(there)), 1, 0
        )
        if there < size or claimed > there * MAX_DEFLATED + 1024:
            raise cut_short(path)
        if local and ("CompressedDataSize" not in fields or size == 0):
            raise unreadable(path, "its header does not say how long its compressed data are")
        if skip != 0 or not flags["BinaryData"]:
            raise unreadable(path, "its header has compressed data after or in something else")
        opened = partial(_open_deflated, file, end if local else 0, size or there)
        return True, partial(require_unpacked, path, opened, claimed)
    elif flags["BinaryData"] and there < claimed:
        raise cut_short(path)
    return skip == 0 and flags["BinaryData"], lambda: None


@contextmanager
def _open_deflated(file: Path, start: int, size: int) -> Iterator[Readable]:
    with open(file, "rb") as stream:
        stream.seek(start)
        yield _Inflated(stream, size)


class _Inflated:
    """Reads one zlib stream of ``size`` bytes, unpacked, to its checksum."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left, self._zlib = stream, size, zlib.decompressobj()

    def read(self, count: int) -> bytes:
        """Up to so many bytes; none at the end.

        Raises:
            EOFError, zlib.error: the stream ends early, or is damaged.
        """
        while not self._zlib.eof:
            packed = self._zlib.unconsumed_tail
            if not packed:
                packed = self._stream.read(min(self._left, CHUNK))
                self._left -= len(packed)
                if not packed:
                    raise EOFError
            if data := self._zlib.decompress(packed, count):
                return data
        return b""


def _affine(path: Path, fields: Mapping[str, str], dimension: int) -> np.ndarray:
    """(dimension, dimension + 1): direction times spacing, and the first voxel's centre, LPS mm."""

    def of(field: str, count: int, usual: np.ndarray) -> np.ndarray:
        if field not in fields:
            return usual
        values = np.array(numbers(path, field, fields[field], count))
        if not np.isfinite(values).all():
            raise misplaced(path, f"its header has {fields[field]!r:.80} for '{field}'")
        return values

    size = of("ElementSize", dimension, np.ones(dimension))
    spacing = of("ElementSpacing", dimension, size)
    if (spacing <= 0).any():
        raise misplaced(path, f"its voxels would be {fields['ElementSpacing']!r:.80} mm")
    offset = of("Offset", dimension, np.zeros(dimension))
    matrix = of("TransformMatrix", dimension**2, np.eye(dimension).ravel())
    # Every axis' direction is a row.
    directions = matrix.reshape(dimension, dimension).T
    lengths = np.linalg.norm(directions, axis=0)
    if not math.isclose(lengths.min(), 1, abs_tol=1e-2) or lengths.max() > 1.01:
        raise misplaced(path, f"its directions are not of length 1 ({fields['TransformMatrix']})")
    return np.hstack([directions * spacing, offset[:, None]])
