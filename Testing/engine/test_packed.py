"""Episodic pre-training from a packed file: geometry, episodes, losses, resuming, the model."""

from __future__ import annotations

import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from tiny import OneThread
from torch import nn

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.models.backbones.dynamic_unet import DynamicUNet
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.pretraining.packed.__main__ import main
from FewShotSegLib.pretraining.packed.build import build_pack
from FewShotSegLib.pretraining.packed.contrast import Contrast, disturb, synthesise
from FewShotSegLib.pretraining.packed.episodes import Episodes
from FewShotSegLib.pretraining.packed.losses import (
    contrast_loss,
    episode_loss,
    gather,
    ridge_scores,
)
from FewShotSegLib.pretraining.packed.pack import (
    Group,
    Pack,
    PackedVolume,
    find_places,
    read_pack,
    write_pack,
)
from FewShotSegLib.pretraining.packed.parcels import grow, shrink
from FewShotSegLib.pretraining.packed.recipe import Recipe, parse_recipe, read_recipe
from FewShotSegLib.pretraining.packed.run import Amount, pretrain_packed
from FewShotSegLib.pretraining.packed.trainer import EpisodeTrainer, learning_rate
from FewShotSegLib.pretraining.packed.views import Deformation, crop_places, look_up

CPU = torch.device("cpu")
STILL = Deformation(rotation=0, stretch=0, shear=0, bend=0, ripple=0, jitter=0)
ROOT = Path(__file__).resolve().parents[2]
RECIPES = (
    ROOT / "FewShotSegLib" / "Resources" / "Models" / "recipes",
    ROOT / "Testing" / "benchmarks" / "recipes",
)


def make_volume(group: int = 0, seed: int = 0, image: bool = False, own: int = 0) -> PackedVolume:
    """Eight blocks of 8 voxels a side, labelled 1 to 8, or ``own`` more; label 7 is hidden."""
    labels = np.arange(1, 9, dtype=np.uint8).reshape(2, 2, 2).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    labels[labels > 3] += own
    picture = torch.from_numpy((labels * 20).astype(np.uint8)) if image else None
    places = find_places(labels, (7,), seed)
    spacing = (1.0, 1.0, 2.0)
    return PackedVolume(
        f"v{group}{seed}", group, spacing, torch.from_numpy(labels), picture, places
    )


def make_pack() -> Pack:
    """Two label maps whose labels mean the same, and two images where only 1 to 3 do."""
    groups = (
        Group("maps", "MR", 8, (7,), (0.8, 1.2), 2.0),
        Group("images", "CT", 3, (7,), (0.8, 1.2), 1.0),
    )
    volumes = [make_volume(0, 0), make_volume(0, 1)]
    volumes += [make_volume(1, 0, True), make_volume(1, 1, True, own=5)]
    return Pack(groups, tuple(volumes), "hash")


def make_recipe(norm: str = "batch", **losses: float) -> Recipe:
    window = {"orientation": "RAS", "spacing": [1, 1, 1], "intensity": "window"}
    return parse_recipe(
        {
            "model": {"id": "tiny-episodes", "title": "Tiny"},
            "architecture": {"name": "DynamicUNet", "filters": [4, 6, 8], "norm": norm},
            "preprocessing": {
                "CT": {**window, "low": 0, "high": 1},
                "MR": {**window, "intensity": "percentiles", "low": 1, "high": 99},
            },
            "losses": losses or {"episode": 1.0},
            "training": {
                **{"episodes": 8, "crop": [16, 16, 16], "points": 64, "epoch": 3, "warm_up": 2},
                **{"freeze_statistics": 0.5},
            },
        }
    )


