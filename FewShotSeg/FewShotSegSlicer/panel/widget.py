"""The panel: sections in the order of the work, over whatever keeps to the logic's protocol."""

from __future__ import annotations

from typing import Any

import qt
import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from ..interface.protocol import LogicProtocol
from ..interface.rows import Changed, End, Epoch, LogLine, ModelAsks, Notice, Progress
from ..messages import make_plain
from ..reloading import forget_library
from .adapters import AdaptersSection
from .folding import Steps
from .log import LogSection
from .models import ModelsSection
from .quit_guard import QuitGuard
from .segment import SegmentSection
from .several import SeveralView
from .structures import StructuresSection
from .suggestions import SuggestionsView
from .supports import SupportsSection
from .tools import busy_with


class PanelWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's widget: the logic tells of changes, and the sections read it again."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: LogicProtocol | None = None
        self._parameters: Any = None
        self._gui_tag: Any = None
        self._stop_listening: Any = None
        self._closing = False
        self._task_shown = ""

    def makeLogic(self) -> LogicProtocol:
        """The logic; a test may put another one in its place."""
        from ..logic import FewShotSegLogic

        return FewShotSegLogic()

    def setup(self) -> None:
        """Called once, when the module is first opened."""
        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath("UI/FewShotSeg.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        make_plain(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = self.makeLogic()
        self.quit_guard = QuitGuard(self.logic)
        self.models = ModelsSection(self.ui, self.logic)
        self.supports = SupportsSection(self.ui, self.logic)
        self.structures = StructuresSection(self.ui, self.logic)
        self.adapters = AdaptersSection(self.ui, self.logic)
        self.steps = Steps(self.ui, self.logic)
        self.segment = SegmentSection(self.ui, self.logic, self.on_accepted)
        self.several = SeveralView(self.logic)
        self.ui.segmentOptionsSection.layout().addWidget(self.several.widget)
        self.suggestions = SuggestionsView(self.logic, self.ui.volumeSelector.setCurrentNode)
        self.ui.supportsSection.layout().addWidget(self.suggestions.widget)
        self.log = LogSection(self.ui, self.logic)
        self.sections = (
            self.models,
            self.supports,
            self.structures,
            self.adapters,
            self.segment,
            self.steps,
            self.several,
            self.suggestions,
        )
        self.working = (
            self.models,
            self.supports,
            self.adapters,
            self.segment,
            self.suggestions,
        )
        self._refresh_timer = qt.QTimer()
        self._refresh_timer.setSingleShot(True)
        self._refresh_timer.setInterval(0)
        self._refresh_timer.connect("timeout()", self.refresh)
        self._stop_listening = self.logic.listen(self.onNotice)
        scene = slicer.mrmlScene
        # Before the logic hears of it, which then says that a running task was stopped.
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose, priority=1.0)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.initializeParameterNode()
        self.open_what_needs_attention()
        self.logic.refreshDevices()
        qt.QTimer.singleShot(0, self.models.go_on_installing)

    def open_what_needs_attention(self) -> None:
        """A foundation model is chosen already: open its section only if something is missing."""
        self.models.refresh()
        if self.models.hint.text:
            self.ui.advancedSection.collapsed = self.ui.modelSection.collapsed = False

    def on_accepted(self) -> None:
        """A result became an annotated volume: train with it."""
        self.refresh()
        self.steps.on_accepted()

    def cleanup(self) -> None:
        """Called when the module is unloaded or reloaded: nothing may be left running."""
        self._closing = True
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        if self.logic is not None:
            self._refresh_timer.stop()
            self.quit_guard.remove()
            self.logic.close()
        self.setParameterNode(None)
        self.removeObservers()

    def onReload(self) -> None:
        """«Reload» of developers: all of the library, not only the module's first file."""
        kind = busy_with(self.logic)
        forget_library()
        ScriptedLoadableModuleWidget.onReload(self)
        end = self.logic.lastEnd()
        if kind and end is not None:
            slicer.util.getModuleWidget(self.moduleName).tell_of_task(kind, end.message)

    def tell_of_task(self, kind: str, message: str) -> None:
        """Say in a task's section how it ended; another panel, which is gone now, started it."""
        for section in (self.adapters, self.segment):
            if kind in section.KINDS:
                section.status.show(message)

    def enter(self) -> None:
        """Called each time the module is opened."""
        self.initializeParameterNode()
        self.segment.take_volume_on_screen()  # first: the query is not offered for adding
        self.supports.take_volume_on_screen()
        self.refresh()

    def exit(self) -> None:
        """Called each time another module is opened; a running task goes on."""

    def onSceneStartClose(self, caller: Any = None, event: Any = None) -> None:
        """The scene is about to be closed: let go of its nodes, and of what was said of them."""
        self.setParameterNode(None)
        for section in (self.adapters, self.segment, self.suggestions):
            section.status.show("")

    def onSceneEndClose(self, caller: Any = None, event: Any = None) -> None:
        """The scene was closed: go on with the new one."""
        if not self._closing:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Bind the controls to the scene's parameter node."""
        self.setParameterNode(self.logic.getParameterNode())
        self.refresh()

    def setParameterNode(self, parameters: Any) -> None:
        """Bind the controls to another parameter node, or none."""
        if self._parameters is parameters:
            return
        if self._parameters is not None:
            self._parameters.disconnectGui(self._gui_tag)
            self.removeObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self.refresh_soon)
        self._parameters = parameters
        self.adapters.method.parameters = self.segment.parameters = parameters
        self.supports.parameters = parameters
        self.segment.results.settle()
        if parameters is not None:
            self.steps.arrange()
        if parameters is not None:
            self._gui_tag = parameters.connectGui(self.ui)
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self.refresh_soon)

    def refresh_soon(self, caller: Any = None, event: Any = None) -> None:
        """Refresh once, however many changes there are before the event loop turns."""
        if not self._closing:
            self._refresh_timer.start()

    def refresh(self) -> None:
        """Every section reads the logic again."""
        if self._closing or self._parameters is None:
            return
        for section in self.sections:
            section.refresh()

    def onNotice(self, notice: Notice) -> None:
        """The logic says something."""
        if isinstance(notice, Changed):
            if notice.part == "settings":  # another scene has another parameter node
                self.setParameterNode(self.logic.getParameterNode())
            elif notice.part == "supports":
                self.segment.proposal_due = True
            self.refresh_soon()
        elif isinstance(notice, LogLine):
            self.log.add_line(notice.text)
        elif isinstance(notice, Epoch):
            self.adapters.on_epoch(notice)
        elif isinstance(notice, Progress):
            if notice.kind != self._task_shown:  # it has just begun
                self._task_shown = notice.kind
                self.refresh_soon()
            for section in self.working:
                section.on_progress(notice)
        elif isinstance(notice, ModelAsks):
            self.models.on_asks(notice)
        elif isinstance(notice, End):
            self._task_shown = ""
            self.refresh()
            for section in self.working:
                section.on_end(notice)
            self.steps.on_end(notice)
