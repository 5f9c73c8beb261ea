"""Sizes that are expected, and eq. (2): what a size outside them costs, branch by branch."""

from __future__ import annotations

import math
import unittest

import numpy as np
import torch

from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.size_prior import (
    PriorChange,
    SizePrior,
    as_expected,
    field_of_view,
    prior_from_estimates,
    prior_from_sizes,
    prior_of_parts,
    touches_border,
)
from FewShotSegLib.training.size_penalty import bounds_tensors, size_penalty
from FewShotSegLib.training.support_set import PreparedSupport, SupportSet

INFINITE = math.inf


class NotMeasured(unittest.TestCase):
    """Sizes of annotations that show a part of a structure."""

    def test_an_estimate_widens_what_is_expected(self) -> None:
        sizes, uncertainties = [9000.0, 11000.0], [300.0, 400.0]
        found = prior_from_estimates(sizes, uncertainties, [False, False])
        measured = prior_from_sizes(sizes, [False, False])
        self.assertEqual((found.mean, found.deviation), (measured.mean, measured.deviation))
        self.assertEqual((found.basis, found.uncertainty), ("slices", 250.0))
        self.assertAlmostEqual(found.gamma, measured.gamma + 0.025)
        alone = prior_from_estimates(sizes[:1], uncertainties[:1], [False])
        self.assertAlmostEqual(alone.gamma, 0.5 + 300 / 9000)
        asked = prior_from_estimates(sizes, uncertainties, [False, False], gamma=0.2)
        self.assertEqual(asked.gamma, 0.2)
        cut = prior_from_estimates(sizes, uncertainties, [True, False])
        self.assertEqual((cut.mean, cut.uncertainty), (11000.0, 400.0))

    def test_a_part_expects_nothing(self) -> None:
        prior = prior_of_parts([500.0, 800.0])
        self.assertEqual((prior.mean, prior.count, prior.basis), (800.0, 2, "part"))
        for change in (PriorChange(), PriorChange(gamma=0.2), PriorChange(deviation_ml=0.1)):
            self.assertEqual(change.apply(prior).bounds(), (0.0, INFINITE))
        known = PriorChange(mean_ml=2.0).apply(prior)
        self.assertEqual((known.basis, known.bounds()), (None, (1000.0, 3000.0)))

    def test_what_no_file_can_say(self) -> None:
        for wrong in (
            {"basis": "slices"},
            {"uncertainty": 3.0},
            {"basis": "part", "uncertainty": 1},
        ):
            with self.subTest(wrong), self.assertRaisesRegex(InputError, "uncertainty where"):
                SizePrior(1000.0, **wrong)
        self.assertNotIn("basis", SizePrior(1000.0).to_json())


class Penalty(unittest.TestCase):
    """L_TI for one structure: value and gradient."""

    def penalty(self, size: float, low: float, high: float) -> tuple[float, float]:
        """The penalty, and its derivative by the size."""
        sizes = torch.tensor([size], requires_grad=True)
        value = size_penalty(sizes, torch.tensor([low]), torch.tensor([high]))
        value.sum().backward()
        return value.item(), sizes.grad.item()

    def test_every_branch(self) -> None:
        for name, size, low, high, value, slope in (
            ("far below", 1.0, 7.0, 13.0, 6.0, -1.0),
            ("just below", 6.5, 7.0, 13.0, 0.5, -1.0),
            ("at the lower bound", 7.0, 7.0, 13.0, 0.0, 0.0),
            ("inside", 10.0, 7.0, 13.0, 0.0, 0.0),
            ("at the upper bound", 13.0, 7.0, 13.0, 0.0, 0.0),
            ("just above", 13.5, 7.0, 13.0, 0.5, 1.0),
            ("far above", 20.0, 7.0, 13.0, 7.0, 1.0),
            ("lower bound not trusted", 0.5, 0.0, 13.0, 0.0, 0.0),
            ("nothing there, not trusted", 0.0, 0.0, 13.0, 0.0, 0.0),
            ("not trusted, above", 14.0, 0.0, 13.0, 1.0, 1.0),
            ("disabled, small", 0.0, 0.0, INFINITE, 0.0, 0.0),
            ("disabled, large", 1e9, 0.0, INFINITE, 0.0, 0.0),
            ("upper bound off, below", 5.0, 7.0, INFINITE, 2.0, -1.0),
            ("no tolerance, above", 11.0, 10.0, 10.0, 1.0, 1.0),
            ("no tolerance, met", 10.0, 10.0, 10.0, 0.0, 0.0),
            ("no tolerance, below", 9.0, 10.0, 10.0, 1.0, -1.0),
        ):
            with self.subTest(name):
                self.assertEqual(self.penalty(size, low, high), (value, slope))

    def test_structures_do_not_touch_each_other(self) -> None:
        sizes = torch.tensor([5.0, 10.0, 15.0], requires_grad=True)
        penalty = size_penalty(sizes, torch.full((3,), 7.0), torch.full((3,), 13.0))
        self.assertEqual(penalty.tolist(), [2.0, 0.0, 2.0])
        penalty.mean().backward()
        torch.testing.assert_close(sizes.grad, torch.tensor([-1 / 3, 0, 1 / 3]))

    def test_a_step_down_the_gradient_reduces_it_on_both_sides(self) -> None:
        for size in (3.0, 30.0):
            sizes = torch.tensor([size], requires_grad=True)
            low, high = torch.tensor([7.0]), torch.tensor([13.0])
            before = size_penalty(sizes, low, high)
            before.backward()
            after = size_penalty(sizes.detach() - sizes.grad, low, high)
            self.assertEqual(after.item(), before.item() - 1)


