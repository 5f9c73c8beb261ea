"""An image's grid, another patient's, and parts of them."""

from __future__ import annotations

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny_model import write_array

from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.results import write_segments

STRAIGHT = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
IMAGE = Grid((35, 51, 35), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), STRAIGHT)
OTHER_PATIENT = replace(IMAGE, shape=(34, 52, 35))
PLAIN = (".nii.gz", ".nii", ".nrrd", ".mha")


def part_of(grid: Grid, start: tuple[int, int, int], shape: tuple[int, int, int]) -> Grid:
    """A part of a grid, or what surrounds it."""
    step = np.reshape(grid.direction, (3, 3)) * np.asarray(grid.spacing)
    return replace(grid, shape=shape, origin=tuple(np.asarray(grid.origin) + step @ start))


def ball(grid: Grid, centre: tuple[float, float, float], radius: float) -> np.ndarray:
    """Voxels of a ball, given in mm of LPS for grids whose axes are straight."""
    axes = np.ogrid[tuple(slice(0, n) for n in grid.shape)]
    return (
        sum(
            (axis * s + o - c) ** 2
            for axis, s, o, c in zip(axes, grid.spacing, grid.origin, centre, strict=True)
        )
        < radius**2
    )


class GridTestCase(unittest.TestCase):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def label_map(self, name: str, grid: Grid, *centre: float) -> Path:
        (self.folder / name).parent.mkdir(exist_ok=True)
        mask = ball(grid, centre or (15, 25, 15), 6).astype(np.uint8)
        return write_array(self.folder / name, mask, grid)

    def segmentation(self, name: str, grid: Grid, *centre: float) -> Path:
        path = self.folder / name
        mask = ball(grid, centre or (15, 25, 15), 6)
        write_segments(path, {"a": mask}, [Structure("a", 1)], grid)
        return path

    def assert_refused(self, telling: str, path: Path, grid: Grid = IMAGE) -> None:
        with self.assertRaisesRegex(InputError, telling) as caught:
            read_annotation(path, grid)
        self.assertNotIn("\n", str(caught.exception))
