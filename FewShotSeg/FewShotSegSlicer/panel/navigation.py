"""Where the panel meets the rest of Slicer's window: Segment Editor."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError

from ..scene.exporting import mark_as_corrected


def open_segment_editor(volume: Any, segmentation: Any) -> None:
    """Switch to Segment Editor, ready to draw this segmentation on this volume.

    Raises:
        InputError: this Slicer runs without its window.
    """
    if slicer.util.mainWindow() is None:
        raise InputError(_("Segment Editor can't be opened: this Slicer has no main window."))
    slicer.util.selectModule("SegmentEditor")
    mark_as_corrected(segmentation)
    editor = slicer.modules.SegmentEditorWidget.editor
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(volume)
