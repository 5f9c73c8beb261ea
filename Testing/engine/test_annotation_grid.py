"""An annotation lies on its own image: another patient's, however well it would fit, is refused."""

from __future__ import annotations

import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from annotation_grids import IMAGE, OTHER_PATIENT, PLAIN, STRAIGHT, GridTestCase, ball, part_of
from segment_files import write_nrrd
from tiny_model import run, write_array

from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.evaluation.metrics import evaluate_files
from FewShotSegLib.io.annotation_grid import union
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.results import write_segments


class PlainLabelMaps(GridTestCase):
    """They can't say that they were cropped."""

    def test_the_very_grid(self) -> None:
        expected = ball(IMAGE, (15, 25, 15), 6)
        for extension in PLAIN:
            path = self.label_map("x" + extension, IMAGE)
            np.testing.assert_array_equal(read_annotation(path, IMAGE).masks["label_1"], expected)

    def test_rounding_of_headers(self) -> None:
        oblique = Grid((9, 8, 7), (0.7, 0.8, 1.3), (101.234567, -33.333333, 7.1), STRAIGHT)
        near = replace(oblique, spacing=(0.70000001, 0.8, 1.3), origin=(101.2346, -33.33333, 7.1))
        path = write_array(self.folder / "x.nii.gz", np.ones(near.shape, np.uint8), near)
        self.assertTrue(read_annotation(path, oblique).masks["label_1"].all())

    def test_any_other_grid(self) -> None:
        others = {
            "another patient": OTHER_PATIENT,
            "cropped": part_of(IMAGE, (5, 15, 5), (20, 20, 20)),
            "padded": part_of(IMAGE, (-1, 0, 0), (36, 51, 35)),
            "one slice fewer": replace(IMAGE, shape=(35, 51, 34)),
            "shifted by a voxel": part_of(IMAGE, (1, 0, 0), IMAGE.shape),
            "shifted by half a voxel": replace(IMAGE, origin=(0.5, 0.0, 0.0)),
            "finer": replace(IMAGE, spacing=(1.0, 1.0, 0.99)),
            "far away": part_of(IMAGE, (100, 0, 0), IMAGE.shape),
        }
        for what, grid in others.items():
            shape = " x ".join(map(str, grid.shape))
            for extension in PLAIN:
                with self.subTest(what, extension=extension):
                    path = self.folder / ("x" + extension)
                    write_array(path, np.ones(grid.shape, np.uint8), grid)
                    telling = f"image has 35 x 51 x 35 voxels.*segmentation .* has {shape} voxels"
                    self.assert_refused(telling, path)
                    path.unlink()

    def test_axes_alone(self) -> None:
        flipped = replace(IMAGE, shape=(35, 35, 35), direction=(-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
        path = write_array(self.folder / "x.nrrd", np.ones(flipped.shape, np.uint8), flipped)
        grid = replace(IMAGE, shape=(35, 35, 35))
        self.assert_refused(r"with axes \(1, 0, 0\).*with axes \(-1, 0, 0\)", path, grid)

    def test_even_where_it_is_empty(self) -> None:
        path = write_array(
            self.folder / "x.nrrd", np.zeros(OTHER_PATIENT.shape, np.uint8), OTHER_PATIENT
        )
        with self.assertRaisesRegex(InputError, "different grids"):
            read_annotation(path, IMAGE, may_be_empty=True)

    def test_masks_in_a_folder(self) -> None:
        self.label_map("masks/liver.nii.gz", IMAGE)
        folder = self.folder / "masks"
        self.assertEqual(list(read_annotation(folder, IMAGE).masks), ["liver"])
        self.label_map("masks/spleen.nii.gz", part_of(IMAGE, (5, 15, 5), (25, 25, 25)))
        self.assert_refused("spleen.nii.gz has 25 x 25 x 25", folder)
        np.testing.assert_array_equal(
            read_annotation(folder, IMAGE, [Structure("liver", 1)]).masks["liver"],
            ball(IMAGE, (15, 25, 15), 6),
        )


class CroppedSegmentations(GridTestCase):
    """Slicer crops to what is annotated, and says what it wrote."""

    def test_a_part_of_the_image(self) -> None:
        expected = ball(IMAGE, (15, 25, 15), 6)
        for grid in (
            IMAGE,
            part_of(IMAGE, (9, 19, 9), (14, 14, 14)),
            part_of(IMAGE, (-3, 0, -2), (41, 51, 44)),
            part_of(IMAGE, (0, 19, 0), (35, 13, 35)),
        ):
            path = self.segmentation("x.seg.nrrd", grid)
            np.testing.assert_array_equal(read_annotation(path, IMAGE).masks["a"], expected)

    def test_without_segments_it_is_matched_by_value(self) -> None:
        mask = np.zeros((1, 6, 5, 4), np.uint8)
        mask[0, 2, 2, 2] = 4
        others = {"Segmentation_ReferenceImageExtentOffset": "0 0 0"}
        path = write_nrrd(self.folder / "x.seg.nrrd", mask, {}, others=others)
        own = read_image_grid(path)
        grid = part_of(own, (-2, -3, -4), (20, 20, 20))
        found = read_annotation(path, grid, [Structure("pea", 4)]).masks["pea"]
        self.assertEqual(np.argwhere(found).tolist(), [[4, 5, 6]])

    def test_mostly_outside(self) -> None:
        # 10 of 13 slices of a ball stick out at one end, 3 of 13 at the other.
        self.segmentation("x.seg.nrrd", part_of(IMAGE, (-20, 0, 0), (70, 51, 35)), -3, 25, 15)
        self.assert_refused(r"\d+ of its \d+ voxels lie outside", self.folder / "x.seg.nrrd")
        path = self.segmentation("x.seg.nrrd", part_of(IMAGE, (0, 0, 0), (70, 51, 35)), 31, 25, 15)
        np.testing.assert_array_equal(
            read_annotation(path, IMAGE).masks["a"], ball(IMAGE, (31, 25, 15), 6)
        )

    def test_another_patient(self) -> None:
        # On one lattice by chance, and each sticks out of the other.
        path = self.segmentation("x.seg.nrrd", OTHER_PATIENT)
        self.assert_refused("neither is a part of the other", path)
        # Cropped to its annotation, a segmentation may stick out by what the image was cropped of.
        tight = part_of(IMAGE, (-2, 10, 10), (13, 13, 13))
        write_segments(path, {"a": ball(tight, (4, 16, 16), 6.5)}, [Structure("a", 1)], tight)
        self.assertEqual(
            int(read_annotation(path, IMAGE).masks["a"].sum()),
            int(ball(IMAGE, (4, 16, 16), 6.5).sum()),
        )

    def test_a_lattice_of_its_own(self) -> None:
        for grid in (
            replace(IMAGE, origin=(0.5, 0.0, 0.0)),
            replace(IMAGE, spacing=(1.0, 1.0, 1.1)),
            part_of(IMAGE, (100, 0, 0), IMAGE.shape),
        ):
            path = self.segmentation("x.seg.nrrd", grid, *(np.asarray(grid.origin) + (15, 25, 15)))
            self.assert_refused("different grids", path)


def read_image_grid(path: Path) -> Grid:
    image = sitk.ReadImage(str(path))
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


class Evaluating(GridTestCase):
    """A reference against a prediction."""

    CENTRE, MOVED = (15, 25, 15), (17, 25, 15)
    PART = part_of(IMAGE, (8, 18, 8), (17, 15, 15))

    def dice(self, reference: Path, prediction: Path) -> float:
        scores = evaluate_files(reference, prediction)
        (score,) = scores.values()
        return score.dice

    def test_two_patients(self) -> None:
        reference = self.label_map("a.nii.gz", IMAGE)
        prediction = self.label_map("b.nii.gz", OTHER_PATIENT)
        telling = "reference has 35 x 51 x 35.*prediction .*b.nii.gz has 34 x 52 x 35"
        with self.assertRaisesRegex(InputError, telling):
            evaluate_files(reference, prediction)
        with self.assertRaisesRegex(InputError, "different grids"):
            evaluate_files(prediction, reference)
        ran = run("evaluate", "--reference", str(reference), "--prediction", str(prediction))
        self.assertEqual((ran.status, ran.out), (2, ""))
        self.assertRegex(ran.err, telling)

    def test_every_pair_of_kinds_scores_the_same(self) -> None:
        a, b = (ball(IMAGE, centre, 6) for centre in (self.CENTRE, self.MOVED))
        expected = 2 * np.count_nonzero(a & b) / (a.sum() + b.sum())
        structures = [Structure("a", 1)]

        def write(kind: str, name: str, centre: tuple[int, int, int]) -> Path:
            if kind == "map":
                return self.label_map(f"{name}.nii.gz", IMAGE, *centre)
            grid = IMAGE if kind == "whole" else self.PART
            return self.segmentation(f"{name}.seg.nrrd", grid, *centre)

        for kind in ("map", "whole", "part"):
            for other in ("map", "whole", "part"):
                with self.subTest(reference=kind, prediction=other):
                    paths = write(kind, "r", self.CENTRE), write(other, "p", self.MOVED)
                    scores = evaluate_files(*paths, structures)
                    self.assertAlmostEqual(scores["a"].dice, expected)
                    self.assertAlmostEqual(scores["a"].volume_ml, b.sum() / 1000)

    def test_what_a_crop_would_hide_counts(self) -> None:
        # The prediction has as much again where the reference's file ends.
        tight = part_of(IMAGE, (9, 19, 9), (13, 13, 13))
        reference = self.segmentation("r.seg.nrrd", tight)
        mask = ball(IMAGE, (15, 25, 15), 6) | ball(IMAGE, (15, 42, 15), 6)
        expected = 2 * ball(IMAGE, (15, 25, 15), 6).sum()
        expected = expected / (ball(IMAGE, (15, 25, 15), 6).sum() + mask.sum())
        write_segments(self.folder / "p.seg.nrrd", {"a": mask}, [Structure("a", 1)], IMAGE)
        write_array(self.folder / "p.nii.gz", mask.astype(np.uint8), IMAGE)
        for prediction in ("p.seg.nrrd", "p.nii.gz"):
            scores = evaluate_files(reference, self.folder / prediction, [Structure("a", 1)])
            self.assertAlmostEqual(scores["a"].dice, expected)

    def test_a_prediction_outside_the_reference(self) -> None:
        reference = self.label_map("r.nii.gz", IMAGE)
        larger = part_of(IMAGE, (0, 0, 0), (45, 51, 35))
        prediction = self.segmentation("p.seg.nrrd", larger, 33, 25, 15)
        with self.assertRaisesRegex(InputError, r"\d+ of its \d+ voxels lie outside"):
            evaluate_files(reference, prediction, [Structure("a", 1)])

    def test_segmentations_on_two_lattices(self) -> None:
        reference = self.segmentation("r.seg.nrrd", IMAGE)
        prediction = self.segmentation("p.seg.nrrd", replace(IMAGE, origin=(0.5, 0, 0)))
        with self.assertRaisesRegex(InputError, "different grids"):
            evaluate_files(reference, prediction)

    def test_the_union_of_two_grids(self) -> None:
        a, b = part_of(IMAGE, (3, 0, 4), (5, 6, 7)), part_of(IMAGE, (1, 2, 9), (4, 8, 9))
        self.assertTrue(union(a, b).same_as(part_of(IMAGE, (1, 0, 4), (7, 10, 14))))
        self.assertTrue(union(b, a).same_as(union(a, b)))
        self.assertTrue(union(IMAGE, a).same_as(IMAGE))
        self.assertIsNone(union(a, replace(a, spacing=(1.0, 1.0, 2.0))))


if __name__ == "__main__":
    unittest.main()
