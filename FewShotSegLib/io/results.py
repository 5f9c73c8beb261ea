"""Writing results: label maps, probabilities and Slicer segmentations on the query's very grid.

The files are written here rather than by ITK: ITK rewrites a NIfTI query's geometry with other
rounding, its NRRD writer loses the last bits of spacing and directions, and a full disk shows only
as text on the standard error.
"""

from __future__ import annotations

import gzip
import itertools
import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from scipy.spatial.transform import Rotation

from ..core.annotation import Structure
from ..core.atomic import replacing
from ..core.colors import default_color
from ..core.errors import InputError
from ..core.geometry import Grid
from ..core.limits import StrPath
from .image_headers.nifti import Placing, read_placing

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd", ".mha", ".dcm")
DICOM = ".dcm"
SEGMENTS = (".seg.nrrd", DICOM)
"""Those of named segments, which may overlap: Slicer's, and DICOM's (:mod:`.dicom_segments`)."""
_UNSAFE_IN_NAMES = r'[/\\:*?"<>|\x00-\x1f]'
_NAME_BYTES = 255
"""The longest name that common file systems have for a file."""
_LEVEL = 4
_NIFTI_HEADER = 348
_TYPES = {
    # dtype: NRRD's name, MetaImage's name, NIfTI's code
    np.dtype(np.uint8): ("uint8", "MET_UCHAR", 2),
    np.dtype(np.uint16): ("uint16", "MET_USHORT", 512),
    np.dtype(np.float32): ("float", "MET_FLOAT", 16),
}


def check_output_name(path: StrPath) -> str:
    """The extension that a result's name ends with, ``.seg.nrrd`` apart from ``.nrrd``.

    Raises:
        InputError: results can't be written in such a file.
    """
    name = Path(path).name.lower()
    for extension in sorted(EXTENSIONS, key=len, reverse=True):
        if name.endswith(extension) and name != extension:
            return extension
    raise InputError(
        f"Results can't be written as {path}; let its name end with {', '.join(EXTENSIONS[:-1])}"
        f" or {EXTENSIONS[-1]}."
    )


def probability_names(out: StrPath, structures: Sequence[Structure]) -> dict[str, str]:
    """The names of the files of probabilities beside a result, by structure: ``STEM_prob_NAME``.

    A structure that was named in Slicer may hold what no file's name can, and two names may come to
    the same; their label values then tell them apart.

    Raises:
        InputError: the result's own name leaves no space for them.
    """
    extension = check_output_name(out)
    stem = Path(out).name[: -len(extension)]
    image_extension = ".nii.gz" if extension in SEGMENTS else extension
    parts = {s.name: re.sub(_UNSAFE_IN_NAMES, "_", s.name) for s in structures}
    counts = Counter(part.casefold() for part in parts.values())
    names = {}
    for structure in structures:
        part = parts[structure.name]
        most_bytes = _NAME_BYTES - len(os.fsencode(f"{stem}_prob_{image_extension}"))
        if counts[part.casefold()] > 1 or len(os.fsencode(part)) > most_bytes:
            end = f"_{structure.value}"
            part = _cut(part, most_bytes - len(end)) + end
        names[structure.name] = f"{stem}_prob_{part}{image_extension}"
        if len(os.fsencode(names[structure.name])) > _NAME_BYTES:
            raise InputError(
                f"{out} is too long a name for probabilities beside it, which are called "
                f"STEM_prob_NAME{image_extension}. Give the result a shorter name."
            )
    return names


def _cut(text: str, most_bytes: int) -> str:
    """As much of a text as a file's name has bytes for, no character cut in two."""
    return os.fsencode(text)[: max(0, most_bytes)].decode("utf-8", "ignore")


def write_label_map(
    path: StrPath,
    labels: np.ndarray,
    grid: Grid,
    like: StrPath | None = None,
) -> None:
    """Write label values.

    Args:
        path: the file; its extension decides the format.
        labels: (i, j, k), uint8 or uint16.
        grid: where they lie.
        like: the query's file. Where it and ``path`` are NIfTI, its geometry fields are copied, so
            that every reader finds both in the same place to the last bit.

    Raises:
        InputError: the extension is not one for label maps.
        StorageError: the disk is full, or the place can't be written to.
        ValueError: dtype or shape are not as above.
    """
    if labels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"label values are uint8 or uint16, not {labels.dtype}")
    _write_scalar(path, labels, grid, like)


def write_probability(
    path: StrPath,
    probability: np.ndarray,
    grid: Grid,
    like: StrPath | None = None,
) -> None:
    """Write one structure's probabilities, (i, j, k) float32; otherwise as ``write_label_map``."""
    if probability.dtype != np.float32:
        raise ValueError(f"probabilities are float32, not {probability.dtype}")
    _write_scalar(path, probability, grid, like)


