"""What phantoms are drawn with: implicit shapes in millimetres, and a canvas of CT numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.geometry import Grid, three

_AIR = -1000.0
_MARGIN_MM = 22.0
"""How far the deformation can carry a point, and with it a shape's bounding box."""

Points = tuple[np.ndarray, np.ndarray, np.ndarray]
Box = tuple[slice, slice, slice]


def rotation(angles: np.ndarray) -> np.ndarray:
    """3x3 rotation by three angles in radians, about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


class Canvas:
    """HU on a grid, and the place of every voxel in the undeformed body.

    Attributes:
        hu: (i, j, k) float32, painted on. labels: (i, j, k) uint8, of what was painted there last.
        points: body coordinates x, y, z in mm of every voxel, each (i, j, k) float32: pose and
            deformation undone.
        height, across: the scanner's y and x in mm (i, j, k): gas rises along the first.
        edge: width in mm over which a shape's border mixes.
    """

    def __init__(self, grid: Grid, rng: np.random.Generator) -> None:
        """Put the body into the grid by the pose and the deformation that ``rng`` chooses."""
        self.grid = grid
        self.hu = np.full(grid.shape, _AIR, np.float32)
        self.labels = np.zeros(grid.shape, np.uint8)
        # A voxel mixes what lies within it: a shape's edge is as wide as a voxel.
        self.edge = float(np.cbrt(grid.voxel_volume))
        self._pose = rotation(np.radians(rng.uniform(-6, 6, 3))) * rng.uniform(0.97, 1.03)
        self._shift = rng.uniform(-7, 7, 3)
        affine = grid.affine
        to_body = np.linalg.inv(self._pose)
        matrix = to_body @ affine[:3, :3]
        offset = to_body @ (affine[:3, 3] - self._shift)
        points = [self._linear(matrix[axis], offset[axis]) for axis in range(3)]
        self.height = self._linear(affine[1, :3], affine[1, 3])
        self.across = self._linear(affine[0, :3], affine[0, 3])
        for axis in range(3):
            points[axis] += self.waves(rng, 5, (120, 240), 3.0)
            points[axis] += self.waves(rng, 5, (55, 95), 1.3)
        self.points: Points = three(points)

    def _linear(self, row: np.ndarray, offset: float) -> np.ndarray:
        """row . (i, j, k) + offset at every voxel, (i, j, k) float32."""
        i, j, k = (
            (step * np.arange(n)).astype(np.float32)
            for step, n in zip(row, self.grid.shape, strict=True)
        )
        return i[:, None, None] + j[None, :, None] + (k + np.float32(offset))[None, None, :]

    def waves(
        self, rng: np.random.Generator, count: int, lengths: tuple[float, float], sd: float
    ) -> np.ndarray:
        """Smooth noise, the same in the patient on every grid.

        Args:
            rng: chooses directions, lengths and phases.
            count: how many plane waves are added up.
            lengths: shortest and longest wavelength, mm.
            sd: the standard deviation of the sum.

        Returns:
            (i, j, k) float32.
        """
        total = np.zeros(self.grid.shape, np.float32)
        affine = self.grid.affine
        for _ in range(count):
            direction = rng.normal(size=3)
            direction *= 2 * np.pi / rng.uniform(*lengths) / np.linalg.norm(direction)
            steps = direction @ affine[:3, :3]
            phase = rng.uniform(0, 2 * np.pi) + direction @ affine[:3, 3]
            # A plane wave on a lattice is a product over its axes: three short vectors.
            i, j, k = (
                np.exp(1j * step * np.arange(n)).astype(np.complex64)
                for step, n in zip(steps, self.grid.shape, strict=True)
            )
            k = k * np.complex64(np.exp(1j * phase))
            plane = i[:, None] * j[None, :]
            total += plane.real[:, :, None] * k.real - plane.imag[:, :, None] * k.imag
        return total * np.float32(sd * np.sqrt(2 / count))

    def box(self, centre: np.ndarray, radius: float) -> tuple[slice, slice, slice]:
        """The voxels that may lie within ``radius`` mm of ``centre`` (body coordinates)."""
        affine = self.grid.affine
        inverse = np.linalg.inv(affine[:3, :3])
        middle = inverse @ (self._pose @ np.asarray(centre) + self._shift - affine[:3, 3])
        reach = (radius * 1.05 + _MARGIN_MM) * np.linalg.norm(inverse, axis=1)
        low = np.clip(np.floor(middle - reach), 0, self.grid.shape).astype(int)
        high = np.clip(np.ceil(middle + reach) + 1, 0, self.grid.shape).astype(int)
        return three(slice(a, b) for a, b in zip(low, high, strict=True))

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """The part of each voxel, 0..1, within a shape of this signed distance in mm."""
        return np.clip(0.5 - distance / self.edge, 0, 1)

    def paint(
        self,
        distance: np.ndarray,
        hu: float | np.ndarray,
        box: tuple[slice, slice, slice] = (slice(None),) * 3,
        label: int = 0,
    ) -> None:
        """Replace what lies within a shape (signed distance in mm, negative inside) by ``hu``."""
        target = self.hu[box]
        target += self.cover(distance) * (hu - target)
        self.labels[box][distance < 0] = label


# --- shapes: signed distances in mm, negative inside ------------------------------------------


def local(
    points: Points,
    box: tuple[slice, slice, slice],
    centre: np.ndarray,
    turn: np.ndarray | None = None,
) -> Points:
    """The points of a box seen from a shape's centre and along its own axes."""
    x, y, z = (axis[box] - np.float32(offset) for axis, offset in zip(points, centre, strict=True))
    if turn is None:
        return x, y, z
    inverse = turn.T.astype(np.float32)
    return tuple(row[0] * x + row[1] * y + row[2] * z for row in inverse)


def ellipsoid(points: Points, radii: Sequence[float] | np.ndarray) -> np.ndarray:
    """Distance to an ellipsoid about the origin: first order, good near the surface."""
    x, y, z = points
    a, b, c = (float(r) for r in radii)
    scaled = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
    slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2)
    return scaled * (scaled - 1) / np.maximum(slope, 1e-4)


def tube(x: np.ndarray, y: np.ndarray, a: float, b: float) -> np.ndarray:
    """Distance to an elliptic cylinder along z of half axes ``a`` and ``b``."""
    scaled = np.sqrt((x / a) ** 2 + (y / b) ** 2)
    slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2)
    return scaled * (scaled - 1) / np.maximum(slope, 1e-4)


def arc(points: Points, bend: float, half_angle: float, radius: float) -> np.ndarray:
    """Distance to a tube bent along a circle of radius ``bend`` about the origin, in x and y."""
    x, y, z = points
    x = np.abs(x)
    sin, cos = np.sin(half_angle), np.cos(half_angle)
    along = np.where(cos * x > sin * y, x * sin + y * cos, np.hypot(x, y))
    squared = x * x + y * y + z * z + bend * bend - 2 * bend * along
    return np.sqrt(np.maximum(squared, 0)) - radius


def smooth_union(a: np.ndarray, b: np.ndarray, blend: float) -> np.ndarray:
    """The union of two shapes, its seam rounded over ``blend`` mm."""
    mix = np.clip(0.5 + 0.5 * (b - a) / blend, 0, 1)
    return b + (a - b) * mix - blend * mix * (1 - mix)
