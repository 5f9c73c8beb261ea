"""Doubles of Slicer's main window and of its module Segment Editor, as far as the panel uses them.

They are there only between ``install`` and what it returns: without a main window Slicer runs too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer


class qMRMLSegmentEditorWidget(qt.QWidget):
    """The editor: a segmentation, and a volume to draw it on."""

    cpp_double = True

    def __init__(self) -> None:
        super().__init__()
        self._segmentation: Any = None
        self._volume: Any = None

    def setSegmentationNode(self, node: Any) -> None:
        if node is not None and not node.IsA("vtkMRMLSegmentationNode"):
            raise ValueError("setSegmentationNode takes a segmentation")
        # Slicer takes the volume that the segmentation was drawn on.
        self._segmentation, self._volume = node, None

    def segmentationNode(self) -> Any:
        return self._segmentation

    def setSourceVolumeNode(self, node: Any) -> None:
        if node is not None and not node.IsA("vtkMRMLScalarVolumeNode"):
            raise ValueError("setSourceVolumeNode takes a volume")
        if self._segmentation is None:
            raise ValueError("without a segmentation there is no source volume to choose")
        self._volume = node

    def sourceVolumeNode(self) -> Any:
        return self._volume


class SegmentEditorWidget:
    """The module's widget, which Slicer makes when the module is first selected."""

    def __init__(self) -> None:
        self.editor = qMRMLSegmentEditorWidget()


class qSlicerModuleSelectorToolBar(qt.QWidget):
    """Where a module is selected."""

    cpp_double = True

    def __init__(self, parent: qt.QWidget) -> None:
        super().__init__(parent)
        self._selected = ""

    def _get_selected(self) -> str:
        return self._selected

    selectedModule = qt.Property(str, _get_selected)

    def selectModule(self, name: str) -> None:
        if name != "SegmentEditor":
            raise ValueError(f"there is no module {name}")
        if not hasattr(slicer.modules, "SegmentEditorWidget"):
            slicer.modules.SegmentEditorWidget = SegmentEditorWidget()
        self._selected = name


class qSlicerMainWindow(qt.QWidget):
    """The application's window."""

    cpp_double = True

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._selector = qSlicerModuleSelectorToolBar(self)

    def moduleSelector(self) -> qSlicerModuleSelectorToolBar:
        return self._selector


def install() -> Callable[[], None]:
    """Open a main window; call what is returned to close it."""
    window = qSlicerMainWindow()
    slicer.app.windows.append(window)

    def close() -> None:
        slicer.app.windows.remove(window)
        vars(slicer.modules).pop("SegmentEditorWidget", None)
        window.deleteLater()

    return close
