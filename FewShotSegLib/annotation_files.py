"""Reading annotations: label maps, Slicer segmentations, and folders of masks."""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .annotation import Annotation, Structure
from .errors import InputError
from .geometry import Grid
from .volume_files import EXTENSIONS, array_of, extension_of, grid_of, read_file

MAX_VALUE = 65535
_FORBIDDEN_IN_NAMES = frozenset('/\\:*?"<>|=')
_EXAMPLE = "write it like 4=parotid_right,5=parotid_left"
_PALETTE = (
    0xE6194B, 0x3CB44B, 0xFFE119, 0x4363D8, 0xF58231, 0x911EB4, 0x42D4F4, 0xF032E6, 0xBFEF45,
    0xFABED4, 0x469990, 0xDCBEFF, 0x9A6324, 0xFFFAC8, 0x800000, 0xAAFFC3, 0x808000, 0xFFD8B1,
    0x000075, 0xA9A9A9,
)  # fmt: skip
_GOLDEN_RATIO = 0.6180339887498949


def read_annotation(
    path: str | Path,
    grid: Grid,
    structures: Sequence[Structure] | None = None,
    *,
    may_be_empty: bool = False,
    what: str = "segmentation",
    owner: str = "image",
) -> Annotation:
    """Read what was annotated on the image that lies on ``grid``.

    Three kinds are told apart by themselves: a label map, whose structures are matched by value; a
    Slicer segmentation (``.seg.nrrd``, segments may overlap), matched by name ignoring case; and a
    folder with one mask file a structure, matched by the file's name likewise. A segmentation that
    Slicer cropped is put back into the image's grid; voxels outside the image are dropped.

    Args:
        path: the file or folder.
        grid: the image's grid.
        structures: those wanted, or None for all that are annotated. Without them label map
            structures are named ``label_<value>``; segments keep their label values where these are
            distinct and are numbered in file order where not; masks are numbered by name.
        may_be_empty: for a prediction, which may rightly have found nothing.
        what: how messages call the file. owner: whose grid it is, likewise.

    Returns:
        Boolean masks (i, j, k) on ``grid`` for the structures that have voxels here. A segment,
        file or label value without voxels was not annotated. ``structures`` lists the annotated
        ones; colour and terminology come from the file where the caller gave none.

    Raises:
        InputError: the file is unreadable or not a segmentation, lies on another grid, or
            annotates nothing that is wanted.
    """
    path = Path(path)
    try:
        if path.is_dir():
            annotation, found = _read_masks(path, grid, structures)
        else:
            image = read_file(path)
            segments = _segments(path, image)
            if segments:
                annotation, found = _read_segments(path, image, segments, grid, structures)
            else:
                annotation, found = _read_label_map(path, image, grid, structures)
    except _OtherGridError as error:
        raise InputError(_other_grid_text(error, grid, what, owner)) from None
    if not annotation.masks and not may_be_empty:
        if structures is None or not found:
            place = f"on the {owner}" if what != owner else "in it"
            raise InputError(
                f"The {what} {path} is empty: nothing is annotated {place}; annotate at"
                " least one structure or leave it out."
            )
        wanted = ", ".join(s.name for s in structures)
        raise InputError(
            f"The {what} {path} annotates none of the structures asked for ({wanted}); it"
            f" has: {', '.join(found)}."
        )
    return annotation


def parse_structures(text: str) -> list[Structure]:
    """Read ``4=parotid_right,5=parotid_left`` as structures, in that order.

    Raises:
        InputError: it is malformed, a value is not 1 to 65535, a value or a name (ignoring case)
            comes twice, or a name could not be part of a file's name.
    """
    structures: list[Structure] = []
    for item in text.split(","):
        number, equals, name = (part.strip() for part in item.partition("="))
        if not equals or not name or not (number.isascii() and number.isdigit()):
            raise InputError(f"Structures '{text}': '{item.strip()}' is no value=name; {_EXAMPLE}.")
        value = int(number)
        if not 1 <= value <= MAX_VALUE:
            raise InputError(
                f"Structures '{text}': the value {value} is not within 1 to {MAX_VALUE};"
                f" {_EXAMPLE}."
            )
        bad = sorted(c for c in set(name) if c in _FORBIDDEN_IN_NAMES or not c.isprintable())
        if bad or name.startswith(".") or name.endswith("."):
            raise InputError(
                f"Structures '{text}': the name {name!r} can't be part of a file's name"
                f" ({' '.join(map(repr, bad)) or 'a dot at an end'}); {_EXAMPLE}."
            )
        for other in structures:
            if other.value == value or _key(other.name) == _key(name):
                what = f"value {value}" if other.value == value else f"name {name}"
                raise InputError(f"Structures '{text}': the {what} comes twice; {_EXAMPLE}.")
        structures.append(Structure(name, value))
    return structures


