"""Jobs of the background process: what is written is what is read, on the right grid."""

from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path

import numpy as np
from job_case import put, put_support
from scipy.spatial.transform import Rotation
from tiny_model import STRUCTURES, TinyWorld, make_grid, make_labels

from FewShotSegLib.core.annotation import Structure, parse_structures
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.core.job_protocol import (
    ArrayFile,
    DevicesJob,
    MaskFile,
    PhantomsJob,
    SegmentJob,
    SupportFiles,
    TrainJob,
    array_steps,
    make_private,
    read_array,
    read_job,
    write_job,
)
from FewShotSegLib.core.size_prior import PriorChange, SizePrior
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.worker.inputs import on_grid, read_support, read_volume


class ProtocolTest(unittest.TestCase):
    """What is written is what is read."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_jobs_come_back_as_they_were(self) -> None:
        array = ArrayFile("volume0.npy", np.eye(4).tolist(), "CT")
        jobs = (
            TrainJob(
                [SupportFiles(array, [MaskFile("bean", array, 3)])],
                [Structure("bean", 1, (0.1, 0.2, 0.3), "a~b"), Structure("pea", 2)],
                "embedded",
                settings={"epochs": 3},
                priors={"bean": PriorChange(mean_ml=3.5, gamma=0.2, enabled=False)},
                exclusive=False,
            ),
            SegmentJob(array, priors={"pea": PriorChange(deviation_ml=1.0)}, uncertainty=True),
            DevicesJob(),
            PhantomsJob("somewhere"),
        )
        for job in jobs:
            write_job(self.folder, job)
            self.assertEqual(read_job(self.folder), (job, os.getpid()))

    def test_another_version_is_refused_in_a_sentence(self) -> None:
        for text in (
            "{}",
            "no json",
            '{"format": 2, "kind": "train"}',
            '{"format": 1, "kind": "devices", "caller": 1, "more": 1}',
        ):
            (self.folder / "job.json").write_text(text)
            with self.assertRaisesRegex(InputError, "different versions"):
                read_job(self.folder)

    def test_arrays_of_either_order_and_any_type(self) -> None:
        rng = np.random.default_rng(0)
        for number, dtype in enumerate((np.int16, np.uint8, np.float32, ">i2")):
            array = rng.integers(0, 200, (5, 4, 3)).astype(dtype)
            for order, given in (
                ("F", array.T.copy().T),
                ("C", array),
                ("part", array[::2, :, 1:]),
            ):
                name = f"{number}{order}.npy"
                total = sum(array_steps(self.folder / name, given))
                self.assertEqual(total, given.nbytes)
                back = read_array(self.folder, name)
                np.testing.assert_array_equal(back, given)
                self.assertEqual(back.dtype, given.dtype)
                if order == "F":
                    self.assertTrue(back.flags.f_contiguous)

    def test_arrays_outside_the_folder_and_pickles_are_refused(self) -> None:
        np.save(self.folder / "objects.npy", np.array([{}], object), allow_pickle=True)
        for name in ("../x.npy", "absent.npy", "objects.npy"):
            with self.assertRaisesRegex(InputError, "can't be read"):
                read_array(self.folder, name)

    @unittest.skipUnless(os.name == "posix", "permission bits")
    def test_a_private_folder_whatever_the_umask(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        folder = make_private(self.folder / "job")
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)


class OnGridTest(unittest.TestCase):
    """Masks on another grid: tested by where voxels lie, not by eye."""

    def ball(self, grid: Grid, centre: np.ndarray, radius: float) -> np.ndarray:
        index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
        points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
        return np.linalg.norm(points - centre, axis=-1) < radius

    def test_each_voxel_is_what_the_mask_says_at_its_centre(self) -> None:
        rng = np.random.default_rng(3)
        grid = make_grid("oblique", (24, 20, 16))
        for trial in range(6):
            turned = np.eye(4)
            turned[:3, :3] = Rotation.random(rng=rng).as_matrix() @ np.diag(rng.uniform(0.8, 3, 3))
            turned[:3, 3] = grid.affine[:3, :3] @ [11, 9, 8] + grid.affine[:3, 3]
            turned[:3, 3] -= turned[:3, :3] @ [12, 12, 12]
            own = Grid.from_affine((25, 25, 25), turned)
            mask = rng.random(own.shape) < 0.3
            if trial == 0:
                mask[:] = True  # to the very edge, half a voxel beyond the outermost centres
            result = on_grid(mask, own, grid)
            index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
            to_own = np.linalg.inv(own.affine) @ grid.affine
            exact = index @ to_own[:3, :3].T + to_own[:3, 3]
            near = np.floor(exact + 0.5).astype(int)
            inside = ((near >= 0) & (near < own.shape)).all(-1)
            expected = np.zeros(grid.shape, bool)
            expected[inside] = mask[tuple(near[inside].T)]
            # Where a centre lies on a border between two voxels to the last bit, either is right.
            doubtful = (np.abs(exact + 0.5 - np.rint(exact + 0.5)) < 1e-6).any(-1)
            self.assertGreater(expected.sum(), 100)
            np.testing.assert_array_equal(result[~doubtful], expected[~doubtful])

    def test_a_shape_keeps_its_place_and_size_across_grids(self) -> None:
        grid = Grid.from_affine((60, 60, 40), np.diag([1.0, 1.0, 1.5, 1]))
        centre = np.array([30.0, 28.0, 31.0])
        turned = np.eye(4)
        turned[:3, :3] = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix() * 0.7
        turned[:3, 3] = centre - turned[:3, :3] @ [40, 40, 40]
        own = Grid.from_affine((81, 81, 81), turned)
        result = on_grid(self.ball(own, centre, 15), own, grid)
        expected = self.ball(grid, centre, 15)
        both = 2 * np.count_nonzero(result & expected) / (result.sum() + expected.sum())
        self.assertGreater(both, 0.97)

    def test_a_cropped_lattice_is_copied_and_what_is_outside_dropped(self) -> None:
        grid = make_grid("oblique")
        labels = make_labels(1, grid) == 4
        for offset in ((3, 2, 1), (-4, 0, 0), (20, 10, 5), (100, 0, 0)):
            affine = grid.affine.copy()
            affine[:3, 3] += affine[:3, :3] @ np.array(offset)
            own = Grid.from_affine((12, 12, 9), affine)
            mask = np.random.default_rng(0).random(own.shape) < 0.5
            expected = np.zeros(grid.shape, bool)
            for i, j, k in np.argwhere(mask) + offset:
                if 0 <= i < grid.shape[0] and 0 <= j < grid.shape[1] and 0 <= k < grid.shape[2]:
                    expected[i, j, k] = True
            np.testing.assert_array_equal(on_grid(mask, own, grid), expected)
        self.assertFalse(on_grid(np.zeros_like(labels), grid, grid).any())


class InputsTest(TinyWorld):
    """Arrays as supports."""

    def test_the_same_support_as_from_files(self) -> None:
        source = put_support(self.folder, self.supports[0], 0)
        support = read_support(self.folder, source, parse_structures(STRUCTURES), "Support 1")
        volume = read_image(self.supports[0].image)
        self.assertTrue(support.volume.grid.same_as(volume.grid))
        np.testing.assert_array_equal(support.volume.array, volume.array)
        self.assertEqual(support.volume.array.dtype, volume.array.dtype)
        expected = read_annotation(
            self.supports[0].segmentation, volume.grid, parse_structures(STRUCTURES)
        )
        for name, mask in expected.masks.items():
            np.testing.assert_array_equal(support.annotation.masks[name], mask)

    def test_masks_of_one_structure_add_up(self) -> None:
        source = put_support(self.folder, self.supports[0], 0)
        merged = SupportFiles(
            source.volume, [MaskFile("both", mask.labels, mask.value) for mask in source.masks]
        )
        support = read_support(self.folder, merged, [Structure("both", 1)], "Support 1")
        labels = read_image(self.supports[0].segmentation).array
        np.testing.assert_array_equal(support.annotation.masks["both"], labels > 0)

    def test_bad_arrays_in_a_sentence(self) -> None:
        flat = put(self.folder, "flat.npy", np.zeros((4, 4, 1), np.int16), np.eye(4))
        hole = np.zeros((4, 4, 4), np.float32)
        hole[1, 1, 1] = np.nan
        numbers = put(self.folder, "nan.npy", hole, np.eye(4))
        sheared = np.eye(4)
        sheared[0, 1] = 0.4
        shear = put(self.folder, "shear.npy", np.zeros((4, 4, 4), np.int16), sheared)
        for source, message in (
            (flat, "single slice"),
            (numbers, "1 voxels that are not numbers"),
            (shear, "right angles"),
        ):
            with self.assertRaisesRegex(InputError, f"Support 2 .*{message}"):
                read_volume(self.folder, source, "Support 2")
        nothing = put(self.folder, "empty.npy", np.zeros((4, 4, 4), np.uint8), np.eye(4))
        image = put(self.folder, "image.npy", np.zeros((4, 4, 4), np.int16), np.eye(4))
        with self.assertRaisesRegex(InputError, "nothing annotated"):
            read_support(
                self.folder,
                SupportFiles(image, [MaskFile("bean", nothing)]),
                [Structure("bean", 1)],
                "Support 1",
            )


class PriorChangeTest(unittest.TestCase):
    """What a person wants otherwise."""

    PRIOR = SizePrior(20_000, 2_000, 4, 0.3, cut_off=True, upper_trusted=False)

    def test_nothing_given_changes_nothing(self) -> None:
        self.assertEqual(PriorChange().apply(self.PRIOR), self.PRIOR)

    def test_a_known_volume_is_trusted(self) -> None:
        changed = PriorChange(mean_ml=30).apply(self.PRIOR)
        self.assertEqual(changed.bounds(), (21_000.0, 39_000.0))

    def test_the_tolerance_follows_a_spread_unless_it_is_given(self) -> None:
        wide = PriorChange(deviation_ml=10).apply(self.PRIOR)
        self.assertAlmostEqual(wide.gamma, 0.5 * (1 + 1 / 4) ** 0.5)
        self.assertEqual(PriorChange(deviation_ml=0.1).apply(self.PRIOR).gamma, 0.3)
        self.assertEqual(PriorChange(deviation_ml=10, gamma=0.1).apply(self.PRIOR).gamma, 0.1)

    def test_off_and_out_of_range(self) -> None:
        self.assertEqual(PriorChange(enabled=False).apply(self.PRIOR).bounds(), (0.0, float("inf")))
        for change in (PriorChange(mean_ml=0), PriorChange(gamma=-1), PriorChange(deviation_ml=-1)):
            with self.assertRaises(InputError):
                change.apply(self.PRIOR)


if __name__ == "__main__":
    unittest.main()
