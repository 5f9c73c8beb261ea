"""Doubles of ``slicer.app`` and its managers, over the real MRML logics of slicer-core."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk


class IOManager:
    """Reading of the file types that the module asks for."""

    def loadNodes(
        self, kind: str, properties: Mapping[str, Any], loaded: Any, messages: Any
    ) -> bool:
        path = properties["fileName"]
        name = properties.get("name") or Path(path).name.split(".")[0]
        if kind == "VolumeFile":
            flags = 1 if properties.get("labelmap") else 0
            node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, flags)
        elif kind == "SegmentationFile":
            logic = slicer.modules.segmentations.logic()
            node = logic.LoadSegmentationFromFile(path, True, name)
        else:
            raise AssertionError(f"this double reads no {kind}")
        if node is not None:
            loaded.AddItem(node)
        return node is not None


class ModuleManager:
    """The modules that the tests loaded."""

    def __init__(self) -> None:
        self.modules: dict[str, Any] = {}

    def module(self, name: str) -> Any:
        return self.modules.get(name)

    def connect(self, signal: str, slot: Any) -> bool:
        if signal != "moduleAboutToBeUnloaded(QString)":
            raise AssertionError(f"the module manager's double has no {signal}")
        return True


class Application:
    """``slicer.app``: what the module uses of it, and nothing else."""

    def __init__(self) -> None:
        self._qt = qt.QApplication.instance() or qt.QApplication(["FewShotSeg tests"])
        self._qt.setOrganizationName("FewShotSeg tests")
        self._temporary = tempfile.TemporaryDirectory(prefix="slicer-double-")
        self.temporaryPath = self._temporary.name
        # A person's own settings stay out of the tests.
        for kind in (qt.QSettings.NativeFormat, qt.QSettings.IniFormat):
            qt.QSettings.setPath(kind, qt.QSettings.UserScope, self.temporaryPath)
        self._io, self._manager = IOManager(), ModuleManager()
        self.slicerHome = ""
        self.applicationName = "Slicer"
        self.windows: list[Any] = []

    def testingEnabled(self) -> bool:
        return True

    def commandOptions(self) -> Any:
        return self

    def coreIOManager(self) -> IOManager:
        return self._io

    def moduleManager(self) -> ModuleManager:
        return self._manager

    def applicationLogic(self) -> Any:
        return slicer.modules._application_logic

    def topLevelWidgets(self) -> list[Any]:
        return list(self.windows)

    def layoutManager(self) -> Any:
        return None

    def processEvents(self, *args: Any) -> None:
        self._qt.processEvents(*args)

    def userSettings(self) -> Any:
        return qt.QSettings()

    def settings(self) -> Any:
        return qt.QSettings()

    def connect(self, signal: str, slot: Any) -> Any:
        return self._qt.connect(signal, slot)

    def disconnect(self, signal: str, slot: Any) -> Any:
        return self._qt.disconnect(signal, slot)

    def emit_about_to_quit(self) -> None:
        """What Qt does when a person quits."""
        self._qt.aboutToQuit.emit()


class Modules:
    """``slicer.modules``: unknown modules raise, as there."""

    def __init__(self, application_logic: Any) -> None:
        self._application_logic = application_logic


class LogicModule:
    """A C++ module of which the tests need the logic alone."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name, self._logic = name, logic

    def logic(self) -> Any:
        return self._logic


def make_views(scene: Any, application_logic: Any) -> None:
    """Three slice views and one 3D view, as the application's layout makes them."""
    slices = vtk.vtkCollection()
    for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetMRMLScene(scene)
        node = logic.AddSliceNode(name)
        node.SetLayoutLabel(name[0])
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene)
        node.SetOrientation(orientation)
        slices.AddItem(logic)
    application_logic.SetSliceLogics(slices)
    application_logic.SetViewLogics(vtk.vtkCollection())
    view = scene.CreateNodeByClass("vtkMRMLViewNode")
    view.UnRegister(None)
    view.SetSingletonTag("1")
    view.SetName("View1")
    scene.AddNode(view)
