"""A folder of results scored against a folder of references, matched by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.annotation import Structure
from ..core.errors import FewShotSegError, InputError
from ..core.result_formats import volume_name
from ..core.tables import text_table, write_csv
from ..io.dicom_masks import is_dicom_file
from ..io.file_names import children, is_folder
from ..io.pairs import separated
from ..io.queries import stem_of
from ..io.results import DICOM
from ..io.volumes import extension_of
from ..pipeline.newest import newest_results
from ..pipeline.report import NAME as REPORT
from ..pipeline.report import read_reports
from ..pipeline.rows import is_support
from .metrics import TOLERANCE_MM, Scores, evaluate_files

COLUMNS = (
    *("volume", "structure", "dice", "hd95_mm", "surface_dice", "volume_ml", "reference_ml"),
    *("verdict", "expected_dice", "note"),
)
_ENDING = re.compile(
    r"[_.-](?:seg|segmentation|labels?|mask)$|[_-](?:ct|mri?|image|img)$|_\d{4}$", re.IGNORECASE
)
SUPPORT = "the adapter was trained on this volume; left out of the means"
MOST_DEPTH = 4
"""Folders within a folder of references that are looked into."""


@dataclass(frozen=True)
class Compared:
    """One result.

    Attributes:
        volume: what it is called by. scores: by structure; empty where it could not be compared.
        trust: the verdicts of its report, by structure. note: why there are no scores.
        is_support: whether the adapter was trained on this volume: it counts in no mean.
    """

    volume: str
    scores: Mapping[str, Scores] = field(default_factory=dict)
    trust: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    note: str = ""
    is_support: bool = False

    def note_of(self, structure: str) -> str:
        """What is to be said of the scores of a structure; empty where nothing is."""
        own = self.scores[structure].note
        return "; ".join(filter(None, [SUPPORT if self.is_support else "", own]))


def holds_results(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder that ``segment`` wrote results into."""
    return is_folder(path) and (Path(path) / REPORT).is_file()


def evaluate_folder(
    reference: str | os.PathLike[str],
    results: str | os.PathLike[str],
    structures: Sequence[Structure] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
) -> Iterator[Compared]:
    """Compare the newest result of each volume that a folder's ``report.json`` knows with its
    reference.

    A reference has the result's name, whatever stands at the ends of both (``pt_1_seg.nii.gz`` is
    that of ``pt_1_ct_seg.nii.gz``), or is the one segmentation in a folder of that name. One that
    can't be compared costs no other.

    Args:
        structures: which to score; None for those of each result's report.

    Raises:
        InputError: there is no such folder, or nothing in it.
    """
    known = find_references(reference)
    if not known:
        raise InputError(f"There are no segmentations in {reference}; check the folder.")
    reports = read_reports(Path(results) / REPORT)
    if not reports:
        raise InputError(f"{Path(results) / REPORT} has no results.")
    for name, report in sorted(newest_results(Path(results), reports).items()):
        entries = report.get("structures", {})
        volume = _key(stem_of(volume_name(name)).removesuffix(DICOM))
        trust = {k: entry.get("trust") or {} for k, entry in entries.items()}
        wanted = structures or [Structure(k, entry["label"]) for k, entry in entries.items()]
        if volume not in known:
            yield Compared(volume, trust=trust, note=f"there is no reference in {reference}")
            continue
        try:
            scores = evaluate_files(known[volume], Path(results) / name, wanted, tolerance_mm)
        except FewShotSegError as error:
            yield Compared(volume, trust=trust, note=str(error))
        else:
            yield Compared(volume, scores, trust, is_support=is_support(report))


def find_references(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """The segmentations in a folder and in those within it, by volume.

    In a folder of images and segmentations (``pt_1_ct``, ``pt_1_seg``) the latter alone count; in
    one of segmentations all. DICOM files are segmentations where their headers say so.

    Raises:
        InputError: there is no such folder, or two segmentations of one volume.
    """
    if not is_folder(folder):
        raise InputError(f"There is no folder {folder}; check the path.")
    found: dict[str, Path] = {}
    for key, path in _references(Path(folder), Path(folder), 0):
        if key in found:
            raise InputError(f"{found[key]} and {path} may both be the reference of '{key}'.")
        found[key] = path
    return found


def _references(root: Path, folder: Path, depth: int) -> Iterator[tuple[str, Path]]:
    entries = [child for child in sorted(children(folder)) if not child.name.startswith(".")]
    files = [child for child in entries if not child.is_dir() and extension_of(child)]
    images, segmentations = separated(files)
    segmentations += _dicom_segmentations(entries)
    chosen = segmentations or images
    for path in chosen:
        own = _key(path.stem if is_dicom_file(path) else stem_of(path))
        # In a patient's folder there is one, whatever it is called.
        if folder != root and len(chosen) == 1 and segmentations:
            own = folder.relative_to(root).parts[0].casefold()
        yield own, path
    if depth < MOST_DEPTH:
        for child in entries:
            if child.is_dir():
                yield from _references(root, child, depth + 1)


def _dicom_segmentations(entries: Sequence[Path]) -> list[Path]:
    """Those among files, whatever they are called: their headers say what they are."""
    files = [path for path in entries if is_dicom_file(path)]
    if not files:
        return []
    from ..io.dicom.files import holds_segmentation  # loads pydicom

    return [path for path in files if holds_segmentation(path)]


def _key(stem: str) -> str:
    """A name without what tells an image from a segmentation, in lower case."""
    while (shorter := _ENDING.sub("", stem)) and shorter != stem:
        stem = shorter
    return stem.casefold()


def write_table(path: str | os.PathLike[str], compared: Sequence[Compared]) -> None:
    """The scores as CSV: a row a volume and structure. What is not defined is empty.

    Raises:
        StorageError: it can't be written.
    """
    rows: list[dict[str, Any]] = []
    for one in compared:
        if one.note:
            rows.append({"volume": one.volume, "note": one.note})
        for name, scores in one.scores.items():
            data, trust = scores.to_json(), one.trust.get(name, {})
            row = {key: data[key] for key in COLUMNS if key in data}
            row |= {"verdict": trust.get("verdict"), "expected_dice": trust.get("dice")}
            rows.append({"volume": one.volume, "structure": name, "note": one.note_of(name), **row})
    write_csv(path, COLUMNS, rows)


def folder_text(compared: Sequence[Compared]) -> str:
    """The scores as a table for a terminal, with the mean of each structure below."""
    rows, means = [], []
    for one in compared:
        rows += [[one.volume, "-", "-", "-", "-", one.note]] if one.note else []
        rows += [
            [one.volume, name, *_numbers([scores]), one.note_of(name)]
            for name, scores in one.scores.items()
        ]
    names = dict.fromkeys(name for one in compared for name in one.scores)
    for name in names:
        counted = [one for one in compared if name in one.scores and not one.is_support]
        scored = [one.scores[name] for one in counted]
        scored = [scores for scores in scored if scores.scored]
        if scored:
            means.append([f"mean of {len(scored)}", name, *_numbers(scored), ""])
    header = ["volume", "structure", "Dice", "HD95 mm", "surface Dice", "note"]
    return text_table(header, rows + means, "  >>>", footers=len(means))


def _numbers(scores: Sequence[Scores]) -> list[str]:
    """Mean Dice, HD95 and surface Dice."""
    parts = (("dice", ".3f"), ("hd95_mm", ".1f"), ("surface_dice", ".3f"))
    found = []
    for name, digits in parts:
        value = float(np.mean([getattr(one, name) for one in scores]))
        found.append("-" if np.isnan(value) else format(value, digits))
    return found
