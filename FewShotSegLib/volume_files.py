"""Reading images: NIfTI, NRRD, MetaImage and folders of DICOM slices."""

from __future__ import annotations

import gzip
import math
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .geometry import Grid, Volume
from .modality import MODALITIES

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
MAX_SKEW = 1e-3
"""Cosine between two axes of a grid, above which they aren't at right angles any more. DICOM
direction cosines of four decimals come to about a tenth of it."""
MAX_SLICE_SHIFT = 0.1
"""How far a DICOM slice may lie from its place in the stack, in slice distances."""

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20
_NIFTI_FLOATS = {16: "f4", 64: "f8"}
_POSITION, _ORIENTATION = "0020|0032", "0020|0037"
_MODALITY, _DESCRIPTION = "0008|0060", "0008|103e"
_ROWS, _COLUMNS, _SAMPLES, _BITS = "0028|0010", "0028|0011", "0028|0002", "0028|0100"
_FRAMES = "0028|0008"
_PIXELS = b"\xe0\x7f\x10\x00"
_CLASS, _CLASS_IN_FILE = "0008|0016", b"\2\0\2\0UI"


def read_image(path: str | Path) -> Volume:
    """Read a scalar 3-D image from a file or from a folder with one DICOM series.

    Returns:
        The volume; array (i, j, k) in the file's dtype (float64 becomes float32), the grid with
        the numbers that ITK states, and the modality where DICOM says CT or MR.

    Raises:
        InputError: there is no such file, or it isn't a sound, scalar 3-D image of finite values.
    """
    path = Path(path)
    if path.is_dir():
        image, modality = _read_dicom(path)
    else:
        image, modality = read_file(path), None
    if image.HasMetaDataKey("Segment0_ID"):
        raise InputError(f"{path} is a segmentation, not an image; give the image it belongs to.")
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(
            f"{path} has {image.GetNumberOfComponentsPerPixel()} values a voxel (a colour, vector"
            " or multi-channel image); give an image with one value a voxel."
        )
    grid = grid_of(image)
    return usable_volume(array_of(image), grid, modality, path)


def usable_volume(array: np.ndarray, grid: Grid, modality: str | None, name: str | Path) -> Volume:
    """A volume that the engine can work on; float64 becomes float32.

    Args:
        array: (i, j, k), any real dtype. name: what messages call it.

    Raises:
        InputError: a single slice, a sheared grid, or voxels that are not numbers.
    """
    if min(grid.shape) < 2:
        size = " x ".join(map(str, grid.shape))
        raise InputError(
            f"{name} is a single slice ({size} voxels); give a volume with two or more slices"
            " along every axis."
        )
    _require_right_angles(name, grid)
    if array.dtype == np.float64:
        # The networks work in float32 at most; half the memory for large volumes. A value too
        # large for float32 becomes infinite and is refused below.
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _not_numbers(name, array.size - np.count_nonzero(np.isfinite(array)))
    return Volume(array, grid, modality)


def read_file(path: str | Path) -> sitk.Image:
    """Read a 3-D image file with one or several components a voxel, whole or not at all.

    Raises:
        InputError: there is no such file, its kind is unknown, it is damaged or cut short, it is
            not 3-D, or its values are complex or (in NIfTI) not finite.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, not an image file" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; check the path.")
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
    reader = sitk.ImageFileReader()
    with _quiet(), _apart(path) as name:
        reader.SetFileName(str(name))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise _unreadable(path, error) from error
        if reader.GetDimension() != 3:
            size = " x ".join(map(str, reader.GetSize()))
            raise InputError(
                f"{path} is {reader.GetDimension()}-dimensional ({size}); give a 3-D volume (of a"
                " time series, save one frame as its own file)."
            )
        if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
            raise InputError(f"{path} has complex values; save its magnitude as the image.")
        if extension.startswith(".nii"):
            _require_sound_nifti(path)
        try:
            return reader.Execute()
        except RuntimeError as error:
            raise _unreadable(path, error) from error


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
def _quiet() -> Iterator[None]:
    """ITK's warnings off inside the block: they are C++ text, and what matters is raised here."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


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


