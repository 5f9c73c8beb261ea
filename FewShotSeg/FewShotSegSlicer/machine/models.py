"""Foundation models and devices: what there is on this machine, and which was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import qt
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import ModelError
from FewShotSegLib.core.file_cache import FileCache
from FewShotSegLib.core.model_entry import read_checked
from FewShotSegLib.core.model_folders import (
    DEFAULT_MODEL,
    DEFAULT_MODELS,
    EMBEDDED_FOLDER,
    add_model,
    remove_model,
    usable_entries,
)

from ..interface.rows import DeviceRow, ModelRow

MODEL, DEVICE = "FewShotSeg/Model", "FewShotSeg/Device"


class ModelShelf:
    """The registry as rows; choices are the machine's, in QSettings.

    The panel asks many times a refresh: a file is read again only once it has changed.
    """

    def __init__(self) -> None:
        self._read = FileCache(read_checked)
        self._chosen_here = ""

    def rows(self) -> list[ModelRow]:
        """Every entry, the default first; those that can't be used come last and say why.

        The id of the latter is their file's name, which no model's is.
        """
        entries, unusable = usable_entries(self._read)
        rows = [self._row(entry, path.parent == EMBEDDED_FOLDER) for path, entry in entries]
        return [
            *sorted(rows, key=lambda row: row.id != DEFAULT_MODEL),
            *(
                ModelRow(fault.path.name, fault.path.name, installed=False, problem=fault.reason)
                for fault in unusable
            ),
        ]

    def row(self, model_id: str) -> ModelRow | None:
        """One row."""
        return next((row for row in self.rows() if row.id == model_id), None)

    def entry(self, model_id: str) -> Mapping[str, Any] | None:
        """What the registry says of a model."""
        entries = (entry for _, entry in usable_entries(self._read)[0])
        return next((entry for entry in entries if entry["id"] == model_id), None)

    def chosen(self, modality: str) -> str:
        """The model that the next training uses; the modality's own where nobody chose one.

        So it is where what was chosen is no more, or can't be used any more; and where it was
        chosen for another scene, whose images were of another modality.
        """
        name = str(qt.QSettings().value(MODEL, "") or "")
        entry = self.entry(name) if name else None
        if entry is None:
            return DEFAULT_MODELS[modality]
        fits = modality in entry["preprocessing"] or name == self._chosen_here
        return name if fits else DEFAULT_MODELS[modality]

    def title(self, model_id: str) -> str:
        """A model's name for a person."""
        row = self.row(model_id)
        return row.title if row is not None else model_id

    def new_scene(self) -> None:
        """What was chosen was chosen for another scene."""
        self._chosen_here = ""

    def choose(self, model_id: str, modality: str) -> None:
        """Use another model from now on; back at the modality's own is as if nobody had chosen.

        Raises:
            ModelError: it can't be used; the message is the reason that its row has.
        """
        row = self.row(model_id)
        if row is not None and self.entry(model_id) is None:
            raise ModelError(row.problem)
        qt.QSettings().setValue(MODEL, "" if model_id == DEFAULT_MODELS[modality] else model_id)
        self._chosen_here = model_id

    add = staticmethod(add_model)
    remove = staticmethod(remove_model)

    @staticmethod
    def _row(entry: Mapping[str, Any], embedded: bool) -> ModelRow:
        installed = entry["weights"].is_file()
        downloadable = bool(entry.get("weights_url"))
        problem = ""
        if not installed:
            text = _(
                "The weights are not on this machine. Get {file} from {source}, and press Import "
                "under Advanced, in Foundation model."
            )
            if downloadable:
                text = _(
                    "The weights are not on this machine. Under Advanced, in Foundation model, "
                    "press Download, or Import if you have the file {file}."
                )
            problem = text.format(file=entry["weights"].name, source=entry.get("source_url", ""))
        return ModelRow(
            entry["id"],
            entry.get("title", entry["id"]),
            entry.get("description", ""),
            tuple(entry.get("modality", ())),
            entry.get("licence", ""),
            entry.get("citation", ""),
            entry.get("source_url", ""),
            entry.get("size"),
            installed,
            embedded and entry["weights"].parent == EMBEDDED_FOLDER,
            downloadable,
            not installed,
            problem,
        )


class DeviceShelf:
    """Devices: automatic and CPU immediately, the GPUs when the background process has answered."""

    def __init__(self) -> None:
        self._found: list[DeviceRow] = []

    def rows(self) -> list[DeviceRow]:
        """All devices that are known so far."""
        plain = [DeviceRow("auto", _("Automatic")), DeviceRow("cpu", _("CPU"))]
        return plain + self._found

    def found(self, devices: list[Mapping[str, Any]]) -> None:
        """What the background process answered."""
        self._found = [DeviceRow(**device) for device in devices]

    def is_graphics_card(self) -> bool:
        """Whether the chosen device is one, as far as is known."""
        device = self.chosen()
        return device.startswith("cuda") or (device == "auto" and bool(self._found))

    def chosen(self) -> str:
        """The device that tasks run on."""
        return str(qt.QSettings().value(DEVICE, "auto") or "auto")

    def choose(self, device_id: str) -> None:
        """Use another device from now on."""
        qt.QSettings().setValue(DEVICE, device_id)
