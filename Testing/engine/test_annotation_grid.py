"""An annotation lies on its own image: another patient's, however well it would fit, is refused."""

from __future__ import annotations

import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from test_segment_files import write_nrrd
from tiny_model import STRUCTURES, TrainedWorld, run, write_array

from FewShotSegLib.core.annotation import Annotation, Structure, require_structures
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.core.job_protocol import ArrayFile, MaskFile, SupportFiles
from FewShotSegLib.evaluation.metrics import evaluate_files
from FewShotSegLib.io.annotation_grid import union
from FewShotSegLib.io.annotations import parse_structures, read_annotation
from FewShotSegLib.io.results import write_segments
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.pipeline.inputs import as_supports
from FewShotSegLib.training.support_set import Support, choose_structures
from FewShotSegLib.worker.inputs import read_support as read_job_support

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


class Everywhere(TrainedWorld):
    """Every way that a pair comes in."""

    def setUp(self) -> None:
        super().setUp()
        image = read_image(self.supports[0].image)
        labels = read_image(self.supports[0].segmentation).array
        self.cropped = self.folder / "cropped.nii.gz"
        grid = part_of(image.grid, (0, 1, 0), (24, 18, 12))
        write_array(self.cropped, labels[:, 1:], grid)
        self.image, self.labels = image, labels

    def test_adapt_and_segment(self) -> None:
        telling = "image has 24 x 19 x 12 voxels.*segmentation .*cropped.nii.gz has 24 x 18 x 12"
        pair = ["--support", str(self.supports[0].image), str(self.cropped)]
        out = self.folder / "new.fseft"
        ran = run("adapt", *pair, "--structures", STRUCTURES, "--out", str(out))
        self.assertEqual(ran.status, 2)
        self.assertRegex(ran.err, telling)
        self.assertFalse(out.exists())
        out = self.folder / "new.nii.gz"
        ran = run(*self.segment_arguments(self.adapter, out, str(self.query.image), *pair))
        self.assertEqual(ran.status, 2)
        self.assertRegex(ran.err, telling)
        self.assertFalse(out.exists())

    def test_pairs_of_a_folder(self) -> None:
        data = self.folder / "data"
        data.mkdir()
        for number, patient in enumerate((*self.supports[:1], self.query)):
            (data / f"p{number}_ct.nii.gz").write_bytes(patient.image.read_bytes())
        (data / "p0_seg.nii.gz").write_bytes(self.cropped.read_bytes())
        (data / "p1_seg.nii.gz").write_bytes(self.query.segmentation.read_bytes())
        ran = run(
            *("demo", "--data", str(data), "--supports", "1", "--structures", STRUCTURES),
            *("--model", str(self.model), "--out", str(self.folder / "demo")),
        )
        self.assertEqual(ran.status, 2)
        self.assertRegex(ran.err, "p0_seg.nii.gz has 24 x 18 x 12")

    def test_arrays_in_memory(self) -> None:
        structures = parse_structures(STRUCTURES)

        def support(**masks: np.ndarray) -> Support:
            return Support(self.image, Annotation(masks, structures), "")

        bean = self.labels == 4
        (good,) = as_supports([support(bean=bean.astype(np.uint8), pea=bean & False)], None)
        self.assertEqual(good.annotation.annotated, {"bean"})
        np.testing.assert_array_equal(good.annotation.masks["bean"], bean)
        self.assertEqual(good.annotation.masks["bean"].dtype, bool)
        for telling, masks in {
            "bean in support 1 has 24 x 18 x 12 voxels, its volume 24 x 19 x 12": {
                "bean": bean[:, 1:]
            },
            "bean in support 1 is no mask": {"bean": self.labels},
            "Nothing is annotated in support 1": {"bean": bean & False},
        }.items():
            with self.assertRaisesRegex(InputError, telling):
                as_supports([support(**masks)], None)

    def test_arrays_of_a_job(self) -> None:
        image = np.zeros((10, 10, 10), np.int16)
        np.save(self.folder / "image.npy", image)
        np.save(self.folder / "mask.npy", np.ones((10, 10, 10), np.uint8))
        for shift, refused in ((0, False), (4, False), (6, True), (-6, True)):
            moved = np.eye(4)
            moved[0, 3] = shift + 0.3
            source = SupportFiles(
                ArrayFile("image.npy", np.eye(4).tolist()),
                [MaskFile("a", ArrayFile("mask.npy", moved.tolist()))],
            )
            arguments = (self.folder, source, [Structure("a", 1)], "Support 1")
            if refused:
                with self.assertRaisesRegex(InputError, "Support 1: 60 % of its annotation"):
                    read_job_support(*arguments)
            else:
                found = read_job_support(*arguments).annotation.masks["a"]
                self.assertEqual(int(found.sum()), (10 - shift) * 100)


class StructureValues(TrainedWorld):
    """No structure is lost to the background or to another one, wherever the list comes from."""

    BAD = {
        "0 is not within 1 to 65535": [("bean", 0), ("pea", 5)],
        "65536 is not within": [("bean", 4), ("pea", 65536)],
        "-3 is not within": [("bean", 4), ("pea", -3)],
        "value 4 comes twice": [("bean", 4), ("pea", 4)],
        "name .* comes twice": [("bean", 4), ("Bean", 5)],
    }

    def test_lists_in_text_and_in_memory(self) -> None:
        image = read_image(self.supports[0].image)
        labels = read_image(self.supports[0].segmentation).array
        masks = {"bean": labels == 4, "pea": labels == 5}
        support = Support(image, Annotation(masks, parse_structures(STRUCTURES)))
        for telling, pairs in self.BAD.items():
            structures = [Structure(*pair) for pair in pairs]
            with self.subTest(telling):
                if pairs[1][1] >= 0:
                    with self.assertRaisesRegex(InputError, telling):
                        parse_structures(",".join(f"{value}={name}" for name, value in pairs))
                for use in (
                    lambda s: require_structures(s, "These"),
                    lambda s: choose_structures([support], s),
                ):
                    with self.assertRaisesRegex(InputError, telling):
                        use(structures)
        for value in (True, 1.0, "4", None):
            with self.assertRaisesRegex(InputError, "not within 1 to 65535"):
                require_structures([Structure("bean", value)], "These")
        require_structures([Structure("bean", np.int64(4)), Structure("pea", 65535)], "These")

    def test_in_an_adapter(self) -> None:
        whole = self.adapter.read_bytes()
        size = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + size])
        for telling, pairs in self.BAD.items():
            with self.subTest(telling):
                metadata = json.loads(header["__metadata__"]["fewshotseg"])
                for own, (name, value) in zip(metadata["structures"], pairs, strict=True):
                    metadata["priors"].setdefault(name, metadata["priors"][own["name"]])
                    own |= {"name": name, "value": value}
                changed = {**header, "__metadata__": {"fewshotseg": json.dumps(metadata)}}
                raw = json.dumps(changed).encode()
                raw += b" " * (-len(raw) % 8)
                path = self.folder / "bad.fseft"
                path.write_bytes(len(raw).to_bytes(8, "little") + raw + whole[8 + size :])
                with self.assertRaises(InputError) as caught:
                    TrainedAdapter.load(path)
                self.assertIn("bad.fseft", str(caught.exception))
                out = self.folder / "x.nii.gz"
                ran = run(*self.segment_arguments(path, out, str(self.query.image)))
                self.assertEqual((ran.status, out.exists()), (2, False))


if __name__ == "__main__":
    unittest.main()