class ViewTest(unittest.TestCase):
    def test_an_unchanged_crop_is_the_volume(self) -> None:
        volume = make_volume(image=True)
        rng = np.random.default_rng(0)
        place = crop_places(rng, STILL, (8, 8, 4), np.array([7.5, 7.5, 7.5]), (1, 1, 2), 1, CPU)
        # Crop voxels of 1 mm: four of them are two of the volume's 2 mm along the last axis.
        np.testing.assert_allclose(place[0, 0, :, 2], [6.75, 7.25, 7.75, 8.25], atol=1e-5)
        np.testing.assert_allclose(place[:, 0, 0, 0], np.arange(4, 12), atol=1e-5)
        view = look_up(volume, place)
        expected = volume.labels[4:12, 4:12][:, :, [7, 7, 8, 8]].long()
        self.assertTrue(torch.equal(view.labels, expected))
        # Between two voxels, 3 and 1 parts of each.
        a, b = (float(volume.image[4, 4, k]) / 255 for k in (7, 8))
        np.testing.assert_allclose(view.image[0, 0, 1], 0.75 * a + 0.25 * b, rtol=1e-5)

    def test_outside_there_is_nothing(self) -> None:
        volume = make_volume(image=True)
        place = torch.tensor([[[[-0.4, 0, 0], [-0.6, 0, 0], [15.4, 15, 15], [0, 15.6, 0]]]])
        view = look_up(volume, place)
        self.assertEqual(view.labels.flatten().tolist(), [1, 0, 8, 0])
        np.testing.assert_allclose(
            view.image.flatten(), [20 / 255, 0, 160 / 255, 0], rtol=1e-5, atol=1e-7
        )

    def test_turning_keeps_lengths_in_mm(self) -> None:
        rng = np.random.default_rng(3)
        turned = replace(STILL, rotation=40)
        place = crop_places(rng, turned, (8, 8, 8), np.zeros(3), (1, 2, 4), 1.5, CPU)
        for axis in range(3):
            step = (place.select(axis, 7) - place.select(axis, 0))[3, 3] * torch.tensor([1.0, 2, 4])
            self.assertAlmostEqual(float(step.norm()), 7 * 1.5, places=3)

    def test_bending_moves_voxels_by_a_part_of_the_crop(self) -> None:
        bent = replace(STILL, bend=0.05)
        moved = [
            crop_places(np.random.default_rng(n), bent, (16,) * 3, np.zeros(3), (1,) * 3, 1, CPU)
            - crop_places(np.random.default_rng(n), STILL, (16,) * 3, np.zeros(3), (1,) * 3, 1, CPU)
            for n in range(20)
        ]
        corners = torch.stack([m[0, 0, 0] for m in moved])  # where knots are
        self.assertAlmostEqual(float(corners.std()), 0.05 * 16, delta=0.2)


class ContrastTest(unittest.TestCase):
    def test_every_structure_has_a_grey_value_of_its_own_in_every_crop(self) -> None:
        labels = make_volume().labels.long()
        plain = Contrast(alike=0, clutter=0, texture=0)
        images = [
            synthesise(np.random.default_rng(n), torch.Generator(), plain, labels, 8)
            for n in (0, 1)
        ]
        for image in images:
            for label in range(1, 9):
                self.assertEqual(len(image[labels == label].unique()), 1)
            self.assertEqual(len(image.unique()), 8)
        self.assertFalse(torch.equal(*images))

    def test_structures_alike_share_few_grey_values(self) -> None:
        labels = torch.arange(201).reshape(201, 1, 1)
        alike = Contrast(alike=1, clutter=0, texture=0)
        image = synthesise(np.random.default_rng(0), torch.Generator(), alike, labels, 200)
        values = np.sort(image[1:].flatten())
        # The gaps between groups are wider than the spread of 0.02 within.
        self.assertLess(np.sum(np.diff(values) > 0.03), 9)

    def test_nothing_is_disturbed_where_nothing_is_asked_for(self) -> None:
        image = torch.full((8, 8, 8), 0.4)
        still = Contrast(bias=0, gamma=0, noise=0, coarsest=1)
        for n in range(5):
            out = disturb(np.random.default_rng(n), torch.Generator(), still, image)
            torch.testing.assert_close(out, image)


