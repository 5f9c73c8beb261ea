"""The module's logic: what the panel and the Python console drive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic
from slicer.util import VTKObservationMixin

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import AddJob, DevicesJob, DownloadJob, ImportJob
from FewShotSegLib.core.requirements import missing_packages

from .console import ConsoleApi
from .interface.rows import (
    AdapterRow,
    Changed,
    DeviceRow,
    End,
    Epoch,
    Listener,
    LogLine,
    MethodRow,
    ModelAsks,
    ModelQuestion,
    ModelRow,
    Result,
    StructureRow,
    TaskKind,
)
from .jobs.control import PlainRun, TaskControl
from .jobs.folder import remove_abandoned
from .jobs.folder_run import SegmentFolder
from .jobs.result_loader import read_result
from .jobs.several import SegmentSeveral
from .jobs.suggest import SuggestNext
from .jobs.task import Task
from .jobs.worker_process import WaitingWorker
from .machine.methods import method_rows
from .machine.requirements import outdated_advice
from .machine.stepper import Stepper
from .scene import results as shown
from .scene.parameter_node import FewShotSegParameterNode
from .scene.session import Session
from .scene.structure_edits import StructureEdits
from .scene.structures import structure_rows
from .scene.support_edits import SupportEdits
from .scene.supports import likely_modality

MAX_LOG_LINES = 2000
COUNTED = ("vtkMRMLSegmentationNode", "vtkMRMLScalarVolumeNode", "vtkMRMLModelNode")
"""Classes of the nodes that can be a part of a support or of a result."""


class FewShotSegLogic(
    SupportEdits,
    StructureEdits,
    TaskControl,
    SegmentSeveral,
    SegmentFolder,
    SuggestNext,
    ConsoleApi,
    ScriptedLoadableModuleLogic,
    VTKObservationMixin,
):
    """See :class:`FewShotSegSlicer.interface.protocol.LogicProtocol`, which this keeps to."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.moduleName = "FewShotSeg"
        self._listeners: list[Listener] = []
        self._lines: list[str] = []
        self._task: Task | None = None
        self._end: End | None = None
        self._epochs: list[Epoch] = []
        self._closed = False
        self._surfaces: Stepper | None = None
        self._waiting = WaitingWorker()
        self._init_several()
        self._init_suggest()
        self._report = ""
        self.session = Session(
            lambda: ScriptedLoadableModuleLogic.getParameterNode(self), self._tell
        )
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._on_scene_close)
        self.addObserver(scene, scene.StartImportEvent, self._on_scene_import)
        for event in (scene.EndCloseEvent, scene.EndImportEvent):
            self.addObserver(scene, event, self._on_new_scene)
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            self.addObserver(scene, event, self._on_node)
        self.addObserver(scene, scene.EndBatchProcessEvent, self._on_batch)
        slicer.app.connect("aboutToQuit()", self.close)
        remove_abandoned()

    def close(self) -> None:
        """Stop whatever runs, remove its files, and hear no more of the scene."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None:
            self._task.abort(_("Stopped, because the module was closed."), wait=True)
        self._stop_surfaces()
        self._waiting.dismiss(wait=True)
        self.session.sizes.stop()
        self.removeObservers()
        slicer.app.disconnect("aboutToQuit()", self.close)

    # --- listening

    def listen(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def log(self) -> str:
        return "\n".join(self._lines)

    def _tell(self, notice: Any) -> None:
        if isinstance(notice, str):
            notice = LogLine(notice)
        if isinstance(notice, LogLine):
            self._lines = [*self._lines, notice.text][-MAX_LOG_LINES:]
        elif isinstance(notice, Epoch):
            self._epochs.append(notice)
        elif isinstance(notice, End):
            self._task, self._end = None, notice
            self._lines.append(f"{notice.kind}: {notice.state}. {notice.message}")
            self._several_ended(notice)
        for listener in list(self._listeners):
            listener(notice)

    # --- the scene

    def getParameterNode(self) -> FewShotSegParameterNode:
        return self.session.parameters

    def _on_scene_close(self, caller: Any = None, event: Any = None) -> None:
        if self._task is not None:
            self._task.abort(_("Stopped, because the scene was closed."))
        self._forget_several()
        self._init_suggest()
        self._epochs = []  # the curve of an adapter that is gone
        self._stop_surfaces()
        self.session.sizes.stop()

    def _on_scene_import(self, caller: Any = None, event: Any = None) -> None:
        self.session.sizes.stop()

    def _on_new_scene(self, caller: Any = None, event: Any = None) -> None:
        # A cleared scene keeps the node but empties it: the wrapper must write its defaults anew.
        self.session.renew()
        for part in ("supports", "structures", "adapters", "results", "settings"):
            self._tell(Changed(part))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node(self, caller: Any, event: Any, node: Any) -> None:
        if slicer.mrmlScene.IsBatchProcessing() or node is None:
            return
        if node.IsA("vtkMRMLTextNode"):
            self._tell(Changed("adapters"))
        elif any(node.IsA(kind) for kind in COUNTED):
            self._tell(Changed("supports"))
            self._tell(Changed("results"))

    def _on_batch(self, caller: Any = None, event: Any = None) -> None:
        """Of nodes that came or went in one go, as those of a DICOM study, none was heard of."""
        if not slicer.mrmlScene.IsBatchProcessing():
            for part in ("supports", "adapters", "results"):
                self._tell(Changed(part))

    # --- foundation model and device

    def models(self) -> list[ModelRow]:
        return self.session.models.rows()

    def model(self) -> str:
        return self.session.model()

    def setModel(self, model_id: str) -> None:
        self.session.models.choose(model_id, likely_modality(self.session.state))
        self._tell(Changed("models"))

    def addCheckpoint(self, entry_path: str) -> str:
        model_id = self.session.models.add(entry_path)
        self._tell(Changed("models"))
        return model_id

    def addModel(self, path: str, answers: Mapping[str, str] | None = None) -> None:
        # Absolute: the background process works in another folder.
        job = AddJob(str(Path(path).expanduser().absolute()), dict(answers or {}))
        result: dict[str, Any] = {}

        def read(folder: Path) -> None:
            result.update(read_result(folder))

        def done() -> End:
            found = tuple(result["found"])
            if result["id"] is None:
                questions = tuple(ModelQuestion(**question) for question in result["questions"])
                self._tell(ModelAsks(job.path, found, job.answers, questions))
                return End("add", "finished", _("There is more to be said of this model."))
            self.setModel(result["id"])
            added = _("«{m}» is added. {found}")
            return End("add", "finished", added.format(m=result["id"], found=" ".join(found)))

        self._start(PlainRun("add", job, done, read))

    def removeModel(self, model_id: str) -> None:
        self.session.models.remove(model_id)
        self._tell(Changed("models"))

    def downloadModel(self, model_id: str) -> None:
        row = self.session.models.row(model_id)
        if row is None or not row.downloadable:
            raise InputError(_("This model's weights have to be fetched by hand."))
        self._install("download", row, DownloadJob(model_id))

    def importModel(self, model_id: str, path: str) -> None:
        row = self.session.models.row(model_id)
        if row is None:
            raise InputError(_("There is no model «{m}».").format(m=model_id))
        if not row.importable:
            here = _("The weights of «{m}» are here already.").format(m=row.title)
            raise InputError(row.problem or here)
        # Absolute: the background process works in another folder.
        self._install("import", row, ImportJob(model_id, str(Path(path).expanduser().absolute())))

    def _install(self, kind: TaskKind, row: ModelRow, job: DownloadJob | ImportJob) -> None:
        def done() -> End:
            self._tell(Changed("models"))
            return End(kind, "finished", _("«{m}» is installed.").format(m=row.title))

        self._start(PlainRun(kind, job, done))

    def devices(self) -> list[DeviceRow]:
        return self.session.devices.rows()

    def device(self) -> str:
        return self.session.devices.chosen()

    def setDevice(self, device_id: str) -> None:
        self.session.devices.choose(device_id)
        self._tell(Changed("devices"))

    def refreshDevices(self) -> None:
        if self._task is not None or self.missingPackages():
            return

        def read(folder: Path) -> None:
            self.session.devices.found(read_result(folder)["devices"])

        def done() -> End:
            self._tell(Changed("devices"))
            return End("devices", "finished", "")

        self._start(PlainRun("devices", DevicesJob(), done, read))

    def missingPackages(self) -> list[str]:
        return missing_packages()

    def outdatedPackages(self) -> list[str]:
        return outdated_advice()

    # --- structures

    def structures(self) -> list[StructureRow]:
        # Of a few slices the engine alone estimates a size.
        partly = self.session.parameters.onlyDrawnSlices
        return structure_rows(self.session.state, None if partly else self.session.sizes.ml)

    # --- adapters

    def methods(self) -> list[MethodRow]:
        return method_rows(self.getParameterNode(), self.session.entry())

    def adapters(self) -> list[AdapterRow]:
        return self.session.adapters.rows()

    def renameAdapter(self, adapter_id: str, name: str) -> None:
        self.session.adapters.rename(adapter_id, name)
        self._tell(Changed("adapters"))

    def saveAdapter(self, adapter_id: str, path: str) -> None:
        self.session.adapters.save(adapter_id, str(path))

    def loadAdapter(self, path: str) -> str:
        adapter_id = self.session.adapters.load(str(path))
        self.getParameterNode().adapterId = adapter_id
        self._tell(Changed("adapters"))
        return adapter_id

    def deleteAdapter(self, adapter_id: str) -> None:
        self.session.adapters.delete(adapter_id)
        if self.getParameterNode().adapterId == adapter_id:
            left = self.adapters()
            self.getParameterNode().adapterId = left[-1].id if left else ""
        self._tell(Changed("adapters"))

    # --- results

    def results(self) -> list[Result]:
        return shown.list_results(self.session.state)

    def measured(self, result: Result) -> Result:
        return shown.measured(result, self.session.sizes.ml)

    def showResult(self, result: Result, what: str) -> None:
        shown.show_result(result, what, self.results())

    def goTo(self, result: Result, structure: str = "", flagged: bool = False) -> None:
        shown.go_to(result, structure, flagged)

    def showVolume(self, volume: Any) -> None:
        shown.show_volume(volume, self.results())

    def acceptResult(self, result: Result, what: str = "refined") -> str:
        row_id = shown.accept_result(self.session.state, result, what)
        self._changed_supports()
        self._tell(Changed("results"))
        return row_id

    def deleteResult(self, result: Result) -> None:
        shown.delete_result(self.session.state, result)
        self._tell(Changed("results"))

    def showUncertainty(self, result: Result, visible: bool) -> None:
        shown.show_uncertainty(result, visible)

    def show3D(self, result: Result, visible: bool) -> None:
        self._stop_surfaces()
        if not visible or result.segmentation is None:
            shown.show_3d(result, False)
            return

        def done(error: BaseException | None) -> None:
            self._surfaces = None
            if error is not None:
                raise error
            shown.show_3d(result, True)

        self._surfaces = Stepper(shown.surface_steps(result.segmentation), done)

    def _stop_surfaces(self) -> None:
        if self._surfaces is not None:
            self._surfaces.stop()
            self._surfaces = None
