"""Voxel grids: where an array lies in the patient. Everything else carries one of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from .errors import InputError

_T = TypeVar("_T")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
TOLERANCE_MM = 1e-3
"""Two grids are the same where no corner voxel's centre differs by more than this part of a voxel,
or this many millimetres, whichever is larger: what a float32 header can lose."""
SPACINGS = (1e-4, 1e3)
"""mm between voxels, the least and the most: from a micro-CT's to more than any scanner's."""
MAX_DISTANCE = 1e6
"""mm from the origin; beyond it a header's 32-bit numbers no longer tell voxels apart."""


Stride = int | tuple[int, int, int]
"""Fine voxels that a coarse one spans: alike along all axes, or along each."""


def along_axes(stride: Stride) -> tuple[int, int, int]:
    """A stride along each axis."""
    return (stride, stride, stride) if isinstance(stride, int) else three(stride)


def three(values: Iterable[_T]) -> tuple[_T, _T, _T]:
    """One value an axis.

    Raises:
        ValueError: these are not three.
    """
    i, j, k = values
    return i, j, k


@dataclass(frozen=True)
class Grid:
    """A regular, possibly oblique, anisotropic or left-handed voxel grid.

    The numbers are kept as ITK states them, so that a result is written with exactly the header
    numbers of its query. Any sequences of numbers are taken, and kept as tuples. Whether an image
    of a patient can lie there is another question: see :func:`grid_problem`.

    Attributes:
        shape: voxels along the array's axes (i, j, k).
        spacing: mm between voxel centres along i, j, k.
        origin: centre of voxel (0, 0, 0) in LPS mm.
        direction: 3x3 LPS direction cosines, row-major; column a is the direction of axis a.

    Raises:
        InputError: one of them is not so many numbers.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]

    def __post_init__(self) -> None:
        # Plain numbers: those of numpy have no JSON form, and compare element by element.
        for name, count in (("shape", 3), ("spacing", 3), ("origin", 3), ("direction", 9)):
            object.__setattr__(self, name, _numbers(name, count, getattr(self, name)))

    @classmethod
    def from_affine(cls, shape: tuple[int, ...], affine: np.ndarray) -> Grid:
        """The grid of an array whose 4x4 ``affine`` maps indices (i, j, k, 1) to RAS mm.

        Raises:
            ValueError: the affine is not 4x4, not finite, or singular.
        """
        affine = np.asarray(affine, np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError("an affine is a finite 4x4 matrix")
        lps = LPS_TO_RAS @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        if (spacing == 0).any() or abs(np.linalg.det(lps[:3, :3] / spacing)) < 1e-6:
            raise ValueError("the affine is singular")
        return cls(
            three(int(n) for n in shape),
            three(spacing.tolist()),
            three(lps[:3, 3].tolist()),
            tuple((lps[:3, :3] / spacing).ravel().tolist()),
        )

    @property
    def affine(self) -> np.ndarray:
        """4x4 float64, indices (i, j, k, 1) to RAS mm."""
        lps = np.eye(4)
        lps[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing)
        lps[:3, 3] = self.origin
        return LPS_TO_RAS @ lps

    @property
    def voxel_volume(self) -> float:
        """mm^3 of one voxel, obliqueness and shear included."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def offset_in(self, other: Grid) -> tuple[int, int, int] | None:
        """Where this grid starts within ``other``, in voxels, if both share one lattice.

        Returns:
            The index in ``other`` of this grid's voxel (0, 0, 0) (it may be negative), or None
            where spacing, directions or phase differ.
        """
        corners = np.array(np.meshgrid(*[[0, n - 1] for n in self.shape], indexing="ij"))
        corners = np.vstack([corners.reshape(3, -1), np.ones(8)])
        index = (np.linalg.inv(other.affine) @ self.affine @ corners)[:3]
        offset = np.rint(index[:, 0])
        error = np.abs(index - (corners[:3] + offset[:, None]))
        allowed = np.maximum(TOLERANCE_MM, TOLERANCE_MM / np.asarray(other.spacing))
        if (error.max(axis=1) > allowed).any():
            return None
        return three(int(n) for n in offset)

    def same_as(self, other: Grid) -> bool:
        """Whether both grids have the same voxels in the same places."""
        return self.shape == other.shape and self.offset_in(other) == (0, 0, 0)


def _numbers(name: str, count: int, value: Any) -> tuple[Any, ...]:
    """The numbers of a grid's field as plain ints (of the shape) or floats."""
    problem = f"The {name} of a grid is {count} {'whole ' * (name == 'shape')}numbers"
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:  # lists of several lengths
        raise InputError(f"{problem}.") from error
    if array.dtype.kind not in "iuf" or array.size != count:
        raise InputError(f"{problem}, not {ascii(value)[:60]}.")
    numbers = array.ravel().tolist()
    if name != "shape":
        return tuple(map(float, numbers))
    if not all(1 <= number < 2**31 and number == int(number) for number in numbers):
        raise InputError(f"{problem} from 1 on, not {ascii(value)[:60]}.")
    return tuple(map(int, numbers))


def grid_problem(grid: Grid) -> str | None:
    """Why a grid can't be that of an image of a patient, as a clause; None where it can."""
    numbers = np.concatenate([grid.spacing, grid.origin, grid.direction])
    if not np.isfinite(numbers).all():
        return "its position, spacing or directions are not numbers (NaN or infinite)"
    low, high = SPACINGS
    if min(grid.spacing) < low or max(grid.spacing) > high:
        spacing = " x ".join(f"{s:.4g}" for s in grid.spacing)
        return f"its voxels would be {spacing} mm (between {low:g} and {high:g} are possible)"
    if np.abs(grid.origin).max() > MAX_DISTANCE:
        origin = ", ".join(f"{x:.4g}" for x in grid.origin)
        return f"it would begin at ({origin}) mm"
    if abs(np.linalg.det(np.reshape(grid.direction, (3, 3)))) < 1e-6:
        return "its axes have no direction of their own (singular)"
    return None


@dataclass(frozen=True)
class Volume:
    """A scalar image and its grid.

    Attributes:
        array: (i, j, k), any real dtype, finite.
        grid: where it lies.
        modality: ``"CT"``, ``"MR"`` or None where the file does not say.
        notes: sentences for a person on how it was read, such as that it was resampled.

    Raises:
        InputError: the array is no array, or not of the grid's shape.
    """

    array: np.ndarray
    grid: Grid
    modality: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.array, np.ndarray) or isinstance(self.array, np.ma.MaskedArray):
            kind = type(self.array).__name__
            raise InputError(f"A volume's array is a numpy array (i, j, k), not a {kind}.")
        if not isinstance(self.grid, Grid):
            raise InputError(f"A volume's grid is a Grid, not a {type(self.grid).__name__}.")
        if self.array.shape != self.grid.shape:
            raise InputError(
                f"An array of {size_text(self.array.shape)} voxels is not on a grid of "
                f"{size_text(self.grid.shape)}."
            )


def size_text(shape: Sequence[int]) -> str:
    """A number of voxels along each axis, such as ``512 x 512 x 60``."""
    return " x ".join(map(str, shape))
