"""What the header of a Slicer segmentation (``.seg.nrrd``) says of its segments.

Slicer writes for every segment ``Segment<number>_`` with ID, Name, Color, Tags, and since 4.11
Layer, LabelValue and Extent as well. Other programs leave fields out. What Slicer makes of that
decides here too, and where Slicer would drop a segment or its name that the header does give, they
are kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.annotation import MAX_VALUE, name_key
from ..core.errors import InputError

_FIELD = re.compile(r"Segment(\d{1,6})_(\w+)", re.ASCII)
_DESCRIBING = frozenset({"ID", "Name", "Layer", "LabelValue"})
_DEFAULT_VALUE = 1
"""Before 4.11 every segment had a layer of its own, with ones in it."""

Extent = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class Segment:
    """One segment of a file.

    Attributes:
        name: as the header has it, or generated where it has none.
        layer: number of the layer (component) that it lies in.
        value: its label value there. ``sure``: whether the header says that value.
        color: red, green, blue in 0..1, or None. terminology: Slicer's string, or None.
        extent: first and last voxel along i, j, k of the file that may hold it; None where the
            header doesn't say. Slicer cuts a layer to the extents of all its segments.
    """

    name: str
    layer: int
    value: int
    sure: bool = True
    color: tuple[float, float, float] | None = None
    terminology: str | None = None
    extent: Extent | None = None


@dataclass(frozen=True)
class SegmentHeader:
    """All that a header says.

    Attributes:
        segments: by their numbers.
        complete: whether these are all the segments: a header without a first ID doesn't say, and
            Slicer then takes every label value in every layer for a segment.
    """

    segments: tuple[Segment, ...]
    complete: bool


def is_segmentation(fields: Iterable[str]) -> bool:
    """Whether a file with these metadata keys is a Slicer segmentation rather than a label map."""
    return any(
        key.startswith("Segmentation_") or ((found := _FIELD.fullmatch(key)) and found.group(2))
        for key in fields
    )


def read_header(path: Path, fields: Mapping[str, str], layers: int) -> SegmentHeader:
    """The segments that a file's metadata describe.

    Args:
        path: of the file, for messages. fields: its metadata.
        layers: how many it has.

    Raises:
        InputError: a field is not what Slicer writes, or names a layer that there is not.
    """
    numbered: dict[int, dict[str, str]] = {}
    for key, text in fields.items():
        found = _FIELD.fullmatch(key)
        if found:
            numbered.setdefault(int(found.group(1)), {})[found.group(2)] = _readable(text).strip()
    numbered = {n: own for n, own in sorted(numbered.items()) if _DESCRIBING & own.keys()}
    taken = [own["Name"] for own in numbered.values() if own.get("Name")]
    segments = []
    for number, own in numbered.items():
        layer = _whole(path, number, own, "Layer")
        if layer is None:
            # Each its own, as before 4.11; with one layer there is no other that could be meant.
            layer = number if layers > 1 else 0
        if not 0 <= layer < layers:
            raise InputError(
                f"{path} is damaged: segment {number} is said to be in layer {layer}, but there"
                f" are {layers}; save it again from Slicer."
            )
        given = _whole(path, number, own, "LabelValue")
        if given is not None and not 1 <= given <= MAX_VALUE:
            raise InputError(
                f"{path} is damaged: the label value of segment {number} is {given}, not within 1"
                f" to {MAX_VALUE}; save it again from Slicer."
            )
        value = _DEFAULT_VALUE if given is None else given
        name = own.get("Name") or own.get("ID") or _generated_name(value, taken)
        taken.append(name)
        segments.append(
            Segment(
                name,
                layer,
                value,
                given is not None,
                _color(own.get("Color") or own.get("DefaultColor", "")),
                _terminology(own.get("Tags", "")),
                _extent(path, number, own),
            )
        )
    return SegmentHeader(tuple(segments), "Segment0_ID" in fields)


def _generated_name(value: int, taken: Iterable[str]) -> str:
    """What Slicer calls a segment of which only the label value is known."""
    keys = {name_key(name) for name in taken}
    name, count = f"Segment_{value}", 0
    while name_key(name) in keys:
        count += 1
        name = f"Segment_{value}_{count}"
    return name


def all_segments(
    path: Path, header: SegmentHeader, present: Sequence[Sequence[int]]
) -> list[Segment]:
    """The segments that a header describes, and those that it leaves to the label values.

    Args:
        present: the label values of each layer.

    Raises:
        InputError: a segment has no label value, and none of its layer's is the usual one.
    """
    segments = list(header.segments)
    for segment in segments:
        values = present[segment.layer]
        if not segment.sure and values and segment.value not in values:
            raise InputError(
                f"{path} does not say which label value its segment '{segment.name}' has; layer"
                f" {segment.layer} has {', '.join(map(str, values[:5]))}. Save it again from"
                " Slicer."
            )
    if not header.complete:
        described = {(segment.layer, segment.value) for segment in segments}
        for layer, values in enumerate(present):
            for value in values:
                if (layer, value) not in described:
                    name = _generated_name(value, [segment.name for segment in segments])
                    segments.append(Segment(name, layer, value))
    return segments


def require_apart(
    path: Path, segments: Sequence[Segment], present: Sequence[Sequence[int]]
) -> None:
    """No voxel belongs to two segments of one layer.

    Raises:
        InputError: one does.
    """
    places: dict[tuple[int, int], Segment] = {}
    for segment in segments:
        other = places.setdefault((segment.layer, segment.value), segment)
        if other is not segment and segment.value in present[segment.layer]:
            raise InputError(
                f"{path} does not tell the segments '{other.name}' and '{segment.name}' apart:"
                f" both have the label value {segment.value} in layer {segment.layer}; save it"
                " again from Slicer."
            )


def _readable(text: str) -> str:
    """A text whose bytes are not UTF-8, as old programs on Windows write them, read as Latin-1."""
    if text.isascii():
        return text
    raw = text.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _whole(path: Path, number: int, own: Mapping[str, str], field: str) -> int | None:
    text = own.get(field)
    if not text:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise _damaged(path, number, field) from error


def _extent(path: Path, number: int, own: Mapping[str, str]) -> Extent | None:
    text = own.get("Extent")
    if not text:
        return None
    try:
        extent = tuple(int(part) for part in text.split())
    except ValueError as error:
        raise _damaged(path, number, "Extent") from error
    if len(extent) != 6:
        raise _damaged(path, number, "Extent")
    return extent


def _damaged(path: Path, number: int, field: str) -> InputError:
    return InputError(
        f"{path} is damaged: the description of its segment {number} ({field}) is not as Slicer"
        " writes it; save it again from Slicer."
    )


def _color(text: str) -> tuple[float, float, float] | None:
    """A colour, which nothing hangs on: None where it is none."""
    try:
        color = tuple(float(part) for part in text.split())
    except ValueError:
        return None
    if len(color) != 3 or not all(math.isfinite(part) and 0 <= part <= 1 for part in color):
        return None
    return color


def _terminology(tags: str) -> str | None:
    for tag in tags.split("|"):
        name, _, value = tag.partition(":")
        if name.strip() == "TerminologyEntry" and value.strip():
            return value.strip()
    return None
