"""Which files of a folder are the DICOM images of its one series.

Every file is looked at on its own, so that one that can't be read takes no other with it (GDCM,
given the folder, drops a slice for each).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from ...core.errors import InputError
from ...core.plain_text import printable
from ..file_names import children
from .headers import DicomError, Source, is_image, is_segmentation, source_of, text

MAX_TEXT = 64
"""Characters of a description in a message; DICOM allows no longer ones."""
DIRECTORY = "1.2.840.10008.1.3.10"
"""The class of a DICOMDIR."""

_FIRST_GROUPS = (b"\x08\x00", b"\x02\x00")
"""With what a DICOM file begins that has no preamble."""
_OURS = ("patient", "study", "frame_of_reference", "modality", "kind")
_OURS_IN_WORDS = (
    *("patients", "studies", "frames of reference (places of the patient)", "modalities"),
    "kinds of DICOM",
)


def series_in(files: Sequence[Path]) -> dict[str, str]:
    """The series of images among files, with their descriptions, by UID; by the headers alone.

    What can't be read is left out: reading the series says what is wrong.
    """
    found: dict[str, str] = {}
    for path in files:
        dataset = _readable_header(path)
        if dataset is not None and _is_part_of_image(dataset):
            found.setdefault(text(dataset, "SeriesInstanceUID"), text(dataset, "SeriesDescription"))
    return found


def holds_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation, by its header; one that can't be read is none."""
    try:
        return is_segmentation(_header(path))
    except MemoryError:
        raise
    except Exception:  # pydicom raises of any kind on damaged files
        return False


def headers_of(folder: Path, wanted: str | None = None) -> list[tuple[str, Dataset]]:
    """Name and elements before the pixels of the images of a folder's one series, or of the one
    with this UID, which was read as an image before.

    Raises:
        InputError: there is none, or another one.
    """
    found = []
    for path in sorted(children(folder)):
        if path.is_dir():
            continue
        dataset = _readable_header(path)
        if dataset is None or not _is_part_of_image(dataset):
            continue
        if wanted in (None, text(dataset, "SeriesInstanceUID")):
            found.append((path.name, dataset))
    if len({text(dataset, "SeriesInstanceUID") for _, dataset in found}) != 1:
        raise InputError(
            f"The folder {folder} has not the DICOM images of one series; give a folder that has."
        )
    return found


def _is_part_of_image(dataset: Dataset) -> bool:
    return "Rows" in dataset and not is_segmentation(dataset)


def _readable_header(path: Path) -> Dataset | None:
    """A file's elements before its pixels; None where they can't be read."""
    try:
        return _header(path)
    except MemoryError:
        raise
    except Exception:  # pydicom raises of any kind on damaged files
        return None


def _header(path: Path) -> Dataset:
    """A file's elements before its pixels.

    Raises:
        InvalidDicomError: it is none. Of any kind: it is damaged.
    """
    config.settings.reading_validation_mode = config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with path.open("rb") as stream:
            force = stream.read(2) in _FIRST_GROUPS
        return dcmread(path, stop_before_pixels=True, force=force)


def one_series(folder: Path, wanted: str | None = None) -> list[Source]:
    """The files of the folder's one series of images, or of the one with this UID.

    Raises:
        InputError: there is none or more than one, a file of it is damaged or can't be read, or
            it is of several patients.
    """
    series: dict[str, list[Source | _Faulty]] = {}
    descriptions: dict[str, str] = {}
    others: list[tuple[Path, Dataset | None]] = []
    for path in sorted(children(folder)):
        if path.is_dir():
            continue
        dataset = _dataset(folder, path)
        if dataset is None or not is_image(dataset):
            others.append((path, dataset))
            continue
        uid = text(dataset, "SeriesInstanceUID")
        descriptions.setdefault(uid, text(dataset, "SeriesDescription"))
        series.setdefault(uid, []).append(_source(path, dataset))
    if wanted is not None:
        series = {wanted: series[wanted]} if wanted in series else {}
    if not series:
        raise InputError(
            f"The folder {folder} has no DICOM images; give an image file, or the folder that"
            " holds the slices themselves."
        )
    if len(series) > 1:
        found = ", ".join(
            f"'{printable(descriptions[uid][:MAX_TEXT], False) or 'no description'}'"
            f" ({len(files)} files)"
            for uid, files in series.items()
        )
        raise InputError(
            f"The folder {folder} has {len(series)} DICOM series: {found}; give a folder with"
            " one series only."
        )
    (files,) = series.values()
    sources = [file for file in files if isinstance(file, Source)]
    for faulty in (file for file in files if isinstance(file, _Faulty)):
        # Where none is sound it is the series that is wrong.
        what = f"slice {faulty.path.name} in {folder}" if sources else f"series in {folder}"
        raise InputError(f"The DICOM {what} {faulty.clause}.")
    _require_all(folder, sources, others)
    _require_one_patient(folder, sources)
    return sources


