"""The Python API from supports to a result: right place, right labels."""

from __future__ import annotations

import gzip
import os
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk
from pipeline_case import VALUES, PipelineTestCase
from scipy import ndimage
from tiny_model import (
    DIRECTIONS,
    QUICK,
    make_grid,
    make_labels,
    make_values,
    write_array,
    write_patient,
)

from FewShotSegLib.core.annotation import Annotation, Structure
from FewShotSegLib.core.errors import InputError, ModelError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.results import write_segments
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline import adapt
from FewShotSegLib.pipeline.inputs import looks_like
from FewShotSegLib.training.support_set import Support


class OnTheQuerysGrid(PipelineTestCase):
    """A result lies on its query to the last bit, whatever the grid."""

    def test_every_grid(self) -> None:
        for name in DIRECTIONS:
            with self.subTest(name):
                patient = write_patient(self.folder, "x", 3, make_grid(name, (19, 24, 13)))
                out = self.folder / "x_seg.nii.gz"
                result = self.segment(patient.image, out, transductive=False)
                self.assertEqual(result.grid, read_image(patient.image).grid)
                query, written = (sitk.ReadImage(str(p)) for p in (patient.image, out))
                for numbers in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                    self.assertEqual(getattr(written, numbers)(), getattr(query, numbers)())
                headers = [gzip.decompress(p.read_bytes())[:348] for p in (patient.image, out)]
                for part in (slice(40, 56), slice(76, 92), slice(252, 328)):
                    self.assertEqual(headers[0][part], headers[1][part])

    def test_how_a_patient_is_stored_does_not_matter(self) -> None:
        """The same voxels along other axes, the other way, or slightly turned: the same result."""
        volume = read_image(self.query.image)
        expected = self.segment(transductive=False).labels
        turned = np.reshape(volume.grid.direction, (3, 3)) @ np.asarray(DIRECTIONS["oblique"]).T
        for axes in ((0, 1, 2), (2, 0, 1), (1, 0, 2)):
            for flips in ((False, False, False), (True, False, False), (True, False, True)):
                with self.subTest(axes=axes, flips=flips):
                    corner = [
                        n - 1 if flips[axes.index(a)] else 0
                        for a, n in enumerate(volume.grid.shape)
                    ]
                    signs = np.where(flips, -1, 1)
                    cut = tuple(slice(None, None, int(sign)) for sign in signs)
                    grid = Grid(
                        tuple(volume.grid.shape[a] for a in axes),
                        tuple(volume.grid.spacing[a] for a in axes),
                        tuple((turned @ (corner * np.asarray(volume.grid.spacing))).tolist()),
                        tuple((turned[:, axes] * signs).ravel().tolist()),
                    )
                    stored = volume.array.transpose(axes)[cut]
                    path = write_array(self.folder / "q.nii.gz", stored, grid)
                    result = self.segment(path, transductive=False)
                    np.testing.assert_array_equal(result.labels, expected.transpose(axes)[cut])

    def test_other_spacings_than_the_supports(self) -> None:
        grid = make_grid("left-handed")
        grid = replace(grid, spacing=(0.9, 2.9, 2.0), shape=(50, 15, 21))
        patient = write_patient(self.folder, "x", 4, grid)
        self.assert_found(self.segment(patient.image), patient)

    def test_label_values_are_those_of_the_structures(self) -> None:
        for extension in (".nii.gz", ".nrrd", ".mha"):
            out = self.folder / f"x{extension}"
            result = self.segment(out=out)
            labels = read_image(out).array
            np.testing.assert_array_equal(labels, result.labels)
            self.assertEqual(np.unique(labels).tolist(), [0, 4, 5])
            for name, value in VALUES.items():
                np.testing.assert_array_equal(labels == value, result.masks[name])

    def test_values_beyond_a_byte(self) -> None:
        labels = read_image(self.supports[0].segmentation)
        large = np.where(labels.array == 4, 300, 0).astype(np.uint16)
        path = write_array(self.folder / "large.nii.gz", large, labels.grid)
        trained = self.adapt((self.supports[0].image, path), structures="300=bean")
        result = self.segment(out=self.folder / "x.nii.gz", adapter=trained)
        self.assertEqual(result.labels.dtype, np.uint16)
        self.assertEqual(np.unique(read_image(self.folder / "x.nii.gz").array).tolist(), [0, 300])

    def test_named_segments(self) -> None:
        out = self.folder / "x.seg.nrrd"
        result = self.segment(out=out)
        annotation = read_annotation(out, result.grid)
        self.assertEqual([(s.name, s.value) for s in annotation.structures], list(VALUES.items()))
        for name in VALUES:
            np.testing.assert_array_equal(annotation.masks[name], result.masks[name])

    def test_probabilities(self) -> None:
        out = self.folder / "x.nii.gz"
        result = self.segment(out=out, probabilities=True)
        self.assertEqual(
            sorted(os.listdir(self.folder)),
            ["report.json", "x.nii.gz", "x_prob_bean.nii.gz", "x_prob_pea.nii.gz"],
        )
        both = np.stack([result.probabilities[name] for name in VALUES])
        self.assertTrue(((both >= 0) & (both <= 1)).all())
        # Too near to a half or to each other, rounding may decide.
        clear = (abs(both - 0.5) > 1e-3).all(0) & (abs(both[0] - both[1]) > 1e-3)
        for k, name in enumerate(VALUES):
            expected = (both[k] > 0.5) & (both.argmax(0) == k)
            np.testing.assert_array_equal(result.masks[name][clear], expected[clear])
            written = read_image(self.folder / f"x_prob_{name}.nii.gz")
            np.testing.assert_array_equal(written.array, both[k])
            self.assertEqual(written.grid, result.grid)

    def test_a_query_in_memory_is_as_good_as_its_file(self) -> None:
        fromfile = self.segment()
        result = self.segment(read_image(self.query.image))
        np.testing.assert_array_equal(result.labels, fromfile.labels)

    def test_the_query_itself_is_never_overwritten(self) -> None:
        before = self.query.image.read_bytes()
        with self.assertRaisesRegex(InputError, "is one of the inputs"):
            self.segment(out=self.query.image)
        self.assertEqual(self.query.image.read_bytes(), before)


