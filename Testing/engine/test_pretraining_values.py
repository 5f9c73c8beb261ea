"""Numbers and names of both pre-trainings are checked before the work."""

from __future__ import annotations

import copy
import os
import unittest
from typing import Any
from unittest import mock

import torch
from filelock import FileLock
from pack_case import make_recipe
from packed_files import IDS, INF, NAN, PackedCase
from pretraining_world import World, description
from tiny_model import run

from FewShotSegLib.core.errors import FewShotSegError, InputError
from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.pretraining.assembly import RESERVED_IDS, read_assembly, read_model
from FewShotSegLib.pretraining.packed.contrast import Contrast
from FewShotSegLib.pretraining.packed.recipe import Losses, Schedule, parse_recipe
from FewShotSegLib.pretraining.packed.run import Amount, pretrain_packed
from FewShotSegLib.pretraining.packed.views import Deformation
from FewShotSegLib.pretraining.settings import Augmentation, Targets, TrainingPlan


class SettingsTest(unittest.TestCase):
    """Every number has a range."""

    def test_no_field_takes_what_nothing_trains_with(self) -> None:
        anchors = {"position": ("anchors",), "distance": ("landmarks",)}
        for kind in (TrainingPlan, Targets, Augmentation, Losses, Schedule, Contrast, Deformation):
            for name, usual in vars(kind()).items():
                if name in ("anchors", "landmarks"):
                    continue
                for value in (1e308, -1, INF, NAN, 2**63, -(2**70)):
                    given = (value,) * len(usual) if isinstance(usual, tuple) else value
                    more = {key: ("skin",) for key in anchors.get(name, ())}
                    with (
                        self.subTest(f"{kind.__name__}.{name} {value}"),
                        self.assertRaisesRegex(InputError, f"^{name} is "),
                    ):
                        kind(**{name: given, **more})

    def test_smallest_and_largest(self) -> None:
        for kind, name, values, refused in (
            (TrainingPlan, "learning_rate", (1e-9, 1), (0, 1e-320, 1.01)),
            (TrainingPlan, "crops", (1, 256), (0, 257, 100_000)),
            (TrainingPlan, "crop", ((1, 1, 1), (512, 512, 512)), ((0, 1, 1), (513, 1, 1))),
            (TrainingPlan, "average", (0, 0.999), (1,)),
            (Targets, "least_part", (1e-6, 1), (0, 1e-320)),
            (Augmentation, "zoom", ((0.1, 10), (1, 1)), ((1e-320, 1), (1.2, 0.8), (1, 1e308))),
            (Augmentation, "coarsest", (1, 32), (0.5, 33)),
            (Augmentation, "gamma", (0, 2), (2.1,)),
            (Schedule, "points", (16, 2**20), (15, 2**62)),
            (Losses, "ridge", (1e-6, 1), (0,)),
        ):
            for value in values:
                self.assertEqual(getattr(kind(**{name: value}), name), value)
            for value in refused:
                with self.subTest(f"{name} {value}"), self.assertRaisesRegex(InputError, name):
                    kind(**{name: value})


class AssemblyValuesTest(World):
    """What an assembly's description may say."""

    def read(self, **changes: Any) -> Any:
        """``changes`` by dotted name."""
        data = copy.deepcopy(description())
        for key, value in changes.items():
            *path, last = (int(k) if k.isdigit() else k for k in key.split("__"))
            place: Any = data
            for part in path:
                place = place[part]
            place[last] = value
        return read_assembly(self.write(data, "changed.json"))

    def test_held_out_leaves_something(self) -> None:
        cases = len(self.read(data__0__held_out=0).data[0].sources)
        self.assertGreater(cases, 1)
        for count in range(cases):
            found = self.read(data__0__held_out=count).data[0]
            self.assertEqual((len(found.held_out), len(found.sources)), (count, cases - count))
        for count in (cases, cases + 1, 5 * cases, 2**63):
            with self.subTest(count), self.assertRaisesRegex(InputError, "left to train on"):
                self.read(data__0__held_out=count)
        for odd in (-1, 1.0, True, None, "1"):
            with self.subTest(odd), self.assertRaisesRegex(InputError, "held_out is a number"):
                self.read(data__0__held_out=odd)

    def test_label_values(self) -> None:
        for value in ("0", "65536", "9" * 5000, "²", "-1", "1.0", "٣", ""):
            with self.subTest(value[:9]), self.assertRaisesRegex(InputError, "label value"):
                self.read(data__0__labels={value: "bean"})

    def test_numbers_of_each_part(self) -> None:
        for change, words in (
            ({"training__crops": 100_000}, "crops is 1 to 256"),
            ({"training__crops": 2**63}, "crops is 1 to 256"),
            ({"training__crop": [2**63] * 3}, "crop is 1 to 512"),
            ({"augmentation__gamma": 1e308}, "gamma is 0 to 2"),
            ({"augmentation__zoom": [1e-320, 1e308]}, "zoom is 0.1 to 10"),
            ({"training__weight_decay": 1e308}, "weight_decay is 0 to 1"),
            ({"data__0__weight": 1e308}, "weight is a number"),
            ({"data__0__weight": 1e-320}, "weight is a number"),
        ):
            with self.subTest(change), self.assertRaisesRegex(InputError, words):
                self.read(**change)

    def test_ids_and_names(self) -> None:
        for name in IDS:
            with self.subTest(name[:20]), self.assertRaisesRegex(InputError, "id"):
                self.read(model__id=name)
        for odd in ("x" * 5000, "a\0b", "\x1b[31m", "\u202e"):
            for key in ("model__title", "classes__0", "data__0__name"):
                with self.subTest(f"{key} {odd[:9]!r}"), self.assertRaises(InputError) as caught:
                    self.read(**{key: odd})
                self.assertTrue(str(caught.exception).isprintable())
                self.assertLess(len(str(caught.exception)), 500)
        self.assertEqual(self.read(model__id="a" * 100).model["id"], "a" * 100)

    def test_no_result_replaces_a_file(self) -> None:
        name = description()["model"]["id"]
        for number, file in enumerate(
            (f"{name}.json", f"{name}.safetensors", "curve.png", "pretraining.json")
        ):
            out = self.world / f"out{number}"
            out.mkdir()
            (out / file).write_text("mine")
            for more in ((), ("--resume",)):
                with self.subTest(file, more=more):
                    ran = run("pretrain", str(self.path), "--out", str(out), "--steps", "1", *more)
                    self.assertEqual(ran.status, 2)
                    self.assertIn("would be replaced by a result", ran.err)
                    self.assertEqual(os.listdir(out), [file])
                    self.assertEqual((out / file).read_text(), "mine")


