"""A logic without an engine: it keeps to the protocol, remembers what was asked, and obeys a test.

A test sets its rows and tells it what happens (``start``, ``go_on``, ``finish``); the panel must
show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from FewShotSegSlicer.interface.rows import (
    AdapterRow,
    Changed,
    DeviceRow,
    End,
    Epoch,
    Estimate,
    LogLine,
    MethodRow,
    ModelRow,
    PriorRow,
    Progress,
    QueryRow,
    Result,
    SegmentLink,
    SeriesRow,
    StructureRow,
    SuggestionRow,
    SupportRow,
)
from mock_rows import Parameters


class MockLogic:
    """See the module's docstring. ``calls`` lists (method, arguments) in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.listeners: list[Any] = []
        self.parameters = Parameters()
        self.model_rows = [
            ModelRow(
                "small",
                "Embedded model for CT",
                "Small enough for a laptop.",
                ("CT",),
                "Apache-2.0",
                "FewShotSeg",
            ),
            ModelRow(
                "abdomen",
                "Abdominal U-Net",
                "Eight organs.",
                ("CT",),
                "MIT",
                "Heinrich et al., 2019",
                "https://example.org/weights",
                3_552_438,
                installed=False,
                embedded=False,
                downloadable=True,
                importable=True,
            ),
        ]
        self.chosen_model, self.chosen_device = "small", "auto"
        self.device_rows = [
            DeviceRow("auto", "Automatic (CPU)", 12_300_000_000),
            DeviceRow("cpu", "CPU", 12_300_000_000),
        ]
        self.missing: list[str] = []
        self.outdated: list[str] = []
        self.support_rows: list[SupportRow] = []
        self.query_rows: list[QueryRow] = []
        self.suggestion_rows: list[SuggestionRow] = []
        self.series_rows: list[SeriesRow] = []
        self.report_path = ""
        self.structure_rows: list[StructureRow] = []
        self.method_rows = [
            MethodRow("adapter", "Adapter 3x3x3 (recommended)", "On features.", (), 60),
            MethodRow("linear-probe", "Linear probe", "Fastest.", (), 60),
            MethodRow("lora", "LoRA", "Takes longer.", ("frozen", "tuned", "new"), 70),
            MethodRow("scratch", "Scratch", "All of it.", ("new",), 70),
        ]
        self.adapter_rows: list[AdapterRow] = []
        self.result_rows: list[Result] = []
        self.points: list[Epoch] = []
        self.task: str | None = None
        self.last_progress: Progress | None = None
        self.last_end: End | None = None
        self.lines = ["FewShotSeg started"]
        self.error: Exception | None = None
        self.closed = False

    # what a test does

    def tell(self, notice: Any) -> None:
        """Say something to the listeners."""
        for listener in list(self.listeners):
            listener(notice)

    def changed(self, part: str = "supports") -> None:
        """Say that a part is not what it was."""
        self.tell(Changed(part))

    def go_on(self, fraction: float, text: str = "Training", **more: Any) -> None:
        """The running task got so far."""
        self.last_progress = Progress(self.task, "train", text, fraction, **more)
        self.tell(self.last_progress)

    def epoch(self, number: int, epochs: int, loss: float) -> None:
        """The training did an epoch."""
        self.points.append(Epoch("train", number, epochs, loss))
        self.tell(self.points[-1])

    def finish(self, state: str = "finished", message: str = "Done.", **more: Any) -> None:
        """The running task ended."""
        kind, self.task, self.last_progress = self.task, None, None
        self.last_end = End(kind, state, message, **more)
        self.tell(self.last_end)

    def log_line(self, text: str) -> None:
        """The process wrote a line."""
        self.lines.append(text)
        self.tell(LogLine(text))

    def fill(self, volumes: list[Any], names: tuple[str, ...] = ("gland_right", "pouch")) -> None:
        """A support set of these volumes, all annotated."""
        self.support_rows = [
            SupportRow(f"s{i}", volume, volume, volume.GetName(), f"seg {i}", names)
            for i, volume in enumerate(volumes)
        ]
        colors = ((0.2, 0.78, 0.74), (0.98, 0.65, 0.26), (0.72, 0.55, 0.98))
        self.structure_rows = [
            StructureRow(
                f"c{k}",
                name,
                colors[k % 3],
                segments=tuple(
                    SegmentLink(row.id, row.volume_name, f"x{k}", name) for row in self.support_rows
                ),
                prior=PriorRow(24.5 + k, 2.25, len(volumes), False, 0.3, False, 17.2, 31.9),
            )
            for k, name in enumerate(names)
        ]

    def _call(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    # the protocol

    def listen(self, listener: Any) -> Any:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def close(self) -> None:
        self.closed = True

    def getParameterNode(self) -> Parameters:
        return self.parameters

    def models(self) -> list[ModelRow]:
        return self.model_rows

    def model(self) -> str:
        return self.chosen_model

    def setModel(self, model_id: str) -> None:
        self._call("setModel", model_id)
        self.chosen_model = model_id
        self.changed("models")

    def addCheckpoint(self, entry_path: str) -> str:
        self._call("addCheckpoint", entry_path)
        return "abdomen"

    def addModel(self, path: str, answers: Mapping[str, str] | None = None) -> None:
        self._call("addModel", path, dict(answers or {}))
        self.task = "add"
        self.go_on(0.0, "Starting")

    def downloadModel(self, model_id: str) -> None:
        self._call("downloadModel", model_id)
        self.task = "download"
        self.go_on(0.0, "Starting")

    def importModel(self, model_id: str, path: str) -> None:
        self._call("importModel", model_id, path)
        self.task = "import"
        self.go_on(0.0, "Starting")

    def removeModel(self, model_id: str) -> None:
        self._call("removeModel", model_id)

    def devices(self) -> list[DeviceRow]:
        return self.device_rows

    def device(self) -> str:
        return self.chosen_device

    def setDevice(self, device_id: str) -> None:
        self._call("setDevice", device_id)
        self.chosen_device = device_id

    def refreshDevices(self) -> None:
        self._call("refreshDevices")

    def missingPackages(self) -> list[str]:
        return self.missing

    def outdatedPackages(self) -> list[str]:
        return self.outdated

    def supports(self) -> list[SupportRow]:
        return self.support_rows

    def addSupport(self, volume: Any, segmentation: Any = None) -> str:
        self._call("addSupport", volume, segmentation)
        row = SupportRow(
            f"s{len(self.support_rows)}", volume, segmentation, volume.GetName(), "new"
        )
        self.support_rows = [*self.support_rows, row]
        self.changed()
        return row.id

    def addSceneSupports(self) -> int:
        self._call("addSceneSupports")
        return 0

    def chooseAnnotation(self, support_id: str, choice_id: str) -> None:
        self._call("chooseAnnotation", support_id, choice_id)
        self.changed()

    def proposedSupport(self, on_screen: Any = None) -> Any:
        taken = [self.parameters.queryVolume, *(row.volume for row in self.support_rows)]
        return None if on_screen in taken else on_screen

    def proposedQuery(self, on_screen: Any = None) -> Any:
        taken = any(row.volume is on_screen for row in self.support_rows)
        return None if taken else on_screen

    def addFolder(self, folder: str) -> int:
        self._call("addFolder", folder)
        return 2

    def removeSupport(self, support_id: str) -> None:
        self._call("removeSupport", support_id)
        self.support_rows = [row for row in self.support_rows if row.id != support_id]
        self.changed()

    def tickSupport(self, support_id: str, ticked: bool) -> None:
        self._call("tickSupport", support_id, ticked)
        self.support_rows = [
            replace(row, ticked=ticked) if row.id == support_id else row
            for row in self.support_rows
        ]
        self.changed()

    def showSupport(self, support_id: str) -> None:
        self._call("showSupport", support_id)

    def prepareEditing(self, support_id: str) -> tuple[Any, Any]:
        self._call("prepareEditing", support_id)
        row = next(row for row in self.support_rows if row.id == support_id)
        return row.volume, row.segmentation

    def structures(self) -> list[StructureRow]:
        return self.structure_rows

    def addStructure(self, name: str, color: Any = None, terminology: str = "") -> str:
        self._call("addStructure", name)
        row = StructureRow(f"c{len(self.structure_rows)}", name, color or (1, 0, 0))
        self.structure_rows = [*self.structure_rows, row]
        self.changed("structures")
        return row.id

    def _edit(self, structure_id: str, **values: Any) -> None:
        self.structure_rows = [
            replace(row, **values) if row.id == structure_id else row for row in self.structure_rows
        ]
        self.changed("structures")

    def renameStructure(self, structure_id: str, name: str) -> None:
        self._call("renameStructure", structure_id, name)
        self._edit(structure_id, name=name)

    def colorStructure(self, structure_id: str, color: Any) -> None:
        self._call("colorStructure", structure_id, color)
        self._edit(structure_id, color=color)

    def tickStructure(self, structure_id: str, ticked: bool) -> None:
        self._call("tickStructure", structure_id, ticked)
        self._edit(structure_id, ticked=ticked)

    def mergeStructures(self, structure_ids: list[str]) -> str:
        self._call("mergeStructures", structure_ids)
        self.structure_rows = [r for r in self.structure_rows if r.id not in structure_ids[1:]]
        self.changed("structures")
        return structure_ids[0]

    def splitStructure(self, structure_id: str) -> list[str]:
        self._call("splitStructure", structure_id)
        return [structure_id]

    def setPrior(self, structure_id: str, **values: Any) -> None:
        self._call("setPrior", structure_id, values)
        row = next(row for row in self.structure_rows if row.id == structure_id)
        edited = "mean_ml" in values or "sd_ml" in values
        prior = replace(row.prior, **values, edited=row.prior.edited or edited)
        self._edit(structure_id, prior=prior)

    def resetPrior(self, structure_id: str) -> None:
        self._call("resetPrior", structure_id)

    def methods(self) -> list[MethodRow]:
        return self.method_rows

    def adapters(self) -> list[AdapterRow]:
        return self.adapter_rows

    def renameAdapter(self, adapter_id: str, name: str) -> None:
        self._call("renameAdapter", adapter_id, name)

    def saveAdapter(self, adapter_id: str, path: str) -> None:
        self._call("saveAdapter", adapter_id, path)

    def loadAdapter(self, path: str) -> str:
        self._call("loadAdapter", path)
        row = AdapterRow(f"a{len(self.adapter_rows)}", "loaded", ("pouch",))
        self.adapter_rows = [*self.adapter_rows, row]
        return row.id

    def deleteAdapter(self, adapter_id: str) -> None:
        self._call("deleteAdapter", adapter_id)
        self.adapter_rows = [row for row in self.adapter_rows if row.id != adapter_id]
        self.changed("adapters")

    def blockers(self, kind: str) -> list[str]:
        found = []
        if kind == "train":
            if not self.support_rows:
                found.append("Add at least one annotated volume to the support set.")
            if not self.structure_rows:
                found.append("There is no structure to learn yet.")
        elif kind == "segment":
            if not self.adapter_rows:
                found.append("Train or load an adapter first.")
            if self.parameters.queryVolume is None:
                found.append("Choose the volume to segment.")
        return found

    def doubt(self, kind: str) -> str:
        query = self.parameters.queryVolume
        learned = any(row.volume is query for row in self.support_rows)
        return "This volume is one of those learned from." if learned else ""

    def estimate(self, kind: str) -> Estimate | None:
        if self.blockers(kind):
            return None
        what = "Training" if kind == "train" else "Segmenting"
        return Estimate(1_100_000_000, 40, True, f"{what}: about 40 s and 1.1 GB")

    def startTraining(self, goOn: bool = False) -> None:
        self._call("startTraining", *(["goes on"] if goOn else []))
        self.task, self.points = "train", []
        self.go_on(0.0, "Starting")

    def startSegmentation(self) -> None:
        self._call("startSegmentation")
        self.task = "segment"
        self.go_on(0.0, "Starting")

    def queries(self) -> list[QueryRow]:
        return self.query_rows

    def startSeveral(self, volume_ids: list[str]) -> None:
        self._call("startSeveral", volume_ids)

    def startSuggesting(self) -> None:
        self._call("startSuggesting")

    def suggestions(self) -> list[SuggestionRow]:
        return self.suggestion_rows

    def databaseSeries(self) -> list[SeriesRow]:
        return self.series_rows

    def startFolder(self, paths: list[str], out: str, series_ids: list[str] = ()) -> None:
        self._call("startFolder", paths, out, series_ids)
        self.task = "folder"
        self.go_on(0.0, "Segmenting the volumes")

    def report(self) -> str:
        return self.report_path

    def startPhantoms(self, folder: str, count: int = 4) -> None:
        self._call("startPhantoms", folder, count)
        self.task = "phantoms"
        self.go_on(0.0, "Making patients")

    def cancel(self) -> None:
        self._call("cancel")

    def running(self) -> str | None:
        return self.task

    def progress(self) -> Progress | None:
        return self.last_progress

    def epochs(self) -> list[Epoch]:
        return self.points

    def lastEnd(self) -> End | None:
        return self.last_end

    def results(self) -> list[Result]:
        return self.result_rows

    def measured(self, result: Result) -> Result:
        return result

    def showResult(self, result: Result, what: str) -> None:
        self._call("showResult", what)

    def goTo(self, result: Result, structure: str = "", flagged: bool = False) -> None:
        self._call("goTo", result.id, structure, *(["flagged"] if flagged else []))

    def showVolume(self, volume: Any) -> None:
        self._call("showVolume", volume)

    def acceptResult(self, result: Result, what: str = "refined") -> str:
        self._call("acceptResult", result.id, what)
        return "s9"

    def deleteResult(self, result: Result) -> None:
        self._call("deleteResult", result.id)
        self.result_rows = [row for row in self.result_rows if row.id != result.id]
        self.changed("results")

    def showUncertainty(self, result: Result, visible: bool) -> None:
        self._call("showUncertainty", visible)

    def show3D(self, result: Result, visible: bool) -> None:
        self._call("show3D", visible)

    def log(self) -> str:
        return "\n".join(self.lines)
