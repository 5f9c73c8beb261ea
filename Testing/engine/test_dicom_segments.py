"""Results as DICOM segmentations: read back by highdicom and frame by frame, and validated."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pydicom
from dicom_series import Written, put, save, stored_values
from pipeline_case import VALUES, PipelineTestCase
from rotations import rotation
from tiny_model import make_grid, make_labels, make_values, run

from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.evaluation.folders import evaluate_folder
from FewShotSegLib.evaluation.metrics import evaluate_files
from FewShotSegLib.io import dicom_segments
from FewShotSegLib.io.annotations import annotation_grid, read_annotation
from FewShotSegLib.io.dicom_masks import read_dicom_masks
from FewShotSegLib.io.dicom_segments import Algorithm, require_source, write_dicom_segments
from FewShotSegLib.io.dicom_terms import terms_of
from FewShotSegLib.io.queries import find_queries
from FewShotSegLib.io.volumes import read_image

HIGHDICOM = find_spec("highdicom") is not None
STRUCTURES = [
    Structure("parotid_left", 4, (1.0, 0.5, 0.0)),
    Structure("nothing", 5),
    Structure("Öhr\\1", 300),
]
ALGORITHM = Algorithm("parotids", "ab12" * 16, "tiny")
SHAPE = (12, 10, 7)
TURNS = {
    "straight": np.eye(3),
    "oblique": rotation(0.15, -0.1, 0.2),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
}
LIVER = (
    "Segmentation category and type - DICOM master list~SCT^123037004^Anatomical Structure~"
    "SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~SCT^818981001^Abdomen~^^"
)


def cosines(turn: np.ndarray) -> list[float]:
    return turn[:, :2].T.ravel().tolist()


def positions(turn: np.ndarray, along: np.ndarray, lean: float = 0.0) -> list[list[float]]:
    """Slices at these mm along the normal; ``lean`` is by how much of it they go sideways."""
    steps = along[:, None] * (turn[:, 2] + lean * turn[:, 1])
    return ([-31.5, 12.25, -100.0] + steps).tolist()


def frames(path: Path, grid: Grid) -> tuple[dict[str, np.ndarray], list[tuple[int, Any]]]:
    """The masks of a file by its frames' own positions, without highdicom; and the k of each frame
    with what it refers to."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    names = {s.SegmentNumber: s.SegmentLabel for s in dataset.SegmentSequence}
    found = {name: np.zeros(grid.shape, bool) for name in names.values()}
    shared = dataset.SharedFunctionalGroupsSequence[0]
    direction = np.reshape(grid.direction, (3, 3))
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    np.testing.assert_allclose(np.array(orientation, float), direction[:, :2].T.ravel(), atol=1e-6)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    np.testing.assert_allclose(spacing, grid.spacing[1::-1], rtol=1e-6)
    places = []
    for group, plane in zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        index = np.linalg.solve(direction * grid.spacing, place - grid.origin)
        k = round(float(index[2]))
        np.testing.assert_allclose(index, [0, 0, k], atol=1e-3)
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[names[number]][..., k] = plane.T == 1
        derived = group.get("DerivationImageSequence")
        places.append((k, derived[0].SourceImageSequence[0] if derived else None))
    return found, places


