"""Results as DICOM segmentations, which belong to the images that they were made from.

Written with highdicom, an optional dependency. A segment has a frame for each of the series' slices
that it reaches, in the very place that the slice's header says, and names the slice. Where slices
had to be put onto a regular grid, the frames are those of that grid.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from .. import __version__
from ..core.annotation import Structure
from ..core.atomic import replacing
from ..core.colors import default_color
from ..core.errors import InputError
from ..core.geometry import Grid, three
from ..core.limits import StrPath
from ..core.plain_text import printable, sentence
from .dicom.files import headers_of
from .dicom.headers import DicomError, Frame, frames_of, text
from .dicom.series import MAX_TURN
from .dicom_repeated import complete, same_orientation
from .dicom_terms import Term, terms_of
from .file_names import is_folder
from .slice_stack import MAX_SHIFT

NAME = "FewShotSeg"
MOST_TEXT = 64
"""Characters of a description or a name."""
_OTHERWISE = "choose another format, such as .nii.gz"
_NEEDED = (
    *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"),
    "FrameOfReferenceUID",
)
"""What a segmentation refers to an image by."""


@dataclass(frozen=True)
class Algorithm:
    """What segmented.

    Attributes:
        adapter: what it is called by, or empty. sha256: of its content.
        model: id of its foundation model.
    """

    adapter: str
    sha256: str
    model: str

    @property
    def parameters(self) -> dict[str, str]:
        """As DICOM has them, name and value."""
        known = {"adapter": self.adapter, "sha256": self.sha256, "model": self.model}
        return {key: printable(value, lines=False) for key, value in known.items() if value}


@dataclass(frozen=True)
class _Images:
    """The images of a series.

    Attributes:
        headers: of each file, without pixels. frames: of all of them, in the files' order.
        each: how many of these each file has.
    """

    headers: list[Dataset]
    frames: list[Frame]
    each: list[int]


def require_source(query: StrPath, series: str | None = None) -> None:
    """Refuse a query that no segmentation could refer to, before the work.

    Raises:
        InputError: highdicom is not installed, or the query is no DICOM, or its files don't say
            what a segmentation has to repeat, or not in a way that can be repeated.
    """
    if find_spec("highdicom") is None:
        raise InputError(
            "Writing DICOM needs the package highdicom, which is not installed. Install it with "
            "pip install highdicom, or give the result another name, such as one in .nii.gz."
        )
    images = _images(query, series)
    nothing, first = Structure("nothing", 1), images.frames[0]
    axes = np.reshape(first.cosines, (2, 3))
    # An empty one tells in time what would end the work when it is done.
    with _in_words(query):
        grid = Grid(
            (int(images.headers[0].Columns), int(images.headers[0].Rows), 1),
            three((*first.spacing, 1.0)),
            three(first.position),
            tuple(np.stack([*axes, np.cross(*axes)], axis=1).ravel().tolist()),
        )
        _segmentation({nothing.name: np.zeros(grid.shape, bool)}, [nothing], grid, images, None)


def write_dicom_segments(
    path: StrPath,
    masks: Mapping[str, np.ndarray],
    structures: Sequence[Structure],
    grid: Grid,
    query: StrPath,
    series: str | None = None,
    algorithm: Algorithm | None = None,
) -> None:
    """Write a DICOM segmentation (SEG, binary), one segment a structure; masks may overlap.

    Args:
        path: the file; its name ends with ``.dcm``.
        masks: by structure name, boolean (i, j, k). An empty one is a segment without frames.
        structures: name, colour and terminology of each; see :func:`.dicom_terms.terms_of`.
            Segments are numbered from 1 in their order.
        grid: where the masks lie: the query's, as :func:`.volumes.read_image` gave it.
        query: the folder of the series that was segmented. series: its UID, where that has several.
        algorithm: what segmented.

    Raises:
        InputError: the query can't be referred to. StorageError: the file can't be written.
        ValueError: a mask is missing or has another shape.
    """
    for structure in structures:
        mask = masks[structure.name]
        if mask.shape != grid.shape or mask.dtype != bool:
            raise ValueError(f"the mask of {structure.name} is {mask.dtype} {mask.shape}")
    images = _images(query, series)
    with _in_words(query):
        made = _segmentation(masks, structures, grid, images, algorithm)
    with _lenient():
        with replacing(path) as temporary, open(temporary, "wb") as stream:
            made.save_as(stream, enforce_file_format=True)


@contextmanager
def _in_words(query: StrPath) -> Iterator[None]:
    """What highdicom says of a series that it can't take.

    Raises:
        InputError: it said something.
    """
    with _lenient():
        try:
            yield
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise InputError(
                f"No DICOM segmentation can be made for the series in {query} "
                f"({sentence(error)}); {_OTHERWISE}."
            ) from error


@contextmanager
def _lenient() -> Iterator[None]:
    """What an image holds is repeated as it is, whether or not the standard allows it; and an empty
    result is no news."""
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    log = logging.getLogger("highdicom")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.writing_validation_mode = before
        log.setLevel(level)


def _images(query: StrPath, series: str | None) -> _Images:
    """The images of a query.

    Raises:
        InputError: there are none, or they lack what a segmentation has to say.
    """
    if not is_folder(query):
        raise InputError(
            f"{query} is no folder of DICOM images, which a DICOM segmentation has to refer to; "
            f"{_OTHERWISE}."
        )
    headers, frames, each = [], [], []
    for name, dataset in headers_of(Path(query), series):
        for needed in _NEEDED:
            if not text(dataset, needed):
                raise InputError(
                    f"{name} in {query} has no {needed}, which a DICOM segmentation has to repeat; "
                    f"{_OTHERWISE}."
                )
        try:
            own = frames_of(dataset)
        except DicomError as error:
            raise InputError(f"The DICOM slice {name} in {query} {error}.") from None
        headers.append(dataset)
        frames += own
        each.append(len(own))
    return _Images(headers, frames, each)


def _segmentation(
    masks: Mapping[str, np.ndarray],
    structures: Sequence[Structure],
    grid: Grid,
    images: _Images,
    algorithm: Algorithm | None,
) -> Any:
    """highdicom's data set."""
    from highdicom.seg import Segmentation

    places = _places(images.frames, grid)
    # More than one file of several frames is none of highdicom's cases: its own planes then.
    several = len(images.headers) > 1 and (
        max(images.each) > 1 or "PerFrameFunctionalGroupsSequence" in images.headers[0]
    )
    shared: dict[str, Any] = {}
    if places is None or several:
        planes, sources, shared = [*range(grid.shape[2])], images.headers[:1], _planes(grid)
        shared["further_source_images"] = images.headers[1:] or None
    else:
        planes, sources = places, images.headers
    for header in images.headers:
        complete(header, grid)
    same_orientation(sources, images.frames[0], grid)
    first = sources[0]
    return Segmentation(
        sources,
        _pixels([masks[s.name] for s in structures], planes),
        segmentation_type="BINARY",
        segment_descriptions=[
            _description(number, structure, algorithm)
            for number, structure in enumerate(structures, 1)
        ],
        series_instance_uid=generate_uid(),
        series_number=_number(first) + 1000,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=__version__,
        device_serial_number=algorithm.sha256[:MOST_TEXT] if algorithm else __version__,
        series_description=_short(
            f"{NAME}: {algorithm.adapter}" if algorithm and algorithm.adapter else NAME
        ),
        content_label="SEGMENTATION",
        content_description=_short(", ".join(s.name for s in structures)),
        specific_character_set="ISO_IR 192",  # UTF-8: structures have any names
        **shared,
    )


