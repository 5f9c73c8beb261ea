"""Pre-training: eq. (1), what one step does, and Dice on held-out cases."""

from __future__ import annotations

import dataclasses
import math
import unittest

import numpy as np
import torch
from pretraining_world import CROP, World
from torch import Tensor

from FewShotSegLib.pretraining.assembly import read_assembly
from FewShotSegLib.pretraining.cases import prepare_case
from FewShotSegLib.pretraining.ddp import Ranks
from FewShotSegLib.pretraining.losses import class_losses, crop_losses, voxel_loss
from FewShotSegLib.pretraining.sampling import make_sample
from FewShotSegLib.pretraining.settings import Targets
from FewShotSegLib.pretraining.targets import Sample
from FewShotSegLib.pretraining.trainer import Trainer
from FewShotSegLib.pretraining.validation import validate


class EquationOne(unittest.TestCase):
    """A class counts only where it was annotated."""

    def test_a_case_computed_by_hand(self) -> None:
        # One voxel in two, classes a and c annotated, b not.
        probability = torch.tensor([[0.8, 0.4], [0.9, 0.9], [0.5, 0.5]])
        mask = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
        shape = (3, 2, 1, 1)
        scores = torch.logit(probability).reshape(shape)
        masks, w = mask.reshape(shape), torch.tensor([1.0, 0.0, 1.0])
        dice, entropy = class_losses(scores, masks, w, 0.0025)
        dice_a = 1 - (2 * 0.8 + 1) / (0.8 + 0.4 + 1 + 1)
        dice_c = 1 - 1 / (0.5 + 0.5 + 1)
        self.assertAlmostEqual(dice.item(), (dice_a + dice_c) / 2, places=5)
        entropy_a = -(math.log(0.8) + math.log(0.6)) / 1
        entropy_c = -2 * math.log(0.5) / (0.0025 * 2)
        self.assertAlmostEqual(entropy.item() / ((entropy_a + entropy_c) / 2), 1, places=5)
        # Where classes fill whole crops, those that the crop does not show must not outweigh them.
        _, entropy = class_losses(scores, masks, w, 1.0)
        even = (entropy_a / 2 - math.log(0.5)) / 2
        self.assertAlmostEqual(entropy.item() / even, 1, places=5)

    def test_voxels_choose_among_what_was_annotated(self) -> None:
        # Classes 0 and 2 annotated, 1 not; one voxel of class 2, one of class 1, which nobody drew.
        scores = torch.tensor([[0.5, -1.0], [2.0, 0.3]]).reshape(2, 2, 1, 1)
        labels = torch.tensor([3, 2]).reshape(2, 1, 1)
        found = voxel_loss(scores, labels, torch.tensor([0, 2]))
        first = math.log(1 + math.exp(0.5) + math.exp(2.0)) - 2.0
        second = math.log(1 + math.exp(-1.0) + math.exp(0.3))
        self.assertAlmostEqual(found.item(), (first + second) / 2, places=5)
        # One class alone: the sigmoid's.
        alone = voxel_loss(scores[1:], labels, torch.tensor([2]))
        wanted = torch.nn.functional.binary_cross_entropy_with_logits(
            scores[1, :, 0, 0], torch.tensor([1.0, 0.0])
        )
        self.assertAlmostEqual(alone.item(), wanted.item(), places=5)

    def test_an_unannotated_class_gets_no_gradient(self) -> None:
        scores = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
        scores.requires_grad_()
        masks = (torch.rand(3, 4, 4, 4) > 0.5).float()
        for w in ([1.0, 0.0, 1.0], [0.0, 0.0, 0.0]):
            scores.grad = None
            sum(class_losses(scores, masks, torch.tensor(w), 0.0025)).backward()
            for k, known in enumerate(w):
                self.assertEqual(bool((scores.grad[k] != 0).any()), bool(known))

    def test_a_crop_without_any_annotation_still_teaches_the_rest(self) -> None:
        targets = Targets(tissue=1.0)
        labels = torch.zeros(8, 8, 8, dtype=torch.long)
        sample = Sample(
            image=torch.zeros(1, 8, 8, 8),
            labels=labels,
            annotated=torch.zeros(2),
            tissue=labels,
            clean=None,
            position=torch.zeros(0, 8, 8, 8),
            position_known=torch.zeros(0),
            distance=torch.zeros(0, 8, 8, 8),
            distance_known=torch.zeros(0),
            body=labels > 0,
        )
        for stride in (1, 2):
            size = 8 // stride
            outputs = {
                name: torch.zeros(channels, size, size, size, requires_grad=True)
                for name, channels in (("classes", 2), ("tissue", 5))
            }
            losses = crop_losses(outputs, sample, targets, stride)
            losses["loss"].backward()
            self.assertEqual((losses["dice_loss"].item(), losses["cross_entropy"].item()), (0, 0))
            self.assertFalse(outputs["classes"].grad.any())
            self.assertAlmostEqual(losses["loss"].item(), math.log(5), places=5)
            self.assertTrue(outputs["tissue"].grad.any())