def default_color(value: int) -> tuple[float, float, float]:
    """Red, green, blue in 0..1 for a label value: distinct for neighbours, always the same."""
    if 1 <= value <= len(_PALETTE):
        code = _PALETTE[value - 1]
        return (code >> 16) / 255, (code >> 8 & 255) / 255, (code & 255) / 255
    # Steps of the golden ratio keep hues apart however many there are.
    hue = value * _GOLDEN_RATIO % 1
    return colorsys.hsv_to_rgb(hue, 0.55 + 0.2 * (value % 3), 0.95 - 0.2 * (value // 3 % 2))


@dataclass(frozen=True)
class _Segment:
    """One segment of a Slicer file: a label value within one layer."""

    name: str
    layer: int
    value: int
    color: tuple[float, float, float] | None
    terminology: str | None


def _key(name: str) -> str:
    return name.strip().casefold()


def _read_label_map(
    path: Path, image: sitk.Image, grid: Grid, structures: Sequence[Structure] | None
) -> tuple[Annotation, list[str]]:
    array = array_of(image)
    if array.ndim != 3:
        raise InputError(
            f"{path} has {array.shape[3]} values a voxel, which no label map has; save it as a"
            " label map, or as a .seg.nrrd from Slicer."
        )
    labels = _as_labels(path, array)
    present = _present(labels)
    if present:
        labels = _on_grid(path, labels, grid_of(image), grid)
        present = _present(labels)
    if structures is None:
        structures = [Structure(f"label_{value}", value) for value in present]
    annotated = [s for s in structures if s.value in present]
    masks = {s.name: labels == s.value for s in annotated}
    return Annotation(masks, annotated), [f"label {value}" for value in present]


def _read_segments(
    path: Path,
    image: sitk.Image,
    segments: list[_Segment],
    grid: Grid,
    structures: Sequence[Structure] | None,
) -> tuple[Annotation, list[str]]:
    array = array_of(image)
    layers = array[..., None] if array.ndim == 3 else array
    for segment in segments:
        if not 0 <= segment.layer < layers.shape[3]:
            raise InputError(
                f"{path} is damaged: segment '{segment.name}' is said to be in layer"
                f" {segment.layer}, but there are {layers.shape[3]}; save it again from Slicer."
            )
    values = [segment.value for segment in segments]
    if len(set(values)) < len(values) or not all(0 < v <= MAX_VALUE for v in values):
        values = list(range(1, len(segments) + 1))
    own = [
        Structure(s.name, value, s.color, s.terminology)
        for s, value in zip(segments, values, strict=True)
    ]
    annotation, found = Annotation({}), []
    for segment, structure in _matched(path, own, structures, segments):
        # Cropped to nothing, an empty Slicer segmentation has a grid of its own; never mind it.
        mask = layers[..., segment.layer] == segment.value
        if mask.any():
            mask = _on_grid(path, mask, grid_of(image), grid)
        if not mask.any():
            continue
        found.append(segment.name)
        if structure is not None:
            annotation.masks[structure.name] = mask
            annotation.structures.append(structure)
    return annotation, found


def mask_files(folder: Path) -> list[Path]:
    """The files of a folder that are taken for masks, by name."""
    return sorted(
        (file for file in folder.iterdir() if extension_of(file) and file.name[0] != "."),
        key=lambda file: _key(mask_name(file)),
    )


def _read_masks(
    folder: Path, grid: Grid, structures: Sequence[Structure] | None
) -> tuple[Annotation, list[str]]:
    files = mask_files(folder)
    if not files:
        raise InputError(
            f"The folder {folder} has no mask files; give one a structure, such as liver.nii.gz"
            f" (of the kinds {', '.join(EXTENSIONS)})."
        )
    own = [Structure(mask_name(file), value) for value, file in enumerate(files, 1)]
    annotation, found = Annotation({}), []
    for file, structure in _matched(folder, own, structures, files):
        if structure is None:
            found.append(mask_name(file))
            continue
        image = read_file(file)
        array = array_of(image)
        if array.ndim != 3:
            raise InputError(f"{file} has several values a voxel; a mask has one, 0 or 1.")
        labels = _as_labels(file, array)
        present = _present(labels)
        if len(present) > 1:
            raise InputError(
                f"{file} is no mask: it has the labels {', '.join(map(str, present[:5]))}; give"
                " one file a structure with 0 and 1, or the label map by itself instead of the"
                " folder."
            )
        if not present:
            continue
        mask = _on_grid(file, labels != 0, grid_of(image), grid)
        if mask.any():
            found.append(mask_name(file))
            annotation.masks[structure.name] = mask
            annotation.structures.append(structure)
    return annotation, found


def _matched(
    path: Path,
    own: list[Structure],
    structures: Sequence[Structure] | None,
    parts: Sequence[_Segment] | Sequence[Path],
) -> Iterator[tuple[_Segment | Path, Structure | None]]:
    """Each part of a file with the structure it stands for, None where that is not wanted.

    Raises:
        InputError: two parts that are wanted have one name.
    """
    wanted = None if structures is None else {_key(s.name): s for s in structures}
    counts = Counter(_key(s.name) for s in own)
    for part, mine in zip(parts, own, strict=True):
        key = _key(mine.name)
        given = mine if wanted is None else wanted.get(key)
        if given is not None and counts[key] > 1:
            raise InputError(
                f"{path} has {counts[key]} segments or masks named '{mine.name}'; rename or merge"
                " them."
            )
        if given is not None:
            given = replace(
                given,
                color=given.color or mine.color,
                terminology=given.terminology or mine.terminology,
            )
        yield part, given


def mask_name(file: Path) -> str:
    """The structure that a mask's file stands for."""
    name = file.name[: -len(extension_of(file) or "")]
    return name[:-4] if name.lower().endswith(".seg") else name


def _segments(path: Path, image: sitk.Image) -> list[_Segment]:
    """The segments that a file's metadata name, in their order; none for a plain label map."""
    segments = []
    while image.HasMetaDataKey(f"Segment{len(segments)}_ID"):
        prefix = f"Segment{len(segments)}_"
        fields = {
            key: image.GetMetaData(prefix + key).strip()
            for key in ("ID", "Name", "Color", "Layer", "LabelValue", "Tags")
            if image.HasMetaDataKey(prefix + key)
        }
        try:
            color = tuple(float(x) for x in fields.get("Color", "").split())
            segments.append(
                _Segment(
                    fields.get("Name") or fields["ID"],
                    # Slicer before 4.11 wrote neither: one layer a segment, with ones in it.
                    int(fields.get("Layer", len(segments))),
                    int(fields.get("LabelValue", 1)),
                    color if len(color) == 3 else None,
                    _terminology(fields.get("Tags", "")),
                )
            )
        except ValueError as error:
            raise InputError(
                f"{path} is damaged: the description of its segment {len(segments)} is not as"
                " Slicer writes it; save it again from Slicer."
            ) from error
    return segments


def _terminology(tags: str) -> str | None:
    for tag in tags.split("|"):
        name, _, value = tag.partition(":")
        if name.strip() == "TerminologyEntry" and value.strip():
            return value.strip()
    return None


def _as_labels(path: Path, array: np.ndarray) -> np.ndarray:
    """Label values as uint8 or uint16, same shape.

    Raises:
        InputError: a value is negative, too large, or not an integer.
    """
    if array.dtype in (np.uint8, np.uint16):
        return array
    labels = np.empty(array.shape, np.uint16, order="F")
    for k in range(array.shape[2]):
        plane = array[..., k]
        if plane.dtype.kind == "f" and not (np.rint(plane) == plane).all():
            raise InputError(
                f"{path} has fractional values (or NaN), so it is no label map (an image or a"
                " probability map, perhaps); give the segmentation."
            )
        if plane.min() < 0 or plane.max() > MAX_VALUE:
            raise InputError(
                f"{path} has label values outside 0 to {MAX_VALUE}, so it is no label map (an"
                " image, perhaps); give the segmentation."
            )
        labels[..., k] = plane
    return labels


def _present(labels: np.ndarray) -> list[int]:
    """The label values other than 0, ascending."""
    present = np.zeros(MAX_VALUE + 1, bool)
    for k in range(labels.shape[2]):  # plane by plane: indexing copies its index as int64
        present[labels[..., k]] = True
    return (np.flatnonzero(present[1:]) + 1).tolist()


def _on_grid(path: Path, array: np.ndarray, own: Grid, grid: Grid) -> np.ndarray:
    """The array (i, j, k) on the image's grid: as it is, or pasted where it was cropped.

    Raises:
        _OtherGridError: the two grids don't share a lattice, or don't meet.
    """
    offset = own.offset_in(grid)
    if offset == (0, 0, 0) and own.shape == grid.shape:
        return array
    if offset is not None:
        start = [max(o, 0) for o in offset]
        stop = [min(o + n, m) for o, n, m in zip(offset, own.shape, grid.shape, strict=True)]
        if all(a < b for a, b in zip(start, stop, strict=True)):
            whole = np.zeros(grid.shape, array.dtype, order="F")
            inside = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
            there = tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, offset, strict=True))
            whole[inside] = array[there]
            return whole
    raise _OtherGridError(path, own)


class _OtherGridError(Exception):
    """A file (first) whose own grid (second) is not that of the volume."""


def _other_grid_text(error: _OtherGridError, grid: Grid, what: str, owner: str) -> str:
    path, own = error.args
    advice = f"resample it to the {owner}"
    if owner == "image":
        advice = f"save the {what} with the image as its reference geometry, or {advice}"
    return (
        f"The {owner} and {what} have different grids: the {owner} has {_described(grid)}, the"
        f" {what} {path} has {_described(own)}; {advice}."
    )


def _described(grid: Grid) -> str:
    shape = " x ".join(map(str, grid.shape))
    spacing = " x ".join(f"{s:.4g}" for s in grid.spacing)
    origin = ", ".join(f"{x:.4g}" for x in grid.origin)
    return f"{shape} voxels of {spacing} mm from ({origin})"
