"""What Slicer's own DICOM export asks of a segmentation: who made it, of what, for which study."""

from __future__ import annotations

from typing import Any

import slicer

from .segments import TERMINOLOGY_TAG

ALGORITHM_TYPE, ALGORITHM_NAME = "DICOM.SegmentAlgorithmType", "DICOM.SegmentAlgorithmName"
"""Tags of a segment; without them the export says that it was drawn by hand."""
AUTOMATIC, SEMIAUTOMATIC = "AUTOMATIC", "SEMIAUTOMATIC"
NAME = "FewShotSeg"
SCALARS = "ImageScalars"
"""The name of a labelmap's array, by which the export tells an empty segment."""
UNSPECIFIC_TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^85756007^Tissue~SCT^85756007^Tissue~^^~Anatomic codes - DICOM master list~^^~^^"
)
"""What Segment Editor gives a segment of which no one has said what it is."""


def mark_as_found(segment: Any, terminology: str | None) -> None:
    """Say of a segment that an algorithm found it, and what it is."""
    segment.SetTag(TERMINOLOGY_TAG, terminology or UNSPECIFIC_TERMINOLOGY)
    segment.SetTag(ALGORITHM_TYPE, AUTOMATIC)
    segment.SetTag(ALGORITHM_NAME, NAME)


def mark_as_corrected(segmentation: Any) -> None:
    """Say of the segments that an algorithm found that a person draws on them."""
    segments = segmentation.GetSegmentation()
    for number in range(segments.GetNumberOfSegments()):
        segment = segments.GetNthSegment(number)
        if segment.HasTag(ALGORITHM_TYPE):
            segment.SetTag(ALGORITHM_TYPE, SEMIAUTOMATIC)


def put_beside(node: Any, volume: Any) -> None:
    """Put a node under the study of its volume, where that is under one: only then is it offered
    for export to DICOM."""
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item, other = tree.GetItemByDataNode(node), tree.GetItemByDataNode(volume)
    nothing = tree.GetInvalidItemID()
    if nothing not in (item, other):
        tree.SetItemParent(item, tree.GetItemParent(other))
