"""Pre-training: eq. (1), honest crops, a run that resumes to the bit, several processes as one."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from safetensors.torch import load_file, safe_open
from tiny import OneThread
from tiny_model import make_grid, make_labels, make_values, run, write_array
from torch import Tensor

from FewShotSegLib.core.errors import Cancelled, FewShotSegError, InputError
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.pretraining.assembly import Assembly, read_assembly
from FewShotSegLib.pretraining.augmentation import crop_index, disturb, warp
from FewShotSegLib.pretraining.cases import Case, prepare_case
from FewShotSegLib.pretraining.ddp import Ranks
from FewShotSegLib.pretraining.losses import class_losses, crop_losses, voxel_loss
from FewShotSegLib.pretraining.network import build_network
from FewShotSegLib.pretraining.run import Pretrained, pretrain
from FewShotSegLib.pretraining.sampling import Sampler, data_set_of, make_sample, whole_image
from FewShotSegLib.pretraining.settings import Augmentation, Targets, TrainingPlan
from FewShotSegLib.pretraining.state import own_tensors
from FewShotSegLib.pretraining.synthesis import synthesise
from FewShotSegLib.pretraining.targets import Sample
from FewShotSegLib.pretraining.trainer import Trainer
from FewShotSegLib.pretraining.validation import validate

ROOT = Path(__file__).resolve().parents[2]
CROP = [16, 16, 12]
BOX = {"orientation": "RAS", "spacing": [3.0, 3.0, 3.0]}


def description(**changes: Any) -> dict[str, Any]:
    """A small assembly: two CT sets that annotate different classes, and label maps."""
    return {
        "model": {"id": "tiny-pretrained", "title": "Tiny", "licence": "Apache-2.0"},
        "classes": ["bean", "pea", "pod"],
        "preprocessing": {
            "CT": {**BOX, "intensity": "window", "low": -200, "high": 300},
            "MR": {**BOX, "intensity": "percentiles", "low": 0.5, "high": 99.5},
        },
        "architecture": {"name": "DynamicUNet", "filters": [4, 6, 8]},
        "data": [
            {
                "name": "beans",
                "folder": "beans",
                "modality": "CT",
                "labels": {"4": "bean", "5": "pea"},
                "annotated": {"file": "index.json", "part": "beans"},
                "weight": 3,
                "held_out": ["b2"],
            },
            {
                "name": "maps",
                "folder": "maps",
                "modality": "MR",
                "labels": {"4": "pod", "5": "pod"},
                "synthesis": True,
            },
        ],
        "targets": {
            "tissue": 0.2,
            "position": 1.0,
            "anchors": ["bean", "pod"],
            "distance": 1.0,
            "landmarks": ["skin", "bean", "pod"],
            "clean": 0.5,
        },
        "augmentation": {"contrast": 0.25, "narrow": 0.25},
        "training": {
            "steps": 6,
            "crop": CROP,
            "learning_rate": 0.01,
            "warm_up": 2,
            "epoch_steps": 2,
            "validate_every": 2,
            "freeze_statistics": 0.5,
        },
        **changes,
    }


class World(OneThread):
    """Three patients and two label maps in a folder."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory(prefix="kleine Größe ")
        cls.addClassCleanup(folder.cleanup)
        cls.world = Path(folder.name)
        for seed, grid in enumerate(map(make_grid, ("straight", "oblique", "left-handed"))):
            labels = make_labels(seed, grid)
            image = make_values(seed, labels)
            write_array(cls.world / "beans" / "images" / f"b{seed}.nii.gz", image, grid)
            write_array(cls.world / "beans" / "labels" / f"b{seed}.nii.gz", labels, grid)
        for seed in range(2):
            labels = make_labels(seed, make_grid()).astype(np.int16)
            labels[labels == 0] = 2000
            labels[:3] = 0
            write_array(cls.world / "maps" / f"m{seed}.nii.gz", labels, make_grid())
        index = {"beans": {"b0": [4, 5], "b1": [4], "b2": [4, 5]}}
        (cls.world / "index.json").write_text(json.dumps(index))
        cls.path = cls.write(description())
        cls.prepared = cls.world / "prepared"

    @classmethod
    def write(cls, data: Any, name: str = "assembly.json") -> Path:
        path = cls.world / name
        path.write_text(json.dumps(data))
        return path

    def setUp(self) -> None:
        self.folder = self.world / "out"
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    @classmethod
    def cases(cls, assembly: Assembly) -> list[list[Case]]:
        return [
            [prepare_case(assembly, d, source, cls.prepared, lambda: None) for source in d.sources]
            for d in assembly.data
        ]

    def trained(self, out: str = "run", **options: Any) -> Pretrained:
        return pretrain(self.path, self.folder / out, **{"runtime": Runtime("cpu"), **options})


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


