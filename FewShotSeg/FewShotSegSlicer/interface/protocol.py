"""What the panel needs of the logic: a protocol over the plain data of ``logic_data``.

The panel is written against these two files alone, so that it can be tested with a stand-in.
Names of methods follow Slicer, whose Python console is where they are called from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from .rows import (
    AdapterRow,
    DeviceRow,
    End,
    Epoch,
    Estimate,
    Listener,
    MethodRow,
    ModelRow,
    PriorEdit,
    Progress,
    QueryRow,
    Result,
    SeriesRow,
    StructureRow,
    SuggestionRow,
    SupportRow,
    TaskKind,
)

if TYPE_CHECKING:
    from typing import Unpack


class LogicProtocol(Protocol):
    """The logic as the panel sees it. Every call returns immediately unless it says otherwise.

    Errors that a user can act on are ``FewShotSegLib.core.errors.FewShotSegError``, one sentence.
    """

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Receive every event; call what is returned to stop. Called on the GUI thread only."""
        ...

    def close(self) -> None:
        """Stop whatever runs, remove its files, and hear no more of the scene."""
        ...

    def getParameterNode(self) -> Any:
        """The wrapped parameter node, see ``parameter_node``."""
        ...

    # foundation model and device (kept in QSettings)
    def models(self) -> list[ModelRow]: ...
    def model(self) -> str: ...
    def setModel(self, model_id: str) -> None: ...
    def addCheckpoint(self, entry_path: str) -> str:
        """Copy a registry entry (.json) and its weights into the user's folder; returns the id."""
        ...

    def addModel(self, path: str, answers: Mapping[str, str] | None = None) -> None:
        """Start the task ``add``: a model as another program left it, a folder or a file, which
        stays as it is. The new model is chosen; or ``ModelAsks`` comes, and nothing was added."""
        ...

    def downloadModel(self, model_id: str) -> None:
        """Start the task ``download``. The panel has asked for consent before."""
        ...

    def importModel(self, model_id: str, path: str) -> None:
        """Start the task ``import``: the weights from a file, which is copied and stays as it is.
        The panel has asked for consent before."""
        ...

    def removeModel(self, model_id: str) -> None: ...
    def devices(self) -> list[DeviceRow]: ...
    def device(self) -> str: ...
    def setDevice(self, device_id: str) -> None: ...
    def refreshDevices(self) -> None:
        """Ask the background process; ``Changed("devices")`` comes when it has answered."""
        ...

    def missingPackages(self) -> list[str]:
        """Requirements that training needs and this Python lacks, such as ``torch>=2.10``."""
        ...

    def outdatedPackages(self) -> list[str]:
        """What is installed but too old, one sentence each, with what to do about it."""
        ...

    # support set
    def supports(self) -> list[SupportRow]: ...
    def addSupport(self, volume: Any, segmentation: Any = None) -> str:
        """Add a row and return its id. The annotation may also be a label map or a surface model.
        Without one: the one that was drawn on the volume, by reference, geometry or name; a row
        that waits for a choice where several could have been; else a new empty segmentation with
        the class list as empty segments."""
        ...

    def addSceneSupports(self) -> int:
        """Add every volume in the scene that has an annotation; how many were added. Rows with the
        state ``choose`` may have come in addition."""
        ...

    def chooseAnnotation(self, support_id: str, choice_id: str) -> None:
        """Give a row with the state ``choose`` one of its ``choices``; an empty id stands for a new
        empty segmentation."""
        ...

    def proposedSupport(self, on_screen: Any = None) -> Any:
        """The volume to offer for adding: the one on screen if it can be, else the first that can;
        never the query, nor one with a row or a result; or None."""
        ...

    def proposedQuery(self, on_screen: Any = None) -> Any:
        """The volume to offer for segmenting: one without annotation, the one on screen first; or
        None."""
        ...

    def addFolder(self, folder: str) -> int:
        """Load the image and segmentation pairs of a folder and add them; how many. Slow: reads
        files."""
        ...

    def removeSupport(self, support_id: str) -> None: ...
    def tickSupport(self, support_id: str, ticked: bool) -> None: ...
    def showSupport(self, support_id: str) -> None:
        """Its volume into the slice views, centred on its segments; other supports hidden."""
        ...

    def prepareEditing(self, support_id: str) -> tuple[Any, Any]:
        """Make sure that the row has a segmentation with one segment a class (right name, colour
        and terminology; what is drawn stays); volume and segmentation nodes for Segment Editor."""
        ...

    # structures and priors
    def structures(self) -> list[StructureRow]: ...
    def addStructure(
        self, name: str, color: tuple[float, float, float] | None = None, terminology: str = ""
    ) -> str: ...
    def renameStructure(self, structure_id: str, name: str) -> None: ...
    def colorStructure(self, structure_id: str, color: tuple[float, float, float]) -> None: ...
    def tickStructure(self, structure_id: str, ticked: bool) -> None: ...
    def mergeStructures(self, structure_ids: list[str]) -> str:
        """Make several rows one class (the first one's name stays); its id."""
        ...

    def splitStructure(self, structure_id: str) -> list[str]:
        """Undo merging by hand."""
        ...

    def setPrior(self, structure_id: str, **edit: Unpack[PriorEdit]) -> None:
        """Edit what is given; the rest stays."""
        ...

    def resetPrior(self, structure_id: str) -> None:
        """Back to what the supports say."""
        ...

    # methods of training, the recommended one first
    def methods(self) -> list[MethodRow]: ...

    # adapters in the scene
    def adapters(self) -> list[AdapterRow]: ...
    def renameAdapter(self, adapter_id: str, name: str) -> None: ...
    def saveAdapter(self, adapter_id: str, path: str) -> None: ...
    def loadAdapter(self, path: str) -> str: ...
    def deleteAdapter(self, adapter_id: str) -> None: ...

    # tasks: one at a time
    def blockers(self, kind: TaskKind) -> list[str]:
        """What is missing before a task can start, one sentence each; empty: it can."""
        ...

    def doubt(self, kind: TaskKind) -> str:
        """Why a task that can start may well give nothing good, one sentence; or nothing."""
        ...

    def estimate(self, kind: TaskKind) -> Estimate | None:
        """For what :meth:`startTraining` or :meth:`startSegmentation` would run now."""
        ...

    def startTraining(self, goOn: bool = False) -> None:
        """Train on the ticked supports with the parameter node's settings.

        Args:
            goOn: begin with the chosen adapter, which takes a third of the epochs, where it has
                the same model, method and structures; else anew.
        """
        ...

    def startSegmentation(self) -> None:
        """Segment the parameter node's query with its current adapter."""
        ...

    def queries(self) -> list[QueryRow]:
        """The volumes of the scene that could be segmented, with how far each is."""
        ...

    def startSeveral(self, volume_ids: Sequence[str]) -> None:
        """Segment these one after the other with the current adapter, each as
        :meth:`startSegmentation` does. One that can't be is passed over; :meth:`cancel` stops
        those that wait, too."""
        ...

    def databaseSeries(self) -> list[SeriesRow]:
        """The CT and MR series in Slicer's DICOM database; none where it is not open."""
        ...

    def startFolder(self, paths: Sequence[str], out: str, series_ids: Sequence[str] = ()) -> None:
        """Start the task ``folder``: segment files, what is in folders, and series of the DICOM
        database with the current adapter into the folder ``out``, with a table and a page of all;
        the scene stays as it is. What an earlier run has done there is not done again."""
        ...

    def report(self) -> str:
        """Path of the page of the last task ``folder``; empty where there is none."""
        ...

    def startSuggesting(self) -> None:
        """Start the task ``suggest``: rank the volumes of the scene that are not annotated by what
        annotating them would bring."""
        ...

    def suggestions(self) -> list[SuggestionRow]:
        """What the last one came to, the first to annotate first; without what was annotated or
        removed since."""
        ...

    def startPhantoms(self, folder: str, count: int = 4) -> None:
        """Start the task ``phantoms``: synthetic patients, written as files to a folder."""
        ...

    def cancel(self) -> None:
        """Stop the running task; ``End`` comes within seconds. Nothing happens without one."""
        ...

    def running(self) -> TaskKind | None: ...
    def progress(self) -> Progress | None: ...
    def epochs(self) -> list[Epoch]:
        """Points of the running or last training."""
        ...

    def lastEnd(self) -> End | None: ...

    # results
    def results(self) -> list[Result]:
        """Every one in the scene, newest first; a query may have several."""
        ...

    def measured(self, result: Result) -> Result:
        """It with the volumes as they are now: a person may have drawn on it. Where they are being
        counted, they are those of before; ``Changed("structures")`` comes once they are known."""
        ...

    def showResult(self, result: Result, what: Literal["refined", "unrefined"]) -> None:
        """Show it, and hide every other result and what was drawn on other volumes."""
        ...

    def goTo(self, result: Result, structure: str = "", flagged: bool = False) -> None:
        """Bring its volume on screen and a structure into all slice views; the largest one where
        none is named. ``flagged``: the place that the structure's verdict is about, if any."""
        ...

    def showVolume(self, volume: Any) -> None:
        """Bring a volume without a result on screen, without what was drawn on others."""
        ...

    def acceptResult(self, result: Result, what: Literal["refined", "unrefined"]) -> str:
        """Add its volume to the support set, annotated by the result as it is now; the row's id.
        It takes the place of an earlier result of the volume."""
        ...

    def deleteResult(self, result: Result) -> None:
        """Take its nodes out of the scene. The panel has asked before."""
        ...

    def showUncertainty(self, result: Result, visible: bool) -> None: ...
    def show3D(self, result: Result, visible: bool) -> None:
        """Its surfaces, in the box of their volume, in the middle of the 3D views; or none. They
        are made one by one, and come when all are there."""
        ...

    # log
    def log(self) -> str:
        """Everything since the module was loaded, as text to copy; it names no volume."""
        ...