@unittest.skipUnless(HIGHDICOM, "highdicom is not installed")
class Writing(unittest.TestCase):
    """Masks onto series of every kind that can be read."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="Größe ")))
        self.series, self.out = self.folder / "series", self.folder / "x_seg.dcm"
        self.series.mkdir()

    def masks(self, grid: Grid, overlapping: bool = False) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(1)
        first, last = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
        first[1:6, 2:7, 1:3] = rng.random((5, 5, 2)) > 0.3
        first[1:3, 2:3, 1:3] = True
        last[(2 if overlapping else 7) :, :, 2:6] = True
        return {"parotid_left": first, "nothing": np.zeros(grid.shape, bool), "Öhr\\1": last}

    def written(self, overlapping: bool = False) -> tuple[Grid, Mapping[str, np.ndarray]]:
        grid = read_image(self.series).grid
        masks = self.masks(grid, overlapping)
        write_dicom_segments(self.out, masks, STRUCTURES, grid, self.series, algorithm=ALGORITHM)
        return grid, masks

    def require_same(self, grid: Grid, masks: Mapping[str, np.ndarray]) -> list[tuple[int, Any]]:
        """The file holds these masks in these places; what each frame refers to."""
        import highdicom

        found, places = frames(self.out, grid)
        self.assertEqual(list(found), ["parotid_left", "nothing", "Öhr/1"])
        for (name, mask), other in zip(masks.items(), found.values(), strict=True):
            np.testing.assert_array_equal(mask, other, name)
        again = highdicom.seg.segread(self.out)
        self.assertEqual(again.number_of_segments, 3)
        pixels = again.get_volume(combine_segments=False)
        for number, mask in enumerate(masks.values()):
            self.assertEqual(np.count_nonzero(pixels.array[..., number]), np.count_nonzero(mask))
        return places

    def test_slices_in_any_order_of_files(self) -> None:
        for name, turn in TURNS.items():
            with self.subTest(name):
                shutil.rmtree(self.series)
                self.series.mkdir()
                source = Written(
                    stored_values(SHAPE),
                    positions(turn, 2.5 * np.arange(SHAPE[2])),
                    cosines(turn),
                )
                source.write(self.series)
                grid, masks = self.written(overlapping=name == "straight")
                for k, image in self.require_same(grid, masks):
                    self.assertEqual(image.ReferencedSOPInstanceUID, f"1.2.3.{k + 1}")
        dataset = pydicom.dcmread(self.out)
        self.assertEqual(dataset.FrameOfReferenceUID, "1.2.8")
        self.assertEqual(dataset.StudyInstanceUID, "1.2.9")
        self.assertNotEqual(dataset.SeriesInstanceUID, "1.2.3")
        (referenced,) = dataset.ReferencedSeriesSequence
        self.assertEqual(referenced.SeriesInstanceUID, "1.2.3")
        self.assertEqual(len(referenced.ReferencedInstanceSequence), SHAPE[2])
        self.assertEqual(str(dataset.PatientName), "Secret^Patient")

    def test_frames_of_one_file_in_any_order(self) -> None:
        turn = TURNS["oblique"]
        source = Written(
            stored_values(SHAPE), positions(turn, 2.5 * np.arange(SHAPE[2])), cosines(turn)
        )
        for order, shared in (((3, 1, 2, 0, 5, 4, 6), False), (range(6, -1, -1), True)):
            with self.subTest(order):
                save(source.enhanced(order, shared), self.series / "all.dcm")
                grid, masks = self.written()
                count = SHAPE[2]
                for k, image in self.require_same(grid, masks):
                    number = image.ReferencedFrameNumber - 1
                    # A file whose frames descend is read in its own order.
                    expected = count - 1 - k if list(order) == [*range(count)][::-1] else k
                    self.assertEqual(list(order)[number], expected)

    def test_several_files_of_several_frames(self) -> None:
        source = Written(stored_values(SHAPE))
        for number, part in enumerate(((0, 2, 4), (1, 3, 5, 6))):
            dataset = source.enhanced(part)
            dataset.SOPInstanceUID = f"1.2.3.{number + 10}"
            save(dataset, self.series / f"{number}.dcm")
        self.require_same(*self.written())
        (referenced,) = pydicom.dcmread(self.out).ReferencedSeriesSequence
        uids = [i.ReferencedSOPInstanceUID for i in referenced.ReferencedInstanceSequence]
        self.assertEqual(uids, ["1.2.3.10", "1.2.3.11"])

    def test_slices_that_were_put_onto_a_grid(self) -> None:
        """A tilted gantry, and a slice that is missing: the frames are those of the result."""
        turn = TURNS["oblique"]
        for name, along, lean in (
            ("tilted", 2.5 * np.arange(SHAPE[2]), 0.3),
            ("uneven", 2.5 * np.array([0, 1, 2, 4, 5, 6, 7]), 0.0),
        ):
            with self.subTest(name):
                shutil.rmtree(self.series)
                self.series.mkdir()
                Written(stored_values(SHAPE), positions(turn, along, lean), cosines(turn)).write(
                    self.series
                )
                grid, masks = self.written()
                self.assertNotEqual(grid.shape, SHAPE)
                self.require_same(grid, masks)

    def test_nothing_found_at_all(self) -> None:
        Written(stored_values(SHAPE)).write(self.series)
        grid = read_image(self.series).grid
        masks = {s.name: np.zeros(grid.shape, bool) for s in STRUCTURES}
        with self.assertNoLogs(level="WARNING"):
            write_dicom_segments(self.out, masks, STRUCTURES, grid, self.series)
        self.require_same(grid, masks)

    def test_what_segmented_and_what_it_is(self) -> None:
        Written(stored_values(SHAPE), tags={"SeriesNumber": 7}).write(self.series)
        self.written()
        dataset = pydicom.dcmread(self.out)
        self.assertEqual((dataset.Modality, dataset.SeriesNumber), ("SEG", 1007))
        self.assertEqual(dataset.SeriesDescription, "FewShotSeg: parotids")
        segment = dataset.SegmentSequence[0]
        self.assertEqual(segment.SegmentAlgorithmType, "AUTOMATIC")
        self.assertEqual(segment.SegmentAlgorithmName, "FewShotSeg")
        (how,) = segment.SegmentationAlgorithmIdentificationSequence
        self.assertEqual(how.AlgorithmVersion, dicom_segments.__version__)
        self.assertIn("adapter=parotids", how.AlgorithmParameters)
        self.assertIn("model=tiny", how.AlgorithmParameters)
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        self.assertEqual((kind.CodeValue, kind.CodeMeaning), ("45289007", "Parotid gland"))
        (side,) = kind.SegmentedPropertyTypeModifierCodeSequence
        self.assertEqual((side.CodeValue, side.CodeMeaning), ("7771000", "Left"))
        self.assertEqual(len(segment.RecommendedDisplayCIELabValue), 3)

    def test_headers_that_lack_things_or_break_rules(self) -> None:
        """What anonymising leaves: no birth date, an empty name, a UID that no standard allows."""
        tags = {"PatientID": None, "PatientName": "", "StudyInstanceUID": "1.2.009"}
        Written(stored_values(SHAPE), tags=tags).write(self.series)
        self.require_same(*self.written())
        self.assertEqual(pydicom.dcmread(self.out).StudyInstanceUID, "1.2.009")

    def test_values_that_can_not_be_repeated_are_left_out(self) -> None:
        tags = {"PatientBirthDate": "unknown", "PatientSex": "weird", "StudyTime": "noon"}
        Written(stored_values(SHAPE), tags=tags | {"StudyDate": "20200101"}).write(self.series)
        require_source(self.series)
        self.require_same(*self.written())
        dataset = pydicom.dcmread(self.out)
        self.assertEqual([str(dataset[name].value or "") for name in tags], ["", "", ""])
        self.assertEqual(str(dataset.StudyDate), "20200101")

    def test_what_highdicom_refuses_is_refused_before_the_work(self) -> None:
        Written(stored_values(SHAPE)).write(self.series)
        refusing = ValueError("a value is no value")
        with (
            mock.patch("highdicom.seg.Segmentation", side_effect=refusing),
            self.assertRaisesRegex(InputError, r"series in .* \(a value is no value\); choose"),
        ):
            require_source(self.series)

    def test_a_name_in_another_character_set(self) -> None:
        tags = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Größe^Jürgen"}
        Written(stored_values(SHAPE), tags=tags).write(self.series)
        self.written()
        self.assertEqual(str(pydicom.dcmread(self.out).PatientName), "Größe^Jürgen")

    def test_a_segmentation_beside_the_slices_is_no_slice(self) -> None:
        Written(stored_values(SHAPE)).write(self.series)
        before = read_image(self.series)
        grid, _ = self.written()
        shutil.copy(self.out, self.series / "000_seg.dcm")
        np.testing.assert_array_equal(read_image(self.series).array, before.array)
        self.assertEqual([f.query for f in find_queries([self.series])], [self.series])
        self.require_same(grid, self.written()[1])

    def test_it_can_be_read_as_an_annotation(self) -> None:
        """With the names and codes, on the image's grid, of which it holds some planes."""
        turn = TURNS["oblique"]
        for kind in ("slices", "frames"):
            source = Written(
                stored_values(SHAPE), positions(turn, 2.5 * np.arange(SHAPE[2])), cosines(turn)
            )
            if kind == "slices":
                source.write(self.series)
            else:
                shutil.rmtree(self.series)
                self.series.mkdir()
                save(source.enhanced((3, 1, 2, 0, 5, 4, 6), False), self.series / "all.dcm")
            grid, masks = self.written(overlapping=kind == "slices")
            own, part = annotation_grid(self.out)
            self.assertTrue(part)
            self.assertLess(own.shape[2], grid.shape[2])
            found = read_annotation(self.out, grid)
            self.assertEqual([s.name for s in found.structures], ["parotid_left", "Öhr/1"])
            np.testing.assert_array_equal(found.masks["parotid_left"], masks["parotid_left"])
            np.testing.assert_array_equal(found.masks["Öhr/1"], masks["Öhr\\1"])
            terms = terms_of(found.structures[0])
            self.assertEqual((terms.type.value, terms.modifier.meaning), ("45289007", "Left"))
            self.assertIsNone(found.structures[1].terminology)
            one = read_annotation(self.out, grid, [Structure("Parotid_Left", 9)])
            self.assertEqual([(s.name, s.value) for s in one.structures], [("Parotid_Left", 9)])
        moved = Grid(grid.shape, grid.spacing, (0.0, 0.0, 0.0), grid.direction)
        with self.assertRaisesRegex(InputError, "different grids"):
            read_annotation(self.out, moved)

    def test_one_on_rounded_or_displaced_slices_or_of_the_other_handedness_can_be_read(
        self,
    ) -> None:
        """Voxel for voxel, though its frames are where the headers say and the image is regular."""
        turn = TURNS["oblique"]
        places = np.array(positions(turn, 2.5 * np.arange(SHAPE[2])))
        jitter = np.random.default_rng(3).uniform(-5e-3, 5e-3, places.shape)
        for name, where, order in (
            ("rounded", places.round(2), None),
            ("displaced", places + jitter, None),
            ("descending", places, range(SHAPE[2] - 1, -1, -1)),
            ("descending and rounded", places.round(2), range(SHAPE[2] - 1, -1, -1)),
        ):
            with self.subTest(name):
                shutil.rmtree(self.series)
                self.series.mkdir()
                source = Written(stored_values(SHAPE), where.tolist(), cosines(turn))
                if order is None:
                    source.write(self.series)
                else:
                    save(source.enhanced(order, True), self.series / "all.dcm")
                grid, masks = self.written()
                handed = np.linalg.det(np.reshape(grid.direction, (3, 3)))
                self.assertEqual(handed < 0, order is not None)
                self.assertIsNone(read_dicom_masks(self.out).grid.offset_in(grid))
                found = read_annotation(self.out, grid)
                np.testing.assert_array_equal(found.masks["parotid_left"], masks["parotid_left"])
                np.testing.assert_array_equal(found.masks["Öhr/1"], masks["Öhr\\1"])
                again = self.folder / "again_seg.dcm"
                only = masks | {"parotid_left": np.zeros(grid.shape, bool)}
                write_dicom_segments(again, only, STRUCTURES, grid, self.series)
                for pair in ((self.out, again), (again, self.out)):  # either is cropped otherwise
                    self.assertEqual(evaluate_files(*pair)["Öhr/1"].dice, 1)
                origin, spacing = np.array(grid.origin), np.array(grid.spacing)
                axes = np.reshape(grid.direction, (3, 3))
                for axis in range(3):
                    moved = tuple(origin + 0.15 * axes[:, axis])
                    with self.assertRaisesRegex(InputError, "different grids"):
                        read_annotation(self.out, replace(grid, origin=moved))
                turned = tuple((rotation(0, 0, 0.02) @ axes).ravel())
                thin = (*spacing[:2], spacing[2] / 2)
                finer = replace(grid, spacing=thin, shape=(*SHAPE[:2], 2 * SHAPE[2] - 1))
                for other in (replace(grid, direction=turned), finer):
                    with self.assertRaisesRegex(InputError, "different grids"):
                        read_annotation(self.out, other)

    def test_what_can_not_be_read_as_an_annotation(self) -> None:
        Written(stored_values(SHAPE)).write(self.series)
        grid, _ = self.written()
        whole = self.out.read_bytes()
        dataset = pydicom.dcmread(self.out)
        dataset.SegmentationType = "FRACTIONAL"
        dataset.save_as(self.folder / "fraction.dcm")
        far = pydicom.dcmread(self.out)
        place = far.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
        place.ImagePositionPatient = [0, 0, 1e9]
        far.save_as(self.folder / "far.dcm")
        (self.folder / "cut.dcm").write_bytes(whole[: len(whole) // 2])
        (self.folder / "text.dcm").write_text("no DICOM")
        shutil.copy(next(self.series.iterdir()), self.folder / "slice.dcm")
        for name, words in (
            ("fraction", "of the type FRACTIONAL"),
            ("far", "regular grid|larger than"),
            ("cut", "can't be read|damaged"),
            ("text", "no DICOM file"),
            ("slice", "no segmentation"),
            ("missing", "There is no file"),
        ):
            with self.subTest(name), self.assertRaisesRegex(InputError, words):
                read_annotation(self.folder / f"{name}.dcm", grid)

    def test_the_validator_of_dicom3tools_finds_no_error(self) -> None:
        if shutil.which("dciodvfy") is None:
            self.skipTest("dciodvfy is not installed (the package dicom3tools)")
        turn = TURNS["oblique"]
        tilted = positions(turn, 2.5 * np.arange(SHAPE[2]), 0.3)
        straight = positions(turn, 2.5 * np.arange(SHAPE[2]))
        for where in (straight, tilted):
            Written(stored_values(SHAPE), where, cosines(turn)).write(self.series)
            self.written(overlapping=where is straight)
            checked = subprocess.run(
                ["dciodvfy", str(self.out)], capture_output=True, text=True, check=False
            )
            self.assertIn("Segmentation", checked.stderr)
            errors = [line for line in checked.stderr.splitlines() if "rror" in line]
            self.assertEqual(errors, [])
        dataset = pydicom.dcmread(self.out)
        del dataset.SegmentSequence[0].SegmentAlgorithmName
        dataset.save_as(self.out)
        checked = subprocess.run(
            ["dciodvfy", str(self.out)], capture_output=True, text=True, check=False
        )
        self.assertIn("SegmentAlgorithmName", checked.stderr)

    def test_what_can_not_be_referred_to(self) -> None:
        Written(stored_values(SHAPE)).write(self.series)
        for name in ("FrameOfReferenceUID", "SOPInstanceUID", "StudyInstanceUID"):
            for path in self.series.iterdir():
                dataset = pydicom.dcmread(path)
                kept = dataset.get(name)
                put(dataset, name, None)
                dataset.save_as(path, enforce_file_format=False)
            with self.subTest(name), self.assertRaisesRegex(InputError, f"has no {name}, which"):
                require_source(self.series)
            for path in self.series.iterdir():
                dataset = pydicom.dcmread(path)
                put(dataset, name, kept)
                dataset.save_as(path)
        require_source(self.series)
        with self.assertRaisesRegex(InputError, "is no folder of DICOM images"):
            require_source(self.out)
        with self.assertRaisesRegex(InputError, "not the DICOM images of one series"):
            require_source(self.folder)


class Terms(unittest.TestCase):
    """Codes by name."""

    def found(self, name: str, terminology: str | None = None) -> tuple[str, str, str]:
        terms = terms_of(Structure(name, 1, None, terminology))
        modifier = terms.modifier.meaning if terms.modifier else ""
        return terms.category.meaning, terms.type.meaning, modifier

    def test_by_name(self) -> None:
        organ = "Anatomical Structure"
        for name, kind, side in (
            ("parotid_right", "Parotid gland", "Right"),
            ("Parotid Gland L", "Parotid gland", "Left"),
            ("brainstem", "Brain Stem", ""),
            ("left kidney", "Kidney", "Left"),
            ("Lung, upper lobe, right", "Upper lobe of lung", "Right"),
            ("SpinalCord", "Spinal cord", ""),
            # Of which nothing is known: no guess.
            ("bean", "Tissue", ""),
            ("left and right kidney", "Tissue", ""),
            ("L", "Tissue", ""),
            ("ravile", "Tissue", ""),
        ):
            with self.subTest(name):
                self.assertEqual(self.found(name), (organ, kind, side))
        self.assertEqual(self.found("cyst")[0], "Morphologically Abnormal Structure")

    def test_what_a_structure_brings_along_counts(self) -> None:
        self.assertEqual(self.found("kidney", LIVER), ("Anatomical Structure", "Liver", ""))
        region = terms_of(Structure("x", 1, None, LIVER)).region
        self.assertEqual(region and region.value, "818981001")
        for broken in ("x", "~~~", "a~^^~SCT^1^x~", LIVER.replace("10200004", "1" * 17)):
            self.assertEqual(self.found("kidney", broken)[1], "Kidney")


@unittest.skipUnless(HIGHDICOM, "highdicom is not installed")
class Command(PipelineTestCase):
    """``segment --format``."""

    def setUp(self) -> None:
        super().setUp()
        self.adapter = self.world / "shared.fseft"
        grid = make_grid()
        direction = np.reshape(grid.direction, (3, 3))
        self.data, self.out = self.folder / "data", self.folder / "out"
        (self.data / "p1").mkdir(parents=True)
        Written(
            make_values(7, make_labels(7, grid)),
            positions(direction, grid.spacing[2] * np.arange(grid.shape[2])),
            cosines(direction),
            grid.spacing[:2],
        ).write(self.data / "p1")

    def segmented(self, *more: str) -> Any:
        return run(*self.segment_arguments(self.adapter, self.out, *more))

    def test_a_folder_of_dicom_and_others(self) -> None:
        shutil.copy(self.query.image, self.data / "p2.nii.gz")
        ran = self.segmented(str(self.data), "--format", "dicom-seg")
        self.assertEqual(ran.status, 2)
        self.assertIn("p2.nii.gz is no folder of DICOM images, which a DICOM segmentation", ran.err)
        self.assertNotIn("Traceback", ran.err)
        grid = read_image(self.data / "p1").grid
        found, _ = frames(self.out / "p1_seg.dcm", grid)
        ran = self.segmented(str(self.data / "p1"), "--format", "nrrd")
        self.assertEqual(ran.status, 0, ran.err)
        labels = read_image(self.out / "p1_seg.nrrd").array
        for name, value in VALUES.items():
            self.assertGreater(np.count_nonzero(labels == value), 0)
            np.testing.assert_array_equal(found[name], labels == value)
        reports = json.loads((self.out / "report.json").read_text("utf-8"))["results"]
        self.assertEqual(sorted(reports), ["p1_seg.dcm", "p1_seg.nrrd"])
        table = (self.out / "volumes.csv").read_text("utf-8-sig")
        self.assertIn("\np1,bean,", table)
        (self.folder / "manual").mkdir()
        shutil.copy(self.out / "p1_seg.nrrd", self.folder / "manual" / "p1_seg.nrrd")
        compared = list(evaluate_folder(self.folder / "manual", self.out))
        (self.out / "p1_seg.nrrd").unlink()
        compared += evaluate_folder(self.folder / "manual", self.out)
        (self.folder / "manual" / "p1_seg.nrrd").unlink()
        shutil.copy(self.out / "p1_seg.dcm", self.folder / "manual" / "p1_seg.dcm")
        compared += evaluate_folder(self.folder / "manual", self.out)
        self.assertEqual([one.volume for one in compared], ["p1"] * 3)
        for one in compared:  # the label map, which is newer, and the DICOM file
            self.assertEqual(one.scores["pea"].dice, 1, one.note)
        again = self.segmented(str(self.data / "p1"), "--format", "dicom-seg")
        self.assertIn("(done before)", again.out)
        segment = pydicom.dcmread(self.out / "p1_seg.dcm").SegmentSequence[0]
        (how,) = segment.SegmentationAlgorithmIdentificationSequence
        self.assertTrue(how.AlgorithmParameters.startswith("adapter=shared,sha256="))

    def test_what_is_refused_leaves_no_folder(self) -> None:
        ran = self.segmented(str(self.query.image), "--format", "dicom-seg")
        self.assertEqual(ran.status, 2)
        self.assertIn("is no folder of DICOM images", ran.err)
        self.assertFalse(self.out.exists())

    def test_formats_that_do_not_fit(self) -> None:
        for out, form, words in (
            ("x.nii.gz", "nrrd", "--format nrrd is for a folder"),
            ("x.seg.nrrd", "nrrd", "--format nrrd is for a folder"),
        ):
            ran = run(
                *self.segment_arguments(
                    self.adapter, self.folder / out, str(self.query.image), "--format", form
                )
            )
            self.assertEqual(ran.status, 2)
            self.assertIn(words, ran.err)
        self.out.mkdir()
        with mock.patch.object(dicom_segments, "find_spec", return_value=None):
            ran = self.segmented(str(self.data / "p1"), "--format", "dicom-seg")
        self.assertEqual(ran.status, 2)
        self.assertIn("pip install highdicom", ran.err)
        self.assertEqual(os.listdir(self.out), [])

    def test_slicer_segmentations(self) -> None:
        ran = self.segmented(str(self.query.image), "--format", "seg.nrrd", "--probabilities")
        self.assertEqual(ran.status, 0, ran.err)
        names = {"query.seg.nrrd", "query_prob_bean.nii.gz", "query_prob_pea.nii.gz"}
        self.assertEqual(set(os.listdir(self.out)), names | {"report.json"})


if __name__ == "__main__":
    unittest.main()
