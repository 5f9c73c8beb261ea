"""A folder of DICOM slices as one volume; reading may crash on them: see :mod:`image_process`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from .file_names import children, require_usable_name
from .image_process import read_apart


@dataclass(frozen=True)
class Series:
    """What a folder of DICOM holds.

    Attributes:
        image: scalar and 3-D, on a regular grid.
        modality: ``"CT"``, ``"MR"`` or None.
        note: what a person should know of how it was read; empty where nothing was changed.
    """

    image: sitk.Image
    modality: str | None
    note: str = ""


def read_folder(folder: Path, uid: str | None = None) -> Series:
    """The one image series of a folder, or the one with this UID.

    Tilted or unevenly spaced slices are resampled to a regular grid, which the note says.

    Raises:
        InputError: there is no series or more than one, or its slices don't make a volume.
    """
    require_usable_name(folder)
    for file in children(folder):
        require_usable_name(file)
    image, said = read_apart("dicom" if uid is None else f"dicom {uid}", folder)
    return Series(image, **said)
