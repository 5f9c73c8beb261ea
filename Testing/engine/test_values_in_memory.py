"""Volumes, masks and options from Python: held to what files are held to, in one sentence each."""

from __future__ import annotations

import json
import math
import unittest
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_model import QUICK, STRUCTURES, TinyWorld, TrainedWorld, make_grid

from FewShotSegLib import Grid, Structure, Volume, evaluate, read_support
from FewShotSegLib.core.errors import FewShotSegError, InputError
from FewShotSegLib.core.geometry import grid_problem
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline import adapt, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.pipeline.inputs import as_structures, as_volume, support_list

NAN, INF = math.nan, math.inf
STRAIGHT = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)


class GridsAndVolumesTest(unittest.TestCase):
    """What a grid and a volume can be made of."""

    def test_any_numbers_become_plain_ones(self) -> None:
        plain = Grid((4, 5, 6), (1.0, 2.0, 3.0), (7.0, 8.0, 9.0), STRAIGHT)
        for grid in (
            Grid(np.array([4, 5, 6]), np.array([1, 2, 3]), np.float32([7, 8, 9]), np.eye(3)),
            Grid([4, 5, 6], [1, 2, 3], [7, 8, 9], list(STRAIGHT)),
            Grid((4.0, 5.0, 6.0), (1, 2, 3), (7, 8, 9), np.eye(3).tolist()),
        ):
            self.assertEqual(grid, plain)
            self.assertEqual(json.loads(json.dumps(asdict(grid)))["spacing"], [1.0, 2.0, 3.0])

    def test_what_is_no_grid(self) -> None:
        good: dict[str, Any] = {
            **{"shape": (4, 5, 6), "spacing": (1.0, 2.0, 3.0)},
            **{"origin": (0.0, 0.0, 0.0), "direction": STRAIGHT},
        }
        for field, value in (
            *(("shape", value) for value in ((4, 5), (4, 5, 0), (4, 5, -6), (4, 5, 6.5), None)),
            *(("shape", value) for value in ("456", (4, 5, NAN), (True, True, True))),
            *(
                ("spacing", value)
                for value in ((1, 2), ("a", "b", "c"), None, (1, 2, 3j), [[1], 2])
            ),
            *(("origin", value) for value in (5, "x", ())),
            *(("direction", value) for value in ((1, 0, 0), np.eye(4), None)),
        ):
            with self.subTest(f"{field} {value}"), self.assertRaisesRegex(InputError, field):
                Grid(**{**good, field: value})

    def test_what_is_no_volume(self) -> None:
        grid = Grid((4, 5, 6), (1, 2, 3), (0, 0, 0), STRAIGHT)
        array = np.zeros((4, 5, 6), np.int16)
        for wrong, words in (
            (array[:-1], "3 x 5 x 6"),
            (array[..., None], "4 x 5 x 6 x 1"),
            (array[..., 0], "4 x 5 voxels"),
            (array.tolist(), "list"),
            (torch.zeros(4, 5, 6), "Tensor"),
            (np.ma.masked_array(array, array == 0), "MaskedArray"),
        ):
            with self.subTest(words), self.assertRaisesRegex(InputError, words):
                Volume(wrong, grid)
        with self.assertRaisesRegex(InputError, "a Grid"):
            Volume(array, None)

    def test_grids_without_a_patient(self) -> None:
        array = np.zeros((4, 5, 6), np.int16)
        good = Grid((4, 5, 6), (1, 2, 3), (0, 0, 0), STRAIGHT)
        for changes, words in (
            ({"spacing": (-1, 2, 3)}, "-1"),
            ({"spacing": (0, 0, 0)}, "0 x 0 x 0|0"),
            ({"spacing": (NAN, 1, 1)}, "NaN"),
            ({"origin": (0, INF, 0)}, "NaN or infinite"),
            ({"origin": (0, 1e9, 0)}, "begin at"),
            ({"direction": (0,) * 9}, "singular"),
            ({"direction": tuple(2 * x for x in STRAIGHT)}, "length 1"),
            ({"direction": tuple(0.5 * x for x in STRAIGHT)}, "length 1"),
            ({"direction": (1, 0.3, 0, 0, 0.9539392, 0, 0, 0, 1)}, "right angles"),
        ):
            volume = Volume(array, replace(good, **changes))
            with self.subTest(str(changes)), self.assertRaisesRegex(InputError, words):
                as_volume(volume)
        self.assertIsNone(grid_problem(good))

    def test_values_without_a_meaning(self) -> None:
        grid = Grid((4, 5, 6), (1, 2, 3), (0, 0, 0), STRAIGHT)
        holed = np.zeros((4, 5, 6), np.float32)
        holed[1, 2, 3] = INF
        for array, words in (
            (holed, "1 voxels that are not numbers"),
            (np.full((4, 5, 6), NAN), "120 voxels"),
            (np.full((4, 5, 6), 1e300), "120 voxels"),
            (np.zeros((4, 5, 6), np.complex64), "real numbers"),
            (np.zeros((4, 5, 6), object), "real numbers"),
            (np.full((4, 5, 6), "1"), "real numbers"),
            (np.zeros((4, 5, 6), "datetime64[s]"), "real numbers"),
        ):
            with self.subTest(words), self.assertRaisesRegex(InputError, words):
                as_volume(Volume(array, grid))
        for modality in ("XX", 5, "ct", ""):
            volume = Volume(np.zeros(grid.shape), grid, modality)
            with self.subTest(modality), self.assertRaisesRegex(InputError, "CT, MR or nothing"):
                as_volume(volume)

    def test_what_is_kept(self) -> None:
        grid = Grid((4, 5, 6), (1, 2, 3), (0, 0, 0), STRAIGHT)
        array = np.arange(120).reshape(4, 5, 6)
        for dtype, kept in (
            *((d, d) for d in (np.int16, np.uint16, np.int32, np.float16, np.float32, ">i2")),
            *((np.float64, np.float32), (np.longdouble, np.float32)),
        ):
            volume = as_volume(Volume(array.astype(dtype), grid, "MR", ("a note",)))
            self.assertEqual(volume.array.dtype, kept)
            np.testing.assert_array_equal(volume.array, array)
            self.assertEqual((volume.modality, volume.notes), ("MR", ("a note",)))


