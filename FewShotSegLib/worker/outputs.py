"""A job's results as files: masks cropped to what they hold, and ``result.json`` last of all."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.atomic import replacing, write_json
from ..core.geometry import three
from ..core.job_protocol import FORMAT, RESULT, RESULTS, SegmentFiles, make_private

if TYPE_CHECKING:
    from ..pipeline.segmentation import Segmentation

UNCERTAINTY = "uncertainty.npy"


def write_segmentation(folder: Path, result: Segmentation, seconds: float) -> Path:
    """Write what :func:`FewShotSegLib.pipeline.segment` found; the path of its ``result.json``.

    Raises:
        StorageError: the disk is full or the folder is gone.
    """
    results = make_private(folder / RESULTS)
    segments = []
    for number, structure in enumerate(result.structures):
        mask, before = result.masks[structure.name], result.unrefined[structure.name]
        same = mask is before or bool(np.array_equal(mask, before))
        file, offset = _write_mask(results, f"segment{number}.npy", mask)
        unrefined, unrefined_offset = None, (0, 0, 0)
        if not same:
            unrefined, unrefined_offset = _write_mask(results, f"unrefined{number}.npy", before)
        segments.append(SegmentFiles(structure, file, offset, unrefined, unrefined_offset, same))
    uncertainty = None
    if result.uncertainty is not None:
        box = _box(result.uncertainty > 0)
        if box is not None:
            _save(results / UNCERTAINTY, result.uncertainty[box])
            uncertainty = {"file": UNCERTAINTY, "offset": [part.start for part in box]}
    return write_result(
        folder,
        "segment",
        segments=[asdict(segment) for segment in segments],
        uncertainty=uncertainty,
        report=result.report,
        seconds=seconds,
    )


def write_result(folder: Path, kind: str, **fields: Any) -> Path:
    """Write ``results/result.json``: where it is, all of the result is."""
    path = make_private(folder / RESULTS) / RESULT
    write_json(path, {"format": FORMAT, "kind": kind, **fields})
    return path


def _write_mask(
    folder: Path, name: str, mask: np.ndarray
) -> tuple[str | None, tuple[int, int, int]]:
    """A mask cropped to its voxels, uint8 in Fortran order; None where it is empty."""
    box = _box(mask)
    if box is None:
        return None, (0, 0, 0)
    _save(folder / name, mask[box].astype(np.uint8))
    return name, three(int(part.start) for part in box)


def _box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    from scipy import ndimage

    found = ndimage.find_objects(mask.view(np.uint8), 1)
    return found[0] if found else None


def _save(path: Path, array: np.ndarray) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        np.save(stream, np.asfortranarray(array), allow_pickle=False)
