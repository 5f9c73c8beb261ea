"""DICOM series of tilted, missing and unevenly spaced slices, put onto a regular grid.

What is imaged is known everywhere: a field whose value grows linearly with the position (which
linear interpolation must give back exactly), and a ball, whose centre and size must stay.
"""

from __future__ import annotations

import tempfile
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation
from tiny_model import TrainedWorld, run

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Volume
from FewShotSegLib.io.volumes import read_image

COLUMNS, ROWS = 40, 36
PIXEL = (0.8, 0.9)
ORIGIN = np.array([-31.5, 12.25, -100.0])  # LPS mm
SLOPE = np.array([7.0, -5.0, 11.0])
"""Of the field, per mm along R, A, S."""
TURNED = Rotation.from_euler("xyz", [8, -5, 12], degrees=True).as_matrix()
STRAIGHT = np.eye(3)

Field = Callable[[np.ndarray], np.ndarray]


def ramp(ras: np.ndarray) -> np.ndarray:
    """Values by positions (..., 3)."""
    return ras @ SLOPE + 200


def ball(centre: np.ndarray, radius: float) -> Field:
    """1000 inside, -1000 outside, soft over 4 mm so that its border can be found within voxels."""

    def field(ras: np.ndarray) -> np.ndarray:
        return 1000 * np.clip((radius - np.linalg.norm(ras - centre, axis=-1)) / 2, -1, 1)

    return field


def write_series(
    folder: Path,
    field: Field,
    places: Sequence[float],
    tilt: float = 0.0,
    axes: np.ndarray = STRAIGHT,
    sideways: Sequence[float] | None = None,
) -> None:
    """One file a slice of a field.

    Args:
        places: mm along the slices' normal from the first one. tilt: degrees by which the line
            through the slices leans towards the columns. axes: 3x3 LPS, columns: rows' and
            columns' directions and the normal. sideways: mm along the columns, in place of a tilt.
    """
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    i, j = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))  # (rows, columns)
    shifts = np.tan(np.radians(tilt)) * np.asarray(places) if sideways is None else sideways
    for number, (place, shift) in enumerate(zip(places, shifts, strict=True)):
        first = ORIGIN + axes[:, 2] * place + axes[:, 1] * shift
        lps = first + i[..., None] * PIXEL[0] * axes[:, 0] + j[..., None] * PIXEL[1] * axes[:, 1]
        image = sitk.GetImageFromArray(np.rint(field(lps * [-1, -1, 1])).astype(np.int16))
        image.SetSpacing(PIXEL)
        tags = {
            "0008|0060": "CT",
            "0020|000d": "1.2.9",
            "0020|000e": "1.2.3",
            "0020|0013": str(number),
            "0008|0018": f"1.2.3.{number}",
            "0020|0032": "\\".join(f"{x:.10g}" for x in first),
            "0020|0037": "\\".join(f"{x:.10g}" for x in axes[:, :2].T.ravel()),
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        # The names' order is not that of the slices.
        writer.SetFileName(str(folder / f"{number * 7 % 101:03d}.dcm"))
        writer.Execute(image)


class StackTestCase(unittest.TestCase):
    def read(self, field: Field, *args, **kwargs) -> Volume:
        with tempfile.TemporaryDirectory() as folder:
            write_series(Path(folder), field, *args, **kwargs)
            return read_image(folder)

    def positions(self, volume: Volume) -> np.ndarray:
        """RAS mm of every voxel, (i, j, k, 3)."""
        index = np.stack(np.meshgrid(*map(np.arange, volume.grid.shape), indexing="ij"), axis=-1)
        affine = volume.grid.affine
        return index @ affine[:3, :3].T + affine[:3, 3]

    def assert_ramp(self, volume: Volume, places: Sequence[float], least: float) -> None:
        """Wherever a voxel is between slices its value is the field's, to the rounding."""
        expected = ramp(self.positions(volume))
        filled = volume.array != volume.array.min()
        self.assertGreater(filled.mean(), least)
        # The lowest voxel of all is real, and a rounding of the slices is interpolated and rounded.
        self.assertLess(np.abs(volume.array - expected)[filled].max(), 1.01)
        self.assertAlmostEqual(
            volume.grid.spacing[2] * (volume.grid.shape[2] - 1), places[-1], delta=1e-3
        )
        axes = np.reshape(volume.grid.direction, (3, 3))
        np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)

    def assert_ball(self, volume: Volume, centre: np.ndarray, radius: float) -> None:
        """Its centre is where it was and its volume what it was, well below a voxel."""
        inside = volume.array > 0
        found = self.positions(volume)[inside].mean(axis=0)
        self.assertLess(np.abs(found - centre).max(), 0.15 * min(volume.grid.spacing))
        volume_mm3 = inside.sum() * volume.grid.voxel_volume
        self.assertAlmostEqual(volume_mm3 / (4 / 3 * np.pi * radius**3), 1, delta=0.03)