class _Faulty:
    """A file of a series that can't be used, and why."""

    def __init__(self, path: Path, clause: str) -> None:
        self.path, self.clause = path, clause


def _source(path: Path, dataset: Dataset) -> Source | _Faulty:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return source_of(path, dataset)
    except DicomError as error:
        return _Faulty(path, str(error))
    except MemoryError:
        raise
    except Exception:
        # Elements are only decoded when they are asked for, and damaged ones raise of any kind.
        return _Faulty(path, "is damaged: a part of its header can't be read; export it again")


def read(path: Path) -> Dataset:
    """All of a DICOM file.

    Raises:
        InvalidDicomError: it is none. Of any kind: it is damaged.
    """
    config.settings.reading_validation_mode = config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return dcmread(path)
        except InvalidDicomError:
            with path.open("rb") as stream:
                if stream.read(2) not in _FIRST_GROUPS:
                    raise
            return dcmread(path, force=True)


def _dataset(folder: Path, path: Path) -> Dataset | None:
    """What is in a file; None where that is no DICOM."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except InvalidDicomError:
        return None
    except OSError as error:
        raise InputError(
            f"{path.name} in {folder} can't be opened ({error.strerror or error}); check its"
            " permissions."
        ) from error
    except MemoryError:
        raise
    except Exception:  # pydicom raises of any kind on damaged files
        return Dataset()


def _require_all(
    folder: Path, sources: Sequence[Source], others: Sequence[tuple[Path, Dataset | None]]
) -> None:
    """A slice that is damaged beyond recognition would be left out, and a gap be filled.

    Raises:
        InputError: a file may be a slice and is none that can be read.
    """
    classes = {source.kind for source in sources}
    endings = {_ending(source.path) for source in sources}
    for path, dataset in others:
        if dataset is not None:
            kind = text(dataset, "SOPClassUID")
            if not kind and _is_directory(dataset):
                continue
            # A class may be cut short too, or be missing with all that follows.
            if any(known.startswith(kind) for known in classes):
                raise InputError(
                    f"The DICOM slice {path.name} in {folder} is damaged or cut short; copy or"
                    " export the series again."
                )
        elif _ending(path) in endings and not path.name.startswith("."):
            if not path.is_file():
                what = "is no file (such as a link to one that is gone)"
            elif path.stat().st_size == 0:
                what = "is empty"
            elif _ending(path):
                what = "is no DICOM file"
            else:
                continue  # a read-me beside slices without an ending
            raise InputError(
                f"{path.name} in {folder} {what}, and may be one of the slices; copy or export"
                " the series again, or take it away."
            )


def _is_directory(dataset: Dataset) -> bool:
    """Whether it is a DICOMDIR, which says what is on a disk."""
    meta = getattr(dataset, "file_meta", None)
    return meta is not None and text(meta, "MediaStorageSOPClassUID") == DIRECTORY


def _ending(path: Path) -> str:
    """The end of a name that says what is in a file; a number, such as of a UID, doesn't."""
    return "" if re.fullmatch(r"\.\d+", path.suffix) else path.suffix.lower()


def _require_one_patient(folder: Path, sources: Sequence[Source]) -> None:
    for name, words in zip(_OURS, _OURS_IN_WORDS, strict=True):
        if len({getattr(source, name) for source in sources} - {""}) > 1:
            raise InputError(
                f"The DICOM series in {folder} has slices of different {words} under one series"
                " number; give a folder with the slices of one image only."
            )
