"""What the network gets to see in pre-training: honest crops."""

from __future__ import annotations

import dataclasses
import math
import os
import unittest
from pathlib import Path

import numpy as np
import torch
from pretraining_world import World, description
from tiny_model import make_grid, write_array
from torch import Tensor

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pretraining.assembly import read_assembly
from FewShotSegLib.pretraining.augmentation import crop_index, disturb, warp
from FewShotSegLib.pretraining.cases import Case, prepare_case
from FewShotSegLib.pretraining.ddp import Ranks
from FewShotSegLib.pretraining.sampling import Sampler, data_set_of, make_sample, whole_image
from FewShotSegLib.pretraining.settings import Augmentation
from FewShotSegLib.pretraining.synthesis import synthesise
from FewShotSegLib.pretraining.trainer import Trainer


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

    def test_most_synthetic_images_have_the_usual_contrast(self) -> None:
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

    def test_a_damaged_prepared_case_is_reported(self) -> None:
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


if __name__ == "__main__":
    unittest.main()
