"""Many volumes that are files, or series of the DICOM database, segmented into a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import ADAPTER, FolderJob, QueryPath, write_job

from ..interface.rows import End, SeriesRow
from ..scene import dicom_database
from ..scene.session import Session
from . import segment
from .result_loader import read_result
from .task import Run, WholeRun


class SegmentFolder:
    """Part of the logic: results are files, and the scene stays as it is."""

    session: Session
    _require: Callable[[list[str]], None]
    _start: Callable[[Run], None]
    _report: str

    def databaseSeries(self) -> list[SeriesRow]:
        return dicom_database.series_rows()

    def startFolder(self, paths: Sequence[str], out: str, series_ids: Sequence[str] = ()) -> None:
        self._require(segment.adapter_blockers(self.session))
        queries = [QueryPath(str(Path(path).expanduser().absolute())) for path in paths]
        rows = {row.id: row for row in self.databaseSeries()} if series_ids else {}
        for series_id in series_ids:
            row = rows.get(series_id)
            if row is None:
                raise InputError(_("A series is not in the DICOM database any more."))
            if row.problem:
                raise InputError(row.problem)
            queries.append(QueryPath(row.folder, row.id, row.description))
        if not queries:
            raise InputError(_("Choose a folder with volumes, or tick the series to segment."))
        target = Path(out).expanduser().absolute()
        if any(Path(query.path) == target for query in queries):
            raise InputError(
                _("Choose another folder for the results than the one that the volumes are in.")
            )
        self._report = ""
        self._start(FolderRun(self.session, queries, str(target), self._keep_report))

    def report(self) -> str:
        return self._report

    def _keep_report(self, path: str) -> None:
        self._report = path


class FolderRun(WholeRun):
    """Hand the adapter over; what comes of it is in the folder of the results.

    Args:
        keep: takes the path of the page.
    """

    kind = "folder"

    def __init__(
        self, session: Session, queries: list[QueryPath], out: str, keep: Callable[[str], None]
    ) -> None:
        self._session, self._queries, self._out, self._keep = session, queries, out, keep
        self._adapter = session.parameters.adapterId
        self._result: dict[str, Any] = {}

    def prepare(self, folder: Path) -> Iterator[Any]:
        """Write :class:`FewShotSegLib.core.job_protocol.FolderJob`."""
        session, parameters = self._session, self._session.parameters
        (folder / ADAPTER).write_bytes(session.adapters.content(self._adapter))
        yield
        job = FolderJob(
            self._queries,
            self._out,
            transductive=parameters.transductive,
            largest_component=parameters.largestComponent,
            priors=segment.changed_priors(session, session.adapters.header(self._adapter)),
            seed=parameters.seed,
            device=session.devices.chosen(),
        )
        write_job(folder, job)
        yield

    def load(self, folder: Path) -> Iterator[None]:
        """Take what is to be said; the results are where they belong."""
        self._result = read_result(folder)
        self._keep(self._result["page"])
        yield

    def finish(self, times: Mapping[str, float]) -> End:
        """How many, and which were left out."""
        done, failed = self._result["done"], self._result["failed"]
        text = _("{n} volume(s) segmented into {folder}, with volumes.html and volumes.csv.")
        parts = [text.format(n=done, folder=self._out)]
        if failed:
            names = ", ".join(name for name, _why in failed)
            left = _("{n} left out: {names}. The page says why.")
            parts.append(left.format(n=len(failed), names=names))
        return End("folder", "failed" if failed and not done else "finished", " ".join(parts))
