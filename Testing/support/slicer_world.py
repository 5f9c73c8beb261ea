"""Slicer for the tests: the real one where they run in it, else real MRML with doubles around.

``import slicer_world`` first in every test of the module. Outside Slicer it needs ``slicer-core``
(real MRML in C++) and PySide6; where these are missing the test skips, saying so.
``REAL`` tells which of both it is.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import types
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "FewShotSeg"
LOGICS = {
    "annotations": "vtkSlicerAnnotationModuleLogic",
    "colors": "vtkSlicerColorLogic",
    "volumes": "vtkSlicerVolumesLogic",
    "transforms": "vtkSlicerTransformLogic",
    "terminologies": "vtkSlicerTerminologiesModuleLogic",
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "models": "vtkSlicerModelsLogic",
    "tables": "vtkSlicerTablesLogic",
    "texts": "vtkSlicerTextsLogic",
    "markups": "vtkSlicerMarkupsLogic",
}


def _start() -> bool:
    """Whether this is the real Slicer; if not, everything is put in place of it."""
    for folder in (MODULE, ROOT, ROOT / "Testing" / "support"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    try:
        from slicer import app  # noqa: F401

        return True
    except ImportError:
        pass
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    sys.path.insert(0, str(ROOT / "Testing" / "doubles"))
    try:
        import slicer
        import vtk  # noqa: F401
        from PySide6 import QtWidgets  # noqa: F401
    except ImportError as error:
        raise unittest.SkipTest(
            f"{error.name} is not here: tests of the Slicer module need slicer-core and "
            "PySide6-Essentials (pip install -e '.[dev]'), or Slicer itself"
        ) from error
    _put_doubles(slicer)
    return False


def _put_doubles(slicer: Any) -> None:
    import application
    import mrml_widgets
    import scripted_module
    import subject_hierarchy

    scene = slicer.vtkMRMLScene()
    application_logic = slicer.vtkSlicerApplicationLogic()
    application_logic.SetMRMLScene(scene)
    slicer.mrmlScene = scene
    slicer.modules = application.Modules(application_logic)
    slicer.app = application.Application()
    application_logic.SetTemporaryPath(slicer.app.temporaryPath)
    for name, cls in LOGICS.items():
        logic = getattr(slicer, cls)()
        logic.SetMRMLApplicationLogic(application_logic)
        logic.SetMRMLScene(scene)
        setattr(slicer.modules, name, application.LogicModule(name, logic))
        application_logic.SetModuleLogic(name.capitalize(), logic)
    slicer.modules.colors.logic().AddDefaultColorNodes()
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    subject_hierarchy.round_colors(scene)
    _put_remote_io(slicer, scene)
    application.make_views(scene, application_logic)
    mrml_widgets.install(slicer)
    for name in ("qSlicerScriptedLoadableModule", "qSlicerScriptedLoadableModuleWidget"):
        setattr(slicer, name, getattr(scripted_module, name))
    for name, source in {
        "ScriptedLoadableModule": "scripted_module",
        "i18n": "scripted_module",
        "parameterNodeWrapper": "parameter_node_wrapper",
    }.items():
        module = types.ModuleType(f"slicer.{name}")
        found = __import__(source)
        public = {k: v for k, v in vars(found).items() if not k.startswith("_")}
        module.__dict__.update(public)
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
    manager = slicer.app.moduleManager()
    manager.modules["FewShotSeg"] = scripted_module.qSlicerScriptedLoadableModule(
        MODULE / "FewShotSeg.py"
    )
    slicer.modules.fewshotseg = manager.modules["FewShotSeg"]
    _prepare_workers()


def _prepare_workers() -> None:
    """The module's background processes begin with torch loaded."""
    import prepared_python
    from FewShotSegSlicer.jobs import process

    process.python_program = prepared_python.program


def _put_remote_io(slicer: Any, scene: Any) -> None:
    """Without it no scene that has files can be read."""
    cache = tempfile.mkdtemp(dir=slicer.app.temporaryPath)
    remote = slicer.vtkMRMLRemoteIOLogic()
    remote.SetMRMLScene(scene)
    remote.GetCacheManager().SetRemoteCacheDirectory(cache)
    manager = slicer.vtkDataIOManagerLogic()
    manager.SetMRMLApplicationLogic(slicer.modules._application_logic)
    manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    slicer.modules._remote_io = (remote, manager)


class Turns:
    """The longest that one turn of the event loop kept this process busy while a test waited, in
    seconds of its own work; what the test does itself does not count."""

    longest = 0.0

    def text(self) -> str:
        """For a line of a test's output."""
        return f"{1000 * self.longest:.0f} ms of work"


REAL = _start()
turns = Turns()


def process_events_until(condition: Callable[[], Any], seconds: float = 600.0) -> Any:
    """Let the event loop run until something is true; what it was.

    Raises:
        AssertionError: it did not become true.
    """
    import slicer

    end = time.monotonic() + seconds
    while True:
        start = time.process_time()
        slicer.app.processEvents()
        turns.longest = max(turns.longest, time.process_time() - start)
        _raise_slot_errors()
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"nothing came within {seconds:.0f} s")
        time.sleep(0.005)


def _raise_slot_errors() -> None:
    """An error in a slot would otherwise be a wait for nothing."""
    if not REAL:
        import qt

        errors, qt.slot_errors[:] = list(qt.slot_errors), []
        if errors:
            raise errors[0]


def clear_scene() -> None:
    """An empty scene, as File / Close Scene leaves it."""
    import slicer

    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()


def fresh_settings(test: unittest.TestCase) -> None:
    """Nothing is set for a test: no model, no device, no speed that another one measured.

    What was set before, by the person whose Slicer it is, is set again afterwards.
    """
    import qt

    settings = qt.QSettings()
    before = {
        key: settings.value(key) for key in settings.allKeys() if key.startswith("FewShotSeg/")
    }

    def again() -> None:
        settings.remove("FewShotSeg")
        for key, value in before.items():
            settings.setValue(key, value)

    settings.remove("FewShotSeg")
    test.addCleanup(again)


class SceneTestCase(unittest.TestCase):
    """With an empty scene, no settings, and errors in slots that fail the test."""

    def setUp(self) -> None:
        super().setUp()
        fresh_settings(self)
        clear_scene()
        if not REAL:
            import qt

            qt.slot_errors.clear()

    def tearDown(self) -> None:
        _raise_slot_errors()
        super().tearDown()