class Structures(PipelineTestCase):
    """One voxel, one structure; or several."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.nested = []
        for number, support in enumerate(cls.supports):
            volume = read_image(support.image)
            labels = read_image(support.segmentation).array
            masks = {"both": labels > 0, "a/b": labels == 4}
            path = cls.world / f"nested{number}.seg.nrrd"
            structures = [Structure("both", 1), Structure("a/b", 2, (1.0, 0.0, 0.5))]
            write_segments(path, masks, structures, volume.grid)
            cls.nested.append((support.image, path))

    def test_overlapping_structures_overlap(self) -> None:
        trained = self.adapt(*self.nested, structures=None, exclusive=False)
        result = self.segment(out=self.folder / "x.seg.nrrd", adapter=trained, probabilities=True)
        shared = result.masks["both"] & result.masks["a/b"]
        self.assertGreater(dice(shared, result.masks["a/b"]), 0.8)
        written = read_annotation(self.folder / "x.seg.nrrd", result.grid)
        for name, mask in result.masks.items():
            np.testing.assert_array_equal(written.masks[name], mask)
        self.assertEqual(written.structures[1].color, (1.0, 0.0, 0.5))
        self.assertEqual(
            sorted(os.listdir(self.folder)),
            ["report.json", "x.seg.nrrd", "x_prob_a_b.nii.gz", "x_prob_both.nii.gz"],
        )
        with self.assertRaisesRegex(InputError, "may overlap.*seg.nrrd"):
            self.segment(out=self.folder / "x.nii.gz", adapter=trained)

    def test_exclusive_structures_do_not(self) -> None:
        trained = self.adapt(*self.nested, structures=None, exclusive=True)
        result = self.segment(adapter=trained)
        self.assertFalse((result.masks["both"] & result.masks["a/b"]).any())
        self.assertTrue(result.masks["both"].any() and result.masks["a/b"].any())

    def test_the_largest_component_alone_stays_if_asked_for(self) -> None:
        """A query with a second, smaller bean."""
        grid = make_grid("straight", (36, 19, 12))
        labels = make_labels(0, grid)
        place = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
        far = np.linalg.norm((place - (32, 10, 6)) * grid.spacing, axis=-1) < 6
        both = np.where(far, 4, labels)
        image = write_array(self.folder / "q.nii.gz", make_values(0, both), grid)
        options = {"transductive": False}
        every = self.segment(image, **options).masks["bean"]
        self.assertGreater(np.count_nonzero(every & far), 10)
        largest = self.segment(image, largest_component=True, **options).masks["bean"]
        self.assertEqual(ndimage.label(largest)[1], 1)
        self.assertFalse((largest & far).any())
        self.assertGreater(dice(largest, labels == 4), 0.5)

    def test_a_structure_that_no_support_annotates(self) -> None:
        with self.assertRaisesRegex(InputError, "'nut' .label 6. is not annotated in any"):
            self.adapt(structures="4=bean,6=nut")

    def test_no_supports(self) -> None:
        with self.assertRaisesRegex(InputError, "at least one support"):
            adapt([], model=str(self.model), runtime=self.runtime)
        volume = read_image(self.query.image)
        with self.assertRaisesRegex(InputError, "No support has an annotated structure"):
            self.adapt(Support(volume, Annotation({})), structures=None)


class Modalities(PipelineTestCase):
    """CT and MR with one model."""

    def mr_supports(self, count: int = 2) -> list[tuple[Path, Path]]:
        return [write_patient(self.folder, f"mr{n}", n, modality="MR").paths for n in range(count)]

    def test_mr_is_normalised_by_percentiles_and_segmented(self) -> None:
        """Whatever the scanner's scale was."""
        trained = self.adapt(*self.mr_supports())
        self.assertEqual(trained.modality, "MR")
        self.assertEqual(trained.preprocessing.intensity, "percentiles")
        query = write_patient(self.folder, "q", 7, modality="MR")
        volume = read_image(query.image)
        write_array(query.image, (volume.array * 5).astype(np.int16), volume.grid)
        self.assert_found(self.segment(query.image, adapter=trained), query)

    def test_a_mixture_is_refused_unless_said_which(self) -> None:
        mixed = [self.supports[0].paths, *self.mr_supports(1)]
        with self.assertRaisesRegex(InputError, "look like CT and others like MR.*--modality"):
            self.adapt(*mixed)
        once = replace(QUICK, epochs=1)
        self.assertEqual(self.adapt(*mixed, modality="MR", settings=once).modality, "MR")

    def test_without_a_model_the_images_decide(self) -> None:
        """Each modality has a model of its own that comes with the project."""
        defaults = {"CT": "nobody-ct", "MR": "nobody-mr"}
        with mock.patch.dict("FewShotSegLib.pipeline.adaptation.DEFAULT_MODELS", defaults):
            for supports in ([self.supports[0].paths], self.mr_supports(1)):
                modality = looks_like(read_image(supports[0][0]))
                with self.assertRaisesRegex(ModelError, f"no model '{defaults[modality]}'"):
                    self.adapt(*supports, model=None)

    def test_the_model_that_was_chosen_is_reported(self) -> None:
        reported: list[dict[str, Any]] = []
        runtime = replace(self.runtime, events=reported.append)
        with mock.patch.dict(
            "FewShotSegLib.pipeline.adaptation.DEFAULT_MODELS", MR=str(self.model)
        ):
            once = replace(QUICK, epochs=1)
            self.adapt(*self.mr_supports(1), model=None, settings=once, runtime=runtime)
        chosen = [event for event in reported if event["event"] == "model"]
        self.assertEqual([(e["id"], e["modality"]) for e in chosen], [("tiny", "MR")])

    def test_a_model_of_another_kind(self) -> None:
        with self.assertRaisesRegex(InputError, "'abdomen-unet' is for CT, but .* are MR"):
            self.adapt(*self.mr_supports(), model="abdomen-unet")


if __name__ == "__main__":
    unittest.main()