class TiltTest(StackTestCase):
    places = np.arange(14) * 2.5

    def test_a_linear_field_is_given_back_exactly(self) -> None:
        for tilt, name, axes in (
            *((10, "straight", STRAIGHT), (25, "straight", STRAIGHT), (-20, "straight", STRAIGHT)),
            *((17, "turned", TURNED), (25, "turned", TURNED)),
        ):
            with self.subTest(tilt=tilt, axes=name):
                volume = self.read(ramp, self.places, tilt, axes)
                self.assert_ramp(volume, self.places, 0.5)
                self.assertEqual(volume.grid.shape[0::2], (COLUMNS, 14))
                lean = np.tan(np.radians(abs(tilt))) * self.places[-1] / PIXEL[1]
                self.assertEqual(volume.grid.shape[1], ROWS + int(np.ceil(lean)))
                self.assertRegex(volume.notes[0], f"tilted by {abs(tilt)}.0 degrees.*resampled")
                self.assertEqual(volume.modality, "CT")

    def test_a_ball_stays_where_it_is(self) -> None:
        for tilt in (10, 25):
            lps = ORIGIN + [16, 16 + np.tan(np.radians(tilt)) * 16.3, 16.3]
            centre = lps * [-1, -1, 1]
            with self.subTest(tilt):
                self.assert_ball(self.read(ball(centre, 9), self.places, tilt), centre, 9)


class SpacingTest(StackTestCase):
    def test_missing_slices(self) -> None:
        whole = np.arange(12) * 2.5
        for missing in ([5], [1], [3, 4], [2, 7]):
            places = np.delete(whole, missing)
            with self.subTest(missing):
                volume = self.read(ramp, places, 0, TURNED)
                self.assert_ramp(volume, places, 0.99)
                self.assertEqual(volume.grid.shape, (COLUMNS, ROWS, 12))
                self.assertAlmostEqual(volume.grid.spacing[2], 2.5, 6)
                self.assertRegex(volume.notes[0], "missing slices .2.5 to")

    def test_slices_that_are_there_stay_as_they_are(self) -> None:
        places = np.delete(np.arange(9) * 3.0, 4)
        centre = (ORIGIN + [15, 15, 11]) * [-1, -1, 1]
        volume = self.read(ball(centre, 7), places)
        positions = self.positions(volume)
        for k in (0, 1, 2, 3, 5, 6, 7, 8):
            expected = np.rint(ball(centre, 7)(positions[:, :, k]))
            self.assertLessEqual(np.abs(volume.array[..., k] - expected).max(), 1)

    def test_spacings_that_change(self) -> None:
        for name, steps in {
            "halves": [2.5] * 5 + [5] * 4,
            "brain": [3] * 6 + [7] * 4,
            "all different": [1, 2.2, 3.1, 1.7, 2.6, 1.3, 4],
        }.items():
            places = np.concatenate([[0], np.cumsum(steps)])
            for tilt in (0, 15):
                with self.subTest(name, tilt=tilt):
                    volume = self.read(ramp, places, tilt)
                    self.assert_ramp(volume, places, 0.5)
                    self.assertAlmostEqual(volume.grid.spacing[2], min(steps), delta=0.3)
                    self.assertIn("unevenly spaced", volume.notes[0])
                    self.assertEqual("tilted" in volume.notes[0], tilt > 0)

    def test_a_ball_between_uneven_slices(self) -> None:
        places = np.concatenate([[0], np.cumsum([1.5] * 8 + [3.0] * 8)])
        centre = (ORIGIN + [16, 16, 15]) * [-1, -1, 1]
        self.assert_ball(self.read(ball(centre, 10), places), centre, 10)

    def test_even_slices_are_left_alone(self) -> None:
        rng = np.random.default_rng(0)
        places = np.arange(10) * 2.5 + rng.uniform(-0.05, 0.05, 10)
        places[0], places[-1] = 0, 22.5
        volume = self.read(ramp, places)
        self.assertEqual(volume.notes, ())
        self.assertEqual(volume.grid.shape, (COLUMNS, ROWS, 10))


class PipelineTest(TrainedWorld):
    def test_a_tilted_query_is_segmented_on_the_regular_grid(self) -> None:
        series, out = self.folder / "series", self.folder / "out.nii.gz"
        series.mkdir()
        # Values below -200 tell CT.
        write_series(series, lambda ras: ramp(ras) - 1000, np.delete(np.arange(12) * 2.5, 4), 15)
        ran = run(*self.segment_arguments(self.adapter, out, str(series)))
        self.assertEqual(ran.status, 0, ran)
        reported = "The DICOM series has the slices of a gantry tilted by 15.0 degrees and unevenly"
        self.assertIn(reported, ran.err)
        self.assertIn(reported, (self.folder / "report.json").read_text("utf-8"))
        self.assertTrue(read_image(out).grid.same_as(read_image(series).grid))
        self.assertEqual(read_image(out).grid.shape[2], 12)


class RefusedTest(StackTestCase):
    def assert_refused(self, telling: str, *args, **kwargs) -> None:
        with self.assertRaisesRegex(InputError, telling) as caught:
            self.read(ramp, *args, **kwargs)
        self.assertNotIn("\n", str(caught.exception))

    def test_what_makes_no_volume(self) -> None:
        places = np.arange(8) * 2.0
        doubled = places.copy()
        doubled[4] = doubled[3]
        gap = places.copy()
        gap[4:] += 20
        crooked = np.zeros(8)
        crooked[5] = 3.0
        self.assert_refused("doubled slices", doubled)
        self.assert_refused("gap of 22 mm where slices are missing", gap)
        self.assert_refused("shifted against each other", places, sideways=crooked)
        self.assert_refused("degrees askew", places, 60)


if __name__ == "__main__":
    unittest.main()