def _places(frames: Sequence[Frame], grid: Grid) -> list[int] | None:
    """Which k of the grid each frame is; None where the grid is not that of the frames."""
    direction = np.reshape(grid.direction, (3, 3))
    offset = np.array([frame.position for frame in frames]) - grid.origin
    along = offset @ direction[:, 2] / grid.spacing[2]
    found = np.rint(along).astype(int)
    sideways = np.abs(offset @ direction[:, :2]).max() / grid.spacing[2]
    cosines = np.array([frame.cosines for frame in frames]) - direction[:, :2].T.ravel()
    spacings = np.array([frame.spacing for frame in frames]) / grid.spacing[:2] - 1
    near = max(np.abs(along - found).max(), sideways) <= 1.5 * MAX_SHIFT
    alike = max(np.abs(cosines).max(), np.abs(spacings).max()) <= 2 * MAX_TURN
    if not (near and alike) or sorted(found.tolist()) != list(range(grid.shape[2])):
        return None
    return [int(k) for k in found]


def _planes(grid: Grid) -> dict[str, Any]:
    """The planes of a grid, as highdicom takes them."""
    from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence

    direction = np.reshape(grid.direction, (3, 3))
    steps = np.arange(grid.shape[2])[:, None] * grid.spacing[2] * direction[:, 2]
    return {
        "pixel_measures": PixelMeasuresSequence(
            pixel_spacing=grid.spacing[1::-1],
            slice_thickness=grid.spacing[2],
            spacing_between_slices=grid.spacing[2],
        ),
        "plane_orientation": PlaneOrientationSequence(
            "PATIENT", direction[:, :2].T.ravel().tolist()
        ),
        "plane_positions": [
            PlanePositionSequence("PATIENT", place.tolist()) for place in grid.origin + steps
        ],
    }


