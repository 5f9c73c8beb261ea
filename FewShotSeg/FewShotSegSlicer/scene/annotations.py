"""What a volume can be annotated by: segmentations, label maps, and surface models.

The latter two become a segmentation node that the support refers to; they themselves stay as they
are. Nodes that were made here go again with their row unless a person drew on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from FewShotSegLib.core.errors import InputError

from .case_names import is_annotation_name
from .segments import BINARY, SURFACE, has_voxels, labelmap_of, list_segments

MADE_FROM = "FewShotSegMadeFrom"
"""Role of the references from a segmentation that was made here to what it was made from."""
MADE = "FewShotSeg.Made"
"""Attribute of segmentations that were made here."""
MOST_LABELS = 1000
"""A scalar volume with larger values is an image, whatever it is called."""
LARGEST_LABEL = 65535

_whole: dict[str, tuple[int, bool]] = {}
"""By a volume's ID: the time of its image that was looked at, and whether its values are whole."""
_made_at: dict[str, int] = {}
"""By a segmentation's ID: when what was put into it here had been."""


def is_label_map(node: Any) -> bool:
    """Whether a volume node holds labels: a label map, or a scalar volume that is one by its name
    and its values, as a file is that was loaded without «LabelMap»."""
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        return True
    if not is_annotation_name(node.GetName() or ""):
        return False
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        return False
    if image.GetNumberOfScalarComponents() > 1:
        return False
    low, high = image.GetScalarRange()
    if low < 0 or not 1 <= high <= MOST_LABELS:
        return False
    if image.GetScalarType() not in (vtk.VTK_FLOAT, vtk.VTK_DOUBLE):
        return True
    time, known = image.GetMTime(), _whole.get(node.GetID())
    if known is None or known[0] != time:
        known = _whole[node.GetID()] = (time, _is_whole(image))
    return known[1]


def is_surface_model(node: Any) -> bool:
    """Whether a model node is the surface of something, and not one of the slice views' own."""
    if node.GetHideFromEditors() or slicer.vtkMRMLSliceLogic.IsSliceModelNode(node):
        return False
    mesh = node.GetPolyData()
    return mesh is not None and mesh.GetNumberOfPolys() > 0


def as_segmentation(sources: Sequence[Any], volume: Any) -> Any:
    """The segmentation node of an annotation: itself, or a new one of a label map or of models.

    Args:
        sources: one segmentation, one label map, or some models. volume: what they were drawn on.

    Raises:
        InputError: there is nothing in them.
    """
    first = sources[0]
    if first.IsA("vtkMRMLSegmentationNode"):
        return first
    if first.IsA("vtkMRMLModelNode"):
        segments = [_surface(model) for model in sources]
    else:
        segments = _labels(first)
    if not segments:
        raise InputError(
            _("«{name}» holds no label. Choose another annotation.").format(name=first.GetName())
        )
    name = slicer.mrmlScene.GenerateUniqueName(f"{volume.GetName()} segmentation")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    mark_made(node)
    node.SetAndObserveTransformNodeID(first.GetTransformNodeID())
    source = SURFACE if first.IsA("vtkMRMLModelNode") else BINARY
    node.GetSegmentation().SetSourceRepresentationName(source)
    for segment in segments:
        node.GetSegmentation().AddSegment(segment)
    for number, part in enumerate(sources):
        node.SetNthNodeReferenceID(MADE_FROM, number, part.GetID())
    refer_to_volume(node, volume)
    _made_at[node.GetID()] = _changed_at(node)
    return node


