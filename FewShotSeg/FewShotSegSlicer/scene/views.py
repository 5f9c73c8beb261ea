"""What of the scene is on screen: a volume, a place in all slices, one patient's segmentations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from FewShotSegLib.core.modality import modality_of

from ..interface.rows import SupportRow
from .pairing import reference_of
from .segments import labelmap_of
from .supports import is_offset_volume

CT_WINDOW, CT_LEVEL, CT_OFFSET = 400, 40, 1024
"""Soft tissue, in HU; and what is added where a CT was stored too high."""
MARGIN = 0.05
"""Part of a slice view along its border that a place should not be in."""
MOST_VOXELS = 50_000
"""So many of a segment's voxels are enough to find its middle."""
OUTLINE, OUTLINE_COLOR = "FewShotSegOutline", (0.95, 0.9, 0.6)


def volume_on_screen() -> Any:
    """The volume in the background of the slice views, the red one first; None if there is none."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    composites.sort(key=lambda node: node.GetLayoutName() != "Red")
    for composite in composites:
        node = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID() or "")
        if node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode":
            return node
    return None


def drawn_on(volume: Any) -> list[Any]:
    """Segmentations that refer to a volume."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if reference_of(node) is volume]


def show_volume(volume: Any) -> None:
    """Bring a volume into the slice views, alone and as a whole, unless it is there already."""
    set_window(volume)
    shown = {
        composite.GetBackgroundVolumeID()
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    }
    if shown != {volume.GetID()}:
        slicer.util.setSliceViewerLayers(background=volume, foreground=None, label=None, fit=True)


def set_window(volume: Any) -> None:
    """Window and level for soft tissue where a CT has none but Slicer's automatic ones.

    What a person chose, or the file says, stays; for MR Slicer's own go by the values.
    """
    display, image = volume.GetDisplayNode(), volume.GetImageData()
    if display is None or not display.GetAutoWindowLevel():
        return
    if image is None or not image.GetNumberOfPoints():
        return
    offset = 0
    if modality_of(image.GetScalarRange()[0]) != "CT":
        if not is_offset_volume(volume, image):
            return
        offset = CT_OFFSET
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(CT_WINDOW, CT_LEVEL + offset)


def hide_others(volume: Any, shown: Collection[Any], own: Collection[Any]) -> None:
    """Hide every segmentation but those that were drawn on a volume.

    Args:
        shown: segmentations that stay as they are. own: that this module made, of any volume.
    """
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        display = node.GetDisplayNode()
        if display is None or node in shown:
            continue
        if node in own or reference_of(node) is not volume:
            display.SetVisibility(False)


def middle_of(segmentation: Any, segment_id: str) -> tuple[float, float, float] | None:
    """A place within a segment near its middle, in world coordinates (RAS, mm).

    It is of a voxel: the middle of a horseshoe is not in it. None where nothing is drawn.
    """
    found = labelmap_of(segmentation, segment_id)
    if found is None:
        return None
    image, value = found
    inside = np.flatnonzero(vtk_to_numpy(image.GetPointData().GetScalars()) == value)
    if not inside.size:
        return None
    inside = inside[:: max(1, inside.size // MOST_VOXELS)]
    voxels = np.stack(np.unravel_index(inside, image.GetDimensions()[::-1])[::-1], axis=1)
    nearest = voxels[np.argmin(((voxels - voxels.mean(0)) ** 2).sum(1))]
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    start = image.GetExtent()[::2]
    place = matrix.MultiplyPoint((*(float(n + s) for n, s in zip(nearest, start, strict=True)), 1))
    return in_world(segmentation, place[:3])


def in_world(node: Any, place: Sequence[float]) -> tuple[float, float, float]:
    """A place under a node's transform in world coordinates (RAS, mm)."""
    to_world = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        node.GetParentTransformNode(), None, to_world
    )
    return tuple(to_world.TransformPoint(place))


def bring_into_view(place: tuple[float, float, float]) -> None:
    """Let all slice views show a place; they are moved along themselves only where they must be."""
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.JumpSliceByOffsetting(*place)
        to_view = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(node.GetXYToRAS(), to_view)
        position = to_view.MultiplyPoint((*place, 1.0))
        sizes = node.GetDimensions()
        inside = (
            MARGIN * size < at < (1 - MARGIN) * size
            for at, size in zip(position[:2], sizes[:2], strict=True)
        )
        if not all(inside):
            node.JumpSliceByCentering(*place)


def show_support(row: SupportRow) -> None:
    """A row's volume into the slice views, at the middle of its segments, with these alone."""
    show_volume(row.volume)
    hide_others(row.volume, (row.segmentation,), ())
    if row.segmentation.GetDisplayNode() is not None:
        row.segmentation.GetDisplayNode().SetVisibility(True)
    bounds = [0.0] * 6
    row.segmentation.GetRASBounds(bounds)
    if bounds[0] > bounds[1]:
        row.volume.GetRASBounds(bounds)
    bring_into_view(tuple((bounds[n] + bounds[n + 1]) / 2 for n in (0, 2, 4)))


def show_outline(volume: Any) -> None:
    """The edges of a volume's box in the 3D views, for orientation; of none where it is None."""
    node = slicer.mrmlScene.GetSingletonNode(OUTLINE, "vtkMRMLModelNode")
    if volume is None or volume.GetImageData() is None:
        if node is not None and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility(False)
        return
    if node is None:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLModelNode")
        node.UnRegister(None)
        node.SetSingletonTag(OUTLINE)
        node.SetName("FewShotSeg volume outline")
        node.SetHideFromEditors(True)
        node.SetSelectable(False)
        node.SetSaveWithScene(False)
        node = slicer.mrmlScene.AddNode(node)
    box = vtk.vtkOutlineSource()
    box.SetBounds(*(end for n in volume.GetImageData().GetDimensions() for end in (-0.5, n - 0.5)))
    matrix, transform = vtk.vtkMatrix4x4(), vtk.vtkTransform()
    volume.GetIJKToRASMatrix(matrix)
    transform.SetMatrix(matrix)
    placed = vtk.vtkTransformPolyDataFilter()
    placed.SetTransform(transform)
    placed.SetInputConnection(box.GetOutputPort())
    placed.Update()
    node.SetAndObservePolyData(placed.GetOutput())
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSaveWithScene(False)
        display.SetColor(*OUTLINE_COLOR)
        display.SetLighting(False)
        display.SetVisibility2D(False)
    node.GetDisplayNode().SetVisibility(True)


def has_3d_view() -> bool:
    """Whether the layout has a 3D view; taken for granted where there is no main window."""
    manager = slicer.app.layoutManager()
    if manager is None:
        return True
    return any(manager.threeDWidget(n).visible for n in range(manager.threeDViewCount))


def centre_3d() -> None:
    """Let the 3D views look at all that is in them; a layout without one gives way."""
    manager = slicer.app.layoutManager()
    if manager is None:  # Slicer without a main window
        return
    if not has_3d_view():
        manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    for number in range(manager.threeDViewCount):
        view = manager.threeDWidget(number).threeDView()
        view.resetFocalPoint()
        view.resetCamera(False, True, True)
