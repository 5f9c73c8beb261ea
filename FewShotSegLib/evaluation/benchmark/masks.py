"""The masks of a few queries, kept so that methods can be looked at side by side."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ...core.atomic import replacing
from .cells import Cell

FOLDER = "masks"
QUERIES = 3
"""Of a task's first draw, so many queries are kept: the first ones."""


def is_kept(cell: Cell, query: str) -> bool:
    """Whether the masks of a query are kept: for a few only, whatever the scores are."""
    return cell.draw is cell.task.draws[0] and query in cell.draw.queries[:QUERIES]


def mask_path(out: Path, cell: Cell, query: str, field: str) -> Path:
    """Where a query's masks are. The query is counted, not named."""
    ending = field.removeprefix("dice")
    return out / FOLDER / f"{cell.setting}-{cell.draw.queries.index(query)}{ending}.npz"


def write_masks(path: Path, masks: Mapping[str, np.ndarray]) -> None:
    """Write masks, by structure, (i, j, k) bool on one grid.

    Raises:
        StorageError: they can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {str(n): np.packbits(mask) for n, mask in enumerate(masks.values())}
    with replacing(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, names=np.array(list(masks)), **arrays)


def read_masks(
    path: Path, names: Sequence[str], shape: tuple[int, int, int]
) -> dict[str, np.ndarray] | None:
    """The masks of these structures, on the query's grid; None where they are not there."""
    try:
        with np.load(path, allow_pickle=False) as data:
            known = {str(name): str(n) for n, name in enumerate(data["names"])}
            count = int(np.prod(shape))
            return {
                name: np.unpackbits(data[known[name]], count=count).reshape(shape).astype(bool)
                for name in names
            }
    except (OSError, KeyError, ValueError, EOFError, BadZipFile, zlib.error):
        return None
