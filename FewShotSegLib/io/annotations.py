"""Reading annotations: label maps, Slicer segmentations, and folders of masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK as sitk

from ..core.annotation import MAX_VALUE, Annotation, Structure, name_key
from ..core.errors import InputError
from ..core.geometry import Grid
from ..core.limits import StrPath
from .annotation_grid import OtherGridError, Place, other_grid_text, paste
from .dicom_masks import is_dicom_file, read_dicom_masks
from .file_names import is_folder
from .segment_fields import (
    Segment,
    SegmentHeader,
    all_segments,
    is_segmentation,
    read_header,
    require_apart,
)
from .volumes import EXTENSIONS, array_of, extension_of, grid_of, read_file

_Part = TypeVar("_Part", Segment, Path, np.ndarray)
"""Of a file of segments, of a folder of masks, or of a DICOM segmentation."""


def read_annotation(
    path: StrPath,
    grid: Grid,
    structures: Sequence[Structure] | None = None,
    *,
    may_be_empty: bool = False,
    may_be_outside: bool = True,
    what: str = "segmentation",
    owner: str = "image",
) -> Annotation:
    """Read what was annotated on the image that lies on ``grid``.

    Four kinds are recognised automatically: a label map, whose structures are matched by value; a
    Slicer segmentation (``.seg.nrrd``, segments may overlap), matched by name ignoring case; a
    DICOM segmentation (``.dcm``) likewise; and a folder with one mask file a structure, matched by
    the file's name. Label maps and masks have the image's very grid. A segmentation of Slicer's or
    of DICOM, which is often cropped, is put back into it.

    Args:
        path: the file or folder.
        grid: the image's grid.
        structures: those wanted, or None for all that are annotated. Without them label map
            structures are named ``label_<value>``; segments keep their label values where these are
            distinct and are numbered in file order where not; masks are numbered by name.
        may_be_empty: for a prediction, which may rightly have found nothing.
        may_be_outside: whether a Slicer segmentation's voxels outside the image, fewer than half of
            all, are dropped; else they are refused.
        what: how messages call the file. owner: whose grid it is, likewise.

    Returns:
        Boolean masks (i, j, k) on ``grid`` for the structures that have voxels here. A segment,
        file or label value without voxels was not annotated. ``structures`` lists the annotated
        ones; colour and terminology come from the file where the caller gave none.

    Raises:
        InputError: the file is unreadable or not a segmentation, lies on another grid, or
            annotates nothing that is wanted.
    """
    path, place = Path(path), Place(grid, may_be_outside)
    try:
        if is_folder(path):
            annotation, found = _read_masks(path, place, structures)
        elif is_dicom_file(path):
            annotation, found = _read_dicom(path, place, structures)
        else:
            image = read_file(path)
            segmentation = _is_segmentation(path, image)
            layers = image.GetNumberOfComponentsPerPixel()
            fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
            header = read_header(path, fields, layers) if segmentation else None
            if header is not None and (header.segments or layers > 1):
                annotation, found = _read_segments(path, image, header, place, structures)
            else:
                annotation, found = _read_label_map(path, image, place, structures, segmentation)
    except OtherGridError as error:
        raise InputError(other_grid_text(error, grid, what, owner)) from None
    if not annotation.masks and not may_be_empty:
        if structures is None or not found:
            where = f"on the {owner}" if what != owner else "in it"
            raise InputError(
                f"The {what} {path} is empty: nothing is annotated {where}; annotate at"
                " least one structure or leave it out."
            )
        wanted = ", ".join(s.name for s in structures)
        raise InputError(
            f"The {what} {path} annotates none of the structures asked for ({wanted}); it"
            f" has: {', '.join(found)}."
        )
    return annotation


def annotation_grid(path: str | Path, other: Grid | None = None) -> tuple[Grid, bool]:
    """The grid that a segmentation itself lies on, and whether it may be a part of the image's.

    Args:
        other: whose lattice a DICOM segmentation takes that lies on it but for a rounding.

    Raises:
        InputError: it can't be read, or is a folder without masks.
    """
    path = Path(path)
    if is_folder(path):
        path = _some_masks(path)[0]
    if is_dicom_file(path):
        read = read_dicom_masks(path)
        return (read if other is None else read.on_lattice(other)).grid, True
    image = read_file(path)
    return grid_of(image), _is_segmentation(path, image)


def _read_label_map(
    path: Path, image: sitk.Image, place: Place, structures: Sequence[Structure] | None, part: bool
) -> tuple[Annotation, list[str]]:
    """``part``: whether the file says that it may have been cropped."""
    array = array_of(image)
    if array.ndim != 3:
        raise InputError(
            f"{path} has {array.shape[3]} values a voxel, which no label map has; save it as a"
            " label map, or as a .seg.nrrd from Slicer."
        )
    labels = _as_labels(path, array)
    present = _present(labels)
    if not part:
        place.require_same(path, grid_of(image))
    elif present:
        place.require_part(path, grid_of(image), labels != 0)
        labels = paste(labels, grid_of(image), place.grid)
        present = _present(labels)
    if structures is None:
        structures = [Structure(f"label_{value}", value) for value in present]
    annotated = [s for s in structures if s.value in present]
    masks = {s.name: labels == s.value for s in annotated}
    return Annotation(masks, annotated), [f"label {value}" for value in present]


def _read_segments(
    path: Path,
    image: sitk.Image,
    header: SegmentHeader,
    place: Place,
    structures: Sequence[Structure] | None,
) -> tuple[Annotation, list[str]]:
    array = array_of(image)
    layers = _as_labels(path, array[..., None] if array.ndim == 3 else array)
    present = [_present(layers[..., n]) for n in range(layers.shape[3])]
    segments = all_segments(path, header, present)
    values = [segment.value for segment in segments]
    if len(set(values)) < len(values):
        values = list(range(1, len(segments) + 1))
    own = [
        Structure(s.name, value, s.color, s.terminology)
        for s, value in zip(segments, values, strict=True)
    ]
    pairs = list(_matched(path, own, structures, segments))
    require_apart(path, segments, present)
    _require_extents(path, segments, layers)
    lies = grid_of(image)
    # Cropped to nothing, an empty Slicer segmentation has a grid of its own; never mind it.
    if any(segment.value in present[segment.layer] for segment in segments):
        place.require_part(path, lies, np.any(layers, axis=3))
    return _gathered(
        (
            segment.name,
            paste(np.equal(layers[..., segment.layer], segment.value), lies, place.grid),
            structure,
        )
        for segment, structure in pairs
        if segment.value in present[segment.layer]
    )


def _read_dicom(
    path: Path, place: Place, structures: Sequence[Structure] | None
) -> tuple[Annotation, list[str]]:
    read = read_dicom_masks(path).on_lattice(place.grid)
    pairs = list(_matched(path, read.structures, structures, read.masks))
    inked = np.any(read.masks, axis=0) if read.masks else np.zeros(read.grid.shape, bool)
    if inked.any():
        place.require_part(path, read.grid, inked)
    return _gathered(
        (own.name, paste(mask, read.grid, place.grid), structure)
        for own, (mask, structure) in zip(read.structures, pairs, strict=True)
        if mask.any()
    )


def _gathered(
    segments: Iterable[tuple[str, np.ndarray, Structure | None]],
) -> tuple[Annotation, list[str]]:
    """The masks that have voxels, of the structures that are wanted; and the names of all that
    have.

    Args:
        segments: of each its name, its mask, and the structure that it is; None for another.
    """
    annotation, found = Annotation({}), []
    for name, mask, structure in segments:
        if not mask.any():
            continue
        found.append(name)
        if structure is not None:
            annotation.masks[structure.name] = mask
            annotation.structures.append(structure)
    return annotation, found


def _require_extents(path: Path, segments: Sequence[Segment], layers: np.ndarray) -> None:
    """Slicer cuts a layer to what its segments' extents hold together, unless one has none.

    Raises:
        InputError: that would take voxels away: extents and voxels are not of one file.
    """
    for layer in {segment.layer for segment in segments}:
        own = [segment for segment in segments if segment.layer == layer]
        if any(segment.extent is None for segment in own):
            continue
        extents = np.array([segment.extent for segment in own])
        real = extents[(extents[:, ::2] <= extents[:, 1::2]).all(axis=1)]
        outside = layers[..., layer] != 0
        if len(real):
            low, high = np.min(real, axis=0)[::2], np.max(real, axis=0)[1::2]
            box = tuple(slice(max(0, a), max(0, b + 1)) for a, b in zip(low, high, strict=True))
            outside = outside.copy()
            outside[box] = False
        cut = _present(layers[..., layer] * outside)
        for segment in own:
            if segment.value in cut:
                raise InputError(
                    f"{path} is damaged: its segment '{segment.name}' has voxels outside the"
                    " extents that its header gives, which Slicer takes away; correct or remove"
                    " the Extent fields, or save it again from Slicer."
                )


def mask_files(folder: Path) -> list[Path]:
    """The files of a folder that are taken for masks, by name."""
    return sorted(
        (file for file in folder.iterdir() if extension_of(file) and file.name[0] != "."),
        key=lambda file: name_key(mask_name(file)),
    )


def _some_masks(folder: Path) -> list[Path]:
    files = mask_files(folder)
    if not files:
        raise InputError(
            f"The folder {folder} has no mask files; give one a structure, such as liver.nii.gz"
            f" (of the kinds {', '.join(EXTENSIONS)})."
        )
    return files


def _read_masks(
    folder: Path, place: Place, structures: Sequence[Structure] | None
) -> tuple[Annotation, list[str]]:
    files = _some_masks(folder)
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
        mask = labels != 0
        if not _is_segmentation(file, image):
            place.require_same(file, grid_of(image))
        elif present:
            place.require_part(file, grid_of(image), mask)
            mask = paste(mask, grid_of(image), place.grid)
        if present and mask.any():
            found.append(mask_name(file))
            annotation.masks[structure.name] = mask
            annotation.structures.append(structure)
    return annotation, found


def _matched(
    path: Path,
    own: list[Structure],
    structures: Sequence[Structure] | None,
    parts: Sequence[_Part],
) -> Iterator[tuple[_Part, Structure | None]]:
    """Each part of a file with the structure it stands for, None where that is not wanted.

    Raises:
        InputError: two parts that are wanted have one name.
    """
    wanted = None if structures is None else {name_key(s.name): s for s in structures}
    counts = Counter(name_key(s.name) for s in own)
    for part, mine in zip(parts, own, strict=True):
        key = name_key(mine.name)
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


def _is_segmentation(path: Path, image: sitk.Image) -> bool:
    """Whether a file says that it is a Slicer segmentation, which may be cropped."""
    layered = image.GetNumberOfComponentsPerPixel() > 1
    return is_segmentation(image.GetMetaDataKeys()) or (
        layered and path.name.lower().endswith(".seg.nrrd")
    )


def _as_labels(path: Path, array: np.ndarray) -> np.ndarray:
    """Label values as uint8 or uint16, same shape.

    Raises:
        InputError: a value is negative, too large, or not an integer.
    """
    if array.dtype in (np.uint8, np.uint16):
        return array
    labels = np.empty(array.shape, np.uint16, order="F")
    for k in range(array.shape[2]):
        plane = array[:, :, k]
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
        labels[:, :, k] = plane
    return labels


def _present(labels: np.ndarray) -> list[int]:
    """The label values other than 0, ascending."""
    present = np.zeros(MAX_VALUE + 1, bool)
    for k in range(labels.shape[2]):  # plane by plane: indexing copies its index as int64
        present[labels[..., k]] = True
    return (np.flatnonzero(present[1:]) + 1).tolist()