class EpisodeTest(OneThread):
    def setUp(self) -> None:
        self.pack = make_pack()
        self.episodes = Episodes(self.pack, make_recipe(), 0, CPU)

    def test_an_episode_is_a_function_of_its_number(self) -> None:
        again = Episodes(self.pack, make_recipe(), 0, CPU)
        for number in (0, 5):
            a, b = self.episodes.draw(number), again.draw(number)
            self.assertTrue(torch.equal(a.images, b.images))
            self.assertTrue(torch.equal(a.points, b.points))
        self.assertFalse(torch.equal(self.episodes.draw(1).images, self.episodes.draw(2).images))

    def test_hidden_structures_are_never_learned_from(self) -> None:
        seen = set()
        for number in range(40):
            episode = self.episodes.draw(number)
            # In the group of images, hidden is the number 7; one volume's own are 9 and above.
            self.assertNotIn(7, episode.labels.unique().tolist())
            seen |= set(episode.labels.unique().tolist())
        self.assertLessEqual({1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 13}, seen)

    def test_points_correspond_where_both_views_are_the_same_place(self) -> None:
        plan = replace(make_recipe().training, same=1.0, across=0.0, recontrast=1.0)
        episodes = Episodes(self.pack, replace(make_recipe(), training=plan), 0, CPU)
        for number in range(10):
            episode = episodes.draw(number)
            self.assertTrue(episode.same)
            self.assertTrue(torch.equal(*episode.labels))
            self.assertTrue(torch.equal(*episode.tasks))
            self.assertFalse(torch.equal(*episode.images))

    def test_places_are_in_mm_of_the_volume(self) -> None:
        for number in range(10):
            episode = self.episodes.draw(number)
            for labels, places in zip(episode.labels, episode.places, strict=True):
                # Labels 1 to 3 lie where the volume's corner is: at most 16 x 16 x 32 mm.
                inside = places[labels == 1] / torch.tensor([1.0, 1.0, 2.0])
                self.assertTrue(bool(((inside > -0.51) & (inside < 7.51)).all()))

    def test_one_contrast_is_shared_where_none_is_changed(self) -> None:
        plan = replace(make_recipe().training, same=1.0, across=0.0, recontrast=0.0)
        quiet = Contrast(texture=0, noise=0, narrow=0)
        episodes = Episodes(
            self.pack, replace(make_recipe(), training=plan, contrast=quiet), 0, CPU
        )
        for number in range(10):
            self.assertTrue(torch.equal(*episodes.draw(number).images))

    def test_other_volumes_share_only_what_means_the_same(self) -> None:
        plan = replace(make_recipe().training, across=1.0, split=0.0, merge=0.0)
        groups = (replace(self.pack.groups[0], weight=1e-9), self.pack.groups[1])
        pack = Pack(groups, self.pack.volumes, "hash")
        episodes = Episodes(pack, replace(make_recipe(), training=plan), 0, CPU)
        for number in range(20):
            episode = episodes.draw(number)
            if episode.labels.max() > 3:  # one volume came twice
                continue
            pairs = {
                (int(label), int(task))
                for label, task in zip(
                    episode.labels.flatten(), episode.tasks.flatten(), strict=True
                )
            }
            self.assertEqual(len(pairs), len({label for label, _ in pairs}))

    def test_a_split_structure_is_cut_alike_in_both_views(self) -> None:
        plan = replace(make_recipe().training, same=1.0, across=0.0, split=1.0, merge=0.0)
        still = replace(make_recipe(), training=plan, deformation=STILL)
        episode = Episodes(self.pack, still, 0, CPU).draw(0)
        self.assertTrue(torch.equal(*episode.tasks))
        by_label = {
            label: set(episode.tasks[0][episode.labels[0] == label].tolist())
            for label in episode.labels[0].unique().tolist()
            if label
        }
        self.assertEqual({len(tasks) for tasks in by_label.values()}, {2})