class OptionsTest(TrainedWorld):
    """Options of other types than they should be."""

    def setUp(self) -> None:
        super().setUp()
        self.volume = read_image(self.query.image)
        self.usual = {"model": self.model, "runtime": self.runtime}

    def test_the_same_result_from_a_file_and_from_memory(self) -> None:
        usual = {**self.usual, "transductive": False, "probabilities": True}
        wanted = segment(self.adapter, self.query.image, **usual).probabilities["bean"]
        self.assertGreater(np.ptp(wanted), 0.01)
        grid = self.volume.grid
        for volume in (
            self.volume,
            replace(self.volume, array=self.volume.array.astype(np.float64)),
            replace(self.volume, grid=replace(grid, spacing=np.array(grid.spacing))),
            replace(self.volume, grid=replace(grid, direction=np.reshape(grid.direction, (3, 3)))),
        ):
            found = segment(self.adapter, volume, **usual).probabilities["bean"]
            np.testing.assert_array_equal(found, wanted)

    def test_volumes_that_no_file_could_hold(self) -> None:
        holed = self.volume.array.astype(np.float32)
        holed[0, 0, 0] = INF
        grid = replace(self.volume.grid, spacing=(-1.9, 2.3, 3.4))
        support = read_support(*self.supports[0].paths, STRUCTURES)
        for wrong in (
            replace(self.volume, array=holed),
            replace(self.volume, grid=grid),
            replace(self.volume, modality="PET"),
            replace(self.volume, array=self.volume.array.astype(np.complex64)),
        ):
            with self.subTest("query"), self.assertRaises(InputError):
                segment(self.adapter, wrong, **self.usual)
            with self.subTest("support"), self.assertRaises(InputError):
                adapt([replace(support, volume=wrong)], settings=QUICK, **self.usual)

    def test_supports(self) -> None:
        pairs = [patient.paths for patient in self.supports]
        for wrong in (
            None,
            5,
            "image.nii.gz",
            pairs[0],
            [(*pairs[0], pairs[0][0])],
            [pairs[0][:1]],
            [5],
            [("a", 5)],
            [(b"a", b"b")],
            {pairs[0][0]: pairs[0][1]},
        ):
            with self.subTest(str(wrong)[:50]), self.assertRaises(InputError):
                adapt(wrong, settings=QUICK, **self.usual)
            with self.subTest(str(wrong)[:50]), self.assertRaises(InputError):
                segment(self.adapter, self.volume, supports=wrong, **self.usual)
        support = read_support(*pairs[0], STRUCTURES)
        for field, value in (
            ("volume", None),
            ("annotation", None),
            ("annotation", replace(support.annotation, masks=[5])),
            ("annotation", replace(support.annotation, masks={"bean": None})),
            ("annotation", replace(support.annotation, masks={"bean": [[1], [1, 2]]})),
            ("annotation", replace(support.annotation, structures=[5])),
        ):
            with self.subTest(f"{field} {value}"[:60]), self.assertRaises(InputError):
                adapt([replace(support, **{field: value})], settings=QUICK, **self.usual)
        self.assertEqual(support_list(iter([list(pairs[0]), support])), [pairs[0], support])

    def test_supports_of_any_sequence(self) -> None:
        pairs = [patient.paths for patient in self.supports]
        hashes = {
            adapt(supports, structures=structures, settings=QUICK, **self.usual).content_sha256()
            for supports, structures in (
                (pairs, STRUCTURES),
                ((pair for pair in pairs), as_structures(STRUCTURES)),
                (tuple(map(list, pairs)), (s for s in as_structures(STRUCTURES))),
                ((read_support(*pair, STRUCTURES) for pair in pairs), STRUCTURES),
            )
        }
        self.assertEqual(len(hashes), 1)

    def test_structures(self) -> None:
        pairs = [patient.paths for patient in self.supports]
        for wrong in (
            *(["1=a"], {"a": 1}, 5, b"1=a", Structure, [], "", [None], "1=a,1=b"),
            [Structure("a", 1), Structure("A", 2)],
            [Structure("a", 0)],
        ):
            with self.subTest(str(wrong)[:40]), self.assertRaises(InputError):
                adapt(pairs, structures=wrong, settings=QUICK, **self.usual)
            with self.subTest(str(wrong)[:40]), self.assertRaises(InputError):
                read_support(*pairs[0], structures=wrong)
        found = read_support(*pairs[0], structures=STRUCTURES).annotation.masks
        self.assertEqual(set(found), {"bean", "pea"})

    def test_numbers_and_names(self) -> None:
        pairs = [patient.paths for patient in self.supports]
        for options in (
            *({"priors_ml": value} for value in ([1], "bean=1", 5, {"bean": "x"}, {"bean": True})),
            *({"priors_ml": {"bean": value}} for value in (NAN, INF, -1, [], 1j)),
            *({"intensity_offset": value} for value in ("x", INF, NAN, True, [])),
            *({"gamma": value} for value in ("x", NAN, -1, True)),
            *({"model": value} for value in (5, b"x", ["x"], Path("nosuch.json"))),
            *({"seed": value} for value in ("x", 1.5, None, True)),
        ):
            with self.subTest(str(options)), self.assertRaises(FewShotSegError):
                adapt(pairs, settings=QUICK, **{**self.usual, **options})
            with self.subTest(str(options)), self.assertRaises(FewShotSegError):
                segment(self.adapter, self.volume, **{**self.usual, **options})

    def test_queries_and_adapters(self) -> None:
        for wrong in (None, 5, b"x.nii.gz", [5], [None], [""], self.volume.array):
            with self.subTest(str(wrong)[:30]), self.assertRaises(InputError):
                segment(self.adapter, wrong, **self.usual)
            with self.subTest(str(wrong)[:30]), self.assertRaises(InputError):
                TrainedAdapter.load(wrong)


