"""The segments of a segmentation node: names, colours, terminology, label arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError

BINARY, SURFACE = "Binary labelmap", "Closed surface"
TERMINOLOGY_TAG = "TerminologyEntry"
UNSPECIFIC = ("85756007",)
"""SNOMED's "Tissue": what Slicer gives a segment of which nobody has said what it is."""


@dataclass(frozen=True)
class SegmentInfo:
    """One segment. ``terminology`` is empty where nobody said what the segment is."""

    id: str
    name: str
    color: tuple[float, float, float]
    terminology: str


def list_segments(segmentation: Any) -> list[SegmentInfo]:
    """The segments of a node in its order."""
    found = []
    segments = segmentation.GetSegmentation()
    for number in range(segments.GetNumberOfSegments()):
        segment = segments.GetNthSegment(number)
        terminology = terminology_of(segment)
        found.append(
            SegmentInfo(
                segments.GetNthSegmentID(number),
                segment.GetName() or segments.GetNthSegmentID(number),
                tuple(segment.GetColor()),
                terminology if terminology_key(terminology) else "",
            )
        )
    return found


def terminology_of(segment: Any) -> str:
    """A segment's terminology string, empty where it has none."""
    return tag_of(segment, TERMINOLOGY_TAG)


def tag_of(segment: Any, tag: str) -> str:
    """What a segment says under a tag, empty where it says nothing."""
    value = ""
    if segment.HasTag(tag):
        # Wrapped as an output argument; as a mutable reference in some versions.
        reference = _reference("")
        segment.GetTag(tag, reference)
        value = str(reference)
    return value


def _reference(value: str) -> Any:
    import vtk

    return vtk.reference(value)


def terminology_key(text: str) -> tuple[str, ...]:
    """Codes of category, type, modifier and region of a terminology string, to compare by.

    Empty where the string says nothing in particular.
    """
    parts = text.split("~")
    if len(parts) < 3:
        return ()
    codes = [_code(part) for part in parts[1:4]]
    if len(parts) > 6:
        codes += [_code(part) for part in parts[5:7]]
    kind = codes[1]
    if not kind or kind.split("^")[-1] in UNSPECIFIC:
        return ()
    return tuple(codes)


def _code(part: str) -> str:
    scheme, code = (part.split("^") + ["", ""])[:2]
    return f"{scheme}^{code}" if code else ""


def labelmap_of(segmentation: Any, segment_id: str) -> tuple[Any, int] | None:
    """A segment's vtkOrientedImageData and its label value there; None where there is none yet."""
    segment = segmentation.GetSegmentation().GetSegment(segment_id)
    if segment is None:
        return None
    labelmap = segment.GetRepresentation(BINARY)
    if labelmap is None or labelmap.IsEmpty():
        return None
    return labelmap, segment.GetLabelValue()


def needs_conversion(segmentation: Any) -> bool:
    """Whether the segments are surfaces or contours alone (an STL file, an RT structure set)."""
    segments = segmentation.GetSegmentation()
    return segments.GetNumberOfSegments() > 0 and not segments.ContainsRepresentation(BINARY)


def has_voxels(segmentation: Any, segment_id: str) -> bool:
    """Whether a segment has anything drawn, as far as can be known without counting."""
    if needs_conversion(segmentation):
        return True
    return labelmap_of(segmentation, segment_id) is not None


def labelmap_steps(segmentation: Any, volume: Any) -> Iterator[Any]:
    """Make label maps of segments that are surfaces; yields between segments, last a node.

    The user's segmentation is left as it is: the work is done on a copy, out of the scene. The last
    thing yielded is the copy (or the node itself where nothing had to be done).

    Raises:
        InputError: a segment can't be converted.
    """
    if not needs_conversion(segmentation):
        yield segmentation
        return
    copy = slicer.vtkMRMLSegmentationNode()
    copy.SetName(segmentation.GetName())
    source = segmentation.GetSegmentation()
    target = copy.GetSegmentation()
    target.SetSourceRepresentationName(source.GetSourceRepresentationName())
    copy.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for number in range(source.GetNumberOfSegments()):
        name = source.GetNthSegmentID(number)
        target.CopySegmentFromSegmentation(source, name)
        yield None
    if not target.CreateRepresentation(BINARY):
        raise InputError(
            _(
                "«{name}» can't be made into a label map. Create its binary label map in the "
                "module Segmentations, and try again."
            ).format(name=segmentation.GetName())
        )
    yield copy
