"""The section «Foundation model»: which one, its weights, where to compute, what it will take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.plain_text import printable
from FewShotSegLib.core.quantities import bytes_text

from ..interface.protocol import LogicProtocol
from ..interface.rows import DeviceRow, End, ModelAsks, ModelRow, Progress
from ..machine import extension
from ..machine.packages import describe_packages, install_packages
from ..messages import agree, tooltip
from .dialogs import ask_text, choose_folder, open_file
from .progress import TaskView
from .tools import Hint, busy_with, current_id, fill_combo, gate, reporting, section_title

MODEL_LETTERS = 40
"""Of an entry of the list of models, which is as wide as the panel."""
FETCHING = ("download", "import", "add")
"""The tasks that bring weights to this computer."""


OTHERS_JSON = ("plans.json", "dataset.json", "metadata.json", "inference.json")
"""Files of JSON that stand for the folder that they are in; any other is a registry entry."""


class ModelsSection:
    """The foundation model, the device and the packages that training needs."""

    def __init__(self, ui: Any, logic: LogicProtocol) -> None:
        self.ui, self.logic = ui, logic
        self.hint = Hint(ui.modelHintIcon, ui.modelHint)
        self._failure = ""
        self._asks: ModelAsks | None = None
        self.task = TaskView(ui.modelProgress, ui.cancelModelButton, None, logic)
        ui.modelCombo.connect("activated(int)", self.on_model)
        ui.deviceCombo.connect("activated(int)", self.on_device)
        ui.refreshDevicesButton.connect("clicked()", self.on_refresh_devices)
        ui.downloadButton.connect("clicked()", self.on_download)
        ui.importButton.connect("clicked()", self.on_import)
        ui.removeModelButton.connect("clicked()", self.on_remove)
        ui.addCheckpointButton.connect("clicked()", self.on_add_file)
        ui.addModelFolderButton.connect("clicked()", self.on_add_folder)
        ui.installButton.connect("clicked()", self.on_install)

    def current(self) -> ModelRow | None:
        """The chosen model."""
        chosen = self.logic.model()
        return next((row for row in self.logic.models() if row.id == chosen), None)

    def refresh(self) -> None:
        """Show what the logic says."""
        ui, rows, model = self.ui, self.logic.models(), self.current()
        running = busy_with(self.logic)
        models = [(row.id, model_text(row)) for row in rows]
        fill_combo(ui.modelCombo, models, self.logic.model(), MODEL_LETTERS)
        for index, row in enumerate(rows):
            ui.modelCombo.setItemData(index, tooltip(model_tip(row)), qt.Qt.ToolTipRole)
        tip = tooltip(model_tip(model)) if model else ""
        ui.modelCombo.setToolTip(tip)
        ui.modelLicence.setText(printable(model.licence) if model else "–")
        ui.modelLicence.setToolTip(tip)
        title = model.title.split(" (")[0] if model else _("none")
        section_title(ui.modelSection, _("Foundation model"), title)
        devices = [(row.id, device_text(row)) for row in self.logic.devices()]
        fill_combo(ui.deviceCombo, devices, self.logic.device())
        self._refresh_buttons(model, bool(running))
        self._refresh_estimate()
        missing = self.logic.missingPackages()
        ui.packagesFrame.setVisible(bool(missing))
        if missing:
            ui.packagesLabel.setText(_("Not installed: {names}").format(names=", ".join(missing)))
        gate(ui.installButton, _("Wait until the running task has ended.") if running else "", "")
        if self._failure:
            self.hint.show(self._failure, "error")
        else:
            self.hint.show(self._obstacle(rows, model, missing))
        self.task.refresh(running in FETCHING)
        ui.modelTask.setVisible(running in FETCHING)

    def _obstacle(self, rows: list[ModelRow], model: ModelRow | None, missing: list[str]) -> str:
        if not rows or model is None:
            return _("Choose a foundation model.")
        if missing:
            return _(
                "Training needs Python packages that aren't installed. Press Install at the top."
            )
        if model.problem:
            return model.problem
        if not model.installed:
            return _("The weights of this model are not here yet. Press Download or Import.")
        return "\n".join(self.logic.outdatedPackages())

    def _refresh_buttons(self, model: ModelRow | None, running: bool) -> None:
        busy = _("Wait until the running task has ended.") if running else ""
        none = "" if model else _("Choose a foundation model first.")
        size = bytes_text(model.size) if model else ""
        self.ui.downloadButton.setText(
            _("Download ({size})").format(size=size) if size else _("Download")
        )
        download = busy or none
        if not download and model.installed:
            download = _("The weights are here already.")
        elif not download and not model.downloadable:
            download = _("These weights have to be fetched by hand from {source}.").format(
                source=model.source_url or _("their source")
            )
        gate(self.ui.downloadButton, download, _("Fetch the weights, after asking you."))
        take = busy or none
        if not take and model.installed:
            take = _("The weights are here already.")
        elif not take and not model.importable:
            take = model.problem
        tip = _("Take the weights from a file that you have, after asking you; without a network.")
        gate(self.ui.importButton, take, tip)
        remove = busy or none
        if not remove and model.embedded:
            remove = _("This model is part of FewShotSeg.")
        elif not remove and not model.installed:
            remove = _("There are no weights to remove.")
        gate(self.ui.removeModelButton, remove, _("Delete the weights from this computer."))
        tip = _(
            "Add a model of your own from its file: weights as their training left them, or a "
            "registry entry (.json) with the weights beside it."
        )
        gate(self.ui.addCheckpointButton, busy, tip)
        tip = _(
            "Add a model of your own as its training left it: the result folder of nnU-Net, for "
            "example. The folder is only read."
        )
        gate(self.ui.addModelFolderButton, busy, tip)

    def _refresh_estimate(self) -> None:
        parts = []
        enough = True
        for kind in ("train", "segment"):
            estimate = self.logic.estimate(kind)
            if estimate is not None:
                parts.append(estimate.text)
                enough = enough and estimate.enough_memory
        text = "\n".join(parts) or _("Known once there is an annotated volume.")
        if not enough:
            text += "\n" + _("This is more than the free memory; choose another device.")
        self.ui.estimateLabel.setText(text)

    def on_progress(self, progress: Progress) -> None:
        """Weights are on their way."""
        if progress.kind in FETCHING:
            self.task.show(progress)

    def on_end(self, end: End) -> None:
        """A task that brings weights ended: say so unless it's plain to see."""
        if end.kind in FETCHING and end.state not in ("finished", "cancelled"):
            self._failure = end.message
            self.hint.show(self._failure, "error")
            self.ui.advancedSection.collapsed = self.ui.modelSection.collapsed = False
        if end.kind == "add" and self._asks is not None:
            asks, self._asks = self._asks, None
            # The task has to be over: a dialog holds this call up, and its answer begins the next.
            qt.QTimer.singleShot(0, lambda: self.ask(asks))

    def on_asks(self, asks: ModelAsks) -> None:
        """Something is to be said of a model, once its task has ended."""
        self._asks = asks

    def ask(self, asks: ModelAsks) -> None:
        """Ask, one after the other, and try again; an empty answer gives it up."""
        answers = dict(asks.answers)
        title = _("Add a model")
        for question in asks.questions:
            text = "\n".join((*asks.found, "", question.text))
            answer = ask_text(self.ui.modelSection, title, printable(text), question.example)
            if not answer or not answer.strip():
                return
            answers[question.answer] = answer.strip()
        with reporting():
            self.logic.addModel(asks.path, answers)

    def on_model(self, _index: int = 0) -> None:
        """A person chose a model."""
        self._failure = ""
        with reporting():
            self.logic.setModel(current_id(self.ui.modelCombo))
        self.refresh()  # back at what was chosen, where the new one can't be used

    def on_device(self, _index: int = 0) -> None:
        """A person chose a device."""
        with reporting():
            self.logic.setDevice(current_id(self.ui.deviceCombo))

    def on_refresh_devices(self) -> None:
        """Look for devices again."""
        with reporting():
            self.logic.refreshDevices()

    def on_download(self) -> None:
        """Ask for consent to the licence and the size, then fetch the weights."""
        model = self.current()
        text = _(
            "Download {title} ({size}) from {source}?\n\nLicence: {licence}\n\n{citation}"
        ).format(
            title=model.title,
            size=bytes_text(model.size) or _("size unknown"),
            source=model.source_url,
            licence=model.licence,
            citation=model.citation,
        )
        if agree(text, _("Download a foundation model")):
            self._failure = ""
            with reporting():
                self.logic.downloadModel(model.id)

    def on_import(self) -> None:
        """Ask for a file and for consent to the licence, then take the weights from it."""
        model = self.current()
        title = _("Import the weights of {title}").format(title=model.title)
        filters = _("Weights (*.pt *.pth *.safetensors);;All files (*)")
        path = open_file(self.ui.modelSection, title, filters)
        if not path:
            return
        text = _(
            "Copy {file} into FewShotSeg as the weights of {title}?\n\n"
            "Licence: {licence}\n\n{citation}"
        ).format(file=path, title=model.title, licence=model.licence, citation=model.citation)
        if agree(text, _("Import a foundation model")):
            self._failure = ""
            with reporting():
                self.logic.importModel(model.id, path)

    def on_remove(self) -> None:
        """Delete the weights after asking."""
        model = self.current()
        text = _("Delete the weights of {title} from this computer?").format(title=model.title)
        if agree(text, _("Remove weights")):
            with reporting():
                self.logic.removeModel(model.id)

    def on_add_file(self) -> None:
        """Add a model of the user's own, of a registry entry or another program's file."""
        title = _("Add a model: its file, or its registry entry")
        filters = _("Models (*.json *.pt *.pth *.safetensors);;All files (*)")
        path = open_file(self.ui.modelSection, title, filters)
        if not path:
            return
        self._failure = ""
        with reporting():
            if path.lower().endswith(".json") and Path(path).name not in OTHERS_JSON:
                self.logic.setModel(self.logic.addCheckpoint(path))
            else:
                self.logic.addModel(path)

    def on_add_folder(self) -> None:
        """Add a model of the user's own, of a folder that another program left."""
        path = choose_folder(self.ui.modelSection, _("Add a model: the folder of its training"))
        if path:
            self._failure = ""
            with reporting():
                self.logic.addModel(path)

    def on_install(self) -> None:
        """Say what would be installed and how large it is; ask; install."""
        if agree(describe_packages(self.logic.missingPackages()), _("Install Python packages")):
            self._install()

    def go_on_installing(self) -> None:
        """Slicer was restarted for that: a person agreed before."""
        if extension.goes_on() and self.logic.missingPackages():
            self._install()

    def _install(self) -> None:
        with reporting():
            try:
                install_packages(self.logic.missingPackages())
            except extension.RestartNeeded as news:
                question = _("{news} Restart it now? The installation goes on then.")
                if agree(question.format(news=news), _("Restart Slicer")):
                    extension.go_on_after_restart()
                    slicer.util.restart()
        self.refresh()
        self.logic.refreshDevices()


def model_text(row: ModelRow) -> str:
    """One line for the list."""
    if row.installed:
        return row.title
    if row.downloadable:
        return _("{title} (to download)").format(title=row.title)
    if row.importable:
        return _("{title} (to import)").format(title=row.title)
    return _("{title} (can't be used)").format(title=row.title)


def model_tip(row: ModelRow) -> str:
    """What a person should know before choosing it."""
    unusable = not (row.installed or row.downloadable or row.importable)
    parts = [
        row.problem if unusable else "",
        row.description,
        _("For: {modality}").format(modality=", ".join(row.modality)) if row.modality else "",
        _("Licence: {licence}").format(licence=row.licence) if row.licence else "",
        _("Cite: {citation}").format(citation=row.citation) if row.citation else "",
        row.source_url,
    ]
    return "\n".join(part for part in parts if part)


def device_text(row: DeviceRow) -> str:
    """A device with its free memory, where that is known."""
    if row.free_bytes is None:
        return row.title
    return _("{title}, {free} free").format(title=row.title, free=bytes_text(row.free_bytes))
