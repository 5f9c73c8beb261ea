"""What an image file's header says, checked before ITK sees the file: ITK trusts it blindly.

ITK reads zeros for NaN, turns an infinite matrix for ever, crashes on dimensions that it has no
space for, and takes any 348 bytes for an ANALYZE header. A file a format.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...core.errors import InputError
from . import metaimage, nifti, nrrd
from .base import Header, misplaced, require_usable_grid, unreadable
from .nifti import not_numbers

READERS: dict[str, Callable[[Path], Header]] = {
    ".nii.gz": nifti.read_header,
    ".nii": nifti.read_header,
    ".nrrd": nrrd.read_header,
    ".nhdr": nrrd.read_header,
    ".mha": metaimage.read_header,
    ".mhd": metaimage.read_header,
}
"""By the end of a file's name."""

__all__ = [
    "READERS",
    "Header",
    "misplaced",
    "not_numbers",
    "read_header",
    "require_usable_grid",
    "unreadable",
]


def read_header(path: Path, extension: str) -> Header:
    """What the header says, with every number checked.

    Args:
        path: a regular file. extension: one of ``READERS``.

    Raises:
        InputError: it is not of the format that its name says, contradicts itself or the file's
            size, or is one that ITK can't be given.
    """
    try:
        return READERS[extension](path)
    except OSError as error:
        raise InputError(
            f"{path} can't be read ({error.strerror or error}); check that the file can be opened."
        ) from error