def _unreadable(path: Path, error: RuntimeError) -> InputError:
    if "orthonormal" in str(error):
        return _skewed(path)
    if isinstance(error, MemoryError) or "allocat" in str(error):
        return InputError(f"{path} does not fit in this computer's memory.")
    return InputError(
        f"{path} can't be read: it is damaged, cut short, or not what its name says; copy or"
        " export it again."
    )


def _skewed(path: str | Path) -> InputError:
    return InputError(
        f"{path} has axes that are not at right angles (a sheared grid, such as of a tilted CT"
        " gantry); resample it to a regular grid and use that."
    )


def _require_right_angles(path: str | Path, grid: Grid) -> None:
    direction = np.reshape(grid.direction, (3, 3))
    if np.abs(direction.T @ direction - np.eye(3)).max() > MAX_SKEW:
        raise _skewed(path)


def _not_numbers(path: str | Path, count: int) -> InputError:
    return InputError(
        f"{path} has {count} voxels that are not numbers (NaN or infinite); replace them, for"
        " instance by the background's value, and save it again."
    )


def _require_sound_nifti(path: Path) -> None:
    """ITK reads zeros for NaN, infinity and whatever is missing of a NIfTI file, without a word.

    Raises:
        InputError: the voxels end early or aren't finite, or the compressed data are damaged.
    """
    with open(path, "rb") as stream:
        compressed = stream.read(2) == _GZIP_MAGIC
    size, bad = 0, 0
    try:
        with gzip.open(path, "rb") if compressed else open(path, "rb") as stream:
            header = stream.read(348)
            order = "<" if struct.unpack("<i", header[:4])[0] == 348 else ">"
            dim = struct.unpack(f"{order}8h", header[40:56])
            code, bits = struct.unpack(f"{order}2h", header[70:74])
            (start,) = struct.unpack(f"{order}f", header[108:112])
            stream.read(int(start) - len(header))
            # To the very end, so that gzip's checksum is compared too.
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if code in _NIFTI_FLOATS:
                    whole = len(chunk) // (bits // 8) * (bits // 8)
                    values = np.frombuffer(chunk[:whole], order + _NIFTI_FLOATS[code])
                    bad += values.size - np.count_nonzero(np.isfinite(values))
    except (EOFError, OSError, zlib.error, struct.error) as error:
        raise InputError(
            f"{path} is damaged or cut short (its compressed data end early or fail their"
            " checksum); copy or export it again."
        ) from error
    if size < int(np.prod(dim[1 : dim[0] + 1], dtype=np.int64)) * bits // 8:
        raise InputError(
            f"{path} is cut short: it has fewer voxels than its header says; copy or export it"
            " again."
        )
    if bad:
        raise _not_numbers(path, bad)


def _read_dicom(folder: Path) -> tuple[sitk.Image, str | None]:
    """The one image series of a folder, and its modality.

    Raises:
        InputError: there is no series or more than one, or its slices don't make a regular stack.
    """
    with _quiet():
        series = []
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
            files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
            header = sitk.ImageFileReader()
            header.SetFileName(files[0])
            try:
                header.ReadImageInformation()
            except RuntimeError:
                continue  # DICOM, but no image: a structure set, a report, a plan
            series.append((files, header))
        if not series:
            raise InputError(
                f"The folder {folder} has no DICOM images; give an image file, or the folder that"
                " holds the slices themselves."
            )
        if len(series) > 1:
            found = ", ".join(
                f"'{_tag(header, _DESCRIPTION) or 'no description'}' ({len(files)} files)"
                for files, header in series
            )
            raise InputError(
                f"The folder {folder} has {len(series)} DICOM series: {found}; give a folder with"
                " one series only."
            )
        files, header = series[0]
        modality = _tag(header, _MODALITY)
        if len(files) == 1 and header.GetDimension() == 2:
            raise InputError(
                f"The folder {folder} has a single slice; give one with a whole series."
            )
        _require_all_listed(folder, files, header)
        _require_complete_slices(folder, files, header)
        try:
            if len(files) == 1:
                image = sitk.ReadImage(files[0])
            else:
                reader = sitk.ImageSeriesReader()
                reader.SetFileNames(files)
                reader.MetaDataDictionaryArrayUpdateOn()
                image = reader.Execute()
                _require_stack(folder, reader, len(files))
        except RuntimeError as error:
            raise InputError(
                f"The DICOM series in {folder} can't be read: a slice is damaged, or the slices"
                " don't belong together; export the series again."
            ) from error
    if image.GetDimension() != 3:
        raise InputError(
            f"The DICOM series in {folder} is {image.GetDimension()}-dimensional; give a 3-D one."
        )
    return image, modality if modality in MODALITIES else None


