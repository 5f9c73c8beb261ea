"""CT that was stored 1024 too high: recognised, reported and put right; MR is never touched."""

from __future__ import annotations

import unittest
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from shared_data import data_folder
from soak_profile import SOAK, examples, record
from tiny_model import Patient, TrainedWorld, make_grid, make_labels, make_values, run, write_array

from FewShotSegLib.core.ct_offset import OFFSET, in_hounsfield, is_offset_ct
from FewShotSegLib.core.geometry import Volume
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.phantoms.patients import make_phantom
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.pipeline.inputs import looks_like

REPORTED = "stored 1024 too high"


def unsigned(array: np.ndarray, offset: int = OFFSET) -> np.ndarray:
    """As such programs write it."""
    return np.clip(array.astype(np.int32) + offset, 0, 65535).astype(np.uint16)


def with_air(seed: int) -> np.ndarray:
    """A tiny patient's CT with as much air beside it as any CT has; int16."""
    values = make_values(seed, make_labels(seed, make_grid()))
    values[:4] = np.random.default_rng(seed).normal(-1000, 8, values[:4].shape)
    return np.maximum(values, -OFFSET)


class RecognitionTest(unittest.TestCase):
    def test_phantoms(self) -> None:
        for seed in range(4):
            array = make_phantom(seed, spacing=(6, 6, 6))[0].array
            with self.subTest(seed):
                self.assertFalse(is_offset_ct(array))
                self.assertTrue(is_offset_ct(unsigned(array)))
                self.assertTrue(is_offset_ct(unsigned(array).astype(np.float32)))

    def test_every_image_of_the_shared_data(self) -> None:
        """In ``make test`` every eighth of a kind."""
        data = data_folder()
        every = 1 if SOAK else 8
        ct = [*sorted((data / "openkbp").rglob("*_ct.nii.gz"))[::every]]
        ct += [data / "totalsegmentator" / "ct.nii.gz"]
        mr = [*sorted((data / "hippocampus" / "images").glob("*.nii.gz"))[::every]]
        mr += [*sorted((data / "prostate_mr" / "images").glob("*.nii.gz"))[::every]]
        mr += [data / "totalsegmentator" / "mr.nii.gz"]
        for path in ct:
            with self.subTest(path.name):
                array = read_image(path).array
                self.assertFalse(is_offset_ct(array))
                self.assertTrue(is_offset_ct(unsigned(array)))
                record("CT distinguished from the same CT stored 1024 too high")
        for path in mr:
            with self.subTest(path.name):
                array = read_image(path).array.astype(np.float32)
                self.assertFalse(is_offset_ct(array))
                # Its tissue's commonest value put to where a CT's may be.
                counts, edges = np.histogram(
                    array[array > 0.15 * np.percentile(array, 99)], bins=100
                )
                common = edges[np.convolve(counts, np.ones(5), "same").argmax()]
                for place in (900, 960, 1000, 1030, 1064, 1100):
                    self.assertFalse(is_offset_ct(array * (place / common)))
                    record("MR, scaled to a CT's values, left alone")

    @examples(40)
    @given(
        seed=st.integers(0, 2**32 - 1),
        background=st.floats(0, 60),
        tissues=st.lists(st.floats(150, 1800), min_size=2, max_size=5),
        noise=st.floats(5, 40),
        bias=st.floats(0.2, 0.6),
    )
    def test_what_looks_like_mr_is_left_alone(self, seed, background, tissues, noise, bias) -> None:
        """Several tissues under a coil's uneven sensitivity, Rician noise, no values below 0."""
        rng = np.random.default_rng(seed)
        shape = (24, 24, 16)
        kinds = rng.integers(0, len(tissues), shape)
        x = np.linspace(-1, 1, shape[0])[:, None, None]
        image = np.asarray(tissues)[kinds] * (1 + bias * x)
        image[:, :5] = background
        image = np.hypot(image + rng.normal(0, noise, shape), rng.normal(0, noise, shape))
        self.assertFalse(is_offset_ct(image.astype(np.int16)))