class SavedAdaptersTest(TrainedWorld):
    """An adapter takes no other file's place."""

    def test_names(self) -> None:
        trained = TrainedAdapter.load(self.adapter)
        image = self.query.image.read_bytes()
        for name in ("x.nii.gz", "x", "x.fseft.json", "x.FSEFT.bak", ".fseft/x"):
            path = self.folder / name
            with self.subTest(name), self.assertRaisesRegex(InputError, r"end with \.fseft"):
                trained.save(path)
            with self.subTest(name), self.assertRaisesRegex(InputError, r"end with \.fseft"):
                adapt([patient.paths for patient in self.supports], path, runtime=self.runtime)
            self.assertFalse(path.exists())
        with self.assertRaises(InputError):
            trained.save(self.query.image)
        self.assertEqual(self.query.image.read_bytes(), image)
        trained.save(self.folder / "good.fseft")
        again = TrainedAdapter.load(self.folder / "good.fseft")
        self.assertEqual(again.content_sha256(), trained.content_sha256())


class EvaluatedMasksTest(TinyWorld):
    """Scores are of masks, on a grid, within a tolerance."""

    def test_right_values(self) -> None:
        grid = make_grid()
        mask = np.zeros(grid.shape, bool)
        mask[4:12, 4:12, 3:9] = True
        half = mask.copy()
        half[8:] = False
        for kind in (bool, np.uint8, np.int16, np.float32):
            scores = evaluate({"a": mask.astype(kind)}, {"a": half.astype(kind)}, grid)["a"]
            self.assertAlmostEqual(scores.dice, 2 / 3)
            self.assertAlmostEqual(scores.volume_ml, scores.reference_ml / 2)
        self.assertEqual(evaluate({"a": mask.tolist()}, {"a": mask}, grid)["a"].dice, 1)

    def test_what_is_no_mask(self) -> None:
        grid = make_grid()
        mask = np.zeros(grid.shape, bool)
        mask[4:12, 4:12, 3:9] = True
        for wrong, words in (
            (0.3 * mask, "no mask"),
            (mask * 255, "no mask"),
            (mask * 2, "no mask"),
            (mask * -1, "no mask"),
            (np.where(mask, 1.0, NAN), "no mask"),
            (np.where(mask, INF, 0.0), "no mask"),
            (mask.astype(str), "no mask"),
            (mask.astype(complex), "no mask"),
            (mask[:-1], "23 x 19 x 12"),
            (None, "no voxels"),
        ):
            with self.subTest(words), self.assertRaisesRegex(InputError, words):
                evaluate({"a": wrong}, {"a": mask}, grid)
            with self.subTest(words), self.assertRaisesRegex(InputError, words):
                evaluate({"a": mask}, {"a": wrong}, grid)
        for masks in (None, [mask], 5):
            with self.assertRaisesRegex(InputError, "dictionary"):
                evaluate(masks, {"a": mask}, grid)

    def test_tolerance_and_grid(self) -> None:
        grid = make_grid()
        mask = np.ones(grid.shape, bool)
        for tolerance in (NAN, -5, INF, "x", None, True, 1e6):
            with self.subTest(tolerance), self.assertRaisesRegex(InputError, "tolerance"):
                evaluate({"a": mask}, {"a": mask}, grid, tolerance)
        for wrong in (None, replace(grid, spacing=(0, 1, 1)), replace(grid, direction=(0,) * 9)):
            with self.subTest(str(wrong)[:30]), self.assertRaises(InputError):
                evaluate({"a": mask}, {"a": mask}, wrong)


if __name__ == "__main__":
    unittest.main()
