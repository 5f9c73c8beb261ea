"""The training of an adapter: from the ticked supports to a row in the list of adapters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from FewShotSegLib.core.adapter_header import read_header
from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.expected import expected_cells
from FewShotSegLib.core.job_protocol import ADAPTER, RESULTS, SupportFiles, TrainJob, write_job
from FewShotSegLib.core.method_catalog import METHODS
from FewShotSegLib.core.modality import MODALITIES

from ..interface.rows import Changed, End, Estimate, SupportRow, TaskKind
from ..machine import estimates
from ..machine.estimates import Plan, Training
from ..machine.methods import AUTO, features_of, wrong_choice, wrong_effort
from ..scene.adapters import provenance
from ..scene.geometry import volume_affine, volume_array
from ..scene.session import Session
from ..scene.structures import NO_PRIOR, change_of, drawn_classes, match
from ..scene.supports import modality_of_volume, support_rows
from .export_nodes import SupportNodes, supports_steps
from .result_loader import read_result

MANY = 20
BEFORE = "before.fseft"
"""The file of the adapter that a training begins with, in the folder of the job."""


def blockers(session: Session) -> list[str]:
    """Why no training can start, one sentence each; empty where one can."""
    rows = ticked_supports(session)
    found = []
    model = session.models.row(session.model())
    if model is None or model.problem:
        found.append(model.problem if model else _("Choose a foundation model."))
    found += _wrong_choice(session)
    found += _wrong_images(session, rows)
    if not rows:
        found.append(_("Add an annotated volume, and tick it."))
    for row in rows:
        if row.state != "ready":
            found.append(f"{row.volume_name}: {row.problem}")
    if rows and not found and not drawn_classes(session.state):
        found.append(_("Tick a structure that is drawn in a ticked volume."))
    if len(rows) > MANY:
        found.append(_("Tick {n} volumes at most.").format(n=MANY))
    return found


def estimate(session: Session, warm: bool = False) -> Estimate | None:
    """What a training on the ticked supports will take; None where nothing is ready.

    Args:
        warm: whether a background process waits.

    Raises:
        InputError: a support can't be used.
    """
    plan = _plan(session, warm)
    return estimates.estimate(plan) if plan is not None else None


def _plan(session: Session, warm: bool) -> Plan | None:
    """What the next training is; None where nothing is ready."""
    rows = [row for row in ticked_supports(session) if row.state == "ready"]
    entry = session.entry()
    if not rows or entry is None:
        return None
    return Plan(
        shapes=[(volume_array(row.volume).shape, volume_affine(row.volume)) for row in rows],
        entry=entry,
        modality=session.parameters.modality,
        structures=len(drawn_classes(session.state)) or 1,
        device=session.devices.chosen(),
        training=_training(session),
        graphics_card=session.devices.is_graphics_card(),
        warm=warm,
    )


def ticked_supports(session: Session) -> list[SupportRow]:
    """The rows that the next training would use."""
    return [row for row in support_rows(session.state) if row.ticked]


def _training(session: Session) -> Training:
    chosen = session.parameters
    return Training(
        chosen.method, chosen.decoder, chosen.preset, chosen.epochs, effort=chosen.effort
    )


def _wrong_images(session: Session, rows: list[SupportRow]) -> list[str]:
    """Why the foundation model, or one training, is not for these images."""
    entry, wanted = session.entry(), session.parameters.modality
    kinds = {wanted: ""}
    if wanted not in MODALITIES:
        named = [(modality_of_volume(row.volume), row.volume_name) for row in rows]
        kinds = {kind: name for kind, name in reversed(named) if kind}
    if len(kinds) > 1:
        return [
            _(
                "«{ct}» looks like CT and «{mr}» like MR. Untick those of one kind, or choose "
                "the modality under Advanced, in Method and trainings."
            ).format(ct=kinds["CT"], mr=kinds["MR"])
        ]
    known = entry["preprocessing"] if entry is not None else kinds
    wrong = [kind for kind in kinds if kind not in known]
    if not wrong:
        return []
    title = session.models.title(session.model())
    return [
        _(
            "These images look like {kind}, and the foundation model «{model}» is for {known}. "
            "Under Advanced, choose another model; or the modality, if that is wrong."
        ).format(kind=wrong[0], model=title, known=_(" and ").join(known))
    ]


def _wrong_choice(session: Session) -> list[str]:
    chosen, entry = session.parameters, session.entry()
    if entry is None:
        return []
    text = wrong_choice(chosen.method, chosen.decoder, chosen.preset, chosen.modality, entry)
    text = text or wrong_effort(chosen.effort, chosen.method, chosen.preset)
    return [text] if text else []


def adapter_to_go_on_with(session: Session) -> str:
    """The chosen adapter where the next training can begin with it: one of the same model, method,
    settings and structures. Else empty."""
    chosen = session.parameters
    try:
        session.adapters.node(chosen.adapterId)
        header = session.adapters.header(chosen.adapterId)
    except InputError:  # there is none, or it is damaged
        return ""
    entry, method = session.entry(), METHODS.get(chosen.method)
    if entry is None or method is None or method.runs_on_images(chosen.preset):
        return ""
    names = sorted(_unique_names(drawn_classes(session.state)).values())
    partly = any("known" in support for support in header["supports"])
    same = (
        header["method"] == chosen.method
        and header["training"].get("preset", "own") == chosen.preset
        and header["features"] == features_of(chosen)
        and header["exclusive"] == (not chosen.overlapAllowed)
        and header["model"]["id"] == session.model()
        and entry.get("sha256") in (None, header["model"]["weights_sha256"])
        and (chosen.modality not in MODALITIES or header["modality"] == chosen.modality)
        and sorted(structure["name"] for structure in header["structures"]) == names
        and (chosen.onlyDrawnSlices or not partly)
    )
    typed = bool(chosen.epochs) or chosen.learningRate > 0  # a person's own numbers are for all
    return chosen.adapterId if same and not typed else ""


class TrainRun:
    """A training on what is chosen when it starts.

    Args:
        before: the adapter to begin with; empty for a training that begins anew.
    """

    kind: TaskKind = "train"

    def __init__(self, session: Session, warm: bool = False, before: str = "") -> None:
        self._session, self._before = session, before
        self._adapter_id = ""
        self._names: list[str] = []
        self._chosen = _training(session)
        self._plan = _plan(session, warm)

    def prepare(self, folder: Path) -> Iterator[Any]:
        """Write the job; see :class:`FewShotSegLib.core.job_protocol.TrainJob`."""
        session, parameters = self._session, self._session.parameters
        model, device = session.model(), session.devices.chosen()
        _data, members = match(session.state)
        classes = drawn_classes(session.state)
        ids = {row["id"] for row in classes}
        unique = _unique_names(classes)
        nodes = []
        for row in ticked_supports(session):
            segments = {
                segment.id: unique[class_id]
                for class_id, found in members.items()
                for support, segment in found
                if support["id"] == row.id and class_id in ids
            }
            if segments:
                nodes.append(SupportNodes(row.volume, row.segmentation, segments))
                self._names.append(row.volume_name)
        files: list[SupportFiles] = []
        yield from supports_steps(folder, nodes, files)
        if self._before:
            (folder / BEFORE).write_bytes(session.adapters.content(self._before))
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
            model,
            method=parameters.method,
            decoder=None if parameters.decoder == AUTO else parameters.decoder,
            preset=parameters.preset,
            features=features_of(parameters),
            modality=parameters.modality,
            seed=parameters.seed,
            effort=parameters.effort,
            settings=settings,
            priors={
                unique[row["id"]]: change_of(row["prior"])
                for row in classes
                if row["prior"] != NO_PRIOR
            },
            exclusive=not parameters.overlapAllowed,
            sparse=parameters.drawnPlane if parameters.onlyDrawnSlices else None,
            device=device,
            continue_from=BEFORE if self._before else None,
        )
        write_job(folder, job)
        yield

    def take(self, folder: Path) -> None:
        """Put the adapter into the scene as soon as it is trained.

        Raises:
            InputError: it can't be read. OSError: its file can't.
        """
        content = (folder / RESULTS / ADAPTER).read_bytes()
        self._add(content, read_header(content, ADAPTER))
        self._session.tell(Changed("adapters"))

    def kept(self) -> str:
        """Whether the adapter is in the scene; see :meth:`.task.Run.kept`."""
        if not self._adapter_id:
            return ""
        return _("The adapter is complete; what to expect of it was not measured.")

    def load(self, folder: Path) -> Iterator[None]:
        """Put the adapter into the scene, or what to expect of it into the one that is there."""
        result = read_result(folder)
        content = (folder / RESULTS / ADAPTER).read_bytes()
        yield
        if self._adapter_id:
            self._session.adapters.update(self._adapter_id, content)
        else:
            self._add(content, result["metadata"])
        yield

    def _add(self, content: bytes, metadata: dict[str, Any]) -> None:
        """A new row, which is chosen."""
        names = ", ".join(s["name"] for s in metadata["structures"])
        count = len(metadata["supports"])
        title = _("{structures}, {n} volumes").format(structures=names[:60], n=count)
        if count == 1:
            title = _("{structures}, 1 volume").format(structures=names[:60])
        lines = provenance(metadata, self._names)
        self._adapter_id = self._session.adapters.add(content, title, lines)
        self._session.parameters.adapterId = self._adapter_id

    def shares(self) -> str:
        """See :meth:`.task.Run.shares`."""
        if self._chosen.on_images:
            return "images"
        return "best" if self._chosen.effort == "best" else "train"

    def finish(self, times: Mapping[str, float]) -> End:
        """The words of a good end; it took so long from the press of the button."""
        self._session.tell(Changed("adapters"))
        data = self._session.adapters.header(self._adapter_id)
        training = data["training"]
        self._learn(times, training)
        early = _(", because the loss had settled") if training["stopped_early"] else ""
        text = _("The adapter is trained: {n} epochs{early}, {s:.0f} seconds.")
        if self._before:
            text = _(
                "The adapter is trained, beginning with the one before: {n} epochs{early}, "
                "{s:.0f} seconds."
            )
        text = text.format(n=training["epochs"], early=early, s=sum(times.values()))
        expected = ", ".join(expected_cells(data))
        if expected:
            text += " " + _("Dice to expect on a new volume: {expected}.").format(expected=expected)
        return End("train", "finished", text, self._adapter_id)

    def _learn(self, times: Mapping[str, float], training: Mapping[str, Any]) -> None:
        """What this training took, for the next estimate."""
        plan = self._plan
        if plan is None or plan.training is None or not training["epochs"] or self._before:
            return  # one that goes on says nothing of one that begins
        done = replace(plan.training, epochs=training["epochs"])  # it may stop early
        cached = training["backbone_passes"] < len(self._names)  # and took less time, or none
        estimates.workload(replace(plan, training=done)).learn(times, cached)


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
