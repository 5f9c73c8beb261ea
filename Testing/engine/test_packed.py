"""Episodic pre-training from a packed file: the pack, resuming, recipes, the model."""

from __future__ import annotations

import json
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from pack_case import CPU, make_pack, make_recipe, make_volume
from tiny import OneThread

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline.adapter_file import content_hash
from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.pretraining.export import halved
from FewShotSegLib.pretraining.packed.__main__ import main
from FewShotSegLib.pretraining.packed.build import build_pack
from FewShotSegLib.pretraining.packed.pack import (
    read_pack,
    write_pack,
)
from FewShotSegLib.pretraining.packed.parcels import grow, shrink
from FewShotSegLib.pretraining.packed.recipe import parse_recipe, read_recipe
from FewShotSegLib.pretraining.packed.run import Amount, pretrain_packed
from FewShotSegLib.pretraining.packed.trainer import EpisodeTrainer, learning_rate

ROOT = Path(__file__).resolve().parents[2]
RECIPES = (
    ROOT / "FewShotSegLib" / "Resources" / "Models" / "recipes",
    ROOT / "Testing" / "benchmarks" / "recipes",
)


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
        self.assertEqual(pack.seen, (content_hash(read_image(self.folder / "real/b_ct.nii.gz")),))
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

    def test_registered_supervoxels_have_one_number_in_all_volumes(self) -> None:
        for name, shift in (("a", 0), ("b", 3), ("c", -2)):
            image, labels = self._body(shift)
            self._write(f"real/{name}_ct", image, None)
            self._write(f"real/{name}_seg", labels, None)
        group = {
            **{"name": "real", "folder": "real", "modality": "CT", "images": True},
            **{"spacing": [1, 1, 1], "zoom": [1, 2], "low": 0, "high": 255, "labels": [1]},
        }
        packs = {}
        for registered in (False, True):
            groups = [{**group, "supervoxels": 8, "registered": registered}]
            (self.folder / "d.json").write_text(json.dumps({"groups": groups}))
            build_pack(self.folder / "d.json", self.folder, self.folder / "p.npz")
            packs[registered] = read_pack(self.folder / "p.npz")
        self.assertEqual(packs[False].groups[0].shared, 1)
        shared = packs[True].groups[0].shared
        self.assertGreater(shared, 10)
        self.assertEqual(len(packs[True].template()), shared)
        first, *others = packs[True].volumes
        for other in others:
            both = set(first.labels.unique().tolist()) & set(other.labels.unique().tolist())
            both = [n for n in both if 1 < n <= shared]
            self.assertGreater(len(both), 0.8 * shared)
            # What has one number lies at one place of the body, not of the crop.
            apart = []
            for number in both:
                here, there = (
                    np.argwhere(v.labels.numpy() == number).mean(0)
                    - np.argwhere(v.labels.numpy() == 1).mean(0)
                    for v in (first, other)
                )
                apart.append(float(np.abs(here - there).max()))
            self.assertLess(np.median(apart), 1.5)

    def test_a_wrong_description_is_reported(self) -> None:
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

    def _body(self, shift: int) -> tuple[np.ndarray, np.ndarray]:
        """An image of a body in air, with a bone that is labelled; moved along the first axis."""
        place = np.stack(np.meshgrid(*3 * [np.arange(36.0)], indexing="ij"), -1) - 18
        place[..., 0] -= shift
        image = np.zeros((36, 36, 36), np.int16)
        parts = (
            ((0, 0, 0), 13, 100),
            ((-5, 4, 3), 4, 140),
            ((5, 0, -5), 5, 170),
            ((0, -6, 2), 4, 250),
        )
        for centre, radius, grey in parts:
            image[np.linalg.norm(place - centre, axis=-1) < radius] = grey
        return image, (image == 250).astype(np.uint8)

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
                plan = replace(recipe.training, episodes=180, same=1.0, across=0.0, warm_up=5)
                trainer = EpisodeTrainer(replace(recipe, training=plan), pack, 0, CPU)
                means = []
                for number, _ in enumerate(trainer.run(), 1):
                    if number % 60 == 0:
                        means.append(trainer.reset_running()["loss"])
                self.assertLess(means[-1], 0.9 * means[0])

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
        self.assertEqual((self.folder / "out" / "curve.png").read_bytes()[:4], b"\x89PNG")
        self.assertEqual(model.entry.modality, ("CT", "MR"))
        image = torch.rand(1, 1, 16, 16, 16)
        with torch.inference_mode():
            found = model.backbone.features(image)
            expected = trainer.averaged.backbone.features(image)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)

    def test_variances_beyond_half_precision_are_kept(self) -> None:
        recipe = make_recipe()
        trainer = EpisodeTrainer(recipe, read_pack(self.folder / "p.npz"), 0, CPU)
        backbone = trainer.averaged.backbone
        name = next(n for n, _ in backbone.named_buffers() if n.endswith("running_var"))
        norm = backbone.get_submodule(name.rpartition(".")[0])
        norm.running_var.fill_(1e6)
        tensors = halved(backbone)
        self.assertEqual(tensors[name].dtype, torch.float32)
        self.assertTrue((tensors[name] == 1e6).all())
        weight = name.replace("running_var", "weight")
        self.assertEqual(tensors[weight].dtype, torch.float16)
        with torch.no_grad():
            norm.weight.fill_(1e6)
        with self.assertRaisesRegex(InputError, "diverged"):
            halved(backbone)

    def test_frozen_statistics_are_the_average_of_what_was_seen(self) -> None:
        recipe = make_recipe("batch")
        plan = replace(recipe.training, episodes=8, freeze_statistics=0.5)
        pack = read_pack(self.folder / "p.npz")
        trainer = EpisodeTrainer(replace(recipe, training=plan), pack, 0, CPU)

        def statistics(network: torch.nn.Module) -> list[torch.Tensor]:
            named = network.backbone.named_buffers()
            return [b.clone() for n, b in named if "running_" in n]

        steps = trainer.run()
        for _ in range(4):
            next(steps)
        own, mean = statistics(trainer.network), statistics(trainer.averaged)
        self.assertFalse(all(torch.equal(a, b) for a, b in zip(own, mean, strict=True)))
        for _ in steps:
            for now, then in zip(statistics(trainer.network), mean, strict=True):
                self.assertTrue(torch.equal(now, then))

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
        paths = [path for path in paths if not path.stem.endswith("-pack")]
        self.assertGreater(len(paths), 3)
        for path in paths:
            with self.subTest(path.name):
                recipe = read_recipe(path)
                self.assertEqual(parse_recipe(recipe.to_json()), recipe)

    def test_a_wrong_recipe_is_reported(self) -> None:
        good = make_recipe().to_json()
        for part, change, message in (
            ("losses", {"episode": 0.0}, "above 0"),
            ("training", {"crop": [16, 16]}, "crop"),
            ("training", {"same": 1.5}, "same is 0 to 1, not 1.5"),
            ("contrast", {"coarsest": 0.5}, "coarsest"),
            ("deformation", {"flips": 1}, "flips"),
            ("architecture", {"name": "none"}, "architecture"),
        ):
            with self.subTest(change), self.assertRaisesRegex(InputError, message):
                parse_recipe({**good, part: {**good[part], **change}})

    def test_a_crop_that_does_not_fit_the_network_is_reported(self) -> None:
        recipe = make_recipe()
        plan = replace(recipe.training, crop=(16, 16, 18))
        with self.assertRaisesRegex(InputError, "multiples of 4"):
            EpisodeTrainer(replace(recipe, training=plan), make_pack(), 0, CPU)


if __name__ == "__main__":
    unittest.main()
