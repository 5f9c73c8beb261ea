"""Losses against numbers computed by hand, and the silence of what was not annotated."""

from __future__ import annotations

import math
import unittest
from typing import Any

import torch
from torch import Tensor

from FewShotSegLib.training.losses import cross_entropy_loss, masked_mean, soft_dice_loss


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def crop(*structures: list[float]) -> Tensor:
    """(K, 1, 1, n) from a row of voxels for each structure."""
    return torch.tensor(structures, dtype=torch.float32)[:, None, None]


def scores_of(*structures: list[float]) -> Tensor:
    """Scores whose sigmoid has these values."""
    return crop(*[[logit(p) for p in row] for row in structures]).requires_grad_()


class SoftDice(unittest.TestCase):
    """1 - (2 sum p t + smooth) / (sum p + sum t + smooth)."""

    def test_one_structure(self) -> None:
        scores = scores_of([0.5, 0.25, 0.75, 0.5])
        loss = soft_dice_loss([scores], [crop([1, 0, 1, 0])], [torch.ones(1)])
        self.assertAlmostEqual(loss.item(), 1 - (2 * 1.25 + 1) / (2 + 2 + 1), places=6)
        loss = soft_dice_loss([scores], [crop([1, 0, 1, 0])], [torch.ones(1)], smooth=0.5)
        self.assertAlmostEqual(loss.item(), 1 - (2 * 1.25 + 0.5) / (2 + 2 + 0.5), places=6)

    def test_targets_may_be_fractions(self) -> None:
        scores = scores_of([0.5, 0.25])
        loss = soft_dice_loss([scores], [crop([0.5, 1.0])], [torch.ones(1)])
        self.assertAlmostEqual(loss.item(), 1 - (2 * 0.5 + 1) / (0.75 + 1.5 + 1), places=6)

    def test_crops_count_together(self) -> None:
        """As if they were one crop, so that one without the structure is no special case."""
        first, second = scores_of([0.5, 0.25]), scores_of([0.75, 0.5, 0.1])
        targets = [crop([1, 0]), crop([0, 0, 0])]
        loss = soft_dice_loss([first, second], targets, [torch.ones(1)] * 2)
        expected = 1 - (2 * 0.5 + 1) / (0.75 + 1.35 + 1 + 1)
        self.assertAlmostEqual(loss.item(), expected, places=6)

    def test_perfect_and_wrong(self) -> None:
        target = crop([1, 0, 1, 0])
        certain = 100 * (2 * target - 1)
        right = soft_dice_loss([certain], [target], [torch.ones(1)])
        wrong = soft_dice_loss([-certain], [target], [torch.ones(1)])
        self.assertAlmostEqual(right.item(), 0, places=6)
        self.assertAlmostEqual(wrong.item(), 1 - 1 / 5, places=6)


class CrossEntropy(unittest.TestCase):
    """-log of the probability of what is true, the mean over voxels."""

    def test_one_structure(self) -> None:
        scores = scores_of([0.5, 0.25, 0.8])
        loss = cross_entropy_loss([scores], [crop([1, 0, 1])], [torch.ones(1)])
        expected = -(math.log(0.5) + math.log(0.75) + math.log(0.8)) / 3
        self.assertAlmostEqual(loss.item(), expected, places=6)

    def test_targets_may_be_fractions(self) -> None:
        loss = cross_entropy_loss([scores_of([0.8])], [crop([0.25])], [torch.ones(1)])
        expected = -(0.25 * math.log(0.8) + 0.75 * math.log(0.2))
        self.assertAlmostEqual(loss.item(), expected, places=6)

    def test_every_crop_counts_the_same(self) -> None:
        scores = [scores_of([0.5]), scores_of([0.8, 0.8, 0.8])]
        targets = [crop([1]), crop([1, 1, 1])]
        loss = cross_entropy_loss(scores, targets, [torch.ones(1)] * 2)
        self.assertAlmostEqual(loss.item(), -(math.log(0.5) + math.log(0.8)) / 2, places=6)

    def test_huge_scores_stay_finite(self) -> None:
        loss = cross_entropy_loss([crop([1e4, -1e4])], [crop([0, 1])], [torch.ones(1)])
        self.assertAlmostEqual(loss.item(), 1e4)