class Crops(World):
    """What the network gets to see."""

    def test_left_stays_left(self) -> None:
        volume = np.zeros((40, 40, 40), np.float32)
        volume[6:12, 18:22, 18:22] = 1  # left of the middle
        strong = Augmentation(rotation=30, zoom=(0.7, 1.4), stretch=0.2, noise=0, contrast=1)
        middle = np.array([19.5, 19.5, 19.5])
        for seed in range(200):
            rng = np.random.default_rng(seed)
            index = crop_index(rng, strong, (40, 40, 40), middle, (1, 1, 1))
            image = disturb(rng, strong, warp(volume, index, "bilinear"))
            image = image - image.median()
            weight = image.clamp(min=float(image.max()) / 2).sub(float(image.max()) / 2)
            place = (weight.sum((1, 2)) * torch.arange(40)).sum() / weight.sum()
            self.assertLess(float(place), 19.5)
            axes = [index[tuple(np.eye(3, dtype=int)[a])] - index[0, 0, 0] for a in range(3)]
            self.assertGreater(np.linalg.det(axes), 0)

    def test_without_augmentation_a_crop_is_a_piece_of_the_volume(self) -> None:
        still = Augmentation(rotation=0, zoom=(1, 1), stretch=0)
        volume = np.random.default_rng(0).normal(size=(9, 8, 7)).astype(np.float16)
        index = crop_index(np.random.default_rng(0), still, (4, 4, 4), [3.5, 3.5, 3.5], (1, 2, 3))
        crop = warp(volume, index, "bilinear")
        np.testing.assert_allclose(crop, volume[2:6, 2:6, 2:6], atol=1e-3)
        index = crop_index(np.random.default_rng(0), still, (4, 4, 4), [0.5, 3.5, 3.5], (1, 1, 1))
        crop = warp(volume, index, "nearest", -5.0).numpy()
        np.testing.assert_array_equal(crop[0], np.full((4, 4), -5.0))
        np.testing.assert_allclose(crop[1:], volume[:3, 2:6, 2:6])

    def test_turning_keeps_lengths_in_mm(self) -> None:
        turned = Augmentation(rotation=40, zoom=(1, 1), stretch=0)
        spacing = np.array([1.0, 2.0, 5.0])
        rng = np.random.default_rng(0)
        index = crop_index(rng, turned, (6, 5, 4), np.array([9.0, 9.0, 9.0]), spacing)
        corner = index[0, 0, 0]
        edges = np.stack([index[1, 0, 0], index[0, 1, 0], index[0, 0, 1]]) - corner
        mm = edges * spacing
        np.testing.assert_allclose(mm @ mm.T, np.diag(spacing**2), atol=1e-3)
        self.assertGreater(abs(mm[0, 1]) + abs(mm[0, 2]), 0.1)  # it did turn
        np.testing.assert_allclose(index.mean((0, 1, 2)), 9, atol=1e-4)

    def test_they_depend_on_seed_step_and_rank_alone(self) -> None:
        assembly = read_assembly(self.path)
        cases = self.cases(assembly)

        def image(seed: int, step: int, rank: int) -> Tensor:
            return Sampler(assembly, cases, seed, 2).draw(step, rank)[0].image

        first = image(0, 3, 1)
        self.assertTrue(torch.equal(first, image(0, 3, 1)))
        for other in ((1, 3, 1), (0, 4, 1), (0, 3, 0)):
            self.assertFalse(torch.equal(first, image(*other)))

    def test_data_sets_are_drawn_by_weight_all_along(self) -> None:
        weights = (4.0, 2.0, 1.0)
        drawn = np.array([data_set_of(n, weights, seed=3) for n in range(700)])
        for stop in (7, 70, 700):
            for which, weight in enumerate(weights):
                self.assertLess(abs((drawn[:stop] == which).sum() - stop * weight / 7), 2.5)

    def test_classes_are_drawn_before_cases(self) -> None:
        assembly = read_assembly(self.path)
        plan = dataclasses.replace(assembly.training, foreground=1.0)
        assembly = dataclasses.replace(assembly, training=plan)
        sampler = Sampler(assembly, self.cases(assembly), 0, 1)
        rng = np.random.default_rng(0)
        drawn = [sampler._place(rng, 0)[0].name for _ in range(400)]
        # The pea is annotated in b0 alone: half of the crops, and half of the bean's.
        self.assertAlmostEqual(drawn.count("b0") / 400, 0.75, delta=0.08)

    def test_the_classes_of_a_data_set_are_seen_alike(self) -> None:
        assembly = read_assembly(self.path)
        sampler = Sampler(assembly, self.cases(assembly), 0, 1)
        seen = np.zeros(4)
        for step in range(60):
            for sample in sampler.draw(step, 0):
                for k in range(1, 4):
                    seen[k] += bool((sample.labels == k).any())
        self.assertGreater(seen[1:].min(), 10, seen)

    def test_targets_say_what_is_known(self) -> None:
        assembly = read_assembly(self.path)
        beans, maps = self.cases(assembly)
        rng = np.random.default_rng(0)
        np.testing.assert_array_equal(beans[0].annotated, [1, 1, 0])
        np.testing.assert_array_equal(beans[1].annotated, [1, 0, 0])
        self.assertEqual(set(np.unique(beans[1].labels)), {0, 1})
        np.testing.assert_array_equal(maps[0].annotated, [0, 0, 1])
        sample = make_sample(rng, assembly, beans[0], beans[0].centres[0])
        self.assertEqual(sample.position_known.tolist(), [1, 0])
        inside = sample.position[:3][:, sample.labels == 1]
        self.assertLess(float(inside.abs().max()), 0.3)  # within 30 mm of its own centre
        self.assertTrue((sample.position[3:] == 0).all())
        self.assertEqual(sample.distance_known.tolist(), [1, 1, 0])
        self.assertLess(float(sample.distance[1][sample.labels == 1].max()), 0.1)
        self.assertGreater(float(sample.distance[1].max()), 0.5)
        self.assertIsNotNone(sample.tissue)
        sample = make_sample(rng, assembly, maps[0], maps[0].centres[2])
        self.assertEqual((sample.tissue, sample.clean), (None, None))
        self.assertEqual(sample.position_known.tolist(), [0, 1])
        self.assertEqual(sample.distance_known.tolist(), [0, 0, 1])
        self.assertGreaterEqual(float(sample.image.min()), 0)
        self.assertLessEqual(float(sample.image.max()), 1)

    def test_outside_a_narrow_field_of_view_there_is_nothing(self) -> None:
        data = description(augmentation={"narrow": 1.0, "noise": 0.06})
        assembly = read_assembly(self.write(data, "narrow.json"))
        for case in (group[0] for group in self.cases(assembly)):
            centre = next(iter(case.centres.values()))
            parts = []
            for seed in range(20):
                sample = make_sample(np.random.default_rng(seed), assembly, case, centre)
                outside = sample.image[0] == 0
                parts.append(float(outside.float().mean()))
                box = tuple(
                    slice(int(seen.min()), int(seen.max()) + 1)
                    for seen in (~outside).nonzero().unbind(1)
                )
                beyond = torch.ones_like(outside)
                beyond[box] = False
                self.assertFalse((sample.labels[beyond] > 0).any())
                self.assertFalse(sample.body[beyond].any())
            self.assertGreater(np.mean(parts), 0.3)
            self.assertGreater(np.ptp(parts), 0.2)

    def test_what_is_annotated_by_default_is_what_is_there(self) -> None:
        data = description()
        del data["data"][0]["annotated"]
        data["data"][0] |= {"labels": {"4": "bean", "9": "pea"}, "held_out": 0}
        data["data"].append(dict(data["data"][0], name="all", annotated="all"))
        assembly = read_assembly(self.write(data, "present.json"))
        present, _, all_of_them = self.cases(assembly)
        for known, whole in zip(present, all_of_them, strict=True):
            np.testing.assert_array_equal(known.annotated, [1, 0, 0])
            np.testing.assert_array_equal(whole.annotated, [1, 1, 0])
            self.assertEqual(set(whole.places), {0})

    def test_synthesis_changes_contrast_but_not_anatomy(self) -> None:
        assembly = read_assembly(self.path)
        case = self.cases(assembly)[1][0]
        labels = np.array(case.labels)
        differences = []
        for seed in range(12):
            sample = make_sample(np.random.default_rng(seed), assembly, case, case.centres[2])
            inside, outside = sample.labels == 3, sample.labels == 0
            if inside.any():
                image = sample.image[0]
                differences.append(float(image[inside].mean() - image[outside].mean()))
        self.assertGreater(np.ptp(differences), 0.3)
        self.assertTrue((labels > 0).any())
        self.assertTrue(torch.equal(whole_image(assembly, case), whole_image(assembly, case)))

    def test_scores_start_at_the_frequencies_of_their_classes(self) -> None:
        assembly = read_assembly(self.path)
        trainer = Trainer(assembly, self.cases(assembly), Ranks(torch.device("cpu")), 0)
        drawn = [trainer.sampler.draw(step, 0)[0] for step in range(32)]
        for row in range(3):
            known = [s for s in drawn if s.annotated[row]]
            part = np.mean([float((s.labels == row + 1).float().mean()) for s in known])
            for head in trainer.network.heads:
                score = float(head.bias.detach()[row])
                self.assertAlmostEqual(1 / (1 + math.exp(-score)), max(part, 0.00247), places=4)

    def test_most_made_up_images_have_the_usual_contrast(self) -> None:
        """Dark pods in a bright field are not learned from images that show both as often."""
        data = description()
        data["data"][1]["grey"] = {"pod": 0.05}
        assembly = read_assembly(self.write(data, "grey.json"))
        case = self.cases(assembly)[1][0]
        np.testing.assert_allclose(case.grey, [np.nan, np.nan, 0.05])
        pods = torch.full((4, 4, 4), 3)
        means = np.array(
            [
                float(synthesise(np.random.default_rng(n), pods, pods, case.grey).mean())
                for n in range(300)
            ]
        )
        usual, inverted = np.mean(means < 0.25), np.mean(means > 0.75)
        # 0.56 dark and 0.14 bright by the usual contrast; 0.3 anywhere, a quarter of it in each.
        self.assertAlmostEqual(usual, 0.56 + 0.075, delta=0.09)
        self.assertAlmostEqual(inverted, 0.14 + 0.075, delta=0.09)

    def test_a_prepared_case_is_what_the_model_will_see(self) -> None:
        assembly = read_assembly(self.path)
        source = assembly.data[0].sources[1]
        case = self.cases(assembly)[0][1]
        image, _ = assembly.preprocessing["CT"](read_image(source.image))
        np.testing.assert_allclose(case.image, image[0, 0], atol=1e-3)

    @unittest.skipUnless(Path("/proc/self/fd").is_dir(), "open files can't be counted here")
    def test_an_archive_of_any_size_keeps_no_files_open(self) -> None:
        assembly = read_assembly(self.path)
        self.cases(assembly)
        before = len(os.listdir("/proc/self/fd"))
        cases = self.cases(assembly)
        samples = [make_sample(np.random.default_rng(0), assembly, g[0], [8, 8, 8]) for g in cases]
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
        self.assertEqual(len(samples), 2)

    def test_a_damaged_prepared_case_is_told(self) -> None:
        assembly = read_assembly(self.path)
        folder, source = self.folder / "cases", assembly.data[0].sources[0]

        def prepare() -> Case:
            return prepare_case(assembly, assembly.data[0], source, folder, lambda: None)

        case = prepare()
        (place,) = folder.iterdir()
        whole = {file: file.read_bytes() for file in place.iterdir()}
        for name, content in (
            ("case.json", b"[]"),
            ("case.json", b"{"),
            ("labels.npy", b""),
            ("image.npy", whole[place / "image.npy"][:-1]),
            ("places.npy", None),
        ):
            (place / name).unlink()
            if content is not None:
                (place / name).write_bytes(content)
            with self.subTest(name), self.assertRaisesRegex(InputError, "is damaged; remove"):
                prepare()
            (place / name).write_bytes(whole[place / name])
        np.testing.assert_array_equal(prepare().labels, case.labels)
        (place / "image.npy").unlink()  # while it is trained on
        with self.assertRaisesRegex(InputError, "is damaged; remove"):
            make_sample(np.random.default_rng(0), assembly, case, [8, 8, 8])

    def test_a_case_without_any_class_is_one(self) -> None:
        grid = make_grid()
        write_array(self.world / "maps" / "blank.nii.gz", np.zeros(grid.shape, np.int16), grid)
        self.addCleanup((self.world / "maps" / "blank.nii.gz").unlink)
        assembly = read_assembly(self.path)
        case = self.cases(assembly)[1][0]
        self.assertEqual((case.name, case.places), ("blank", {}))
        make_sample(np.random.default_rng(0), assembly, case, [8, 8, 8])


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


