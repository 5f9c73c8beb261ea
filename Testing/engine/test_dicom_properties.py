"""Any DICOM series that can be written is read right; any damage to it is one sentence, or none.

Right is: every voxel that was written lies where it was written, with the value that was written.
"""

from __future__ import annotations

import tempfile
import unittest
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from dicom_series import NATIVE, Written, put, read, save
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation
from soak_profile import examples, record

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Volume

KINDS = ("int8", "uint8", "int16", "uint16", "int32", "uint32")
SLOPES = (1, 1, 1, 2, -1, 100, 0.5, 0.25, 1e-5, 0.0123, 3.7, 1e4)
INTERCEPTS = (0, 0, 0, -1024, 0.5, 1e5, -3)
SHAPE_FIELDS = ("Rows", "Columns", "BitsAllocated", "NumberOfFrames", "SamplesPerPixel")
NUMBERS = (0, 1, 2, 3, 7, 8, 16, 32, 64, 500, 2000, 32767, 65535)
PLACE_FIELDS = ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
VALUE_FIELDS = ("RescaleSlope", "RescaleIntercept")
NASTY = ("", "0", "-1", "1e300", "-1e300", "1e-300", "nan", "inf", "1\\2", "0\\0", "0\\0\\0", "x")
IDENTITY = (
    *("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("Modality", "SOPClassUID"),
)


@dataclass(frozen=True)
class Drawn:
    """A series, and how it is put into files.

    Attributes:
        order: of the frames in a file of all of them; None for a file a slice.
        shared: whether the file says once what all frames share.
    """

    written: Written
    order: tuple[int, ...] | None = None
    shared: bool = True

    def write(self, folder: Path) -> None:
        if self.order is None:
            self.written.write(folder)
        else:
            dataset = self.written.enhanced(self.order, self.shared)
            save(dataset, folder / "a.dcm", self.written.syntax)


@st.composite
def series(draw: st.DrawFn) -> Drawn:
    """Even, straight slices of any direction, pixels, rescaling and encoding."""
    shape = draw(st.tuples(st.integers(2, 7), st.integers(2, 7), st.integers(2, 6)))
    # 8-bit pixels that are big-endian are not read, and said so.
    syntax = draw(st.sampled_from([*NATIVE, "bare"]))
    kind = np.dtype(draw(st.sampled_from(KINDS[2 if syntax == "big-endian" else 0 :])))
    bits = draw(st.integers(2, 8 * kind.itemsize))
    limits = np.iinfo(kind)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    stored = rng.integers(limits.min, limits.max, shape, endpoint=True, dtype=kind)
    stored >>= 8 * kind.itemsize - bits
    rescale = st.tuples(st.sampled_from(SLOPES), st.sampled_from(INTERCEPTS))
    if draw(st.booleans()):
        rescales = [draw(rescale)] * shape[2]
    else:
        rescales = [draw(rescale) for _ in range(shape[2])]
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    if draw(st.booleans()):
        axes = np.rint(
            Rotation.from_euler("xyz", np.rint(np.divide(angles, 90)) * 90, True).as_matrix()
        )
    step = draw(st.floats(0.3, 20)) * draw(st.sampled_from([-1, 1]))
    origin = np.array(draw(st.tuples(*[st.floats(-900, 900)] * 3)))
    inverted = {"PhotometricInterpretation": "MONOCHROME1"} if draw(st.booleans()) else {}
    written = Written(
        stored,
        [origin + axes[:, 2] * step * k for k in range(shape[2])],
        tuple(axes[:, :2].T.ravel()),
        draw(st.tuples(st.floats(0.1, 5), st.floats(0.1, 5))),
        rescales,
        bits,
        syntax,
        inverted,
    )
    if syntax == "bare" or draw(st.booleans()):
        return Drawn(written)
    order = tuple(draw(st.permutations(range(shape[2]))))
    return Drawn(written, order, draw(st.booleans()))


class DicomPropertyTest(unittest.TestCase):
    def assert_as_written(self, volume: Volume, written: Written) -> None:
        """Every pixel of every slice is the voxel in its place."""
        self.assertEqual(volume.array.shape, written.stored.shape)
        inverse = np.linalg.inv(volume.grid.affine)
        values = written.values
        columns, rows = np.indices(written.stored.shape[:2])
        pixels = np.stack([columns, rows, np.ones_like(rows)])
        for number, place in enumerate(written.places):
            affine = written.affine
            affine[:, 2] = place
            ras = np.einsum("ij,jkl->ikl", affine, pixels) * np.reshape([-1, -1, 1], (3, 1, 1))
            index = np.einsum("ij,jkl->ikl", inverse[:3, :3], ras) + inverse[:3, 3, None, None]
            np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
            found = volume.array[tuple(np.rint(index).astype(int))]
            expected = values[..., number]
            # Nothing but what float32 rounds.
            largest = np.abs(expected - written.slopes[number][1]).max()
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7 * largest)

    def assert_read_or_refused(self, folder: Path) -> Volume | None:
        try:
            volume = read(folder)
        except InputError as error:
            self.assertLess(len(str(error)), 600)
            self.assertNotIn("\n", str(error))
            self.assertTrue(str(error).endswith("."), error)
            record("DICOM series refused")
            return None
        record("DICOM series read")
        return volume

    @examples(40)
    @given(series())
    def test_any_series_is_read_as_it_was_written(self, drawn: Drawn) -> None:
        with tempfile.TemporaryDirectory() as name:
            drawn.write(Path(name))
            volume = read(Path(name))
        self.assert_as_written(volume, drawn.written)
        self.assertEqual((volume.modality, volume.notes), ("CT", ()))

    @examples(40)
    @given(series(), st.data())
    def test_a_slice_of_other_pixels_is_refused_or_read_right(
        self, drawn: Drawn, data: st.DataObject
    ) -> None:
        """No header makes pixels out of what is not there, or of a part of what is."""
        name, value = data.draw(st.sampled_from(SHAPE_FIELDS)), data.draw(st.sampled_from(NUMBERS))
        where = data.draw(st.sets(st.integers(0, drawn.written.stored.shape[2] - 1), min_size=1))
        volume = self.changed(drawn, where, name, value)
        if volume is not None:
            self.assert_as_written(volume, drawn.written)

    @examples(40)
    @given(series(), st.data())
    def test_any_element_is_read_or_refused(self, drawn: Drawn, data: st.DataObject) -> None:
        """What is changed in one slice alone never changes the pixels of the others."""
        name = data.draw(st.sampled_from(PLACE_FIELDS + VALUE_FIELDS + IDENTITY))
        value = data.draw(st.sampled_from(NASTY) | st.none())
        number = data.draw(st.integers(0, drawn.written.stored.shape[2] - 1))
        volume = self.changed(drawn, {number}, name, value)
        if volume is None or name not in IDENTITY:
            return
        self.assertIn(value, (None, ""))  # another name is another image, or is none
        self.assert_as_written(volume, drawn.written)

    def changed(self, drawn: Drawn, where: set[int], name: str, value: object) -> Volume | None:
        """The series with an element changed in some slices."""

        def change(dataset: Dataset, number: int) -> None:
            if number in where:
                put(dataset, name, value.split("\\") if isinstance(value, str) else value)

        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                drawn.written.write(Path(folder), change)
            except Exception:
                record("DICOM series that can't be written")
                return None
            return self.assert_read_or_refused(Path(folder))

    @examples(40)
    @given(series(), st.data())
    def test_a_cut_file_is_refused_or_complete(self, drawn: Drawn, data: st.DataObject) -> None:
        with tempfile.TemporaryDirectory() as name:
            drawn.write(Path(name))
            file = data.draw(st.sampled_from(sorted(Path(name).iterdir())))
            raw = file.read_bytes()
            file.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
            volume = self.assert_read_or_refused(Path(name))
        if volume is not None:
            self.assert_as_written(volume, drawn.written)

    @examples(60)
    @given(series(), st.data())
    def test_any_damage_is_a_sentence_or_does_no_harm(
        self, drawn: Drawn, data: st.DataObject
    ) -> None:
        """Bytes that are others: nothing but a sentence, or an image of finite values."""
        with tempfile.TemporaryDirectory() as name:
            drawn.write(Path(name))
            file = data.draw(st.sampled_from(sorted(Path(name).iterdir())))
            raw = bytearray(file.read_bytes())
            for _ in range(data.draw(st.integers(1, 4))):
                raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
            file.write_bytes(raw)
            volume = self.assert_read_or_refused(Path(name))
        if volume is not None:
            self.assertTrue(np.isfinite(volume.array).all())


if __name__ == "__main__":
    unittest.main()
