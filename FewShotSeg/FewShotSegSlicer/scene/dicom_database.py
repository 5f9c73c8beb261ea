"""The series of images in Slicer's DICOM database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from ..interface.rows import SeriesRow

MODALITY = "0008,0060"
IMAGES = ("CT", "MR")


def series_rows() -> list[SeriesRow]:
    """CT and MR, by patient; none where there is no database, or it is not open."""
    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not database.isOpen:
        return []
    rows = []
    for patient in database.patients():
        for study in database.studiesForPatient(patient):
            for series in database.seriesForStudy(study):
                row = _row(database, patient, study, series)
                if row is not None:
                    rows.append(row)
    return sorted(rows, key=lambda row: row.name.casefold())


def _row(database: Any, patient: str, study: str, series: str) -> SeriesRow | None:
    files = [Path(file) for file in database.filesForSeries(series)]
    if not files or database.fileValue(str(files[0]), MODALITY) not in IMAGES:
        return None
    description = database.descriptionForSeries(series)
    parts = (database.nameForPatient(patient), database.descriptionForStudy(study), description)
    name = ", ".join(part for part in parts if part) or series
    folders = {file.parent for file in files}
    problem = ""
    if len(folders) > 1:
        problem = _(
            "The files of «{series}» lie in several folders. Import the series into the DICOM "
            "database anew, with copying."
        ).format(series=name)
    return SeriesRow(series, name, str(min(folders)), description, problem)