def refer_to_volume(segmentation: Any, volume: Any) -> None:
    """Let a segmentation without a reference volume have one; its own geometry stays."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    if segmentation.GetNodeReference(role) is None:
        segmentation.SetNodeReferenceID(role, volume.GetID())


def sources_of(segmentation: Any) -> list[Any]:
    """The label map or the models that a segmentation was made of here; empty for others."""
    count = segmentation.GetNumberOfNodeReferences(MADE_FROM)
    found = [segmentation.GetNthNodeReference(MADE_FROM, number) for number in range(count)]
    return [node for node in found if node is not None]


def mark_made(segmentation: Any) -> None:
    """Say that a segmentation was made here, so that it may go with its row."""
    segmentation.SetAttribute(MADE, "1")


def is_dispensable(segmentation: Any) -> bool:
    """Whether a segmentation was made here and holds nothing of a person's: nothing is drawn, or
    nothing was changed since it was made of a label map or of models."""
    if not segmentation.GetAttribute(MADE):
        return False
    if not any(has_voxels(segmentation, s.id) for s in list_segments(segmentation)):
        return True
    known = _made_at.get(segmentation.GetID())
    return bool(sources_of(segmentation)) and known == _changed_at(segmentation)


def remove_node(node: Any) -> None:
    """Take a node out of the scene with its display and storage nodes, which MRML leaves behind."""
    own = [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    own += [node.GetNthStorageNode(n) for n in range(node.GetNumberOfStorageNodes())]
    _made_at.pop(node.GetID(), None)
    slicer.mrmlScene.RemoveNode(node)
    for part in own:
        if part is not None and slicer.mrmlScene.IsNodePresent(part):
            slicer.mrmlScene.RemoveNode(part)


def _labels(volume: Any) -> list[Any]:
    """A vtkSegment for each label of a label map; they share one image, cropped to the labels.

    Names and colours come from its colour table where that has them.
    """
    image = volume.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        return []
    shape = image.GetDimensions()
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape[::-1])
    values = np.flatnonzero(_counts(array))
    values = values[values > 0]
    if not len(values):
        return []
    box = _box(array)
    start = [part.start for part in reversed(box)]
    kind, code = (
        (np.uint8, vtk.VTK_UNSIGNED_CHAR)
        if values[-1] < 256
        else (np.uint16, vtk.VTK_UNSIGNED_SHORT)
    )
    part = np.ascontiguousarray(array[box]).astype(kind)
    shared = slicer.vtkOrientedImageData()
    sizes = part.shape[::-1]
    shared.SetExtent(*(n for s, size in zip(start, sizes, strict=True) for n in (s, s + size - 1)))
    shared.GetPointData().SetScalars(numpy_to_vtk(part.ravel(), deep=True, array_type=code))
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    shared.SetImageToWorldMatrix(matrix)
    display = volume.GetDisplayNode()
    colors = display.GetColorNode() if display is not None else None
    return [_label_segment(int(value), shared, colors) for value in values]


def _label_segment(value: int, image: Any, colors: Any) -> Any:
    segment = slicer.vtkSegment()
    if colors is not None and value >= colors.GetNumberOfColors():
        colors = None
    name = colors.GetColorName(value) if colors is not None else ""
    segment.SetName(name if name and name.lower() != "(none)" else f"Segment_{value}")
    color = [0.0] * 4
    if colors is not None and colors.GetColor(value, color):
        segment.SetColor(*color[:3])
    segment.AddRepresentation(BINARY, image)
    segment.SetLabelValue(value)
    return segment


def _surface(model: Any) -> Any:
    """A vtkSegment of a model's surface, in the model's own coordinates."""
    segment = slicer.vtkSegment()
    segment.SetName(model.GetName())
    display = model.GetDisplayNode()
    if display is not None:
        segment.SetColor(*display.GetColor())
    mesh = vtk.vtkPolyData()
    mesh.DeepCopy(model.GetPolyData())
    segment.AddRepresentation(SURFACE, mesh)
    return segment


def _counts(array: np.ndarray) -> np.ndarray:
    """How often each value occurs, plane by plane: counting takes eight bytes a voxel."""
    counts = np.zeros(LARGEST_LABEL + 1, np.int64)
    for plane in array:
        found = np.bincount(np.clip(plane.ravel(), 0, LARGEST_LABEL).astype(np.int64))
        counts[: len(found)] += found
    return counts


def _box(array: np.ndarray) -> tuple[slice, ...]:
    """The slices (k, j, i) that hold every label."""
    inside = [array.any(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    ends = [np.flatnonzero(line)[[0, -1]] for line in inside]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends)


def _is_whole(image: Any) -> bool:
    array = vtk_to_numpy(image.GetPointData().GetScalars())
    return bool(all((part == np.rint(part)).all() for part in np.array_split(array, 64)))


def _changed_at(segmentation: Any) -> int:
    """When what is in a segmentation was last changed."""
    segments = segmentation.GetSegmentation()
    times = [segments.GetNumberOfSegments()]
    for info in list_segments(segmentation):
        segment = segments.GetSegment(info.id)
        found = labelmap_of(segmentation, info.id)
        mesh = segment.GetRepresentation(SURFACE)
        times += [segment.GetMTime()]
        times += [part.GetMTime() for part in (found[0] if found else None, mesh) if part]
    return max(times)
