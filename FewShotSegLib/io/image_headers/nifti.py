"""NIfTI-1 in one file, by its definition (https://nifti.nimh.nih.gov/nifti-1)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from ...core.errors import InputError
from ...core.geometry import LPS_TO_RAS, Grid, three
from .base import (
    CHUNK,
    GZIP_MAGIC,
    Header,
    cut_short,
    damaged_packing,
    grid_from,
    misplaced,
    require_memory,
    require_usable_grid,
    unreadable,
)

_SIZE, _NIFTI2_SIZE = 348, 540
_FIRST_VOXEL = 352
_BYTES = {
    **{2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8},
    **{32: 8, 1792: 16, 128: 3, 2304: 4},  # complex, and colours
}
"""Bytes a voxel by the code of its type."""
_FLOATS = {16: "f4", 64: "f8", 32: "f4", 1792: "f8"}
_LEAST_SLOPE = 1e-15
"""ITK takes a slope below 2e-16 for none at all."""
_NOT_UNIT = 1e-3
"""How much longer than 1 a quaternion may be: what writers of rounded numbers lose."""
_TO_MM = {1: 1000.0, 3: 0.001}
"""By the code of the unit of length; all others are millimetres, or not said."""


@dataclass(frozen=True)
class _Fields:
    """What of a header has a meaning here; ``start`` is the first voxel's place in the file."""

    order: str
    sizes: tuple[int, ...]
    type_code: int
    start: int


@dataclass(frozen=True)
class Placing:
    """What a header says of the voxels' place, as its own numbers.

    Attributes:
        pixdim: (8,) the handedness of the qform, then spacings in ``unit``.
        unit: NIfTI's code of the unit of length.
        codes: of the qform and of the sform.
        forms: (18,) quaternion and offset of the qform, then the sform's rows.
    """

    pixdim: tuple[float, ...]
    unit: int
    codes: tuple[int, int]
    forms: tuple[float, ...]


def read_placing(path: Path) -> tuple[tuple[int, int, int], Placing]:
    """The voxels along a file's first three axes, and where it puts them.

    Raises:
        InputError: it is no NIfTI-1 header, or one that nothing can be read by.
        OSError: it can't be read.
    """
    with _unpacked(path) as stream:
        raw = _read(path, stream, _FIRST_VOXEL)
    fields = _fields(path, raw)
    return three((*fields.sizes, 1, 1)[:3]), _placing(raw, fields.order)


def read_header(path: Path) -> Header:
    """
    Raises:
        InputError: it is no NIfTI-1 header, or one that nothing can be read by.
    """
    with _unpacked(path) as stream:
        raw = _read(path, stream, _FIRST_VOXEL)
    fields = _fields(path, raw)
    require_memory(path, fields.sizes, _BYTES[fields.type_code])
    _require_known_scale(path, *struct.unpack(f"{fields.order}2f", raw[112:120]))
    shape = (*fields.sizes[:3], 1, 1)[:3]
    grids = _grids(path, raw, fields.order, shape)
    spatial = fields.sizes
    while len(spatial) > 3 and spatial[-1] == 1:
        spatial = spatial[:-1]
    verify = partial(_require_sound_voxels, path)
    return Header("NiftiImageIO", spatial, grids, understood=raw[348] == 0, verify=verify)


