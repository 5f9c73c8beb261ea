"""The segmentation of a query: from an adapter of the scene to nodes in the query's place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import ADAPTER, ArrayFile, SegmentJob, write_job
from FewShotSegLib.core.size_prior import PriorChange

from ..interface.rows import Changed, End, Estimate
from ..machine.estimates import estimate
from ..scene.geometry import volume_affine, volume_array
from ..scene.results import result_of
from ..scene.structures import NO_PRIOR, change_of
from .export_nodes import volume_steps
from .result_loader import load_steps

if TYPE_CHECKING:
    from ..logic import FewShotSegLogic


class SegmentTask:
    """What a segmentation needs of the logic, checked and handed over."""

    def __init__(self, logic: FewShotSegLogic) -> None:
        self._logic = logic
        parameters = logic.getParameterNode()
        self._query, self._adapter = parameters.queryVolume, parameters.adapterId
        self._row_id: list[str] = []

    def blockers(self) -> list[str]:
        """What is missing, one sentence each."""
        found = []
        try:
            header = self._logic._adapters.header(self._adapter)
            model = self._logic._models.row(header["model"]["id"])
            if model is None:
                found.append(
                    _(
                        "The adapter's foundation model «{model}» is not here. Add its checkpoint."
                    ).format(model=header["model"]["id"])
                )
            elif model.problem:
                found.append(model.problem)
        except InputError:
            found.append(_("Train or load an adapter, and choose it."))
        if self._query is None:
            found.append(_("Choose the volume to segment."))
        else:
            try:
                volume_array(self._query)
                volume_affine(self._query)
            except InputError as error:
                found.append(str(error))
        return found

    def estimate(self) -> Estimate | None:
        """For the chosen query."""
        if self._query is None:
            return None
        header = self._logic._adapters.header(self._adapter)
        entry = self._logic._models.entry(header["model"]["id"])
        if entry is None:
            return None
        shapes = [(volume_array(self._query).shape, volume_affine(self._query))]
        logic, count = self._logic, len(header["structures"])
        return estimate(
            shapes,
            entry,
            header["modality"],
            count,
            logic.device(),
            graphics_card=logic._devices.is_graphics_card(),
        )

    def prepare(self, folder: Path) -> Iterator[Any]:
        """Write the job; see :class:`FewShotSegLib.core.job_protocol.SegmentJob`."""
        logic, parameters = self._logic, self._logic.getParameterNode()
        (folder / ADAPTER).write_bytes(logic._adapters.content(self._adapter))
        yield
        files: list[ArrayFile] = []
        yield from volume_steps(folder, "query.npy", self._query, files)
        header = logic._adapters.header(self._adapter)
        job = SegmentJob(
            files[0],
            transductive=parameters.transductive,
            uncertainty=parameters.uncertainty,
            largest_component=parameters.largestComponent,
            priors=self._priors(header),
            seed=parameters.seed,
            device=logic.device(),
        )
        write_job(folder, job)
        yield

    def load(self, folder: Path) -> Iterator[Any]:
        """Put the result into the scene."""
        yield from load_steps(
            folder, self._query, self._logic._state(), self._adapter, self._row_id
        )

    def finish(self) -> End:
        """The words of a good end."""
        state = self._logic._state()
        row = next(r for r in state.read()["results"] if r["id"] == self._row_id[0])
        result = result_of(state, row)
        self._logic._tell(Changed("results"))
        flagged = [line.name for line in result.rows if not line.within]
        text = _("«{query}» is segmented in {s:.0f} seconds.").format(
            query=result.query.GetName() if result.query is not None else "", s=result.seconds
        )
        if flagged:
            text += " " + _("Outside the expected size: {names}.").format(names=", ".join(flagged))
        return End("segment", "finished", text, self._adapter, result)

    def _priors(self, header: dict[str, Any]) -> dict[str, PriorChange]:
        """Edits made since the training, for the classes that the adapter knows."""
        known = {s["name"] for s in header["structures"]}
        return {
            row["name"]: change_of(row["prior"])
            for row in self._logic._state().read()["structures"]
            if row["name"] in known and row["prior"] != NO_PRIOR
        }
