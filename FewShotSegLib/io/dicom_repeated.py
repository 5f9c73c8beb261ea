"""What a DICOM segmentation repeats of the images that it was made from, as highdicom takes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, TM

from ..core.geometry import Grid
from .dicom.headers import Frame, text

_EMPTY_IF_MISSING = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName"),
)
"""What every image should have, if empty; anonymising may take it out."""
_SEXES = ("M", "F", "O")


def complete(header: Dataset, grid: Grid) -> None:
    """Give it all that is repeated of an image, as empty as it may be."""
    for name in _EMPTY_IF_MISSING:
        if name not in header or not _is_usable(header[name]):
            setattr(header, name, "")
    if not text(header, "SliceThickness"):
        header.SliceThickness = decimal(grid.spacing[2])
    header.SpacingBetweenSlices = decimal(grid.spacing[2])


def _is_usable(element: Any) -> bool:
    """Whether a date, a time or a sex is one: "unknown" would be refused, and is left out."""
    if element.keyword == "PatientSex":
        return element.value in (None, "", *_SEXES)
    kind = {"DA": DA, "TM": TM}.get(element.VR)
    try:
        if kind is not None:
            kind(element.value)
    except (ValueError, TypeError):
        return False
    return True


def same_orientation(headers: Sequence[Dataset], first: Frame, grid: Grid) -> None:
    """Directions and spacings that differ by a rounding alone, as one: highdicom asks for it, and
    for having them where all frames share them."""
    for header in headers:
        if "PerFrameFunctionalGroupsSequence" not in header:
            header.ImageOrientationPatient = headers[0].ImageOrientationPatient
            header.PixelSpacing = headers[0].PixelSpacing
            continue
        shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
        orientation, measures = Dataset(), Dataset()
        orientation.ImageOrientationPatient = [decimal(x) for x in first.cosines]
        measures.PixelSpacing = [decimal(x) for x in first.spacing[::-1]]
        for item in shared[:1]:
            old = (item.get("PixelMeasuresSequence") or [Dataset()])[0]
            measures.SliceThickness = old.get("SliceThickness") or decimal(grid.spacing[2])
            measures.SpacingBetweenSlices = decimal(grid.spacing[2])
            item.PlaneOrientationSequence = [orientation]
            item.PixelMeasuresSequence = [measures]
        header.SharedFunctionalGroupsSequence = shared


def decimal(number: float) -> str:
    """At most the 16 characters that DICOM has for a number."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(number)