def _require_sound_voxels(path: Path) -> None:
    """ITK reads zeros for NaN, infinity and whatever is missing of a NIfTI file, without a word.

    Raises:
        InputError: the voxels end early or aren't finite, or the compressed data are damaged.
    """
    size, bad = 0, 0
    with _unpacked(path) as stream:
        fields = _fields(path, _read(path, stream, _FIRST_VOXEL))
        bytes_a_voxel = _BYTES[fields.type_code]
        wanted = math.prod(fields.sizes) * bytes_a_voxel
        _read(path, stream, fields.start - _FIRST_VOXEL)
        # To the very end, so that gzip's checksum is compared too.
        while chunk := _read(path, stream, CHUNK):
            voxels = chunk[: max(wanted - size, 0)]
            size += len(chunk)
            if fields.type_code in _FLOATS:
                kind = np.dtype(fields.order + _FLOATS[fields.type_code])
                values = np.frombuffer(voxels[: len(voxels) // kind.itemsize * kind.itemsize], kind)
                bad += values.size - int(np.count_nonzero(np.isfinite(values)))
    if size < wanted:
        raise cut_short(path)
    if bad:
        raise not_numbers(path, bad)


def not_numbers(path: str | Path, count: int) -> InputError:
    """Voxels of NaN or infinity."""
    return InputError(
        f"{path} has {count} voxels that are not numbers (NaN or infinite); replace them, for"
        " instance by the background's value, and save it again."
    )


def _unpacked(path: Path) -> IO[bytes] | gzip.GzipFile:
    with open(path, "rb") as stream:
        compressed = stream.read(2) == GZIP_MAGIC
    return gzip.open(path, "rb") if compressed else open(path, "rb")


def _read(path: Path, stream: IO[bytes] | gzip.GzipFile, count: int) -> bytes:
    try:
        return stream.read(count)
    except (EOFError, OSError, zlib.error) as error:
        raise damaged_packing(path) from error


def _fields(path: Path, raw: bytes) -> _Fields:
    if len(raw) < 4:
        raise cut_short(path, "it ends within its header")
    (little,), (big,) = struct.unpack("<i", raw[:4]), struct.unpack(">i", raw[:4])
    if _NIFTI2_SIZE in (little, big):
        raise InputError(f"{path} is in NIfTI-2, which can't be read here; save it as NIfTI-1.")
    if _SIZE not in (little, big):
        raise unreadable(path, "it is not NIfTI, as its name says")
    if len(raw) < _FIRST_VOXEL:
        raise cut_short(path, "it ends within its header")
    magic = raw[344:348]
    if magic == b"ni1\0":
        raise InputError(
            f"{path} is half of a NIfTI pair, whose voxels are in a file of their own; save it as"
            " one .nii.gz file."
        )
    if magic != b"n+1\0":
        raise InputError(
            f"{path} has no NIfTI signature (an ANALYZE file, perhaps), so that nothing says where"
            " left and right are; convert it to NIfTI or NRRD with the program that made it."
        )
    order = "<" if little == _SIZE else ">"
    dim = struct.unpack(f"{order}8h", raw[40:56])
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise unreadable(path, f"its header says {' x '.join(map(str, dim[1:]))} voxels")
    (code,) = struct.unpack(f"{order}h", raw[70:72])
    if code not in _BYTES:
        raise InputError(
            f"{path} has voxels of a type that can't be read here (NIfTI's code {code}); save it"
            " as integers or as 32-bit floating point numbers."
        )
    (start,) = struct.unpack(f"{order}f", raw[108:112])
    if not (math.isfinite(start) and start.is_integer() and _FIRST_VOXEL <= start < 2**31):
        raise unreadable(path, f"its header says that the voxels begin at byte {start:g}")
    return _Fields(order, tuple(dim[1 : dim[0] + 1]), code, int(start))


def _require_known_scale(path: Path, slope: float, intercept: float) -> None:
    """A slope of 0, and NaN for both (SPM's and nibabel's word for it), mean: not scaled."""
    unscaled = slope == 0 or math.isnan(slope)
    if unscaled and (intercept == 0 or math.isnan(intercept)):
        return
    finite = math.isfinite(slope) and math.isfinite(intercept)
    if unscaled or not finite or abs(slope) < _LEAST_SLOPE:
        raise InputError(
            f"{path} says that its values are scaled by {slope:g} and shifted by {intercept:g},"
            " which means nothing; correct scl_slope and scl_inter in its header, or export it"
            " again."
        )


def _placing(raw: bytes, order: str) -> Placing:
    return Placing(
        struct.unpack(f"{order}8f", raw[76:108]),
        raw[123] & 7,
        struct.unpack(f"{order}2h", raw[252:256]),
        struct.unpack(f"{order}18f", raw[256:328]),
    )


def _grids(path: Path, raw: bytes, order: str, shape: Sequence[int]) -> tuple[Grid, ...]:
    """Where the header puts the voxels, by its sform, its qform, or its spacing alone."""
    placing = _placing(raw, order)
    pixdim, (qform_code, sform_code) = np.array(placing.pixdim), placing.codes
    quaternion = np.array(placing.forms[:6])
    rows = np.array(placing.forms[6:]).reshape(3, 4)
    scale = _TO_MM.get(placing.unit, 1.0)
    used = [pixdim[1:4], *([quaternion] * (qform_code > 0)), *([rows.ravel()] * (sform_code > 0))]
    if not np.isfinite(np.concatenate(used)).all():
        raise misplaced(path, "its position or directions are not numbers (NaN or infinite)")
    affines = []
    if sform_code > 0:
        affines.append(LPS_TO_RAS @ np.vstack([scale * rows, [0, 0, 0, 1]]))
    # By the definition a qform has no meaning without positive spacings and a unit quaternion; and
    # readers disagree on whether it mirrors where the number that says so is below 0 but not -1.
    unit = np.linalg.norm(quaternion[:3]) <= 1 + _NOT_UNIT
    unit &= not pixdim[0] < 0 or pixdim[0] == -1
    if qform_code > 0 and (pixdim[1:4] > 0).all() and unit:
        affines.append(LPS_TO_RAS @ _qform(pixdim, quaternion, scale))
    if not affines:
        if not unit and qform_code > 0:
            why = "a quaternion longer than 1, or a qfac that is not 1 or -1"
            raise misplaced(path, f"its directions are no rotation ({why})")
        if (pixdim[1:4] <= 0).any():
            spacing = " x ".join(f"{s:.4g}" for s in pixdim[1:4])
            raise misplaced(path, f"its voxels would be {spacing} mm")
        affines.append(np.diag([*(scale * pixdim[1:4]), 1.0]))
    grids, problems = [], []
    for affine in affines:
        try:
            grid = grid_from(path, shape, affine)
            require_usable_grid(path, grid)
            grids.append(grid)
        except InputError as error:
            problems.append(error)
    if not grids:
        raise problems[0]
    return tuple(grids)


def _qform(pixdim: np.ndarray, quaternion: np.ndarray, scale: float) -> np.ndarray:
    """Method 2 of the definition: a unit quaternion's rotation, the spacing, and an offset."""
    b, c, d = quaternion[:3]
    rest = 1 - (b * b + c * c + d * d)
    if rest < 1e-7:
        b, c, d = quaternion[:3] / np.linalg.norm(quaternion[:3])
    a = math.sqrt(max(rest, 0)) if rest >= 1e-7 else 0.0
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    spacing = scale * pixdim[1:4] * [1, 1, -1 if pixdim[0] < 0 else 1]
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 3] = scale * quaternion[3:]
    return affine
