"""A folder of DICOM slices as one volume; GDCM may crash on them: see :mod:`image_process`."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..core.errors import InputError
from ..core.modality import MODALITIES
from .file_names import children, require_usable_name
from .image_files import quiet
from .image_process import read_apart
from .slice_stack import Stack, StackError, described, regular_grid, resample, stack_of

MAX_TURN = 1e-3
"""How far the direction cosines of two slices may differ."""

_POSITION, _ORIENTATION = "0020|0032", "0020|0037"
_MODALITY, _DESCRIPTION = "0008|0060", "0008|103e"
_ROWS, _COLUMNS, _SAMPLES, _BITS = "0028|0010", "0028|0011", "0028|0002", "0028|0100"
_FRAMES, _PIXEL_SPACING = "0028|0008", "0028|0030"
_PIXELS = b"\xe0\x7f\x10\x00"
_CLASS, _CLASS_IN_FILE = "0008|0016", b"\2\0\2\0UI"


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


def read_folder(folder: Path) -> Series:
    """The one image series of a folder.

    Tilted or unevenly spaced slices are resampled to a regular grid, which the note says.

    Raises:
        InputError: there is no series or more than one, or its slices don't make a volume.
    """
    require_usable_name(folder)
    for file in children(folder):
        require_usable_name(file)
    image, said = read_apart("dicom", folder)
    return Series(image, **said)


def read_folder_here(folder: Path) -> Series:
    """As :func:`read_folder`, in this process."""
    with quiet():
        files, header = _only_series(folder)
        try:
            _require_all_listed(folder, files, header)
            _require_complete_slices(folder, files, header)
            if len(files) == 1:
                image, note = sitk.ReadImage(files[0]), ""
            else:
                image, note = _read_slices(folder, files)
        except ValueError as error:
            raise InputError(
                f"The DICOM series in {folder} can't be read: a field of its headers that should"
                " be a number is none; export the series again."
            ) from error
        except RuntimeError as error:
            raise InputError(
                f"The DICOM series in {folder} can't be read: a slice is damaged, or the slices"
                " don't belong together; export the series again."
            ) from error
    if image.GetDimension() != 3:
        raise InputError(
            f"The DICOM series in {folder} is {image.GetDimension()}-dimensional; give a 3-D one."
        )
    modality = _tag(header, _MODALITY)
    return Series(image, modality if modality in MODALITIES else None, note)


def _only_series(folder: Path) -> tuple[Sequence[str], sitk.ImageFileReader]:
    """The files of the one series, and the header of its first."""
    series = []
    for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
        try:
            series.append((files, _header(files[0])))
        except RuntimeError:
            continue  # DICOM, but no image: a structure set, a report, a plan
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
    if len(files) == 1 and header.GetDimension() == 2:
        raise InputError(f"The folder {folder} has a single slice; give one with a whole series.")
    return files, header


def _header(file: str) -> sitk.ImageFileReader:
    header = sitk.ImageFileReader()
    header.SetImageIO("GDCMImageIO")
    header.SetFileName(file)
    header.ReadImageInformation()
    return header


def _read_slices(folder: Path, files: Sequence[str]) -> tuple[sitk.Image, str]:
    """The volume of single slices, and a note where it had to be resampled.

    Raises:
        InputError: the slices don't make a volume. ValueError: a header's number is none.
        RuntimeError: ITK can't read a slice.
    """
    try:
        stack = _stack(folder, files)
    except StackError as error:
        raise InputError(f"The DICOM series in {folder} {error}.") from None
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([files[number] for number in stack.order])
    image = reader.Execute()
    if stack.even and stack.straight:
        return image, ""
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(f"The DICOM series in {folder} has colours; give one with grey values.")
    slices = sitk.GetArrayViewFromImage(image).transpose(2, 1, 0)
    grid = regular_grid(stack, slices.shape[:2])
    array = resample(slices, stack, grid)
    regular = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    regular.SetSpacing(grid.spacing)
    regular.SetOrigin(grid.origin)
    regular.SetDirection(grid.direction)
    return regular, f"The DICOM series {described(stack, grid)}."


def _stack(folder: Path, files: Sequence[str]) -> Stack:
    """Where the slices lie. ITK only warns of missing, doubled or tilted slices, and then misplaces
    the others.

    Raises:
        InputError, StackError: that is not said, or they make no volume.
    """
    found: dict[str, list[list[float]]] = {_POSITION: [], _ORIENTATION: [], _PIXEL_SPACING: []}
    for file in files:
        header = _header(file)
        if not all(header.HasMetaDataKey(tag) for tag in (_POSITION, _ORIENTATION)):
            raise InputError(
                f"The DICOM series in {folder} does not say where its slices lie; export it again."
            )
        for tag, values in found.items():
            # ITK's own word for the spacing, since its place differs between kinds of DICOM.
            values.append(
                list(header.GetSpacing()[:2])
                if tag == _PIXEL_SPACING
                else [float(x) for x in _tag(header, tag).split("\\")]
            )
    try:
        positions, cosines, spacings = (np.array(values) for values in found.values())
        usable = positions.shape[1:] == (3,) and cosines.shape[1:] == (6,)
    except ValueError:
        usable = False
    if not (usable and np.isfinite(positions).all() and np.isfinite(cosines).all()):
        raise InputError(
            f"The DICOM series in {folder} does not say where its slices lie; export it again."
        )
    if np.ptp(cosines, axis=0).max() > MAX_TURN:
        raise InputError(
            f"The DICOM series in {folder} has slices in different directions (such as a"
            " localiser); give a folder with parallel slices only."
        )
    axes = cosines[0].reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > MAX_TURN:
        raise InputError(
            f"The DICOM series in {folder} has rows and columns that are not at right angles;"
            " export it again."
        )
    if np.ptp(spacings, axis=0).max() > MAX_TURN * spacings.min():
        raise InputError(
            f"The DICOM series in {folder} has slices of different pixel spacings; give a folder"
            " with one series only."
        )
    return stack_of(positions, cosines[0], tuple(spacings[0].tolist()))


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
    for file in sorted(children(folder)):
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
