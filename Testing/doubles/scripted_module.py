"""Doubles of ``slicer.ScriptedLoadableModule``, ``slicer.i18n`` and the module manager."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import qt
import slicer


class Parent:
    """The C++ module that a scripted module describes; it has these properties and no others."""

    _known = (
        *("title", "categories", "dependencies", "contributors", "helpText", "name"),
        *("acknowledgementText", "icon", "hidden", "path", "index", "associatedNodeTypes"),
    )

    def __init__(self, path: str) -> None:
        object.__setattr__(self, "path", path)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._known:
            raise AttributeError(f"a scripted module has no property {name}")
        object.__setattr__(self, name, value)


class ScriptedLoadableModule:
    """What a module's class derives from."""

    def __init__(self, parent: Parent) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__

    def resourcePath(self, filename: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / filename)


class ScriptedLoadableModuleWidget:
    """What a module's widget derives from."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        if parent is None:
            parent = slicer.qMRMLWidget()
            parent.setLayout(qt.QVBoxLayout())
            parent.setMRMLScene(slicer.mrmlScene)
        self.parent = parent
        self.layout = self.parent.layout()

    def resourcePath(self, filename: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """Nothing: developer tools only."""

    def cleanup(self) -> None:
        """To be overridden."""


class ScriptedLoadableModuleLogic:
    """What a module's logic derives from, with its one parameter node."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetAttribute("ModuleName", self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            node = slicer.mrmlScene.AddNode(node)
        if node.GetAttribute("ModuleName") != self.moduleName:
            node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """What a module's test derives from."""

    def delayDisplay(self, message: str, requestedDelay: Any = None, msec: Any = None) -> None:
        print(message)

    def runTest(self) -> None:
        """To be overridden."""


class qSlicerScriptedLoadableModule:
    """A loaded module: what ``slicer.modules.NAME`` is."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = str(path), path.stem
        self._widget: Any = None

    def widgetRepresentation(self) -> qSlicerScriptedLoadableModuleWidget:
        """The module's one widget, made when first asked for."""
        if self._widget is None:
            module = __import__(self.name)
            widget = getattr(module, f"{self.name}Widget")()
            widget.setup()
            self._widget = qSlicerScriptedLoadableModuleWidget(widget)
        return self._widget


class qSlicerScriptedLoadableModuleWidget:
    """The C++ side of a module's widget."""

    def __init__(self, widget: Any) -> None:
        self._self = widget

    def self(self) -> Any:
        return self._self


def tr(text: str) -> str:
    """``slicer.i18n.tr`` without a translation."""
    return text


def translate(context: str, text: str) -> str:
    """``slicer.i18n.translate`` without a translation."""
    return text
