"""Reading images: NIfTI, NRRD, MetaImage and folders of DICOM slices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.geometry import Grid, Volume, size_text
from ..core.limits import StrPath
from ..core.modality import MODALITIES
from .dicom_folder import read_folder
from .file_names import is_folder, require_usable_name
from .image_files import EXTENSIONS, array_of, extension_of, grid_of, read_file, skewed
from .image_headers import misplaced, not_numbers, require_usable_grid
from .segment_fields import is_segmentation

MAX_SKEW = 1e-3
"""Cosine between two axes of a grid, above which they aren't at right angles any more. DICOM
direction cosines of four decimals come to about a tenth of it."""

__all__ = [
    "EXTENSIONS",
    "array_of",
    "extension_of",
    "grid_of",
    "read_file",
    "read_image",
    "usable_volume",
]


def read_image(path: StrPath, series: str | None = None) -> Volume:
    """Read a scalar 3-D image from a file or from a folder with one DICOM series.

    Args:
        series: the UID of the one that is meant, where a folder has several.

    Returns:
        The volume; array (i, j, k) in the file's dtype (float64 becomes float32), the grid with
        the numbers that ITK states, the modality where DICOM says CT or MR, and notes on what was
        resampled.

    Raises:
        InputError: there is no such file, or it isn't a sound, scalar 3-D image of finite values.
    """
    path = Path(path)
    require_usable_name(path)
    modality: str | None = None
    notes: tuple[str, ...] = ()
    if is_folder(path):
        found = read_folder(path, series)
        image, modality = found.image, found.modality
        notes = (found.note,) if found.note else ()
    else:
        image = read_file(path)
    if is_segmentation(image.GetMetaDataKeys()):
        raise InputError(f"{path} is a segmentation, not an image; give the image it belongs to.")
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(
            f"{path} has {image.GetNumberOfComponentsPerPixel()} values a voxel (a colour, vector"
            " or multi-channel image); give an image with one value a voxel."
        )
    grid = grid_of(image)
    return replace(usable_volume(array_of(image), grid, modality, path), notes=notes)


def usable_volume(array: np.ndarray, grid: Grid, modality: str | None, name: str | Path) -> Volume:
    """A volume that the engine can work on; float64 and wider become float32.

    The one place that images come through, from files, from jobs and from Python alike.

    Args:
        array: (i, j, k), any real dtype. name: what messages call it.

    Raises:
        InputError: a single slice, a sheared grid, values that are not real or not numbers, or a
            modality that there is not.
    """
    if min(grid.shape) < 2:
        raise InputError(
            f"{name} is a single slice ({size_text(grid.shape)} voxels); give a volume with two or"
            " more slices along every axis."
        )
    require_usable_grid(name, grid)
    _require_right_angles(name, grid)
    if modality is not None and modality not in MODALITIES:
        raise InputError(
            f"{name} is said to be {ascii(modality)[:60]}; say CT, MR or nothing (None)."
        )
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"{name} has values that are no real numbers ({array.dtype}); give one number a voxel."
        )
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        # The networks work in float32 at most; half the memory for large volumes. A value too
        # large for float32 becomes infinite and is refused below.
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise not_numbers(name, array.size - int(np.count_nonzero(np.isfinite(array))))
    return Volume(array, grid, modality)


def _require_right_angles(path: str | Path, grid: Grid) -> None:
    direction = np.reshape(grid.direction, (3, 3))
    product = direction.T @ direction
    if np.abs(np.diag(product) - 1).max() > MAX_SKEW:
        raise misplaced(path, "its directions are not of length 1")
    if np.abs(product - np.eye(3)).max() > MAX_SKEW:
        raise skewed(path)
