"""Doubles of the qMRML widgets that the panel uses, over a real MRML scene. They are strict."""

from __future__ import annotations

from typing import Any

import qt
import vtk


class qMRMLWidget(qt.QWidget):
    """A widget that passes its scene on."""

    cpp_double = True
    mrmlSceneChanged = qt.Signal(object)

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qMRMLNodeComboBox(qt.QWidget):
    """A node of the scene, chosen from those of some classes."""

    cpp_double = True
    currentNodeChanged = qt.Signal(object)
    _flags = ("noneEnabled", "addEnabled", "removeEnabled", "renameEnabled", "showChildNodeTypes")

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._types: list[str] = []
        self._none_display = "None"
        self._values = {name: name != "noneEnabled" for name in self._flags}
        self._current: Any = None
        self._nodes: list[Any] = []
        self._observers: list[tuple[Any, int]] = []
        self._combo = qt.QComboBox(self)
        self._combo.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self._combo.connect("activated(int)", self._on_activated)
        layout = qt.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
        self._fill()

    def _get_types(self) -> list[str]:
        return self._types

    def _set_types(self, types: list[str]) -> None:
        self._types = list(types)
        self._fill()

    nodeTypes = qt.Property("QStringList", _get_types, _set_types)

    def _flag(name: str) -> Any:
        def read(self: qMRMLNodeComboBox) -> bool:
            return self._values[name]

        def write(self: qMRMLNodeComboBox, value: bool) -> None:
            self._values[name] = value
            self._fill()

        return qt.Property(bool, read, write)

    noneEnabled = _flag("noneEnabled")
    addEnabled = _flag("addEnabled")
    removeEnabled = _flag("removeEnabled")
    renameEnabled = _flag("renameEnabled")
    showChildNodeTypes = _flag("showChildNodeTypes")

    def _get_none_display(self) -> str:
        return self._none_display

    def _set_none_display(self, text: str) -> None:
        self._none_display = text
        self._fill()

    noneDisplay = qt.Property(str, _get_none_display, _set_none_display)

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        for observed, tag in self._observers:
            observed.RemoveObserver(tag)
        self._scene, self._observers = scene, []
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
                self._observers.append((scene, scene.AddObserver(event, self._on_scene)))
        self._fill()

    def _on_scene(self, scene: Any, event: str) -> None:
        self._fill()

    def _suits(self, node: Any) -> bool:
        if node.GetHideFromEditors():
            return False
        if self._values["showChildNodeTypes"]:
            return any(node.IsA(name) for name in self._types)
        return node.GetClassName() in self._types

    def _fill(self) -> None:
        """List the scene's nodes again, and keep or replace the current one as qMRML does."""
        scene = self._scene
        nodes = (
            [] if scene is None else [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]
        )
        self._nodes = [node for node in nodes if self._suits(node)]
        self._combo.clear()
        if self._values["noneEnabled"]:
            self._combo.addItem(self._none_display)
        for node in self._nodes:
            self._combo.addItem(node.GetName())
        kept = self._current if self._current in self._nodes else None
        if kept is None and self._nodes and not self._values["noneEnabled"]:
            kept = self._nodes[0]
        self._choose(kept)

    def _choose(self, node: Any) -> None:
        offset = 1 if self._values["noneEnabled"] else 0
        self._combo.setCurrentIndex(self._nodes.index(node) + offset if node else offset - 1)
        if node is not self._current:
            self._current = node
            self.currentNodeChanged.emit(node)

    def _on_activated(self, index: int) -> None:
        offset = 1 if self._values["noneEnabled"] else 0
        self._choose(self._nodes[index - offset] if index >= offset else None)

    def currentNode(self) -> Any:
        return self._current

    def setCurrentNode(self, node: Any) -> None:
        if node is not None and not isinstance(node, vtk.vtkObject):
            raise ValueError("setCurrentNode takes a MRML node")
        self._choose(node if node in self._nodes else None)

    def _get_id(self) -> str:
        return self._current.GetID() if self._current else ""

    def setCurrentNodeID(self, node_id: str) -> None:
        self.setCurrentNode(self._scene.GetNodeByID(node_id) if self._scene and node_id else None)

    currentNodeID = qt.Property(str, _get_id, setCurrentNodeID)


def install(slicer: Any) -> None:
    """Put the widgets where Slicer has them."""
    slicer.qMRMLWidget = qMRMLWidget
    slicer.qMRMLNodeComboBox = qMRMLNodeComboBox
