"""Episodic pre-training: geometry, contrast, episodes, losses and norms."""

from __future__ import annotations

import unittest
from dataclasses import replace

import numpy as np
import torch
from pack_case import CPU, STILL, make_pack, make_recipe, make_volume
from tiny import OneThread
from torch import nn

from FewShotSegLib.models.backbones.dynamic_unet import DynamicUNet
from FewShotSegLib.pretraining.packed.contrast import Contrast, disturb, synthesise
from FewShotSegLib.pretraining.packed.episodes import Episodes
from FewShotSegLib.pretraining.packed.losses import (
    contrast_loss,
    episode_loss,
    gather,
    ridge_scores,
)
from FewShotSegLib.pretraining.packed.pack import (
    Pack,
)
from FewShotSegLib.pretraining.packed.views import crop_places, look_up


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

    def test_places_are_regressed_from_features_that_hold_them(self) -> None:
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
