"""Image files made byte by byte from their formats' definitions, without ITK.

What is in them, and where it lies, is therefore known independently of what reads them.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
NIFTI_CODES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768}
NRRD_TYPES = {
    **{"u1": "uchar", "i2": "short", "i4": "int", "f4": "float", "f8": "double", "i1": "int8"},
    **{"u2": "ushort", "u4": "uint32"},
}
META_TYPES = {
    **{"u1": "UCHAR", "i2": "SHORT", "i4": "INT", "f4": "FLOAT", "f8": "DOUBLE", "i1": "CHAR"},
    **{"u2": "USHORT", "u4": "UINT"},
}
SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "RAS": (-1, -1, 1),
}


@dataclass
class Made:
    """The files of one image by name, the first is the one to open; its voxels and where they lie.

    ``values``: (i, j, k); ``affine``: 4x4, indices to RAS mm.
    """

    files: dict[str, bytes]
    values: np.ndarray
    affine: np.ndarray
    notes: dict[str, Any] = field(default_factory=dict)

    def packed(self) -> Made:
        """The same, the first file as ``.gz``."""
        (name, data), *others = self.files.items()
        files = {f"{name}.gz": gzip.compress(data), **dict(others)}
        return Made(files, self.values, self.affine, self.notes)

    def write(self, folder: Path) -> Path:
        """The path of the file to open."""
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        return folder / next(iter(self.files))


def raw_bytes(values: np.ndarray, order: str) -> bytes:
    """Voxels as all the formats store them: the first axis runs fastest."""
    return values.astype(values.dtype.newbyteorder(order)).tobytes(order="F")


def quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """b, c, d of a 3x3 rotation whose trace is not near -1, or any other."""
    from scipy.spatial.transform import Rotation

    b, c, d, a = Rotation.from_matrix(rotation).as_quat()
    return np.array([b, c, d]) * (-1 if a < 0 else 1)


def nifti(
    values: np.ndarray,
    affine: np.ndarray,
    *,
    order: str = "<",
    forms: str = "s",
    slope: tuple[float, float] = (1.0, 0.0),
    unit: int = 2,
    gap: int = 0,
    **patches: tuple[int, str, float],
) -> Made:
    """A NIfTI-1 file.

    Args:
        affine: RAS mm; right angles where ``forms`` has ``q``.
        forms: ``s``, ``q``, ``sq``, or empty, which is a grid along the axes from 0.
        slope: scl_slope and scl_inter, by which the values to be read are scaled.
        unit: 1 metre, 2 mm, 3 micrometre, 0 not said. gap: bytes between header and voxels.
        patches: (offset, struct format, value).
    """
    scale = {1: 1000.0, 3: 0.001}.get(unit, 1.0)
    header = bytearray(352)

    def put(offset: int, kind: str, *numbers: float) -> None:
        struct.pack_into(order + kind, header, offset, *numbers)

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    put(0, "i", 348)
    put(40, "8h", 3, *values.shape, 1, 1, 1, 1)
    put(70, "2h", NIFTI_CODES[values.dtype.str[1:]], values.dtype.itemsize * 8)
    qfac = 1.0
    if "q" in forms:
        rotation = affine[:3, :3] / spacing
        if np.linalg.det(rotation) < 0:
            qfac, rotation = -1.0, rotation * [1, 1, -1]
        put(252, "h", 1)
        put(256, "6f", *quaternion_of(rotation), *affine[:3, 3] / scale)
    put(76, "8f", qfac, *spacing / scale, 1, 1, 1, 1)
    put(108, "f", 352 + gap)
    put(112, "2f", *slope)
    header[123] = unit
    if "s" in forms:
        put(254, "h", 1)
        put(280, "12f", *(affine[:3] / scale).ravel())
    header[344:348] = b"n+1\0"
    for offset, kind, number in patches.values():
        put(offset, kind, number)
    data = bytes(header) + bytes(gap) + raw_bytes(values, order)
    expected = values
    if np.isfinite(slope).all() and slope[0] and tuple(slope) != (1.0, 0.0):
        expected = values.astype(np.float64) * np.float32(slope[0]) + np.float32(slope[1])
    if not forms:
        affine = TO_LPS @ np.diag([*spacing, 1.0])  # ITK's word: along left, posterior, superior
    return Made({"x.nii": data}, expected, affine)


def more_axes(count: int) -> dict[str, tuple[int, str, float]]:
    """The patch of a NIfTI with so many axes of size one behind the third."""
    return {"axes": (40, "h", 3 + count)}


def nrrd(
    values: np.ndarray,
    affine: np.ndarray,
    *,
    order: str = "<",
    space: str | None = "left-posterior-superior",
    stored: str = "raw",
    detached: bool = False,
    extra: str = "",
    **fields: str | None,
) -> Made:
    """A NRRD file.

    Args:
        stored: the encoding of the voxels, which the header names as well.
        extra: lines at the header's end.
        fields: (with _ for a space) replace those of the header; None leaves one out.
    """
    lps = TO_LPS @ affine
    flips = np.array(SPACES.get(space, (1, 1, 1)))
    vectors = (flips[:, None] * lps[:3, :3]).T
    text = {
        "type": NRRD_TYPES[values.dtype.str[1:]],
        "dimension": "3",
        "space": space,
        "sizes": " ".join(map(str, values.shape)),
        "space directions": " ".join(f"({','.join(map(repr, v.tolist()))})" for v in vectors),
        "kinds": "domain domain domain",
        "endian": "little" if order == "<" else "big",
        "encoding": stored,
        "space origin": f"({','.join(map(repr, (flips * lps[:3, 3]).tolist()))})",
    }
    if detached:
        text["data file"] = "x.bin"
    text.update({key.replace("_", " "): value for key, value in fields.items()})
    header = "NRRD0004\n# made for a test\n"
    header += "".join(f"{key}: {value}\n" for key, value in text.items() if value is not None)
    voxels = {
        "raw": lambda: raw_bytes(values, order),
        "gzip": lambda: gzip.compress(raw_bytes(values, order)),
        "hex": lambda: raw_bytes(values, order).hex().encode(),
        "ascii": lambda: "\n".join(map(repr, values.ravel(order="F").tolist())).encode() + b"\n",
    }[stored]()
    start = (header + extra + ("" if detached else "\n")).encode("latin-1")
    files = {"x.nhdr": start, "x.bin": voxels} if detached else {"x.nrrd": start + voxels}
    return Made(files, values, affine)


def metaimage(
    values: np.ndarray,
    affine: np.ndarray,
    *,
    order: str = "<",
    compressed: bool = False,
    detached: bool = False,
    **fields: str | None,
) -> Made:
    """A MetaImage file; ``fields`` replace those of the header, None leaves out."""
    lps = TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    voxels = raw_bytes(values, order)
    if compressed:
        voxels = zlib.compress(voxels)
    text = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": str(order == ">"),
        "CompressedData": str(compressed),
        "CompressedDataSize": str(len(voxels)) if compressed else None,
        "TransformMatrix": " ".join(map(repr, (lps[:3, :3] / spacing).T.ravel().tolist())),
        "Offset": " ".join(map(repr, lps[:3, 3].tolist())),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": " ".join(map(repr, spacing.tolist())),
        "DimSize": " ".join(map(str, values.shape)),
        "ElementType": f"MET_{META_TYPES[values.dtype.str[1:]]}",
    }
    last = fields.pop("ElementDataFile", "x.bin" if detached else "LOCAL")
    text.update(fields)
    text["ElementDataFile"] = last
    header = "".join(f"{key} = {value}\n" for key, value in text.items() if value is not None)
    start = header.encode("latin-1")
    files = {"x.mhd": start, "x.bin": voxels} if detached else {"x.mha": start + voxels}
    return Made(files, values, affine)
