"""What the application's tree of the subject hierarchy does to segments: it rounds colours."""

from __future__ import annotations

from typing import Any

import qt
import slicer
import vtk


def round_colors(scene: Any) -> None:
    """Keep the colour of every segment at what a QColor can hold, 16 bits a channel.

    In the application the tree hands a segment's colour back to it as a QColor.
    """

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(_scene: Any, _event: str, node: Any) -> None:
        if node is not None and node.IsA("vtkMRMLSegmentationNode"):
            for event in ("SegmentAdded", "SegmentModified"):
                node.AddObserver(getattr(slicer.vtkSegmentation, event), _round)
            _round(node)

    scene.AddObserver(scene.NodeAddedEvent, added)


def _round(node: Any, _event: str = "") -> None:
    segments = node.GetSegmentation()
    for number in range(segments.GetNumberOfSegments()):
        segment = segments.GetNthSegment(number)
        color = qt.QColor.fromRgbF(*segment.GetColor())
        rounded = color.redF(), color.greenF(), color.blueF()
        if rounded != tuple(segment.GetColor()):
            segment.SetColor(*rounded)