def write_segments(
    path: StrPath,
    masks: Mapping[str, np.ndarray],
    structures: Sequence[Structure],
    grid: Grid,
) -> None:
    """Write a Slicer segmentation with one named segment a structure; masks may overlap.

    Args:
        path: ends with ``.seg.nrrd``.
        masks: by structure name, boolean (i, j, k). An empty mask becomes an empty segment.
        structures: value, colour and terminology of each; those without a mask are left out.
        grid: where they lie.

    Raises:
        InputError: the extension is another.
        StorageError: the disk is full, or the place can't be written to.
        ValueError: there is no mask, a mask has no structure or another shape, or two structures
            share a value.
    """
    if check_output_name(path) != ".seg.nrrd":
        raise InputError(
            f"A Slicer segmentation can't be written as {path}; end it with .seg.nrrd."
        )
    structures = [s for s in structures if s.name in masks]
    if not masks or len(structures) != len(masks):
        raise ValueError("there is no mask, or a mask without its structure")
    if len({s.value for s in structures}) < len(structures):
        raise ValueError("two structures share a label value")
    dtype = np.uint8 if max(s.value for s in structures) <= 255 else np.uint16
    layers: list[np.ndarray] = []
    keys = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    # Slicer crops a whole layer to the extent of the layer's first segment: the image's is safe.
    extent = " ".join(f"0 {n - 1}" for n in grid.shape)
    for index, structure in enumerate(structures):
        mask = masks[structure.name]
        if mask.shape != grid.shape or mask.dtype != bool:
            raise ValueError(f"the mask of {structure.name} is {mask.dtype} {mask.shape}")
        layer = next((n for n, a in enumerate(layers) if not a[mask].any()), len(layers))
        if layer == len(layers):
            layers.append(np.zeros(grid.shape, dtype, order="F"))
        layers[layer][mask] = structure.value
        color = structure.color or default_color(structure.value)
        fields = {
            "ID": f"Segment_{structure.value}",
            "Name": structure.name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{c:.6g}" for c in color),
            "ColorAutoGenerated": "0",
            "Extent": extent,
            "LabelValue": str(structure.value),
            "Layer": str(layer),
            "Tags": f"TerminologyEntry:{structure.terminology}|" if structure.terminology else "|",
        }
        keys |= {f"Segment{index}_{key}": value for key, value in fields.items()}
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        _write_nrrd(stream, layers, grid, keys)


def _write_scalar(path: StrPath, array: np.ndarray, grid: Grid, like: StrPath | None) -> None:
    extension = check_output_name(path)
    if extension in SEGMENTS:
        raise InputError(f"{path} names a segmentation, which this result is not; use .nrrd.")
    if array.shape != grid.shape:
        raise ValueError(f"array {array.shape} on a grid of {grid.shape}")
    with replacing(path) as temporary, open(temporary, "wb") as stream:
        if extension == ".nrrd":
            _write_nrrd(stream, [array], grid, {})
        elif extension == ".mha":
            _write_mha(stream, array, grid)
        elif extension == ".nii":
            _write_nifti(stream, array, grid, like)
        else:
            with _gzip(stream) as inner:
                _write_nifti(inner, array, grid, like)


def _gzip(stream: BinaryIO) -> gzip.GzipFile:
    # No name and no time inside, so that the same result is the same file.
    return gzip.GzipFile("", "wb", _LEVEL, stream, mtime=0)


def _planes(layers: Sequence[np.ndarray]) -> Iterator[bytes]:
    """The voxels of each k in file order: layer fastest, then i, then j; little-endian."""
    dtype = layers[0].dtype.newbyteorder("<")
    for k in range(layers[0].shape[2]):
        yield np.stack([layer[..., k].T for layer in layers], axis=-1).astype(dtype).tobytes()


def _write_nrrd(
    stream: BinaryIO, layers: Sequence[np.ndarray], grid: Grid, keys: Mapping[str, str]
) -> None:
    direction = np.reshape(grid.direction, (3, 3))
    vectors = [
        _text(_nrrd_vector(direction[:, a], grid.spacing[a]), "({},{},{})") for a in range(3)
    ]
    sizes = [str(n) for n in grid.shape]
    kinds = ["domain"] * 3
    if len(layers) > 1:
        sizes.insert(0, str(len(layers)))
        vectors.insert(0, "none")
        kinds.insert(0, "list")
    lines = [
        "NRRD0004",
        f"type: {_TYPES[layers[0].dtype][0]}",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(sizes)}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {' '.join(kinds)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_text(grid.origin, '({},{},{})')}",
    ]
    for key, value in keys.items():
        # A line can only be ended by what NRRD can escape.
        lined = value.replace("\r\n", "\n").replace("\r", "\n")
        escaped = lined.replace("\\", "\\\\").replace("\n", "\\n")
        lines.append(f"{key}:={escaped}")
    stream.write("\n".join([*lines, "", ""]).encode())
    with _gzip(stream) as inner:
        for plane in _planes(layers):
            inner.write(plane)


