"""A folder of DICOM slices as one volume; GDCM may crash on them: see :mod:`image_process`."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .errors import InputError
from .file_names import require_usable_name
from .image_files import quiet, skewed
from .image_process import read_apart
from .modality import MODALITIES

MAX_TURN = 1e-3
"""How far the direction cosines of two slices may differ."""
MAX_SLICE_SHIFT = 0.1
"""How far a DICOM slice may lie from its place in the stack, in slice distances."""

_POSITION, _ORIENTATION = "0020|0032", "0020|0037"
_MODALITY, _DESCRIPTION = "0008|0060", "0008|103e"
_ROWS, _COLUMNS, _SAMPLES, _BITS = "0028|0010", "0028|0011", "0028|0002", "0028|0100"
_FRAMES = "0028|0008"
_PIXELS = b"\xe0\x7f\x10\x00"
_CLASS, _CLASS_IN_FILE = "0008|0016", b"\2\0\2\0UI"


def read_folder(folder: Path) -> tuple[sitk.Image, str | None]:
    """The one image series of a folder, and its modality.

    Raises:
        InputError: there is no series or more than one, or its slices don't make a regular stack.
    """
    require_usable_name(folder)
    for file in folder.iterdir():
        require_usable_name(file)
    image, said = read_apart("dicom", folder)
    return image, said["modality"]


def read_folder_here(folder: Path) -> tuple[sitk.Image, dict[str, str | None]]:
    """As :func:`read_folder`, in this process."""
    image, modality = _read_dicom(folder)
    return image, {"modality": modality}


def _read_dicom(folder: Path) -> tuple[sitk.Image, str | None]:
    """The one image series of a folder, and its modality.

    Raises:
        InputError: there is no series or more than one, or its slices don't make a regular stack.
    """
    with quiet():
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
    if np.ptp(orientations, axis=0).max() > MAX_TURN:
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
        raise skewed(folder)