class WholeRun(World):
    """From the description to a model that runs."""

    def test_resumed_equals_uninterrupted_and_the_export_runs(self) -> None:
        events: list[dict[str, Any]] = []
        whole = self.trained("whole", runtime=Runtime("cpu", events=events.append))
        asked = 0

        def cancel() -> bool:
            nonlocal asked
            asked += 1
            return asked > self.stop_at

        for self.stop_at in (10, 100, 100):  # in the preparation, and within steps
            asked = 0
            with self.assertRaises(Cancelled):
                self.trained("parts", resume=True, runtime=Runtime("cpu", cancel=cancel))
        with safe_open(self.folder / "parts" / "checkpoint.safetensors", "pt") as file:
            self.assertTrue(0 < int(file.metadata()["step"]) < 6, file.metadata()["step"])
        parts = self.trained("parts", resume=True)
        for one, other in (
            (whole.trainer.network, parts.trainer.network),
            (whole.network, parts.network),
        ):
            for (name, a), (_, b) in zip(own_tensors(one), own_tensors(other), strict=True):
                self.assertTrue(torch.equal(a, b), name)
        self.assertEqual(whole.history, parts.history)
        self.check_events(events)
        self.check_export(whole)

    def check_events(self, events: list[dict[str, Any]]) -> None:
        phases = [e["phase"] for e in events if e["event"] == "phase"]
        self.assertEqual(phases, ["prepare", "pretrain"])
        epochs = [e for e in events if e["event"] == "epoch"]
        self.assertEqual([(e["epoch"], e["epochs"], e["step"]) for e in epochs][-1], (3, 3, 6))
        for event in epochs:
            for term in ("loss", "dice_loss", "cross_entropy"):
                self.assertTrue(math.isfinite(event[term]))
        self.assertNotIn("dice", epochs[0])
        for event in epochs[1:]:
            self.assertEqual(set(event["dice"]), {"bean", "pea"})
        results = {e["kind"]: e["path"] for e in events if e["event"] == "result"}
        self.assertEqual(set(results), {"model", "curve", "report"})
        self.assertEqual(Path(results["curve"]).read_bytes()[:4], b"\x89PNG")

    def check_export(self, result: Pretrained) -> None:
        model = find_model(str(result.entry))
        entry = model.entry
        self.assertEqual(entry.classes, {"bean": 0, "pea": 1, "pod": 2})
        self.assertEqual(entry.size, entry.weights.stat().st_size)
        self.assertEqual(entry.sha256, model.weights_sha256)
        image = torch.rand(1, 1, *CROP)
        with torch.no_grad():
            levels = model.backbone.features(image)
            weight, bias = model.class_head("Pea")
            score = torch.einsum("c,bcijk->bijk", weight, levels[0]) + bias
            wanted = result.network(image)[0][:, 1]
            other = result.network(image)[0][:, 0]
            last = result.trainer.network.eval()(image)[0][:, 1]
        torch.testing.assert_close(score, wanted, atol=0.01, rtol=0)
        # As close as half precision is, which another row or the last weights are not.
        for wrong in (other, last):
            self.assertGreater(float((wrong - wanted).abs().max()), 0.02)
        with safe_open(entry.weights, "pt") as file:
            recipe = json.loads(file.metadata()["pretraining"])
        self.assertEqual(recipe["steps"], 6)
        self.assertEqual(recipe["assembly"]["data"][0]["annotated"], {"4": 3, "5": 2})
        for private in (str(self.world), "b0", "m0"):
            self.assertNotIn(private, json.dumps(recipe))
        self.assertTrue(all(t.dtype == torch.float16 for t in load_file(entry.weights).values()))

    def test_a_stop_within_a_step_leaves_the_last_whole_step(self) -> None:
        assembly = read_assembly(self.path)
        cases = self.cases(assembly)
        stop = False
        trainer = Trainer(assembly, cases, Ranks(torch.device("cpu")), 0, lambda: stop)
        samples = trainer.sampler.draw(0, 0)
        trainer.step(0, samples)
        before = [tensor.clone() for _, tensor in own_tensors(trainer.network)]
        loss = trainer.network.heads[0].register_forward_hook(lambda *_: self.fail_later())
        self.asked = False
        trainer.cancelled = lambda: self.asked
        with self.assertRaises(Cancelled):
            trainer.step(1, samples)
        loss.remove()
        for tensor, (name, now) in zip(before, own_tensors(trainer.network), strict=True):
            self.assertTrue(torch.equal(tensor, now), name)

    def fail_later(self) -> None:
        self.asked = True

    def test_it_learns(self) -> None:
        data = description(targets={}, augmentation={})
        data["data"] = [dict(data["data"][0], annotated="all")]
        data["classes"] = ["bean", "pea"]
        del data["preprocessing"]["MR"]
        data["training"] |= {"steps": 100, "epoch_steps": 50, "validate_every": 9}
        path = self.write(data, "learn.json")
        result = pretrain(path, self.folder, runtime=Runtime("cpu"))
        self.assertNotIn("dice", result.history[0])
        self.assertGreater(result.history[-1]["dice"]["pea"], 0.4)  # the brighter one

    def test_it_keeps_away_from_data_and_from_another_run(self) -> None:
        for folder in (self.world / "beans", self.world):
            with self.assertRaisesRegex(InputError, "holds the data set 'beans'; choose another"):
                pretrain(self.path, folder, steps=1, runtime=Runtime("cpu"))
            self.assertFalse((folder / "cases").exists())
        self.folder.mkdir()
        with FileLock(self.folder / "checkpoint.safetensors.lock"):
            with self.assertRaisesRegex(InputError, "Another pre-training is running"):
                pretrain(self.path, self.folder, steps=1, runtime=Runtime("cpu"))

    def test_it_never_replaces_what_it_reads(self) -> None:
        started = self.trained("first", steps=1).entry
        (started.parent / "checkpoint.safetensors").unlink()
        again = self.write(description(start_from=str(started)), "again.json")
        own = self.folder / "own" / "tiny-pretrained.json"
        own.parent.mkdir()
        own.write_text(json.dumps(description()))
        for path in (own, again):
            out = (own if path == own else started).parent
            before = {file: file.read_bytes() for file in out.glob("tiny*")}
            with self.subTest(path), self.assertRaisesRegex(InputError, "would be replaced"):
                pretrain(path, out, data=self.world, steps=1, runtime=Runtime("cpu"))
            self.assertEqual({file: file.read_bytes() for file in out.glob("tiny*")}, before)

    def test_a_class_that_no_case_shows_is_told(self) -> None:
        data = description()
        data["data"][0] |= {"labels": {"4": "bean", "9": "pea"}, "annotated": "all"}
        path = self.write(data, "unseen.json")
        with self.assertRaisesRegex(InputError, "has voxels of the class 'pea'"):
            pretrain(path, self.folder, steps=1, runtime=Runtime("cpu"))

    def test_an_unfinished_run_is_neither_overwritten_nor_mixed_up(self) -> None:
        self.trained(steps=1)
        with self.assertRaisesRegex(InputError, "--resume"):
            self.trained(steps=1)
        for other in ({"steps": 2}, {"steps": 1, "seed": 1}):
            with self.assertRaisesRegex(InputError, "another assembly, seed"):
                self.trained(resume=True, **other)
        (self.folder / "run" / "checkpoint.safetensors").write_bytes(b"no such file")
        with self.assertRaisesRegex(InputError, "damaged"):
            self.trained(steps=1, resume=True)

    def test_it_can_start_from_another_model(self) -> None:
        first = self.trained("first", steps=1)
        data = description(start_from=str(first.entry))
        network = build_network(read_assembly(self.write(data, "second.json")), seed=5)
        wanted = dict(own_tensors(first.network))
        for name, tensor in own_tensors(network):
            if name.startswith("backbone") and not name.endswith("tracked"):
                if "output_block" not in name:
                    torch.testing.assert_close(tensor, wanted[name], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(
            network.heads[0].weight[:3], wanted["heads.0.weight"][:3], atol=1e-3, rtol=1e-3
        )
        data["architecture"]["filters"] = [4, 6, 10]
        with self.assertRaisesRegex(InputError, "another architecture"):
            build_network(read_assembly(self.write(data, "second.json")), seed=5)

    def test_a_class_that_the_model_to_start_from_lacks_starts_at_its_frequency(self) -> None:
        first = self.trained("first", steps=1)
        data = description(start_from=str(first.entry))
        data = json.loads(json.dumps(data).replace('"pod"', '"new"'))
        assembly = read_assembly(self.write(data, "second.json"))
        network = build_network(assembly, seed=5)
        taken, random = (network.heads[n].bias.detach().clone() for n in (0, 1))
        parts = torch.tensor([0.2, 0.3, 0.4])
        network.start_at(parts)
        row = data["classes"].index("new")
        for number, (head, before) in enumerate(zip(network.heads, (taken, random), strict=False)):
            for n in range(3):
                expected = torch.logit(parts[n]) if number or n == row else before[n]
                self.assertAlmostEqual(float(head.bias.detach()[n]), float(expected), places=5)

    def test_the_command(self) -> None:
        out = self.folder / "command"
        ran = run("pretrain", str(self.path), "--out", str(out), "--steps", "1", "--device", "cpu")
        self.assertEqual(
            (ran.status, ran.out.splitlines()[-1]), (0, str(out / "tiny-pretrained.json"))
        )
        self.assertIn("preparing volumes\npre-training\n", ran.err)
        ran = run("pretrain", str(self.path), "--out", str(out), "--device", "cpu", "--events")
        self.assertEqual(ran.status, 2)
        self.assertEqual([e["event"] for e in ran.events], ["started", "failed"])


SCRIPT = """
import sys, os, torch
from safetensors.torch import save_file
from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.pretraining.network import build_network
from FewShotSegLib.pretraining.run import pretrain
from FewShotSegLib.pretraining.state import own_tensors
torch.set_num_threads(1)
result = pretrain(sys.argv[1], sys.argv[2], runtime=Runtime("cpu"))
tensors = {k: v.detach().contiguous().clone() for k, v in own_tensors(result.trainer.network)}
save_file(tensors, sys.argv[2] + f"/rank{os.environ['RANK']}.safetensors")
"""


class SeveralProcesses(World):
    """Two processes under torchrun are one training over the crops of both."""

    def test_both_have_the_weights_of_one_process_with_the_mean_gradient(self) -> None:
        self.folder.mkdir()
        script = self.folder / "script.py"
        script.write_text(SCRIPT)
        # It looks for a free port itself, and keeps it: nothing can take it in between.
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        command += ["--standalone", "--local-addr", "127.0.0.1"]
        done = subprocess.run(
            [*command, str(script), str(self.path), str(self.folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=900,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        ranks = [load_file(self.folder / f"rank{n}.safetensors") for n in range(2)]
        alone = self.in_one_process()
        for name, tensor in ranks[0].items():
            self.assertTrue(torch.equal(tensor, ranks[1][name]), name)
            torch.testing.assert_close(tensor, alone[name], atol=1e-5, rtol=1e-4, msg=name)
        find_model(str(self.folder / "tiny-pretrained.json")).backbone  # noqa: B018

    def in_one_process(self) -> dict[str, Tensor]:
        """The same training, one rank's crops after the other."""
        assembly = read_assembly(self.path)
        trainer = Trainer(assembly, self.cases(assembly), Ranks(torch.device("cpu")), 0)
        trainer.sampler.world = 2
        for step in range(assembly.training.steps):
            start = [buffer.clone() for buffer in trainer.network.buffers()]
            parts = []
            for rank in range(2):
                with torch.no_grad():
                    for buffer, value in zip(trainer.network.buffers(), start, strict=True):
                        buffer.copy_(value)
                trainer.gradients(step, trainer.sampler.draw(step, rank))
                parts.append([tensor.clone() for tensor in trainer.shared()])
            with torch.no_grad():
                for tensor, one, other in zip(trainer.shared(), *parts, strict=True):
                    tensor.copy_((one + other) / 2)
            trainer.update(step)
        return dict(own_tensors(trainer.network))


class BadAssemblies(World):
    """What is wrong is said in one sentence, before any work."""

    def assert_refused(self, telling: str, change: Callable[[dict[str, Any]], Any]) -> None:
        data = description()
        change(data)
        path = self.write(data, "bad.json")
        with self.subTest(telling), self.assertRaisesRegex(FewShotSegError, telling) as caught:
            pretrain(path, self.folder, runtime=Runtime("cpu"))
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        self.assertFalse((self.folder / "cases").exists())

    def test_each_is_refused(self) -> None:
        first = lambda data: data["data"][0]  # noqa: E731
        for telling, change in {
            "lacks the field 'classes'": lambda d: d.pop("classes"),
            "unknown field 'flips'": lambda d: d.update(flips=True),
            "'augmentation' has the unknown field 'flip'": lambda d: d["augmentation"].update(
                flip=1
            ),
            "have the same name": lambda d: d["classes"].append("Pea"),
            "no data set annotates the class 'husk'": lambda d: d["classes"].append("husk"),
            "'VNet' is not known; there are DynamicUNet": lambda d: d["architecture"].update(
                name="VNet"
            ),
            "unknown field 'depth'; known are filters": lambda d: d["architecture"].update(depth=3),
            "no 1x1x1 head": lambda d: d.update(architecture={"name": "ObeliskUNet"}),
            "multiples of 4": lambda d: d["training"].update(crop=[16, 16, 10]),
            "'crop' of 'training' is a list": lambda d: d["training"].update(crop=16),
            "'steps' of 'training' is a whole number": lambda d: d["training"].update(steps="many"),
            "learning_rate is in": lambda d: d["training"].update(learning_rate=-1),
            "anchors .* given together": lambda d: d["targets"].update(anchors=[]),
            "anchor 'husk'": lambda d: d["targets"].update(anchors=["husk"]),
            "rotation is 0 to 45": lambda d: d["augmentation"].update(rotation=180),
            "There is no folder": lambda d: first(d).update(folder="nowhere"),
            "modality has no part": lambda d: first(d).update(modality="PET"),
            "label value 'x'": lambda d: first(d)["labels"].update(x="bean"),
            "class 'nut' of label 6": lambda d: first(d)["labels"].update({"6": "nut"}),
            "lacks 'b0'": lambda d: first(d).update(annotated={"file": "empty.json"}),
            "no list of label values": lambda d: first(d).update(annotated={"file": "no.json"}),
            "no case 'b9' to hold out": lambda d: first(d).update(held_out=["b9"]),
            "which exclude names": lambda d: first(d).update(exclude=["b9"]),
            "left to train on": lambda d: first(d).update(held_out=3),
            "'grey' names 'nut'": lambda d: d["data"][1].update(grey={"nut": 0.5}),
            "grey value of 'pod' is not within": lambda d: d["data"][1].update(grey={"pod": 2}),
            "'grey' is for made-up images": lambda d: first(d).update(grey={"bean": 0.5}),
            "weight is a number above 0": lambda d: first(d).update(weight=0),
            "trains on 'b1', which 'twin' holds out": lambda d: d["data"].append(
                dict(first(d), name="twin", held_out=["b1"])
            ),
            "no data set is MR": lambda d: (
                d["data"].pop(),
                d["classes"].remove("pod"),
                d.update(targets={}),
            ),
            "can't be 'Pretraining'": lambda d: d["model"].update(id="Pretraining"),
            "leaves one voxel": lambda d: d["training"].update(crop=[4, 4, 4]),
            "cases is a list of case names": lambda d: first(d).update(cases=[["b0"]]),
            "held_out is a number": lambda d: first(d).update(held_out=[["b0"]]),
            "one name": lambda d: d["data"].append(first(d)),
            "use window or percentiles": lambda d: d["preprocessing"]["MR"].update(
                intensity="identity"
            ),
            "not one of the kind 'RAS'": lambda d: d["preprocessing"]["CT"].update(
                orientation="RAX"
            ),
        }.items():
            (self.world / "empty.json").write_text("{}")
            self.assert_refused(telling, change)

    def test_the_documented_example_is_one(self) -> None:
        text = (ROOT / "Documentation" / "pretraining.md").read_text(encoding="utf-8")
        data = json.loads(text.split("```json\n")[1].split("```")[0])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for case in ("patient_1", "patient_2", "patient_17"):
                for place in ("hospital-a", "hospital-b"):
                    for end in ("_ct.nii.gz", "_seg.nii.gz"):
                        file = folder / place / f"{case}{end}"
                        file.parent.mkdir(exist_ok=True)
                        file.touch()
            (folder / "brain-label-maps").mkdir()
            for number in range(3):
                (folder / "brain-label-maps" / f"brain{number}.nii.gz").touch()
            index = {"train": {f"patient_{n}": [1] for n in (1, 2, 17)}}
            (folder / "hospital-a" / "index.json").write_text(json.dumps(index))
            data["data"][0]["held_out"] = 1  # of three
            (folder / "assembly.json").write_text(json.dumps(data))
            assembly = read_assembly(folder / "assembly.json", steps=7)
        self.assertEqual([len(d.sources) for d in assembly.data], [2, 2, 1])
        self.assertEqual([len(d.held_out) for d in assembly.data], [1, 0, 2])
        self.assertEqual(assembly.training.steps, 7)
        for part in (Targets, Augmentation, TrainingPlan):
            for field in dataclasses.fields(part):
                self.assertIn(f"`{field.name}`", text)

    def test_files_that_are_no_assembly(self) -> None:
        for text in ("{", "[]", '"text"', "3"):
            path = self.world / "bad.json"
            path.write_text(text)
            with self.assertRaises(InputError):
                read_assembly(path)
        with self.assertRaisesRegex(InputError, "There is no assembly"):
            read_assembly(self.world / "none.json")

    def test_a_diverged_training_is_told(self) -> None:
        assembly = read_assembly(self.path)
        trainer = Trainer(assembly, self.cases(assembly), Ranks(torch.device("cpu")), 0)
        trainer.running[0, 0] = math.nan
        with self.assertRaisesRegex(InputError, "diverged"):
            trainer.reset_running()
        trainer.running.zero_()
        trainer.require_finite()
        with torch.no_grad():
            trainer.parameters[0].view(-1)[0] = math.inf  # by the last step; no loss shows it yet
        with self.assertRaisesRegex(InputError, "diverged"):
            trainer.require_finite()


if __name__ == "__main__":
    unittest.main()