def _nrrd_vector(direction: np.ndarray, spacing: float) -> np.ndarray:
    """The space direction from which ITK computes exactly these numbers, if there is one.

    NRRD has only the product of the two. ITK takes its length for the spacing and multiplies it by
    the inverse for the direction, so that the plain product comes back some last bits off. A
    neighbour within two of them usually does not; for a grid that came from an NRRD file one is
    certain to exist.
    """
    product = direction * spacing
    steps = [(-2, -1, 0, 1, 2) if x else (0,) for x in product]
    candidates = product + np.array(list(itertools.product(*steps))) * np.spacing(np.abs(product))
    x, y, z = candidates.T
    length = np.sqrt(x * x + y * y + z * z)
    back = candidates * (1 / length)[:, None]
    exact = (length == spacing) & (back == direction).all(axis=1)
    return candidates[exact][0] if exact.any() else product


def _write_mha(stream: BinaryIO, array: np.ndarray, grid: Grid) -> None:
    compressor = zlib.compressobj(_LEVEL)
    data = [compressor.compress(plane) for plane in _planes([array])]
    data.append(compressor.flush())
    columns = np.reshape(grid.direction, (3, 3)).T.ravel()
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {sum(map(len, data))}",
        f"TransformMatrix = {_text(columns)}",
        f"Offset = {_text(grid.origin)}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_text(grid.spacing)}",
        f"DimSize = {' '.join(map(str, grid.shape))}",
        f"ElementType = {_TYPES[array.dtype][1]}",
        "ElementDataFile = LOCAL",
        "",
    ]
    stream.write("\n".join(lines).encode())
    stream.writelines(data)


def _text(numbers: Sequence[float] | np.ndarray, pattern: str | None = None) -> str:
    """The shortest texts that read back as the same float64 numbers."""
    texts = [repr(float(x)) for x in numbers]
    return pattern.format(*texts) if pattern else " ".join(texts)


def _write_nifti(
    stream: BinaryIO | gzip.GzipFile, array: np.ndarray, grid: Grid, like: StrPath | None
) -> None:
    placing = (like and _nifti_geometry_of(Path(like), grid)) or _nifti_geometry(grid)
    header = bytearray(_NIFTI_HEADER)
    struct.pack_into("<i", header, 0, _NIFTI_HEADER)
    struct.pack_into("<8h", header, 40, 3, *grid.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, _TYPES[array.dtype][2], array.dtype.itemsize * 8)
    struct.pack_into("<8f", header, 76, *placing.pixdim[:4], 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, _NIFTI_HEADER + 4, 1, 0)
    struct.pack_into("<B", header, 123, placing.unit)
    struct.pack_into("<2h18f", header, 252, *placing.codes, *placing.forms)
    struct.pack_into("<4s", header, 344, b"n+1")
    stream.write(bytes(header) + bytes(4))
    for plane in _planes([array]):
        stream.write(plane)


def _nifti_geometry(grid: Grid) -> Placing:
    """Where a grid lies, reported by both forms.

    Raises:
        InputError: an axis is too long for a NIfTI-1 header.
    """
    if max(grid.shape) > 32767:
        raise InputError("NIfTI can't hold more than 32767 voxels along an axis; use .nrrd.")
    rotation = grid.affine[:3, :3] / np.asarray(grid.spacing)
    handedness = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    quaternion = Rotation.from_matrix(rotation * [1, 1, handedness]).as_quat()
    quaternion *= -1.0 if quaternion[3] < 0 else 1.0  # NIfTI leaves out the real part: it is >= 0
    form = (*quaternion[:3], *grid.affine[:3, 3], *grid.affine[:3].ravel())
    scanner, millimetres = 1, 2
    pixdim = (handedness, *grid.spacing, 1.0, 1.0, 1.0, 1.0)
    return Placing(pixdim, millimetres, (scanner, scanner), form)


def _nifti_geometry_of(path: Path, grid: Grid) -> Placing | None:
    """The same of a NIfTI-1 file, None for files of other kinds.

    Raises:
        ValueError: the file is a NIfTI file of another shape.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    shape, placing = read_placing(path)
    if shape != grid.shape:
        raise ValueError(f"{path} has {shape} voxels, the grid {grid.shape}")
    return placing