class OneStep(World):
    """What a step does to the network."""

    def test_unknown_classes_move_no_head_at_any_level(self) -> None:
        assembly = read_assembly(self.path)
        cases = self.cases(assembly)
        trainer = Trainer(assembly, cases, Ranks(torch.device("cpu")), 0)
        self.assertEqual(len(trainer.network.heads), 3)
        for case, known in ((cases[0][1], {0}), (cases[1][0], {2})):  # only bean; only pod
            centre = case.centres[min(known)]
            sample = make_sample(np.random.default_rng(0), assembly, case, centre)
            trainer.gradients(0, [sample])
            for head in trainer.network.heads:
                for k in range(3):
                    moved = bool(head.weight.grad[k].any()) or bool(head.bias.grad[k].any())
                    self.assertEqual(moved, k in known)

    def test_batch_statistics_stay_after_their_part_of_the_steps(self) -> None:
        assembly = read_assembly(self.path)  # half of six steps
        trainer = Trainer(assembly, self.cases(assembly), Ranks(torch.device("cpu")), 0)

        def statistics() -> list[Tensor]:
            return [b.clone() for b in trainer.network.buffers() if b.is_floating_point()]

        kept = [statistics()]
        for _ in trainer.run():
            kept.append(statistics())
        moved = [
            any(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
            for one, other in zip(kept, kept[1:], strict=False)
        ]
        self.assertEqual(moved, [True] * 3 + [False] * 3)


class Validation(World):
    """Dice on held-out cases, against masks worked out apart."""

    def test_dice_of_a_network_that_marks_what_is_bright(self) -> None:
        assembly = read_assembly(self.path)
        data_set = assembly.data[0]
        cases = [
            prepare_case(assembly, data_set, source, self.prepared, lambda: None)
            for source in data_set.sources
        ]

        first = np.array(cases[0].image, np.float32)
        threshold = float(first[np.array(cases[0].labels) == 2].mean())  # half of the pea

        class Bright(torch.nn.Module):
            strides = (1,)

            def forward(self, image: Tensor) -> list[Tensor]:
                return [(image - threshold).repeat(1, 3, 1, 1, 1)]

        ranks = Ranks(torch.device("cpu"))
        for crop in (tuple(CROP), (80, 80, 80)):  # windows; larger than the cases
            plan = dataclasses.replace(assembly.training, crop=crop)
            changed = dataclasses.replace(assembly, training=plan)
            found = validate(Bright(), changed, cases, ranks, lambda: None)
            wanted: dict[str, list[float]] = {"bean": [], "pea": []}
            for case in cases:
                bright = np.array(case.image, np.float32) > threshold
                for name, label in (("bean", 1), ("pea", 2)):
                    if case.annotated[label - 1]:  # the pea in the first case alone
                        truth = np.array(case.labels) == label
                        both = 2 * (bright & truth).sum()
                        wanted[name].append(both / (bright.sum() + truth.sum()))
            self.assertEqual([len(values) for values in wanted.values()], [2, 1])
            self.assertEqual(set(found), set(wanted))
            for name, values in wanted.items():
                self.assertAlmostEqual(found[name], np.mean(values), delta=0.002)
            self.assertGreater(found["pea"], 0.05)


if __name__ == "__main__":
    unittest.main()
