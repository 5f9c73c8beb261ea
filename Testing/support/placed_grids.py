"""Grids of every orientation, and where they lie on a model's grid."""

from __future__ import annotations

import numpy as np
from rotations import affine_of, rotation

from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.models.preprocessing import Placement, Preprocessing

OBLIQUE = rotation(0.3, -0.5, 0.8)
LEFT_HANDED = np.diag([-1.0, 1.0, 1.0])
DIRECTIONS = {
    "RAS": np.eye(3),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "left-handed": LEFT_HANDED,
    "sagittal": np.eye(3)[[2, 0, 1]],
    "oblique": OBLIQUE,
    "oblique and left-handed": OBLIQUE @ LEFT_HANDED,
}
ORIENTATIONS = ("RAS", "LPS", "SPL", "AIR")


def make_grid(
    directions: str, spacing: tuple[float, ...], shape: tuple[int, int, int] = (29, 26, 31)
) -> Grid:
    return Grid.from_affine(shape, affine_of(DIRECTIONS[directions], spacing, (12.5, -80.0, 7.0)))


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    """A mask of the voxels within ``radius`` voxels of a point."""
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return sum((x - c) ** 2 for x, c in zip(axes, centre, strict=True)) <= radius**2


def place(grid: Grid, spacing: tuple[float, ...], orientation: str = "RAS") -> Placement:
    return Preprocessing(orientation, spacing, "identity").place(grid)
