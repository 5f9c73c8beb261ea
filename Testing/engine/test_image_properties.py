"""Any image that can be written is read right; any damage to it is one sentence, or does no harm.

The images are made byte by byte (``raw_images``), so that what is in them is known apart from ITK.
"""

from __future__ import annotations

import gzip
import tempfile
import unittest
import warnings
from pathlib import Path

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from raw_images import Made, metaimage, more_axes, nifti, nrrd
from scipy.spatial.transform import Rotation
from soak_profile import examples, record

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Volume, grid_problem
from FewShotSegLib.io.pairs import find_pairs
from FewShotSegLib.io.volumes import read_image

PARTS = ("u1", "i2", "u2", "i4", "f4", "f8", "i1", "u4")
NASTY_TEXT = (
    *("nan", "inf", "-inf", "1e300", "-1e300", "1e-300", "0", "-1", "11", "99999999999", ""),
    *("2147483648", "-2147483648", "4294967296", "()", "%d", "x" * 3000, "\0", "1,2", "é", "None"),
)
NASTY_NUMBERS = (
    float("nan"),
    float("inf"),
    -float("inf"),
    0.0,
    -1.0,
    1e30,
    -1e30,
    1e-30,
    1e6,
    352.0,
)
FLOAT_FIELDS = [*range(76, 108, 4), 108, 112, 116, *range(256, 328, 4)]
SHORT_FIELDS = [*range(40, 56, 2), 70, 72, 252, 254]


@st.composite
def affines(draw) -> np.ndarray:
    """Any grid of right angles that an image of a patient can have."""
    turn = draw(st.sampled_from(["straight", "permuted", "oblique"]))
    rotation = np.eye(3)
    if turn == "permuted":
        rotation = rotation[:, draw(st.permutations(range(3)))]
    elif turn == "oblique":
        angles = draw(st.tuples(*[st.floats(-60, 60)] * 3))
        rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    rotation = rotation * draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    affine = np.eye(4)
    affine[:3, :3] = rotation * draw(st.tuples(*[st.floats(0.05, 20)] * 3))
    affine[:3, 3] = draw(st.tuples(*[st.floats(-900, 900)] * 3))
    return affine