class PackedCommandTest(PackedCase):
    """Flags and recipes of ``python -m FewShotSegLib.pretraining.packed``."""

    def test_flags(self) -> None:
        for flag, values in {
            "--seed": ("-1", str(2**70), "x", "1.5"),
            "--threads": ("-1", "0", str(2**40)),
            "--batch": ("0", "-1", str(2**63), "1000000"),
            "--episodes": ("0", "-1", str(2**63)),
            "--minutes": ("nan", "-1", "x"),
            "--device": ("foo", ""),
        }.items():
            for value in values:
                with self.subTest(f"{flag} {value}"):
                    status, err = self.train(f"{flag}={value}")
                    self.assertEqual(status, 2)
                    self.assertTrue(err.strip())
        for options in ({"episodes": 0}, {"batch": 0}, {"minutes": NAN}, {"episodes": 1.5}):
            with self.subTest(options), self.assertRaises(InputError):
                Amount(**options)
        with self.assertRaises(InputError):
            pretrain_packed(self.recipe, self.pack, self.folder / "run", seed=-1)
        self.assertFalse((self.folder / "run").exists())

    def test_files_that_are_not_there(self) -> None:
        nowhere = self.folder / "nowhere"
        for arguments in (
            ("shrink", nowhere, self.folder / "parts"),
            ("grow", nowhere, self.folder / "back"),
            ("shrink", self.pack, self.folder / "parts"),
            ("train", nowhere, "--pack", self.pack, "--out", self.folder / "run"),
            ("pack", nowhere, "--data", self.folder, "--out", self.folder / "p.npz"),
        ):
            with self.subTest(arguments[0]):
                status, err = self.command(*arguments)
                self.assertEqual(status, 2)
                self.assertRegex(err, r"^Error: .*\.$")

    def test_models_and_architectures(self) -> None:
        good = make_recipe().to_json()
        for name in IDS:
            with self.subTest(name[:20]), self.assertRaisesRegex(InputError, "id"):
                parse_recipe({**good, "model": {**good["model"], "id": name}})
        for architecture in ({"name": ["x"]}, {"name": None}, {"name": {}}, {"name": "none"}, {}):
            with self.subTest(str(architecture)), self.assertRaises(FewShotSegError):
                parse_recipe({**good, "architecture": architecture})
        for change in ({"crop": [2**62] * 3}, {"points": 2**62}, {"structures": 2**62}):
            with self.subTest(change), self.assertRaises(InputError):
                parse_recipe({**good, "training": {**good["training"], **change}})
        self.assertEqual(RESERVED_IDS, ("checkpoint", "pretraining"))
        self.assertEqual(read_model({"id": "m", "title": "M"})["licence"], "")

    def test_the_folder(self) -> None:
        out = self.folder / "run"
        out.mkdir()
        name = make_recipe().model["id"]
        for file in (f"{name}.json", f"{name}.safetensors", "pretraining.json", "curve.png"):
            (out / file).write_text("mine")
            with self.subTest(file):
                self.assertIn("would be replaced", self.train()[1])
                self.assertEqual((out / file).read_text(), "mine")
            (out / file).unlink()
        with FileLock(out / "checkpoint.safetensors.lock"):
            self.assertIn("Another pre-training", self.train()[1])
        self.assertEqual(self.train("--episodes", "2"), (0, ""))
        self.assertEqual(self.train("--episodes", "3", "--resume"), (0, ""))
        files = {
            f"{name}.json",
            f"{name}.safetensors",
            "pretraining.json",
            "curve.png",
            "checkpoint.safetensors",
        }
        self.assertEqual(set(os.listdir(out)), files)  # and no lock


class ThreadsTest(PackedCase):
    """``--threads`` is of one run: what the process does next has as many as before."""

    def test_both_commands(self) -> None:
        before = torch.get_num_threads()
        used: list[int] = []

        def note(*_: Any, **__: Any) -> None:
            used.append(torch.get_num_threads())
            raise InputError("Enough.")

        arguments = ("pretrain", "x.json", "--out", str(self.folder / "o"), "--threads", "3")
        with mock.patch("FewShotSegLib.pretraining.run.pretrain", note):
            self.assertEqual(run(*arguments).status, 2)
        self.assertEqual(torch.get_num_threads(), before)
        with mock.patch("FewShotSegLib.pretraining.packed.run.pretrain_packed", note):
            self.assertEqual(self.train("--threads", "5")[0], 2)
        self.assertEqual((used, torch.get_num_threads()), ([3, 5], before))


class RuntimeTest(PackedCase):
    def test_an_unknown_device(self) -> None:
        with self.assertRaises(InputError):
            pretrain_packed(
                self.recipe, self.pack, self.folder / "run", runtime=Runtime("cuda:99x")
            )


if __name__ == "__main__":
    unittest.main()
