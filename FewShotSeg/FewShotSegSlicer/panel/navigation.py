"""Where the panel meets the rest of Slicer's window: the slice views, and Segment Editor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError


def volume_on_screen() -> Any:
    """The volume in the background of the slice views, the red one first; None if there is none."""
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    composites.sort(key=lambda node: node.GetLayoutName() != "Red")
    for composite in composites:
        node = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID() or "")
        if node is not None and node.GetClassName() == "vtkMRMLScalarVolumeNode":
            return node
    return None


def show_alone(volume: Any, others: Iterable[Any]) -> None:
    """Bring a volume on screen, without the segmentations of other patients over it."""
    for segmentation in others:
        display = segmentation.GetDisplayNode() if segmentation is not None else None
        if display is not None:
            display.SetVisibility(False)
    if volume_on_screen() is not volume:
        slicer.util.setSliceViewerLayers(background=volume, fit=True)


def open_segment_editor(volume: Any, segmentation: Any) -> None:
    """Switch to Segment Editor, ready to draw this segmentation on this volume.

    Raises:
        InputError: this Slicer runs without its window.
    """
    if slicer.util.mainWindow() is None:
        raise InputError(_("Segment Editor can't be opened: this Slicer has no main window."))
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.SegmentEditorWidget.editor
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(volume)