class Bounds(unittest.TestCase):
    """Which sizes are tolerated."""

    def test_gamma_is_on_both_sides(self) -> None:
        for gamma, expected in ((0.3, (700, 1300)), (0.5, (500, 1500)), (0.0, (1000, 1000))):
            low, high = SizePrior(1000.0, gamma=gamma).bounds()
            self.assertAlmostEqual(low, expected[0])
            self.assertAlmostEqual(high, expected[1])

    def test_a_large_gamma_asks_for_no_negative_size(self) -> None:
        self.assertEqual(SizePrior(1000.0, gamma=1.5).bounds(), (0.0, 2500.0))

    def test_what_a_field_of_view_cuts_off_may_be_smaller(self) -> None:
        prior = SizePrior(1000.0, gamma=0.5)
        self.assertEqual(prior.bounds(query_cut_off=True), (0.0, 1500.0))
        cut_off = SizePrior(1000.0, gamma=0.5, cut_off=True)
        self.assertEqual(cut_off.bounds(), (0.0, 1500.0))
        self.assertEqual(cut_off.bounds(query_cut_off=True), (0.0, 1500.0))

    def test_switched_off_tolerates_everything(self) -> None:
        for cut_off in (False, True):
            prior = SizePrior(1000.0, cut_off=cut_off, enabled=False)
            self.assertEqual(prior.bounds(cut_off), (0.0, INFINITE))

    def test_a_segmentation_that_misses_a_bound_by_a_hair_is_as_expected(self) -> None:
        for size, expected in ((94, False), (96, True), (150, True), (209, True), (211, False)):
            self.assertEqual(as_expected(size, 100, 200), expected, size)
        self.assertTrue(as_expected(0, 0, INFINITE))
        self.assertTrue(as_expected(1e9, 0, INFINITE))

    def test_tensors_are_in_the_order_of_the_priors(self) -> None:
        priors = [
            SizePrior(1000.0, gamma=0.5),
            SizePrior(3000.0, gamma=0.5),
            SizePrior(2000.0, enabled=False),
            SizePrior(8000.0, gamma=0.25, cut_off=True),
        ]
        tensors = bounds_tensors(priors, (False, True, False, False), torch.device("cpu"))
        low, high, mean = (tensor.tolist() for tensor in tensors)
        self.assertEqual(low, [500, 0, 0, 0])
        self.assertEqual(high, [1500, 4500, INFINITE, 10000])
        self.assertEqual(mean, [1000, 3000, 2000, 8000])
        self.assertTrue(all(tensor.dtype == torch.float32 for tensor in tensors))

    def test_what_is_no_size_is_refused(self) -> None:
        for mean in (0.0, -5000.0, math.nan, INFINITE):
            with self.subTest(mean), self.assertRaisesRegex(InputError, "above 0 ml"):
                SizePrior(mean)
        for gamma in (-0.1, math.nan):
            with self.subTest(gamma), self.assertRaisesRegex(InputError, "gamma must be from 0"):
                SizePrior(1000.0, gamma=gamma)


