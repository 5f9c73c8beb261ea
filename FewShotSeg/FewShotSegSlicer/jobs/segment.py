"""The segmentation of a query: from an adapter of the scene to nodes in the query's place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import ADAPTER, ArrayFile, SegmentJob, write_job
from FewShotSegLib.core.model_folders import SUPERSEDED
from FewShotSegLib.core.size_prior import PriorChange

from ..interface.rows import Changed, End, Estimate, TaskKind
from ..machine import estimates
from ..machine.estimates import Plan
from ..scene.geometry import volume_affine, volume_array
from ..scene.results import result_of
from ..scene.session import Session
from ..scene.structures import NO_PRIOR, change_of
from ..scene.supports import modality_of_volume, support_rows
from ..scene.verdict import sentence_of
from .export_nodes import volume_steps
from .result_loader import load_steps, read_result
from .task import WholeRun


def blockers(session: Session) -> list[str]:
    """Why no segmentation can start, one sentence each; empty where one can."""
    found = adapter_blockers(session)
    query = session.parameters.queryVolume
    if query is None:
        return [*found, _("Choose the volume to segment.")]
    try:
        volume_array(query)
        volume_affine(query)
    except InputError as error:
        found.append(str(error))
    return found


def adapter_blockers(session: Session) -> list[str]:
    """Why nothing can be segmented with the chosen adapter, one sentence each."""
    found = []
    parameters = session.parameters
    try:
        header = session.adapters.header(parameters.adapterId)
        name = header["model"]["id"]
        model = session.models.row(name)
        if model is None and name in SUPERSEDED:
            text = _(
                "The adapter's foundation model «{model}» does not ship any more: train the "
                "adapter again."
            )
            found.append(text.format(model=name))
        elif model is None:
            text = _("The adapter's foundation model «{model}» is not here. Add its checkpoint.")
            found.append(text.format(model=name))
        elif model.problem:
            found.append(model.problem)
    except InputError:
        found.append(_("Train or load an adapter, and choose it."))
    return found


def doubt(session: Session) -> str:
    """Why a segmentation that can start may well be poor; empty where nothing is known."""
    query = session.parameters.queryVolume
    if any(row.volume is query for row in support_rows(session.state)):
        return _(
            "This volume is one of those learned from: its result will look better than that of a "
            "new volume, and says little."
        )
    learned, kind = (
        session.adapters.header(session.parameters.adapterId)["modality"],
        modality_of_volume(query),
    )
    if kind and kind != learned:
        return _(
            "This volume looks like {kind}, and what was learned is from {learned}: expect a poor "
            "result."
        ).format(kind=kind, learned=learned)
    return ""


def estimate(session: Session, warm: bool = False) -> Estimate | None:
    """What the segmentation of the chosen query will take; None where nothing is chosen.

    Args:
        warm: whether a background process waits.

    Raises:
        InputError: the query or the adapter can't be used.
    """
    plan = _plan(session, warm)
    return estimates.estimate(plan) if plan is not None else None


def changed_priors(session: Session, header: dict[str, Any]) -> dict[str, PriorChange]:
    """Edits made since the training, for the classes that the adapter knows."""
    known = {s["name"] for s in header["structures"]}
    return {
        row["name"]: change_of(row["prior"])
        for row in session.state.read()["structures"]
        if row["name"] in known and row["prior"] != NO_PRIOR
    }


def _plan(session: Session, warm: bool) -> Plan | None:
    """What the next segmentation is; None where nothing is chosen."""
    parameters = session.parameters
    query = parameters.queryVolume
    if query is None:
        return None
    header = session.adapters.header(parameters.adapterId)
    entry = session.models.entry(header["model"]["id"])
    if entry is None:
        return None
    return Plan(
        shapes=[(volume_array(query).shape, volume_affine(query))],
        entry=entry,
        modality=header["modality"],
        structures=len(header["structures"]),
        device=session.devices.chosen(),
        graphics_card=session.devices.is_graphics_card(),
        warm=warm,
        refined=parameters.transductive,
    )


class SegmentRun(WholeRun):
    """A segmentation of what is chosen when it starts."""

    kind: TaskKind = "segment"

    def __init__(self, session: Session, warm: bool = False) -> None:
        self._session = session
        parameters = session.parameters
        self._query, self._adapter = parameters.queryVolume, parameters.adapterId
        self._row_id: list[str] = []
        plan = _plan(session, warm)
        self._workload = estimates.workload(plan) if plan is not None else None
        self._cached = False

    def prepare(self, folder: Path) -> Iterator[Any]:
        """Write the job; see :class:`FewShotSegLib.core.job_protocol.SegmentJob`."""
        session, parameters = self._session, self._session.parameters
        (folder / ADAPTER).write_bytes(session.adapters.content(self._adapter))
        yield
        files: list[ArrayFile] = []
        yield from volume_steps(folder, "query.npy", self._query, files)
        header = session.adapters.header(self._adapter)
        job = SegmentJob(
            files[0],
            transductive=parameters.transductive,
            uncertainty=parameters.uncertainty,
            largest_component=parameters.largestComponent,
            priors=changed_priors(session, header),
            seed=parameters.seed,
            device=session.devices.chosen(),
        )
        write_job(folder, job)
        yield

    def load(self, folder: Path) -> Iterator[Any]:
        """Put the result into the scene."""
        state = self._session.state
        report = read_result(folder)["report"]
        self._cached = report.get("backbone_passes") == 0
        yield from load_steps(folder, self._query, state, self._adapter, self._row_id)

    def finish(self, times: Mapping[str, float]) -> End:
        """The words of a good end; what it took from the press of the button is kept with it."""
        if self._workload is not None:
            self._workload.learn(times, self._cached)
        state = self._session.state
        data = state.read()
        row = next(r for r in data["results"] if r["id"] == self._row_id[0])
        row["seconds"] = round(sum(times.values()), 1)
        state.write(data)
        result = result_of(state, row)
        self._session.tell(Changed("results"))
        return End("segment", "finished", sentence_of(result), self._adapter, result)