class LossTest(unittest.TestCase):
    def test_ridge_is_that_of_the_textbook(self) -> None:
        rng = np.random.default_rng(0)
        known, asked = rng.normal(size=(40, 5)), rng.normal(size=(7, 5))
        wanted = np.eye(3)[rng.integers(3, size=40)]
        gram = known.T @ known + 40 * 0.2 * np.eye(5)
        weights = np.linalg.solve(gram, known.T @ (wanted - wanted.mean(0)))
        given = [torch.tensor(a, dtype=torch.float32) for a in (known, wanted, asked)]
        found = ridge_scores(*given, torch.tensor(0.2))
        np.testing.assert_allclose(found, asked @ weights + wanted.mean(0), rtol=1e-4, atol=1e-5)

    def test_an_episode_is_solved_by_features_that_tell_and_not_by_others(self) -> None:
        torch.manual_seed(0)
        tasks = torch.randint(3, (2, 300))
        telling = nn.functional.one_hot(tasks, 3).float() + 0.1 * torch.randn(2, 300, 3)
        gains, ridge, scale = torch.ones(3), torch.tensor(0.01), torch.tensor(8.0)
        loss, right, none = episode_loss(telling, tasks, None, gains, ridge, scale)
        self.assertIsNone(none)
        self.assertLess(float(loss), 0.05)
        self.assertGreater(float(right), 0.98)
        noise = torch.randn(2, 300, 3)
        loss, right, _ = episode_loss(noise, tasks, None, gains, ridge, scale)
        self.assertGreater(float(loss), 1.0)
        self.assertLess(float(right), 0.5)

    def test_places_are_told_by_features_that_hold_them(self) -> None:
        torch.manual_seed(0)
        places = 50 + 20 * torch.randn(2, 300, 3)
        tasks, one = torch.randint(3, (2, 300)), torch.tensor(1.0)
        turned = places @ torch.tensor([[1.0, 2, 0], [0, 1, 0], [1, 0, -1]]) + 3
        errors = [
            float(episode_loss(f, tasks, places, torch.ones(3), one * 1e-4, one)[2])
            for f in (turned, torch.randn(2, 300, 3))
        ]
        self.assertLess(errors[0], 1e-4)
        # A guess at the middle is one deviation off, of which smooth L1 makes about 0.4.
        self.assertAlmostEqual(errors[1], 0.4, delta=0.08)

    def test_a_structure_that_the_first_view_lacks_is_not_asked_for(self) -> None:
        tasks = torch.tensor([[0, 1] * 20, [0, 2] * 20])
        features = nn.functional.one_hot(tasks, 3).float()
        one = torch.tensor(1.0)
        loss, *_ = episode_loss(features, tasks, None, torch.ones(3), one * 0.01, one * 8)
        self.assertTrue(bool(loss.isfinite()))

    def test_contrast_prefers_the_same_voxel(self) -> None:
        torch.manual_seed(0)
        a = torch.randn(100, 16)
        tasks = torch.zeros(2, 100, dtype=torch.long)
        same = contrast_loss(torch.stack([a, a]), tasks)
        other = contrast_loss(torch.stack([a, a.roll(1, 0)]), tasks)
        self.assertLess(float(same), 0.1)
        self.assertGreater(float(other), 5)

    def test_gathered_features_are_those_of_the_voxels(self) -> None:
        fine = torch.arange(2 * 3 * 4**3, dtype=torch.float32).reshape(2, 3, 4, 4, 4)
        coarse = nn.functional.avg_pool3d(fine, 2)
        points = torch.tensor([[0, 21, 63], [5, 6, 7]])
        found = gather([fine, coarse], points, (4, 4, 4))
        expected = nn.functional.interpolate(coarse, scale_factor=2, mode="trilinear")
        for b in range(2):
            for n in range(3):
                self.assertTrue(torch.equal(found[0][b, n], fine[b].flatten(1)[:, points[b, n]]))
                torch.testing.assert_close(found[1][b, n], expected[b].flatten(1)[:, points[b, n]])


class PackTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_what_is_written_is_read(self) -> None:
        pack = make_pack()
        write_pack(self.folder / "a.npz", list(pack.groups), list(pack.volumes))
        read = read_pack(self.folder / "a.npz")
        self.assertEqual(read.groups, pack.groups)
        for a, b in zip(read.volumes, pack.volumes, strict=True):
            self.assertEqual((a.name, a.group, a.spacing), (b.name, b.group, b.spacing))
            self.assertTrue(torch.equal(a.labels, b.labels))
            self.assertTrue(torch.equal(a.places, b.places))
            self.assertEqual(a.image is None, b.image is None)

    def test_what_is_no_pack_is_refused_in_one_sentence(self) -> None:
        (self.folder / "text.npz").write_text("nothing")
        np.savez(self.folder / "other.npz", a=np.zeros(3))
        pack = make_pack()
        write_pack(self.folder / "cut.npz", list(pack.groups), list(pack.volumes))
        whole = (self.folder / "cut.npz").read_bytes()
        (self.folder / "cut.npz").write_bytes(whole[: len(whole) // 2])
        for name in ("text.npz", "other.npz", "cut.npz", "missing.npz"):
            with self.subTest(name), self.assertRaisesRegex(InputError, name):
                read_pack(self.folder / name)

    def test_places_are_voxels_of_their_label_and_none_is_hidden(self) -> None:
        volume = make_volume()
        self.assertEqual(sorted(volume.places[:, 0].unique().tolist()), [1, 2, 3, 4, 5, 6, 8])
        for label, i, j, k in volume.places.tolist():
            self.assertEqual(int(volume.labels[i, j, k]), label)

    def test_folders_become_a_pack(self) -> None:
        self._write("maps/a", self._labels(), None)
        image = self._labels() * 100.0 - 200
        self._write("real/b_seg", self._labels(), None)
        self._write("real/b_ct", image.astype(np.int16), None)
        common = {"spacing": [2, 2, 2], "zoom": [1, 2]}
        groups = [
            {**common, "name": "maps", "folder": "maps", "modality": "MR", "hidden": [3, 99]},
            {
                **common,
                **{"name": "real", "folder": "real", "modality": "CT", "images": True},
                **{"low": -200, "high": 300, "labels": [5, 1], "together": [[1, 2]]},
                **{"supervoxels": 4, "weight": 2},
            },
        ]
        (self.folder / "d.json").write_text(json.dumps({"groups": groups}))
        build_pack(self.folder / "d.json", self.folder, self.folder / "p.npz")
        pack = read_pack(self.folder / "p.npz")
        maps, real = pack.volumes
        # Values 1, 2, 3 and 5 are numbered in order; the file runs to the left and to the back.
        self.assertEqual(pack.groups[0].hidden, (3,))
        self.assertEqual(pack.groups[0].shared, 4)
        turned = np.flip(self._labels(), (0, 1))[::2, ::2, ::2]
        table = np.array([0, 1, 2, 3, 0, 4])
        np.testing.assert_array_equal(maps.labels, table[turned])
        # 5 became 1, 1 and 2 together 2, and only what is neither is a supervoxel.
        table = np.array([0, 2, 2, 0, 0, 1])
        known = table[turned]
        np.testing.assert_array_equal(known, np.where(real.labels > 2, 0, real.labels))
        # Pieces of a few voxels are left out.
        self.assertGreater(float((real.labels.numpy()[turned == 3] > 2).mean()), 0.5)
        self.assertEqual(pack.template(), [(0, 1), (0, 2), (0, 4), (1, 1), (1, 2)])
        inner = np.ix_(*3 * [[0, 1, 6, 7]])  # where resampling mixes no two blocks
        expected = turned.astype(float) * 100 / 500
        np.testing.assert_allclose(
            real.image.numpy()[inner] / 255, expected[inner], atol=0.51 / 63 + 0.51 / 255
        )

    def test_a_wrong_description_is_told(self) -> None:
        self._write("maps/a", self._labels(), None)
        good = {
            "name": "a",
            "folder": "maps",
            "modality": "MR",
            "spacing": [2, 2, 2],
            "zoom": [1, 2],
        }
        for change, message in (
            ({"modality": "PET"}, "modality"),
            ({"folder": "none"}, "nothing at"),
            ({"cases": ["x"]}, "no cases"),
            ({"colour": 1}, "colour"),
            ({"weight": 0}, "weight"),
        ):
            (self.folder / "d.json").write_text(json.dumps({"groups": [{**good, **change}]}))
            with self.subTest(change), self.assertRaisesRegex(InputError, message):
                build_pack(self.folder / "d.json", self.folder, self.folder / "p.npz")

    def _labels(self) -> np.ndarray:
        """(i, j, k) of 16 voxels a side, in blocks of 8."""
        values = np.array([1, 2, 3, 5, 3, 1, 5, 2], np.uint8).reshape(2, 2, 2)
        return values.repeat(8, 0).repeat(8, 1).repeat(8, 2)

    def _write(self, name: str, array: np.ndarray, spacing: None) -> None:
        path = self.folder / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
        sitk.WriteImage(image, str(path))


class TrainingTest(OneThread):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        pack = make_pack()
        write_pack(self.folder / "p.npz", list(pack.groups), list(pack.volumes))
        (self.folder / "r.json").write_text(json.dumps(make_recipe().to_json()))

    def run_to(self, out: str, stop_after: int | None = None, **options: object) -> EpisodeTrainer:
        """Train in a folder; ``stop_after`` as Ctrl-C after so many looks."""
        asked = iter(range(10**6))
        result = pretrain_packed(
            *(self.folder / "r.json", self.folder / "p.npz", self.folder / out),
            runtime=Runtime(
                "cpu", cancel=lambda: stop_after is not None and next(asked) >= stop_after
            ),
            **options,
        )
        return result.trainer

    def test_every_loss_is_learned(self) -> None:
        pack = read_pack(self.folder / "p.npz")
        for norm, losses in (
            ("batch", {"episode": 1.0}),
            ("instance", {"episode": 0.0, "template": 1.0}),
            ("batch", {"episode": 0.0, "contrast": 1.0}),
            ("batch", {"episode": 0.0, "place": 1.0}),
        ):
            with self.subTest(norm=norm, **losses):
                recipe = make_recipe(norm, **losses)
                plan = replace(recipe.training, episodes=60, same=1.0, across=0.0, warm_up=5)
                trainer = EpisodeTrainer(replace(recipe, training=plan), pack, 0, CPU)
                means = []
                for number, _ in enumerate(trainer.run(), 1):
                    if number % 20 == 0:
                        means.append(trainer.reset_running()["loss"])
                self.assertLess(means[-1], means[0])

    def test_an_episode_that_teaches_nothing_stops_nothing(self) -> None:
        # Two volumes show no two contrasts of one place.
        recipe = make_recipe(episode=0.0, contrast=1.0)
        plan = replace(recipe.training, episodes=6, same=0.0)
        trainer = EpisodeTrainer(replace(recipe, training=plan), make_pack(), 0, CPU)
        before = [p.clone() for p in trainer.network.backbone.parameters()]
        for _ in trainer.run():
            pass
        self.assertEqual(trainer.done, 6)
        self.assertEqual(trainer.reset_running(), {"loss": 0.0})
        for a, b in zip(before, trainer.network.backbone.parameters(), strict=True):
            self.assertTrue(torch.equal(a, b))

    def test_a_stopped_run_ends_with_the_same_weights(self) -> None:
        whole = self.run_to("whole")
        self.assertEqual(self.run_to("parts", stop_after=3).done, 3)
        resumed = self.run_to("parts", resume=True)
        self.assertEqual(resumed.done, whole.done)
        for network in ("network", "averaged"):
            pairs = zip(
                getattr(whole, network).state_dict().items(),
                getattr(resumed, network).state_dict().values(),
                strict=True,
            )
            for (name, a), b in pairs:
                self.assertTrue(torch.equal(a, b), f"{network} {name}")

    def test_a_run_goes_on_with_another_batch_and_length_but_no_other_recipe(self) -> None:
        self.run_to("out", stop_after=2)
        with self.assertRaisesRegex(InputError, "--resume"):
            self.run_to("out")
        with self.assertRaisesRegex(InputError, "another"):
            self.run_to("out", resume=True, seed=1)
        trainer = self.run_to("out", resume=True, amount=Amount(11, 3))
        self.assertEqual(trainer.done, 11)
        record = json.loads((self.folder / "out" / "pretraining.json").read_text())
        self.assertEqual(record["episodes"], 11)
        self.assertEqual([r["episodes"] for r in record["history"]], [5, 8, 11])

    def test_a_checkpoint_travels_in_parcels(self) -> None:
        before = self.run_to("out", stop_after=3)
        parts, back = self.folder / "parts", self.folder / "back"
        for path in shrink(self.folder / "out" / "checkpoint.safetensors", parts, 30_000):
            self.assertLess(path.stat().st_size, 30_000)
        self.assertGreater(len(list(parts.iterdir())), 1)
        self.assertEqual(grow(parts, back / "checkpoint.safetensors"), 3)
        after = self.run_to("back", resume=True, stop_after=0)
        self.assertEqual(after.done, 3)
        for a, b in zip(before.parameters, after.parameters, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
            for key in ("exp_avg", "exp_avg_sq"):
                kept = [t.optimizer.state[p][key] for t, p in ((before, a), (after, b))]
                torch.testing.assert_close(*kept, rtol=1e-2, atol=1e-12)
        self.assertEqual(self.run_to("back", resume=True).done, 8)
        next(parts.iterdir()).unlink()
        with self.assertRaisesRegex(InputError, "parts"):
            grow(parts, back / "checkpoint.safetensors")

    def test_no_step_starts_after_the_minutes(self) -> None:
        trainer = self.run_to("out", amount=Amount(minutes=0.0))
        self.assertEqual(trainer.done, 0)
        self.assertTrue((self.folder / "out" / "checkpoint.safetensors").exists())

    def test_the_model_is_a_registry_entry(self) -> None:
        trainer = self.run_to("out")
        model = find_model(str(self.folder / "out" / "tiny-episodes.json"))
        self.assertEqual(model.entry.modality, ("CT", "MR"))
        image = torch.rand(1, 1, 16, 16, 16)
        with torch.inference_mode():
            found = model.backbone.features(image)
            expected = trainer.averaged.backbone.features(image)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)

    def test_the_learning_rate_follows_the_episodes(self) -> None:
        plan = replace(make_recipe().training, episodes=1000, warm_up=10)
        self.assertLess(learning_rate(plan, 0), 0.11 * plan.learning_rate)
        self.assertAlmostEqual(learning_rate(plan, 500), 0.505 * plan.learning_rate)
        self.assertAlmostEqual(learning_rate(plan, 1000), 0.01 * plan.learning_rate)
        more = replace(plan, batch=8)
        self.assertEqual(learning_rate(more, 500), learning_rate(plan, 500))

    def test_the_command_tells_what_is_wrong(self) -> None:
        common = ["--pack", str(self.folder / "p.npz"), "--out", str(self.folder / "out")]
        self.assertEqual(main(["train", str(self.folder / "none.json"), *common]), 2)
        self.assertEqual(main(["train", str(self.folder / "r.json"), *common, "--threads", "1"]), 0)
        self.assertEqual(main(["train", str(self.folder / "r.json"), *common]), 2)


class RecipeTest(unittest.TestCase):
    def test_the_recipes_that_ship_can_be_read(self) -> None:
        paths = [*RECIPES[0].glob("episodes*.json"), *RECIPES[1].glob("*.json")]
        paths = [path for path in paths if path.stem != "episodes-pack"]
        self.assertGreater(len(paths), 3)
        for path in paths:
            with self.subTest(path.name):
                recipe = read_recipe(path)
                self.assertEqual(parse_recipe(recipe.to_json()), recipe)

    def test_a_wrong_recipe_is_told(self) -> None:
        good = make_recipe().to_json()
        for part, change, message in (
            ("losses", {"episode": 0.0}, "above 0"),
            ("training", {"crop": [16, 16]}, "crop"),
            ("training", {"same": 1.5}, r"\[0, 1\]"),
            ("contrast", {"coarsest": 0.5}, "coarsest"),
            ("deformation", {"flips": 1}, "flips"),
            ("architecture", {"name": "none"}, "architecture"),
        ):
            with self.subTest(change), self.assertRaisesRegex(InputError, message):
                parse_recipe({**good, part: {**good[part], **change}})

    def test_a_crop_that_does_not_fit_the_network_is_told(self) -> None:
        recipe = make_recipe()
        plan = replace(recipe.training, crop=(16, 16, 18))
        with self.assertRaisesRegex(InputError, "multiples of 4"):
            EpisodeTrainer(replace(recipe, training=plan), make_pack(), 0, CPU)


class NormTest(unittest.TestCase):
    def test_instance_normalisation_forgets_gain_and_offset(self) -> None:
        torch.manual_seed(0)
        network = DynamicUNet([4, 6, 8], norm="instance").eval()
        image = torch.rand(1, 1, 8, 8, 8)
        with torch.inference_mode():
            a, b = network.features(image)[2], network.features(3 * image)[2]
            torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)

    def test_a_window_may_be_one_voxel_of_the_coarsest_level(self) -> None:
        torch.manual_seed(0)
        network = DynamicUNet([4, 6, 8], norm="instance").eval()
        with torch.inference_mode():
            levels = network.features(torch.rand(1, 1, 4, 4, 4))
        self.assertEqual(
            [tuple(level.shape[2:]) for level in levels], [(4,) * 3, (2,) * 3, (1,) * 3]
        )
        self.assertTrue(all(bool(level.isfinite().all()) for level in levels))

    def test_another_norm_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "batch, instance"):
            DynamicUNet([4, 6], norm="none")


if __name__ == "__main__":
    unittest.main()
