"""What the formats' headers have in common: what is known of an image before it is read."""

from __future__ import annotations

import stat
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np

from ...core.errors import InputError
from ...core.geometry import LPS_TO_RAS, Grid, grid_problem
from ...core.memory import total_memory

MAX_TEXT = 1 << 24
"""Bytes of the longest header that is text; a segmentation of 500 segments has some 300 kB."""
MAX_DEFLATED = 1032
"""How much smaller deflate makes anything at most."""
MAX_PLAIN = 500
"""Characters of the longest field that ITK is given in this process; its own buffers are fixed."""
CHUNK = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Header:
    """What an image file's header says of it.

    Attributes:
        reader: ITK's name of what reads this format, and nothing else.
        sizes: voxels along every axis, without axes that hold several values a voxel.
        grids: where the header may mean the voxels to lie (a NIfTI file can say it twice); none
            where it is not 3-D.
        understood: every field is one that was checked here. Of others only ITK knows what they do.
        verify: raises InputError where the voxels themselves are damaged and ITK would not see it.
    """

    reader: str
    sizes: tuple[int, ...]
    grids: tuple[Grid, ...] = ()
    understood: bool = True
    verify: Callable[[], None] = lambda: None


def unreadable(path: Path, why: str) -> InputError:
    """``why``: a clause that ends without a full stop."""
    return InputError(f"{path} can't be read: {why}; copy or export it again.")


def cut_short(path: Path, what: str = "it has fewer voxels than its header says") -> InputError:
    """The file ends early."""
    return InputError(f"{path} is cut short: {what}; copy or export it again.")


def grid_from(path: Path, shape: Sequence[int], lps: np.ndarray) -> Grid:
    """The grid of a 4x4 affine into LPS mm.

    Raises:
        InputError: it is singular, not finite, or nowhere that a patient can be.
    """
    if not np.isfinite(lps).all():
        raise misplaced(path, "its position or directions are not numbers (NaN or infinite)")
    try:
        with np.errstate(all="ignore"):
            grid = Grid.from_affine(tuple(shape), LPS_TO_RAS @ lps)
    except ValueError:
        raise misplaced(path, "its axes have no direction of their own (singular)") from None
    require_usable_grid(path, grid)
    return grid


def require_usable_grid(path: str | Path, grid: Grid) -> None:
    """
    Raises:
        InputError: the grid can't be that of an image of a patient.
    """
    problem = grid_problem(grid)
    if problem:
        raise misplaced(path, problem)


def misplaced(path: str | Path, problem: str) -> InputError:
    """Voxels without a usable place."""
    return InputError(
        f"{path} has no usable place in space: {problem}; correct its header, or export it again."
    )


def require_memory(path: Path, sizes: Sequence[int], value_bytes: int) -> int:
    """The bytes of all voxels together.

    Raises:
        InputError: they are more than this computer's memory.
    """
    claimed = prod(sizes) * value_bytes
    if claimed > total_memory():
        size = " x ".join(map(str, sizes))
        raise InputError(
            f"{path} does not fit in this computer's memory: its header says {size} voxels,"
            f" {claimed / 2**30:.4g} GB; if that is wrong, it is damaged, so export it again."
        )
    return claimed


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, count: int, /) -> bytes:
        """Up to so many bytes; none at the end."""
        ...


def require_unpacked(
    path: Path, open_packed: Callable[[], AbstractContextManager[Readable]], claimed: int
) -> None:
    """ITK takes whatever comes out of damaged compressed data for voxels.

    Args:
        open_packed: opens the unpacked voxels. claimed: how many bytes there should be.

    Raises:
        InputError: they end early, or fail their checksum.
    """
    size = 0
    try:
        with open_packed() as stream:
            while chunk := stream.read(CHUNK):
                size += len(chunk)
    except (EOFError, OSError, zlib.error) as error:
        raise damaged_packing(path) from error
    if size < claimed:
        raise cut_short(path)


def damaged_packing(path: Path) -> InputError:
    """Compressed data that can't be unpacked whole."""
    return InputError(
        f"{path} is damaged or cut short (its compressed data end early or fail their"
        " checksum); copy or export it again."
    )


def data_file(path: Path, name: str) -> Path:
    """The file with the voxels that a header names.

    Raises:
        InputError: there is no such file.
    """
    file = path.parent / name
    try:
        regular = stat.S_ISREG(file.stat().st_mode)
    except (OSError, ValueError):
        regular = False
    if not regular:
        raise unreadable(path, f"the file with its voxels, {name!r:.200}, is not there")
    return file


def numbers(path: Path, field: str, text: str, count: int | None = None) -> list[float]:
    """A field's numbers.

    Raises:
        InputError: it has something else, or not as many.
    """
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = None
    if values is None or (count is not None and len(values) != count) or "_" in text:
        wanted = f"{count} numbers" if count is not None else "numbers"
        raise unreadable(path, f"its header has {text!r:.80} for '{field}', not {wanted}")
    return values


def whole_numbers(path: Path, field: str, text: str, count: int, least: int) -> list[int]:
    """A field's whole numbers.

    Raises:
        InputError: it has something else, not as many, or one below ``least``.
    """
    values = numbers(path, field, text, count)
    if not all(value.is_integer() and least <= value < 2**31 for value in values):
        raise unreadable(path, f"its header has {text!r:.80} for '{field}'")
    return [int(value) for value in values]
