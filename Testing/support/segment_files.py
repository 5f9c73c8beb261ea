"""Slicer segmentations as other programs write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from FewShotSegLib.core.geometry import Grid

SHAPE = (6, 5, 4)
GRID = Grid(SHAPE, (0.75, 1.5, 3.0), (10.0, -20.0, 30.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
LIVER, SPLEEN, VESSEL = (
    frozenset({(1, 1, 1), (2, 1, 1)}),
    frozenset({(3, 3, 2)}),
    frozenset({(1, 1, 1), (5, 4, 3)}),
)
FULL = {
    "0": {"ID": "A", "Name": "liver", "Layer": "0", "LabelValue": "1"},
    "1": {"ID": "B", "Name": "spleen", "Layer": "0", "LabelValue": "2"},
    "2": {"ID": "C", "Name": "vessel", "Layer": "1", "LabelValue": "1"},
}
Fields = Mapping[str, Mapping[str, str]]


def make_layers(*layers: Mapping[int, frozenset[tuple[int, int, int]]]) -> np.ndarray:
    """Label values by voxel: (layer, i, j, k), uint8."""
    array = np.zeros((len(layers), *SHAPE), np.uint8)
    for number, values in enumerate(layers):
        for value, voxels in values.items():
            for voxel in voxels:
                array[(number, *voxel)] = value
    return array


LAYERS = make_layers({1: LIVER, 2: SPLEEN}, {1: VESSEL})


def without(fields: Fields, *names: str) -> dict[str, dict[str, str]]:
    """Segment descriptions that lack some fields."""
    return {n: {k: v for k, v in own.items() if k not in names} for n, own in fields.items()}


def write_nrrd(
    path: Path,
    layers: np.ndarray,
    fields: Fields,
    *,
    list_axis: str = "first",
    others: Mapping[str, str] | None = None,
    start: Sequence[int] = (0, 0, 0),
) -> Path:
    """Layers (layer, i, j, k) as pynrrd or VolView would write them; one layer as a 3-D array."""
    vectors = ["(0.75,0,0)", "(0,1.5,0)", "(0,0,3)"]
    kinds, array = ["domain"] * 3, layers
    if len(layers) == 1:
        array = layers[0]
    elif list_axis == "first":
        vectors, kinds = ["none", *vectors], ["list", *kinds]
    else:
        vectors, kinds, array = [*vectors, "none"], [*kinds, "list"], np.moveaxis(layers, 0, -1)
    origin = np.asarray(GRID.origin) + np.asarray(start) * GRID.spacing
    lines = [
        "NRRD0004",
        "type: uint8",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {' '.join(kinds)}",
        "endian: little",
        "encoding: raw",
        f"space origin: ({','.join(map(repr, origin.tolist()))})",
    ]
    for number, own in fields.items():
        lines += [f"Segment{number}_{key}:={value}" for key, value in own.items()]
    lines += [f"{key}:={value}" for key, value in (others or {}).items()]
    path.write_bytes("\n".join([*lines, "", ""]).encode() + array.tobytes(order="F"))
    return path


def voxels_of(mask: np.ndarray) -> frozenset[tuple[int, int, int]]:
    return frozenset(tuple(voxel) for voxel in np.argwhere(mask).tolist())