class CorrectionTest(unittest.TestCase):
    def setUp(self) -> None:
        self.grid = make_grid()
        self.values = with_air(3)
        self.stored = Volume(unsigned(self.values), self.grid)

    def test_the_values_come_back_exactly(self) -> None:
        for modality in ("auto", "CT"):
            for dtype in (np.uint16, np.int16, np.int32, np.float32):
                stored = Volume(self.stored.array.astype(dtype), self.grid)
                found = in_hounsfield(stored, modality)
                np.testing.assert_array_equal(found.array, self.values)
                self.assertIn(REPORTED, found.notes[0])
                self.assertIn("--intensity-offset 0", found.notes[0])
                self.assertEqual(looks_like(stored), "CT")
        self.assertEqual(self.stored.array.dtype, np.uint16)  # the one given is as it was

    def test_what_is_mr_by_its_file_or_by_word_is_not_changed(self) -> None:
        for volume, modality in (
            (self.stored, "MR"),
            (Volume(self.stored.array, self.grid, "MR"), "auto"),
            (Volume(self.stored.array, self.grid, "MR"), "CT"),
        ):
            self.assertIs(in_hounsfield(volume, modality), volume)

    def test_a_ct_as_it_should_be_is_not_changed(self) -> None:
        volume = Volume(self.values, self.grid)
        self.assertIs(in_hounsfield(volume, "CT"), volume)

    def test_an_offset_that_was_given(self) -> None:
        self.assertIs(in_hounsfield(self.stored, "CT", 0), self.stored)
        for array, offset, dtype in (
            (self.stored.array, -1024, np.int16),
            (self.stored.array, -1000, np.int16),
            (np.full((2, 2, 2), 65535, np.uint16), 5, np.int32),
            (np.full((2, 2, 2), -32768, np.int16), -1024, np.int32),
            (self.stored.array, -0.5, np.float32),
        ):
            volume = Volume(array, make_grid(shape=array.shape))
            found = in_hounsfield(volume, "MR", offset)
            np.testing.assert_array_equal(found.array, array.astype(np.float64) + offset)
            self.assertEqual(found.array.dtype, dtype)
            self.assertEqual(found.notes, ())


class PipelineTest(TrainedWorld):
    """On the command line."""

    def write(self, name: str, array: np.ndarray) -> Path:
        return write_array(self.folder / name, array, make_grid())

    def test_a_query(self) -> None:
        good = self.write("good.nii.gz", with_air(3))
        stored = self.write("stored.nii.gz", unsigned(with_air(3)))
        results = {}
        for name, path, more in (
            ("good", good, ()),
            ("stored", stored, ()),
            ("reported", stored, ("--intensity-offset", "-1024")),
            ("as it is", stored, ("--intensity-offset", "0")),
        ):
            out = self.folder / f"{name} result.nii.gz"
            usual = self.segment_arguments(self.adapter, out, str(path), "--probabilities")
            ran = run(*usual, *more)
            self.assertEqual(ran.status, 0, ran)
            self.assertEqual(REPORTED in ran.err, name == "stored", ran.err)
            results[name] = read_image(self.folder / f"{name} result_prob_bean.nii.gz").array
            report = (self.folder / "report.json").read_text("utf-8")
            self.assertEqual(REPORTED in report, name == "stored")
            (self.folder / "report.json").unlink()
        self.assertGreater(np.ptp(results["good"]), 0)
        np.testing.assert_array_equal(results["good"], results["stored"])
        np.testing.assert_array_equal(results["good"], results["reported"])
        self.assertTrue((results["good"] != results["as it is"]).any())

    def test_supports(self) -> None:
        contents = []
        segmentation = self.supports[0].segmentation
        for name, array in (("good", with_air(0)), ("stored", unsigned(with_air(0)))):
            patient = Patient(self.write(f"{name}.nii.gz", array), segmentation)
            out = self.folder / f"{name}.fseft"
            ran = run(*self.adapt_arguments(out, supports=(patient,), epochs=1))
            self.assertEqual(ran.status, 0, ran)
            reported = f"Support 1: The values are those of a CT that was {REPORTED}" in ran.err
            self.assertEqual(reported, name == "stored", ran.err)
            trained = TrainedAdapter.load(out)
            self.assertEqual(trained.modality, "CT")
            contents.append(trained.supports[0]["content"])
        self.assertEqual(contents[0], contents[1])


if __name__ == "__main__":
    unittest.main()