@st.composite
def voxels(draw, kinds=PARTS) -> np.ndarray:
    shape = draw(st.tuples(*[st.integers(2, 7)] * 3))
    kind = np.dtype(draw(st.sampled_from(kinds)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind.kind == "f":
        return rng.normal(0, 500, shape).astype(np.float32).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(max(limits.min, -(2**20)), min(limits.max, 2**20), shape).astype(kind)


@st.composite
def images(draw) -> Made:
    """A sound file of any format."""
    values, affine = draw(voxels()), draw(affines())
    order = draw(st.sampled_from("<>"))
    kind = draw(st.sampled_from(["nifti", "nrrd", "metaimage"]))
    if kind == "nifti":
        scaled = values.dtype.str[1:] in ("u1", "i2", "u2", "f4") and draw(st.booleans())
        forms = draw(st.sampled_from(["s", "q", "sq", ""]))
        packed = draw(st.booleans())
        made = nifti(
            values,
            affine,
            order=order,
            forms=forms,
            slope=(draw(st.floats(0.01, 50)), draw(st.floats(-2000, 2000))) if scaled else (1, 0),
            unit=draw(st.sampled_from([0, 1, 2, 3])),
            gap=draw(st.sampled_from([0, 16, 160])),
            **more_axes(draw(st.integers(0, 4))),
        )
        return made.packed() if packed else made
    if kind == "nrrd":
        return nrrd(
            values,
            affine,
            order=order,
            space=draw(
                st.sampled_from(["left-posterior-superior", "RAS", "left-anterior-superior"])
            ),
            stored=draw(st.sampled_from(["raw", "raw", "gzip", "gzip", "ascii", "hex"])),
            detached=draw(st.booleans()),
            extra=draw(
                st.sampled_from(
                    ["", "a:=b\n", "content: some words\n", 'space units: "mm" "mm" "mm"\n']
                )
            ),
        )
    return metaimage(
        values,
        affine,
        order=order,
        compressed=draw(st.booleans()),
        detached=draw(st.booleans()),
        **draw(st.sampled_from([{}, {}, {"Comment": "some words"}, {"Site": "unknown to us"}])),
    )


@st.composite
def damaged(draw) -> Made:
    """A file of which one field, a few bytes of the header, or a part of the voxels is broken."""
    made = draw(images())
    name = next(iter(made.files))
    data = bytearray(made.files[name])
    packed = name.endswith(".gz")
    if packed and draw(st.booleans()):
        at = draw(st.integers(10, len(data) - 1))
        data[at] ^= 1 << draw(st.integers(0, 7))
        made.files[name] = bytes(data)
        return made
    if packed:
        data = bytearray(gzip.decompress(data))
    end = 352 if ".nii" in name else _header_end(name, data)
    how = draw(st.sampled_from(["field", "bytes", "cut", "line"]))
    if how == "cut":
        del data[draw(st.integers(0, len(data) - 1)) :]
    elif how == "bytes":
        for _ in range(draw(st.integers(1, 4))):
            data[draw(st.integers(0, end - 1))] = draw(st.integers(0, 255))
    elif ".nii" in name:
        order = "<" if data[0] else ">"
        if draw(st.booleans()):
            at, number = draw(st.sampled_from(FLOAT_FIELDS)), draw(st.sampled_from(NASTY_NUMBERS))
            data[at : at + 4] = np.array(number, order + "f4").tobytes()
        else:
            at, number = draw(st.sampled_from(SHORT_FIELDS)), draw(st.integers(-9, 1800))
            data[at : at + 2] = np.array(number, order + "i2").tobytes()
    else:
        lines = bytes(data[:end]).split(b"\n")
        number = draw(st.integers(1, max(1, len(lines) - 3)))
        if how == "line":
            other = draw(st.sampled_from([None, *lines[:-2]]))
            lines[number : number + 1] = [] if other is None else [other, lines[number]]
        else:
            words = lines[number].split(b" ")
            word = draw(st.integers(0, len(words) - 1))
            words[word] = draw(st.sampled_from(NASTY_TEXT)).encode()
            lines[number] = b" ".join(words)
        data[:end] = b"\n".join(lines)
    made.files[name] = gzip.compress(bytes(data)) if packed else bytes(data)
    return made


def _header_end(name: str, data: bytes) -> int:
    if name.endswith((".nhdr", ".mhd")):
        return len(data)
    return data.index(b"\n\n") + 2 if name.endswith(".nrrd") else data.index(b"LOCAL\n") + 6


def read(made: Made) -> Volume:
    with tempfile.TemporaryDirectory() as folder:
        return read_image(made.write(Path(folder)))


class SoundTest(unittest.TestCase):
    @examples(40)
    @given(images())
    def test_every_sound_file_is_read_right(self, made: Made) -> None:
        volume = read(made)
        self.assertEqual(volume.array.shape, made.values.shape)
        expected = made.values.astype(np.float32)
        np.testing.assert_allclose(volume.array.astype(np.float32), expected, rtol=1e-6, atol=1e-4)
        corners = np.array(np.meshgrid(*[[0, n - 1] for n in made.values.shape])).reshape(3, -1)
        corners = np.vstack([corners, np.ones(8)])
        apart = np.abs((volume.grid.affine - made.affine) @ corners).max()
        self.assertLess(apart, 2e-3)  # mm; what 32-bit header numbers lose
        record("sound images read right")


class DamagedTest(unittest.TestCase):
    @examples(50)
    @given(damaged())
    def test_damage_is_a_sentence_or_an_image_on_a_possible_grid(self, made: Made) -> None:
        try:
            volume = read(made)
        except InputError as error:
            self.assertNotIn("\n", str(error))
            self.assertTrue(str(error).endswith("."), error)
            record("damaged images refused")
            return
        self.assertIsNone(grid_problem(volume.grid))
        self.assertTrue(np.isfinite(volume.array).all())
        record("damaged images read")

    @examples(40)
    @given(damaged())
    def test_nifti_is_read_as_nibabel_reads_it(self, made: Made) -> None:
        """Another reader of the same definition: no damage may mean another image to us."""
        import nibabel

        name = next(iter(made.files))
        assume(".nii" in name)
        try:
            volume = read(made)
        except InputError:
            return
        data = made.files[name]
        data = gzip.decompress(data) if name.endswith(".gz") else data
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = nibabel.Nifti1Image.from_bytes(data)
                values = np.asanyarray(image.dataobj)
            except (nibabel.spatialimages.HeaderDataError, ValueError):
                return  # stricter than we are, about fields that say nothing of voxel or place
        values = values.reshape(values.shape[:3] + tuple(n for n in values.shape[3:] if n > 1))
        np.testing.assert_allclose(
            volume.array.astype(np.float64), values.astype(np.float64), rtol=1e-5, atol=1e-3
        )
        header = image.header
        scale = {1: 1000.0, 3: 0.001}.get(int(header["xyzt_units"]) & 7, 1.0)
        places = []
        if header["sform_code"] > 0:
            places.append(header.get_sform())
        if header["qform_code"] > 0:
            try:
                places.append(header.get_qform())
            except ValueError:  # a quaternion that is longer than 1 by rounding, or not positive
                pass
        if not places:
            return  # a grid along the axes, about whose origin the two differ
        mm = np.diag([scale, scale, scale, 1.0])
        spacing = max(volume.grid.spacing)
        apart = [np.abs(mm @ place - volume.grid.affine).max() for place in places]
        self.assertLess(min(apart), 0.01 * spacing + 1e-3)
        record("damaged NIfTI read as nibabel does")

    @examples(40)
    @given(images(), st.data())
    def test_damaged_compressed_voxels_are_never_taken_for_others(self, made, data) -> None:
        name = list(made.files)[-1]
        voxels = bytearray(made.files[name])
        starts = {b"\x1f\x8b": 10, b"\x78\x9c": 2}
        start = next((voxels.rfind(magic) + n for magic, n in starts.items() if magic in voxels), 0)
        header = bytes(next(iter(made.files.values()))[:400])
        assume(
            start
            and (
                name.endswith(".gz")
                or b"gzip" in header
                or b"Data = True\nCompressedDataS" in header
            )
        )
        at = data.draw(st.integers(start, len(voxels) - 1))
        voxels[at] ^= 1 << data.draw(st.integers(0, 7))
        expected = made.values.astype(np.float32)
        made.files[name] = bytes(voxels)
        try:
            volume = read(made)
        except InputError:
            record("damaged compressed voxels refused")
            return
        np.testing.assert_allclose(volume.array.astype(np.float32), expected, rtol=1e-6, atol=1e-4)


class BytesTest(unittest.TestCase):
    @examples(40)
    @given(
        st.binary(max_size=600),
        st.sampled_from([".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"]),
        st.sampled_from([b"", b"NRRD0004\n", b"ObjectType = Image\nNDims = 3\n", b"\x5c\x01\0\0"]),
    )
    def test_any_bytes_are_a_sentence(self, data: bytes, ending: str, start: bytes) -> None:
        with self.assertRaises(InputError):
            read(Made({"x" + ending: start + data}, np.zeros(0), np.eye(4)))

    @examples(40)
    @given(st.text(max_size=300), st.sampled_from(["", ".nii", ".mha", "_seg.nrrd"]))
    def test_any_name_is_a_sentence(self, name: str, ending: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for function in (read_image, find_pairs):
                with self.assertRaises(InputError):
                    function(f"{folder}/none/{name}{ending}")


if __name__ == "__main__":
    unittest.main()