class PartialLabels(unittest.TestCase):
    """Eq. (1): a structure counts only where it was annotated; elsewhere it is unknown."""

    def setUp(self) -> None:
        """Structure 1 is annotated in the second crop alone, structure 2 in none."""
        self.scores = [
            scores_of([0.5, 0.25], [0.3, 0.9], [0.2, 0.6]),
            scores_of([0.8, 0.4], [0.75, 0.5], [0.7, 0.1]),
        ]
        self.targets = [crop([1, 0], [1, 1], [1, 0]), crop([1, 1], [0, 1], [0, 1])]
        self.annotated = [torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])]

    def test_masked_mean(self) -> None:
        values = torch.tensor([0.2, 0.5, 0.9])
        for w, expected in (
            ([1.0, 1.0, 1.0], (0.2 + 0.5 + 0.9) / 3),
            ([1.0, 0.0, 1.0], (0.2 + 0.9) / 2),
            ([0.0, 1.0, 0.0], 0.5),
            ([0.0, 0.0, 0.0], 0.0),
        ):
            self.assertAlmostEqual(masked_mean(values, torch.tensor(w)).item(), expected, places=6)

    def test_cross_entropy_by_hand(self) -> None:
        first = -(math.log(0.5) + math.log(0.75)) / 2
        second_0 = -(math.log(0.8) + math.log(0.4)) / 2
        second_1 = -(math.log(0.25) + math.log(0.5)) / 2
        expected = (first + (second_0 + second_1) / 2) / 2
        loss = cross_entropy_loss(self.scores, self.targets, self.annotated)
        self.assertAlmostEqual(loss.item(), expected, places=6)

    def test_soft_dice_by_hand(self) -> None:
        structure_0 = 1 - (2 * (0.5 + 0.8 + 0.4) + 1) / (0.75 + 1.2 + 1 + 2 + 1)
        structure_1 = 1 - (2 * 0.5 + 1) / (1.25 + 1 + 1)
        loss = soft_dice_loss(self.scores, self.targets, self.annotated)
        self.assertAlmostEqual(loss.item(), (structure_0 + structure_1) / 2, places=6)

    def test_what_was_not_annotated_gives_exactly_no_gradient(self) -> None:
        for loss in (soft_dice_loss, cross_entropy_loss):
            with self.subTest(loss.__name__):
                for scores in self.scores:
                    scores.grad = None
                loss(self.scores, self.targets, self.annotated).backward()
                for scores, w in zip(self.scores, self.annotated, strict=True):
                    for k, annotated in enumerate(w.bool().tolist()):
                        gradient = scores.grad[k]
                        self.assertEqual(bool((gradient != 0).all()), annotated)
                        self.assertEqual(bool((gradient == 0).all()), not annotated)

    def test_targets_that_mean_nothing_change_nothing(self) -> None:
        others = [target.clone() for target in self.targets]
        others[0][1:] = 0.5
        others[1][2] = 0
        for loss in (soft_dice_loss, cross_entropy_loss):
            with self.subTest(loss.__name__):
                expected = loss(self.scores, self.targets, self.annotated)
                self.assertEqual(loss(self.scores, others, self.annotated).item(), expected.item())

    def test_nothing_annotated_costs_nothing(self) -> None:
        for loss in (soft_dice_loss, cross_entropy_loss):
            value = loss(self.scores, self.targets, [torch.zeros(3)] * 2)
            self.assertEqual(value.item(), 0)
            value.backward()
            self.assertEqual(float(self.scores[0].grad.abs().max()), 0)


class Unknown(unittest.TestCase):
    """Voxels of which nothing is known, as beside the slices that were drawn on."""

    def setUp(self) -> None:
        self.scores = [scores_of([0.5, 0.25, 0.9], [0.2, 0.6, 0.3]), scores_of([0.7], [0.1])]
        self.targets = [crop([1, 0, 1], [0, 1, 0]), crop([0], [1])]
        self.annotated = [torch.ones(2)] * 2
        self.known = [torch.tensor([1.0, 1.0, 0.0])[None, None], None]

    def value(self, loss: Any, targets: list[Tensor]) -> Tensor:
        return loss(self.scores, targets, self.annotated, known=self.known)

    def test_they_are_as_if_they_were_not_there(self) -> None:
        cut = [self.scores[0][..., :2], self.scores[1]]
        targets = [self.targets[0][..., :2], self.targets[1]]
        for loss in (soft_dice_loss, cross_entropy_loss):
            with self.subTest(loss.__name__):
                expected = loss(cut, targets, self.annotated)
                self.assertAlmostEqual(
                    self.value(loss, self.targets).item(), expected.item(), places=6
                )

    def test_whatever_they_hold_changes_nothing(self) -> None:
        others = [self.targets[0].clone(), self.targets[1]]
        others[0][..., 2] = 1 - others[0][..., 2]
        for loss in (soft_dice_loss, cross_entropy_loss):
            with self.subTest(loss.__name__):
                self.scores[0].grad = None
                expected = self.value(loss, self.targets)
                found = self.value(loss, others)
                self.assertEqual(found.item(), expected.item())
                found.backward()
                self.assertEqual(float(self.scores[0].grad[..., 2].abs().max()), 0)
                self.assertGreater(float(self.scores[0].grad[..., :2].abs().min()), 0)

    def test_a_crop_of_which_nothing_is_known_costs_nothing(self) -> None:
        nothing = [torch.zeros(1, 1, 3), torch.zeros(1, 1, 1)]
        for loss in (soft_dice_loss, cross_entropy_loss):
            value = loss(self.scores, self.targets, self.annotated, known=nothing)
            self.assertEqual(value.item(), 0)


if __name__ == "__main__":
    unittest.main()
