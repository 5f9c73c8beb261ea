"""The volumes in folders: images, patients' folders, and trees of DICOM with several series."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.limits import require_path
from ..core.plain_text import printable
from .file_names import children, is_folder, require_usable_name
from .pairs import natural, separated
from .volumes import extension_of

MOST_DEPTH = 8
"""Folders within folders that are looked into."""
MOST_NAME = 40
"""Characters of a series' description in a name."""


@dataclass(frozen=True)
class DicomSeries(os.PathLike[str]):
    """One of several DICOM series in a folder; as a path it is that folder.

    Attributes:
        folder: that holds its files. uid: SeriesInstanceUID. description: empty where it has none.
    """

    folder: Path
    uid: str
    description: str = ""

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    def __str__(self) -> str:
        return f"{self.folder} (series {self.description or self.uid})"


Query = str | os.PathLike[str]


@dataclass(frozen=True)
class Found:
    """A volume to be segmented.

    Attributes:
        name: what its result is called by: a file's without its extension, or its folder's.
        query: what can be read: a file, a folder with one DICOM series, or a series of several.
    """

    name: str
    query: Query


def find_queries(paths: Sequence[Query]) -> list[Found]:
    """Every volume that these paths are, or hold, in natural order within each.

    A file is itself. A folder is looked into: DICOM slices in it are a volume a series; images in
    it are a volume each, but for segmentations (``..._seg`` and the like) and hidden files. Its
    folders are looked into as well, but for those with results of ours, and name what is in them
    (``patient_1``, or ``patient_1_t1`` where it has several). Where nothing is found the folder
    stands for itself: reading it says what is wrong.

    Raises:
        InputError: a name can't be used, or one of these is no path.
    """
    found: list[Found] = []
    for path in paths:
        require_path(path)
        if isinstance(path, DicomSeries) or not is_folder(path):
            found.append(Found(stem_of(path), path))
            continue
        inside = list(_inside(Path(path), ()))
        if not inside or [query for _, query in inside] == [Path(path)]:
            found.append(Found(stem_of(path), path))
        else:
            found += _named(inside, Path(path).name)
    return found


def stem_of(path: Query) -> str:
    """The name of a file without its extension, or of a folder."""
    name = Path(path).name
    return name[: -len(extension_of(name) or "") or None]


def _inside(folder: Path, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Query]]:
    """The volumes in a folder, each with the names of the folders that it is in and its own."""
    require_usable_name(folder)
    entries = [child for child in children(folder) if not child.name.startswith(".")]
    entries.sort(key=lambda child: natural(child.name))
    files = [child for child in entries if not child.is_dir()]
    images, _ = separated(file for file in files if extension_of(file))
    for image in images:
        require_usable_name(image)
        yield (*above, stem_of(image)), image
    series = _series(folder, [file for file in files if not extension_of(file)])
    if len(series) == 1:
        yield above, folder
    for one in series if len(series) > 1 else ():
        yield (*above, _series_name(one)), one
    if len(above) < MOST_DEPTH:
        for child in entries:
            if child.is_dir() and not child.is_symlink() and not _holds_results(child):
                yield from _inside(child, (*above, child.name))


def _holds_results(folder: Path) -> bool:
    """Whether results of ours are in it: probabilities, for one, are no volumes to be segmented."""
    try:
        with (folder / "report.json").open("rb") as stream:
            return b'"fewshotseg-report-' in stream.read(200)
    except OSError:
        return False


def _series(folder: Path, files: Sequence[Path]) -> list[DicomSeries]:
    """The DICOM series of images among the files of a folder, by their headers."""
    from .dicom.files import series_in

    return [DicomSeries(folder, uid, text) for uid, text in series_in(files).items()]


def _series_name(series: DicomSeries) -> str:
    """A series in a file's name: its description, and the end of its UID, which tells it apart."""
    text = re.sub(r"[^\w.-]+", "_", printable(series.description, False)).strip("_.")
    return f"{text[:MOST_NAME] or 'series'}_{series.uid.rpartition('.')[2][-6:]}"


def _named(inside: Sequence[tuple[tuple[str, ...], Query]], folder: str) -> list[Found]:
    """Volumes by the shortest names that tell them apart: of a patient's folder alone where that
    has a single one, else with what comes below it."""
    counts: dict[str, int] = {}
    for parts, _ in inside:
        counts[parts[0] if parts else folder] = counts.get(parts[0] if parts else folder, 0) + 1
    found = []
    for parts, query in inside:
        first = parts[0] if parts else folder
        name = first if counts[first] == 1 else "_".join(parts) or folder
        found.append(Found(name, query))
    return found
