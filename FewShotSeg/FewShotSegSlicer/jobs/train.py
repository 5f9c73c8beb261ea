"""The training of an adapter: from the ticked supports to a row in the list of adapters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.job_protocol import ADAPTER, RESULTS, SupportFiles, TrainJob, write_job

from ..interface.rows import Changed, End, Estimate, SupportRow
from ..machine.estimates import Training, estimate, model_voxels, remember
from ..machine.methods import AUTO, features_of, wrong_choice
from ..scene.adapters import provenance
from ..scene.geometry import volume_affine, volume_array
from ..scene.state import SEGMENTATION
from ..scene.structures import NO_PRIOR, change_of, match
from ..scene.supports import has_voxels
from .export_nodes import SupportNodes, supports_steps
from .result_loader import read_result

if TYPE_CHECKING:
    from ..logic import FewShotSegLogic

MANY = 20


class TrainTask:
    """What a training needs of the logic, checked and handed over."""

    def __init__(self, logic: FewShotSegLogic) -> None:
        self._logic = logic
        self._adapter_id = ""
        self._names: list[str] = []
        self._voxels = 0

    def supports(self) -> list[SupportRow]:
        """The rows that would be used."""
        return [row for row in self._logic.supports() if row.ticked]

    def blockers(self) -> list[str]:
        """What is missing, one sentence each."""
        rows = self.supports()
        found = []
        model = self._logic._models.row(self._logic.model())
        if model is None or model.problem:
            found.append(model.problem if model else _("Choose a foundation model."))
        found += self._wrong_choice()
        if not rows:
            found.append(_("Add a support: a volume and its segmentation, and tick it."))
        for row in rows:
            if row.state != "ready":
                found.append(f"{row.volume_name}: {row.problem}")
        if rows and not found and not self._classes():
            found.append(_("Tick a structure that is drawn in a ticked support."))
        if len(rows) > MANY:
            found.append(_("Tick {n} supports at most.").format(n=MANY))
        return found

    def estimate(self) -> Estimate | None:
        """For the ticked supports."""
        rows = [row for row in self.supports() if row.state == "ready"]
        entry = self._logic._models.entry(self._logic.model())
        if not rows or entry is None:
            return None
        logic = self._logic
        shapes = [(volume_array(r.volume).shape, volume_affine(r.volume)) for r in rows]
        return estimate(
            shapes,
            entry,
            logic.getParameterNode().modality,
            len(self._classes()) or 1,
            logic.device(),
            self._training(),
            logic._devices.is_graphics_card(),
        )

    def _training(self) -> Training:
        chosen = self._logic.getParameterNode()
        return Training(chosen.method, chosen.decoder, chosen.preset, chosen.epochs)

    def _wrong_choice(self) -> list[str]:
        chosen = self._logic.getParameterNode()
        entry = self._logic._models.entry(self._logic.model())
        if entry is None:
            return []
        text = wrong_choice(chosen.method, chosen.decoder, chosen.preset, chosen.modality, entry)
        return [text] if text else []

    def prepare(self, folder: Path) -> Iterator[Any]:
        """Write the job; see :class:`FewShotSegLib.core.job_protocol.TrainJob`."""
        logic, parameters = self._logic, self._logic.getParameterNode()
        self._started, self._chosen = (logic.model(), logic.device()), self._training()
        entry = logic._models.entry(logic.model())
        data, members = match(logic._state())
        classes = self._classes()
        ids = {row["id"] for row in classes}
        unique = _unique_names(classes)
        nodes = []
        for row in self.supports():
            segments = {
                segment.id: unique[class_id]
                for class_id, found in members.items()
                for support, segment in found
                if support["id"] == row.id and class_id in ids
            }
            if segments:
                nodes.append(SupportNodes(row.volume, row.segmentation, segments))
                self._names.append(row.volume_name)
                self._voxels += model_voxels(
                    volume_array(row.volume).shape,
                    volume_affine(row.volume),
                    entry,
                    parameters.modality,
                )
        files: list[SupportFiles] = []
        yield from supports_steps(folder, nodes, files)
        settings: dict[str, Any] = {}
        if parameters.epochs:
            settings["epochs"] = parameters.epochs
        if parameters.learningRate > 0:
            settings["learning_rate"] = parameters.learningRate
        job = TrainJob(
            files,
            [
                Structure(
                    unique[row["id"]], number, tuple(row["color"]), row["terminology"] or None
                )
                for number, row in enumerate(classes, 1)
            ],
            logic.model(),
            parameters.method,
            None if parameters.decoder == AUTO else parameters.decoder,
            parameters.preset,
            features_of(parameters),
            parameters.modality,
            parameters.seed,
            settings,
            {
                unique[row["id"]]: change_of(row["prior"])
                for row in classes
                if row["prior"] != NO_PRIOR
            },
            not parameters.overlapAllowed,
            logic.device(),
        )
        write_job(folder, job)
        yield

    def load(self, folder: Path) -> Iterator[None]:
        """Put the adapter into the scene."""
        result = read_result(folder)
        content = (folder / RESULTS / ADAPTER).read_bytes()
        yield
        names = ", ".join(s["name"] for s in result["metadata"]["structures"])
        title = _("{structures}, {n} supports").format(
            structures=names[:60], n=len(result["metadata"]["supports"])
        )
        lines = provenance(result["metadata"], self._names)
        self._adapter_id = self._logic._adapters.add(content, title, lines)
        self._logic.getParameterNode().adapterId = self._adapter_id
        self._learn_speed(result["metadata"]["training"])
        yield

    def finish(self) -> End:
        """The words of a good end."""
        self._logic._tell(Changed("adapters"))
        data = self._logic._adapters.header(self._adapter_id)
        training = data["training"]
        early = _(", because the loss had settled") if training["stopped_early"] else ""
        text = _("The adapter is trained: {n} epochs{early}, {s:.0f} seconds.").format(
            n=training["epochs"], early=early, s=training["seconds"]["total"]
        )
        return End("train", "finished", text, self._adapter_id)

    def _learn_speed(self, training: dict[str, Any]) -> None:
        """What this training took, for the next estimate."""
        model, device = self._started
        seconds, epochs = training["seconds"], training["epochs"]
        if epochs and "train" in seconds:
            done = replace(self._chosen, epochs=epochs)
            amount = done.speed_unit(len(self._names))
            remember(model, device, done.speed_key, seconds["train"] / amount)
        # Features that were in the cache took no time.
        if training["backbone_passes"] == len(self._names) and self._voxels:
            per_million = training["backbone_seconds"] / self._voxels * 1e6
            remember(model, device, "features", per_million)

    def _classes(self) -> list[dict[str, Any]]:
        """The ticked classes that are drawn in a ticked support."""
        state = self._logic._state()
        data, members = match(state)
        ticked = {row["id"] for row in data["supports"] if row["ticked"]}
        return [
            row
            for row in data["structures"]
            if row["ticked"]
            and any(
                support["id"] in ticked
                and has_voxels(state.node_of(SEGMENTATION, support["id"]), segment.id)
                for support, segment in members[row["id"]]
            )
        ]


def _unique_names(classes: list[dict[str, Any]]) -> dict[str, str]:
    """Names that the engine can tell apart; it compares them ignoring case."""
    names: dict[str, str] = {}
    used: set[str] = set()
    for row in classes:
        name, number = row["name"], 2
        while name.casefold() in used:
            name, number = f"{row['name']} {number}", number + 1
        used.add(name.casefold())
        names[row["id"]] = name
    return names
