"""Images with headers of a test's own making."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
from raw_images import Made
from scipy.spatial.transform import Rotation

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.io import image_files
from FewShotSegLib.io.image_headers import read_header
from FewShotSegLib.io.volumes import read_image

SHAPE = (6, 5, 4)
VALUES = np.random.default_rng(1).integers(-900, 900, SHAPE).astype("<i2")
NAN, INF = float("nan"), float("inf")


def place(rotation: np.ndarray | None = None, spacing=(0.7, 1.1, 3.3)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) * spacing
    affine[:3, 3] = -100.5, 33.25, 7.75
    return affine


OBLIQUE = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
PERMUTED = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])
TURNS = {
    "straight": np.eye(3),
    "flipped": np.diag([-1.0, 1, -1]),
    "left-handed": np.diag([-1.0, 1, 1]),
    "permuted": PERMUTED,
    "oblique": OBLIQUE,
    "oblique and left-handed": OBLIQUE @ np.diag([1.0, -1, 1]),
}


class HeaderTestCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, made: Made) -> Path:
        for path in self.folder.iterdir():
            path.unlink()
        return made.write(self.folder)

    def assert_right(self, made: Made, understood: bool | None = None) -> None:
        path = self.write(made)
        if understood is not None:
            header = read_header(path, image_files.extension_of(path))
            self.assertEqual(header.understood, understood)
        volume = read_image(path)
        np.testing.assert_allclose(volume.array, made.values, rtol=1e-6)
        np.testing.assert_allclose(volume.grid.affine, made.affine, rtol=1e-5, atol=1e-4)

    def assert_refused(self, telling: str, made: Made | Path) -> None:
        path = made if isinstance(made, Path) else self.write(made)
        with self.assertRaisesRegex(InputError, telling) as caught:
            read_image(path)
        self.assertNotIn("\n", str(caught.exception))
        self.assertRegex(str(caught.exception), r"[;,:] .*\.$")
