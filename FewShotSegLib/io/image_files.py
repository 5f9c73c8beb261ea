"""Image files through ITK: checked first, and read apart from this process where ITK may crash.

A file whose header is understood down to its last field is read in this process. ITK reads all
others (NIfTI with extensions, NRRD and MetaImage with fields of which only ITK knows what they do,
voxels spread over several files or written as text, every folder of DICOM) in a process of its own,
which may crash or hang without harm: see :mod:`image_process`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.errors import InputError
from ..core.geometry import Grid
from .file_names import is_folder, require_usable_name
from .image_headers import (
    READERS,
    Header,
    read_header,
    require_usable_grid,
    unreadable,
)
from .image_process import read_apart

EXTENSIONS = tuple(READERS)
MAX_DISAGREEMENT = 0.25
"""How far, in voxels, ITK's place of any voxel may be from the one that the header gives it."""

MAX_TURN = 0.01
"""How far any step from one voxel to the next may differ, in voxels."""


def read_file(path: str | Path) -> sitk.Image:
    """Read a 3-D image file with one or several components a voxel, whole or not at all.

    Raises:
        InputError: there is no such file, its kind is unknown, it is damaged or cut short, its
            header makes no sense, it is not 3-D, or its values are complex or (in NIfTI) not
            finite.
    """
    path = Path(path)
    header = _checked_header(path)
    if header.understood:
        return _read(path, header)
    image, _ = read_apart("file", path)
    return image


def read_file_here(path: Path) -> sitk.Image:
    """As :func:`read_file`, but in this process whatever the header says."""
    return _read(path, _checked_header(path))


def require_file(path: Path) -> None:
    """
    Raises:
        InputError: there is no such file, or its name is one that ITK can't take.
    """
    require_usable_name(path)
    try:
        found, folder = path.is_file(), is_folder(path)
    except OSError as error:  # a name too long, a folder that is closed to us
        raise InputError(f"{path} can't be opened ({error.strerror}); check the path.") from error
    if not found:
        raise InputError(
            f"{path} {'is a folder, not an image file' if folder else 'does not exist'}; check the"
            " path."
        )


def extension_of(path: str | Path) -> str | None:
    """The image extension that a file's name ends with, in lower case, or None."""
    name = Path(path).name.lower()
    return next((extension for extension in EXTENSIONS if name.endswith(extension)), None)


def grid_of(image: sitk.Image) -> Grid:
    """The grid of a 3-D image, with ITK's own numbers."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def array_of(image: sitk.Image) -> np.ndarray:
    """The voxels as (i, j, k), or (i, j, k, components) for vector images; i is contiguous."""
    array = sitk.GetArrayFromImage(image)
    return array.transpose(2, 1, 0, *range(3, array.ndim))


@contextmanager
def quiet() -> Iterator[None]:
    """ITK's warnings off inside the block: they are C++ text, and what matters is raised here."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def skewed(path: str | Path) -> InputError:
    """The error of a sheared grid."""
    return InputError(
        f"{path} has axes that are not at right angles (a sheared grid, such as of a tilted CT"
        " gantry); resample it to a regular grid and use that."
    )


def _checked_header(path: Path) -> Header:
    require_file(path)
    extension = extension_of(path)
    if extension is None:
        hint = ""
        if path.suffix.lower() in (".dcm", ".ima", ""):
            hint = " For DICOM, give the folder with the slices of one series."
        raise InputError(
            f"{path} is of an unknown kind; give one of {', '.join(EXTENSIONS)}.{hint}"
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; copy or export it again.")
    return read_header(path, extension)


def _read(path: Path, header: Header) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(header.reader)
    with quiet(), _apart(path) as name:
        reader.SetFileName(str(name))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise _itk_failed(path, error) from error
        if reader.GetDimension() != 3:
            size = " x ".join(map(str, reader.GetSize()))
            raise InputError(
                f"{path} is {reader.GetDimension()}-dimensional ({size}); give a 3-D volume (of a"
                " time series, save one frame as its own file)."
            )
        if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
            raise InputError(f"{path} has complex values; save its magnitude as the image.")
        header.verify()
        try:
            image = reader.Execute()
        except RuntimeError as error:
            raise _itk_failed(path, error) from error
    _require_as_announced(path, image, header)
    return image


@contextmanager
def _apart(path: Path) -> Iterator[Path]:
    """A path under which ITK reads this very file.

    Given ``x.nii.gz`` where there is an ``x.nii`` too, ITK takes the header of the one and the
    voxels of the other, silently.
    """
    if path.suffix.lower() != ".gz" or not path.with_suffix("").exists():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "image.nii.gz"
        try:
            alone.symlink_to(path.resolve())
        except OSError:  # file systems and Windows accounts without links
            shutil.copyfile(path, alone)
        yield alone


def _itk_failed(path: Path, error: RuntimeError) -> InputError:
    if "orthonormal" in str(error):
        return skewed(path)
    if isinstance(error, MemoryError) or "allocat" in str(error):
        return InputError(f"{path} does not fit in this computer's memory.")
    return unreadable(path, "it is damaged, cut short, or not what its name says")


def _require_as_announced(path: Path, image: sitk.Image, header: Header) -> None:
    """ITK makes up what it doesn't understand, and takes the spacing of one field of NIfTI with
    the directions of another.

    Raises:
        InputError: the voxels of ITK's image don't lie where the header puts them.
    """
    grid = grid_of(image)
    require_usable_grid(path, grid)
    if header.grids and not any(_agree(grid, stated) for stated in header.grids):
        raise InputError(
            f"{path} contradicts itself: its header says in several ways where its voxels lie, and"
            f" these differ (a spacing of {_mm(grid)} by one, {_mm(header.grids[0])} by another);"
            " correct the header, or export it again."
        )


def _mm(grid: Grid) -> str:
    return " x ".join(f"{s:.5g}" for s in grid.spacing) + " mm"


def _agree(one: Grid, other: Grid) -> bool:
    if one.shape != other.shape:
        return False
    # Two voxels don't show a turn by some degrees.
    steps = np.abs(one.affine[:3, :3] - other.affine[:3, :3]).max(axis=0)
    if (steps > MAX_TURN * np.asarray(other.spacing)).any():
        return False
    ends = [[0, n - 1] for n in one.shape]
    corners = np.array(np.meshgrid(*ends, indexing="ij")).reshape(3, -1)
    corners = np.vstack([corners, np.ones(8)])
    apart = np.abs(np.linalg.solve(other.affine, one.affine @ corners) - corners)[:3]
    return bool(apart.max() <= MAX_DISAGREEMENT)