class FromSizes(unittest.TestCase):
    """S is the mean over the supports."""

    def test_mean_and_spread(self) -> None:
        prior = prior_from_sizes([1000.0, 2000.0, 3000.0], cut_off=[False] * 3, gamma=0.2)
        self.assertEqual(prior, SizePrior(2000.0, 1000.0, 3, 0.2, False, True))

    def test_one_support_has_no_spread(self) -> None:
        prior = prior_from_sizes([1500.0], cut_off=[False])
        self.assertEqual(prior, SizePrior(1500.0, 0.0, 1, 0.5, False, True))

    def test_the_tolerance_follows_the_spread_but_is_never_below_the_published(self) -> None:
        alike = prior_from_sizes([1000.0, 1010.0], cut_off=[False] * 2)
        self.assertEqual(alike.gamma, 0.3)
        varied = prior_from_sizes([500.0, 1000.0, 1500.0], cut_off=[False] * 3)
        self.assertAlmostEqual(varied.gamma, 0.5 * math.sqrt(4 / 3))
        asked = prior_from_sizes([500.0, 1000.0, 1500.0], cut_off=[False] * 3, gamma=0.1)
        self.assertEqual(asked.gamma, 0.1)

    def test_a_part_says_nothing_of_the_whole(self) -> None:
        prior = prior_from_sizes([1000.0, 400.0, 2000.0], cut_off=[False, True, False], gamma=0.2)
        self.assertEqual((prior.mean, prior.count), (1500.0, 2))
        self.assertEqual(prior.bounds(), (0.0, 1800.0))

    def test_where_every_support_cuts_it_off_no_size_is_expected(self) -> None:
        prior = prior_from_sizes([1000.0, 400.0], cut_off=[True, True])
        self.assertEqual(prior.bounds(), (0.0, INFINITE))
        size = torch.tensor([9000.0], requires_grad=True)
        size_penalty(size, *(torch.tensor([bound]) for bound in prior.bounds())).sum().backward()
        self.assertEqual(float(size.grad), 0.0)

    def test_the_tolerance_follows_a_deviation_that_a_person_gave(self) -> None:
        for count, patients in ((0, 1), (1, 1), (4, 4)):
            prior = PriorChange(deviation_ml=0.5).apply(SizePrior(1000.0, 10.0, count))
            self.assertAlmostEqual(prior.gamma, 0.5 * math.sqrt(1 + 1 / patients), msg=count)

    def test_json_holds_all_of_it(self) -> None:
        prior = SizePrior(2000.0, 1000.0, 3, 0.2, True, False)
        self.assertEqual(SizePrior(**prior.to_json()), prior)


class Unlike(unittest.TestCase):
    """Supports that can't both show a whole structure."""

    def said(self, sizes_ml: list[float], cut_off: tuple[int, ...] = ()) -> list[str]:
        supports = [
            PreparedSupport(
                *(None, torch.zeros(0), torch.ones(1), ()),
                {"pea": 1000 * ml},
                frozenset({"pea"} if number in cut_off else ()),
                f"case {number}",
            )
            for number, ml in enumerate(sizes_ml)
        ]
        return SupportSet([Structure("pea", 1)], supports).unlike_sizes()

    def test_both_are_named(self) -> None:
        (text,) = self.said([26.2, 5.2, 34.0])
        self.assertIn("pea has 5.2 ml in case 1 and 34.0 ml in case 2: check", text)

    def test_what_patients_differ_by_is_not_reported(self) -> None:
        self.assertEqual(self.said([10, 25, 39]), [])
        self.assertEqual(self.said([10]), [])
        self.assertEqual(self.said([0, 10]), [])

    def test_what_is_cut_off_is_reported_elsewhere(self) -> None:
        self.assertEqual(self.said([5.2, 34.0], cut_off=(0,)), [])


class FieldOfView(unittest.TestCase):
    """Where a scan ends, and what ends with it."""

    def test_padding_is_not_scanned(self) -> None:
        image = np.full((20, 18, 16), -1024, np.int16)
        scanned = (slice(2, 20), slice(3, 15), slice(0, 13))
        image[scanned] = np.random.default_rng(0).integers(-100, 100, image[scanned].shape)
        self.assertEqual(field_of_view(image), scanned)

    def test_slices_may_be_padded_with_different_values(self) -> None:
        image = np.random.default_rng(0).normal(size=(8, 9, 10))
        image[:, :, 0], image[:, :, 9] = 0, -1000
        self.assertEqual(field_of_view(image), (slice(0, 8), slice(0, 9), slice(1, 9)))

    def test_constant_slices_within_are_part_of_it(self) -> None:
        image = np.random.default_rng(0).normal(size=(8, 9, 10))
        image[4] = 0
        self.assertEqual(field_of_view(image), (slice(0, 8), slice(0, 9), slice(0, 10)))

    def test_a_constant_image_has_no_padding(self) -> None:
        mask = np.zeros((8, 9, 10), bool)
        mask[3:5, 3:5, 3:5] = True
        view = field_of_view(np.zeros(mask.shape))
        self.assertEqual(mask[view].shape, mask.shape)

    def test_each_face_is_a_border(self) -> None:
        view = (slice(1, 9), slice(2, 8), slice(3, 9))
        inside = np.zeros((10, 10, 10), bool)
        inside[2:8, 3:7, 4:8] = True
        self.assertFalse(touches_border(inside, view))
        self.assertFalse(touches_border(inside))
        for voxel in ((1, 4, 5), (8, 4, 5), (4, 2, 5), (4, 7, 5), (4, 4, 3), (4, 4, 8)):
            with self.subTest(voxel):
                mask = inside.copy()
                mask[voxel] = True
                self.assertTrue(touches_border(mask, view))
                self.assertFalse(touches_border(mask))

    def test_a_few_stray_voxels_can_be_ignored(self) -> None:
        mask = np.zeros((10, 10, 10), bool)
        mask[0, :3, :3] = True
        mask[9, :3, :2] = True
        self.assertFalse(touches_border(mask, at_least=10))
        mask[0, 5, 5] = True
        self.assertTrue(touches_border(mask, at_least=10))


if __name__ == "__main__":
    unittest.main()
