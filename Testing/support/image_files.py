"""Images and label maps on every kind of grid, written with SimpleITK."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid

SHAPE = (9, 7, 5)
OBLIQUE = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
LIVER = "Segmentation category and type~SCT^123^Organ~SCT^10200004^Liver~^^~Anatomic codes~^^~^^"


def make_grid(direction: np.ndarray, shape: tuple[int, int, int] = SHAPE) -> Grid:
    """An anisotropic grid with numbers that float32 can't hold."""
    numbers = tuple(np.asarray(direction, float).ravel().tolist())
    return Grid(shape, (0.7, 1.1, 3.3), (-100.123456789, 33.3, 7.7), numbers)


GRIDS = {
    "straight": make_grid(np.eye(3)),
    "left-handed": make_grid(np.diag([-1, 1, 1])),
    "turned by 90 degrees": make_grid([[0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "oblique": make_grid(OBLIQUE),
    "oblique and left-handed": make_grid(OBLIQUE @ np.diag([1, -1, 1])),
}


def make_image(array: np.ndarray, grid: Grid) -> sitk.Image:
    """A SimpleITK image of an array (i, j, k)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def make_values(shape: tuple[int, ...], dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def make_box(shape: tuple[int, ...], *bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in bounds)] = True
    return mask


class FilesTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    if not hasattr(unittest.TestCase, "enterContext"):  # Python 3.10

        def enterContext(self, context):
            value = context.__enter__()
            self.addCleanup(context.__exit__, None, None, None)
            return value

    def write(self, name: str, array: np.ndarray, grid: Grid, compress: bool = True) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(make_image(array, grid), str(path), compress)
        return path

    def assert_refused(self, telling: str, function, *args, error=InputError) -> None:
        with self.assertRaisesRegex(error, telling) as caught:
            function(*args)
        self.assertLess(len(str(caught.exception)), 600)
        self.assertNotIn("\n", str(caught.exception))
