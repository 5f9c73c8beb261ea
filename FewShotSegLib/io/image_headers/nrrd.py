"""NRRD, attached or detached, by its definition (teem.sourceforge.net/nrrd/format.html)."""

from __future__ import annotations

import bz2
import gzip
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from ...core.errors import InputError
from ...core.geometry import Grid
from .base import (
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

_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
_TYPES = {
    1: ("int8", "int8_t", "signed char", "uchar", "unsigned char", "uint8", "uint8_t"),
    2: (
        *("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
        *("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    ),
    4: (
        *("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"),
        "float",
    ),
    8: (
        *("longlong", "long long", "long long int", "signed long long", "signed long long int"),
        *("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"),
        *("uint64", "uint64_t", "double"),
    ),
}
_BYTES = {name: size for size, names in _TYPES.items() for name in names}
_KNOWN = {
    *("content", "type", "dimension", "space", "space dimension", "space directions"),
    *("space origin", "space units", "sizes", "spacings", "thicknesses", "axis mins", "axis maxs"),
    *("centers", "centerings", "kinds", "units", "encoding", "endian", "data file"),
    *("min", "max", "old min", "old max", "byte skip", "measurement frame"),
}
"""Fields whose use is known here. All others of the definition are left to ITK."""
_SAME = {"datafile": "data file", "axismins": "axis mins", "axismaxs": "axis maxs"}
_TO_LPS = {
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "left-posterior-superior": (1, 1, 1),
}
_SPACES = {
    *_TO_LPS,
    *("ras", "las", "lps", "scanner-xyz", "3d-right-handed", "3d-left-handed"),
}
_WORDS = {
    "kinds": {
        "domain",
        "space",
        "list",
        "vector",
        "point",
        "rgb-color",
        "rgba-color",
        "none",
        "???",
    },
    "centers": {"cell", "node", "none", "???"},
    "centerings": {"cell", "node", "none", "???"},
}
"""The words of fields that have a word an axis."""
_NUMBERS = ("thicknesses", "axis maxs", "min", "max", "old min", "old max", "space dimension")
_QUOTED = re.compile(r'("[\w .%/-]*"\s*)*')
_SHORT = {"ras": "right-anterior-superior", "las": "left-anterior-superior"}
_OTHER_UNITS = re.compile(
    r"k?m|[cdnuµμ]m|(kilo|centi|micro|nano)?(met(er|re)s?)|microns?|in|inch(es)?"
)
_VECTOR = re.compile(r"\(([^()]*)\)|none", re.IGNORECASE)


def read_header(path: Path) -> Header:
    """
    Raises:
        InputError: it is no NRRD header, or one that nothing can be read by.
    """
    raw, end = _header_bytes(path)
    fields, understood = _fields(path, raw)
    for field in ("type", "dimension", "sizes", "encoding"):
        if field not in fields:
            raise cut_short(path, f"its header has no '{field}'")
    (dimension,) = whole_numbers(path, "dimension", fields["dimension"], 1, 1)
    if dimension > 16:
        raise unreadable(path, f"its header says that it is {dimension}-dimensional")
    sizes = whole_numbers(path, "sizes", fields["sizes"], dimension, 1)
    value_bytes = _BYTES.get(fields["type"].lower())
    if value_bytes is None:
        raise InputError(
            f"{path} has voxels of the type {fields['type']!r:.40}, which can't be read here; save"
            " it as integers or as 32-bit floating point numbers."
        )
    understood &= _plain(fields)
    claimed = require_memory(path, sizes, value_bytes)
    found, verify = _require_data(path, fields, claimed, end)
    understood &= found
    if value_bytes > 1 and fields["encoding"].lower() in ("raw", "gzip", "gz", "bzip2", "bz2"):
        if fields.get("endian", "").lower() not in ("little", "big"):
            raise unreadable(path, "its header does not say whether it is little or big 'endian'")
    spatial, grids = _placed(path, fields, sizes)
    return Header("NrrdImageIO", tuple(sizes[a] for a in spatial), grids, understood, verify)


def _header_bytes(path: Path) -> tuple[bytes, int]:
    """The header's lines after the first, and where the voxels begin if they are in this file."""
    with open(path, "rb") as stream:
        start = stream.readline(16)
        if not _MAGIC.fullmatch(start):
            raise unreadable(path, "it is not NRRD, as its name says")
        lines, size = [], len(start)
        for line in iter(lambda: stream.readline(MAX_TEXT), b""):
            size += len(line)
            if size > MAX_TEXT:
                raise unreadable(path, "its header does not end")
            if not line.rstrip(b"\r\n"):
                break
            lines.append(line)
        else:
            if path.suffix.lower() != ".nhdr":
                raise cut_short(path, "it ends within its header")
    return b"".join(lines), size


def _fields(path: Path, raw: bytes) -> tuple[dict[str, str], bool]:
    """The fields by name, and whether all of them are known here."""
    fields: dict[str, str] = {}
    for line in raw.decode("latin-1").split("\n"):
        line = line.rstrip("\r")
        if not line or line.startswith("#") or ":=" in line and ": " not in line.split(":=")[0]:
            continue
        name, colon, value = line.partition(":")
        name = _SAME.get(name.lower(), name.lower())
        if not colon or name in fields:
            what = "twice" if colon else "without a value"
            raise unreadable(path, f"its header has {name!r:.60} {what}")
        fields[name] = value.strip()
    return fields, fields.keys() <= _KNOWN


def _plain(fields: Mapping[str, str]) -> bool:
    """Whether the fields that say nothing here are at least of the kind that they should be."""
    if any(len(value) > MAX_PLAIN or not value.isprintable() for value in fields.values()):
        return False
    if fields.get("space", "lps").lower() not in _SPACES:
        return False
    for field, words in _WORDS.items():
        if not set(fields.get(field, "").lower().split()) <= words:
            return False
    try:
        [float(word) for field in _NUMBERS for word in fields.get(field, "").split()]
    except ValueError:
        return False
    if not all(_QUOTED.fullmatch(fields.get(field, "")) for field in ("units", "space units")):
        return False
    frame = fields.get("measurement frame", "none none none")
    return not _VECTOR.sub("", frame).strip() and len(_VECTOR.findall(frame)) == 3


def _require_data(
    path: Path, fields: Mapping[str, str], claimed: int, end: int
) -> tuple[bool, Callable[[], None]]:
    """Whether it is known where the voxels are, and what verifies them.

    Raises:
        InputError: the file is too small for them.
    """
    name = fields.get("data file")
    if name is None and path.suffix.lower() == ".nhdr":
        raise unreadable(path, "its header names no file with the voxels")
    if name is not None and (name.startswith("LIST") or "%" in name):
        return False, _nothing
    file = path if name is None else data_file(path, name)
    (skip,) = whole_numbers(path, "byte skip", fields.get("byte skip", "0"), 1, -1)
    start = end if name is None else 0
    there = file.stat().st_size - start - max(skip, 0)
    encoding = fields["encoding"].lower()
    if encoding == "raw":
        if there < claimed:
            raise cut_short(path)
    elif encoding in ("gzip", "gz"):
        # An empty block of 20 bytes and a little on top: this is about files that claim a terabyte.
        if claimed > there * MAX_DEFLATED + 1024:
            raise cut_short(path)
        return skip >= 0, partial(require_unpacked, path, partial(_open_gzip, file, start), claimed)
    elif encoding in ("bzip2", "bz2"):
        return False, partial(require_unpacked, path, partial(_open_bzip2, file, start), claimed)
    elif encoding not in ("txt", "text", "ascii", "hex"):
        raise unreadable(path, f"its encoding {encoding!r:.40} is none of NRRD's")
    return encoding == "raw" and skip >= 0, _nothing


def _nothing() -> None:
    pass


@contextmanager
def _open_gzip(file: Path, start: int) -> Iterator[Readable]:
    with open(file, "rb") as stream:
        stream.seek(start)
        yield gzip.GzipFile(fileobj=stream)


@contextmanager
def _open_bzip2(file: Path, start: int) -> Iterator[Readable]:
    with open(file, "rb") as stream:
        stream.seek(start)
        yield bz2.BZ2File(stream)


def _placed(
    path: Path, fields: Mapping[str, str], sizes: list[int]
) -> tuple[list[int], tuple[Grid, ...]]:
    """Which axes are those of space, and where the header puts the voxels if these are three."""
    units = [unit.lower() for unit in re.findall(r'"([^"]*)"', fields.get("space units", ""))]
    units += [unit.lower() for unit in re.findall(r'"([^"]*)"', fields.get("units", ""))]
    for unit in units:
        if _OTHER_UNITS.fullmatch(unit):
            raise InputError(
                f"{path} is measured in '{unit}', and only millimetres are read here; save it in"
                " millimetres."
            )
    if "space directions" in fields:
        return _by_directions(path, fields, sizes)
    axes = list(range(len(sizes)))
    kinds = fields.get("kinds", "").lower().split()
    if len(kinds) == len(sizes):
        axes = [a for a in axes if kinds[a] in ("domain", "space", "time", "???", "none")]
    for field in ("spacings", "axis mins", "axis maxs"):
        if field in fields:
            numbers(path, field, fields[field], len(sizes))
    if len(axes) != 3:
        return axes, ()
    spacings = np.array(numbers(path, "spacings", fields.get("spacings", "nan " * len(sizes))))
    if np.isinf(spacings[axes]).any() or (spacings[axes] <= 0).any():
        raise misplaced(path, f"its header has {fields['spacings']!r:.80} for 'spacings'")
    # NaN is the definition's word for an axis of which this isn't known.
    spacings = np.where(np.isnan(spacings), 1.0, spacings)[axes]
    first = np.array(numbers(path, "axis mins", fields.get("axis mins", "nan " * len(sizes))))[axes]
    if np.isinf(first).any():
        raise misplaced(path, f"its header has {fields['axis mins']!r:.80} for 'axis mins'")
    affine = np.diag([*spacings, 1.0])
    affine[:3, 3] = np.where(np.isnan(first), 0.0, first)
    centred = affine.copy()  # the minimum of an axis is its first voxel's border, or its centre
    centred[:3, 3] += np.where(np.isnan(first), 0.0, spacings / 2)
    shape = [sizes[a] for a in axes]
    return axes, (grid_from(path, shape, affine), grid_from(path, shape, centred))


def _by_directions(
    path: Path, fields: Mapping[str, str], sizes: list[int]
) -> tuple[list[int], tuple[Grid, ...]]:
    text = fields["space directions"]
    found = _VECTOR.findall(text)
    if len(found) != len(sizes) or _VECTOR.sub("", text).strip():
        raise unreadable(path, f"its header has {text!r:.80} for 'space directions'")
    axes = [axis for axis, vector in enumerate(found) if vector]
    vectors = [_vector(path, "space directions", found[axis]) for axis in axes]
    origin_text = fields.get("space origin", "(0,0,0)")
    if not _VECTOR.fullmatch(origin_text):
        raise unreadable(path, f"its header has {origin_text!r:.80} for 'space origin'")
    if len(axes) != 3 or any(len(vector) != 3 for vector in vectors):
        return axes, ()
    origin = _vector(path, "space origin", origin_text.strip("()"))
    if len(origin) != 3:
        raise unreadable(path, f"its header has {origin_text!r:.80} for 'space origin'")
    space = fields.get("space", "left-posterior-superior").lower()
    flips = np.array(_TO_LPS.get(_SHORT.get(space, space), (1, 1, 1)), np.float64)
    affine = np.eye(4)
    affine[:3, :3] = flips[:, None] * np.array(vectors).T
    affine[:3, 3] = flips * origin
    return axes, (grid_from(path, [sizes[axis] for axis in axes], affine),)


def _vector(path: Path, field: str, text: str) -> list[float]:
    values = numbers(path, field, text.replace(",", " "))
    if not all(map(math.isfinite, values)):
        raise misplaced(path, "its position or directions are not numbers (NaN or infinite)")
    return values