def _tag(source: sitk.ImageFileReader, tag: str) -> str:
    return source.GetMetaData(tag).strip() if source.HasMetaDataKey(tag) else ""


def _require_all_listed(folder: Path, files: Sequence[str], header: sitk.ImageFileReader) -> None:
    """GDCM leaves out files that it can't parse: a series would end a slice early, unnoticed.

    Raises:
        InputError: a file that says to be of the series' class is not in the series.
    """
    uid = _tag(header, _CLASS).encode()
    uid += b"\0" * (len(uid) % 2)
    wanted = _CLASS_IN_FILE + struct.pack("<H", len(uid)) + uid
    listed = {Path(file).name for file in files}
    for file in sorted(folder.iterdir()):
        if file.name in listed or not file.is_file():
            continue
        with file.open("rb") as stream:
            if wanted in stream.read(512):
                raise InputError(
                    f"The DICOM slice {file.name} in {folder} is damaged or cut short; copy or"
                    " export the series again."
                )


def _require_complete_slices(
    folder: Path, files: Sequence[str], header: sitk.ImageFileReader
) -> None:
    """Older GDCMs read on where uncompressed pixels end early; compressed ones they refuse.

    Raises:
        InputError: a file ends before its pixels do.
    """
    numbers = [int(_tag(header, tag) or 1) for tag in (_ROWS, _COLUMNS, _SAMPLES, _FRAMES)]
    size = math.prod(numbers) * int(_tag(header, _BITS) or 8) // 8
    length = struct.pack("<I", size + size % 2)
    for file in files:
        data = Path(file).read_bytes()
        for representation in (b"OW\0\0", b"OB\0\0", b""):
            start = data.rfind(_PIXELS + representation + length)
            if start >= 0 and len(data) < start + len(_PIXELS + representation + length) + size:
                raise InputError(
                    f"The DICOM slice {Path(file).name} in {folder} is cut short; copy or export"
                    " the series again."
                )


def _require_stack(folder: Path, reader: sitk.ImageSeriesReader, count: int) -> None:
    """ITK only warns of missing, doubled or tilted slices, and then misplaces the others.

    Raises:
        InputError: the slices are not parallel, evenly spaced and straight above each other.
    """
    positions, orientations = [], []
    for index in range(count):
        if not all(reader.HasMetaDataKey(index, tag) for tag in (_POSITION, _ORIENTATION)):
            raise InputError(
                f"The DICOM series in {folder} does not say where its slices lie; export it again."
            )
        for tag, values in ((_POSITION, positions), (_ORIENTATION, orientations)):
            values.append([float(x) for x in reader.GetMetaData(index, tag).split("\\")])
    if np.ptp(orientations, axis=0).max() > MAX_SKEW:
        raise InputError(
            f"The DICOM series in {folder} has slices in different directions (such as a"
            " localiser); give a folder with parallel slices only."
        )
    row, column = np.reshape(orientations[0], (2, 3))
    normal = np.cross(row, column)
    positions = np.asarray(positions) - positions[0]
    along = positions @ normal
    step = along[-1] / (count - 1)
    expected = np.arange(count) * step
    if abs(step) < 1e-6 or np.abs(along - expected).max() > MAX_SLICE_SHIFT * abs(step):
        raise InputError(
            f"The DICOM series in {folder} has missing, doubled or unevenly spaced slices"
            f" ({count} files); export the whole series, one phase only, or resample it evenly."
        )
    sideways = np.linalg.norm(positions - along[:, None] * normal, axis=1)
    if sideways.max() > MAX_SLICE_SHIFT * abs(step):
        raise _skewed(folder)