def _pixels(masks: Sequence[np.ndarray], planes: Sequence[int]) -> np.ndarray:
    """(plane, row, column) with the segments' numbers; and (..., segment) where they overlap."""
    shape = (len(planes), *masks[0].shape[1::-1])
    labels = np.zeros(shape, np.uint8 if len(masks) < 256 else np.uint16)
    for number, mask in enumerate(masks, 1):
        own = _frames(mask, planes)
        if labels[own].any():
            return np.stack([_frames(mask, planes) for mask in masks], axis=-1).astype(np.uint8)
        labels[own] = number
    return labels


def _frames(mask: np.ndarray, planes: Sequence[int]) -> np.ndarray:
    """(plane, row, column) of a mask (i, j, k)."""
    return mask[..., list(planes)].transpose(2, 1, 0)


def _description(number: int, structure: Structure, algorithm: Algorithm | None) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    terms = terms_of(structure)
    red, green, blue = structure.color or default_color(structure.value)
    description = SegmentDescription(
        segment_number=number,
        segment_label=_short(structure.name),
        segmented_property_category=_code(terms.category),
        segmented_property_type=_code(terms.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=NAME,
            family=codes.DCM.ArtificialIntelligence,
            version=__version__,
            parameters=algorithm.parameters if algorithm else None,
        ),
        anatomic_regions=[_code(terms.region)] if terms.region else None,
        display_color=CIELabColor.from_rgb(255 * red, 255 * green, 255 * blue),
    )
    if terms.modifier:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_code(terms.modifier)]
    if terms.region_modifier:
        region = description.AnatomicRegionSequence[0]
        region.AnatomicRegionModifierSequence = [_code(terms.region_modifier)]
    return description


def _code(term: Term) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(term.value, term.scheme, term.meaning)


def _number(header: Dataset) -> int:
    """The series' number; 0 where it has none that is usable."""
    try:
        number = int(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        return 0
    return number if 0 <= number < 10**6 else 0


def _short(name: str) -> str:
    """As much of a text as a DICOM file has space for, without what separates its values."""
    return printable(name, lines=False).replace("\\", "/").strip()[:MOST_TEXT] or NAME
