"""Packed files and parts of checkpoints are checked before the work; nothing is lost."""

from __future__ import annotations

import copy
import json
import os
import unittest
from dataclasses import replace
from typing import Any

import numpy as np
import safetensors.torch
import torch
from pack_case import make_pack
from packed_files import NAN, PackedCase
from safetensors import safe_open

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.pretraining.packed.pack import read_pack


class PackTest(PackedCase):
    """What a packed file may hold."""

    def setUp(self) -> None:
        super().setUp()
        self.arrays = dict(np.load(self.pack))
        self.head = json.loads(bytes(self.arrays.pop("head")))

    def refused(self, head: Any = None, **arrays: np.ndarray | None) -> str:
        """The sentence about a pack with another head or other arrays."""
        found = {k: v for k, v in {**self.arrays, **arrays}.items() if v is not None}
        text = json.dumps(self.head if head is None else head).encode()
        path = self.folder / "odd.npz"
        np.savez_compressed(path, head=np.frombuffer(text, np.uint8), **found)
        with self.assertRaises(InputError) as caught:
            read_pack(path)
        self.assertIn("odd.npz", str(caught.exception))
        return str(caught.exception)

    def test_the_head(self) -> None:
        for part, number, key, values in (
            ("volumes", 0, "spacing", ([0, 0, 0], [1], [-1, -1, -1], "x", [1e9] * 3, None)),
            ("volumes", 0, "group", ("x", -1, 9, 1.5, True, None)),
            ("volumes", 0, "name", (5, None)),
            ("groups", 0, "zoom", ([], [-1, -2], [0, 0], [1.2, 0.8], [1], "x")),
            ("groups", 0, "weight", (0, -1, "x", 1e300)),
            ("groups", 0, "shared", (10**6, -1, "x")),
            ("groups", 0, "hidden", (5, ["x"], [-1])),
            ("groups", 0, "modality", ("XX", 5)),
        ):
            for value in values:
                head = copy.deepcopy(self.head)
                head[part][number][key] = value
                with self.subTest(f"{key} {value}"):
                    self.refused(head)
        for key, values in (
            ("volumes", (5, [], {}, None, [5])),
            ("groups", (5, [], [5], None)),
            ("format", (2, "1", None)),
        ):
            for value in values:
                with self.subTest(f"{key} {value}"):
                    self.refused({**self.head, key: value})
        for head in ([], 5, "x", {}):
            with self.subTest(str(head)):
                self.refused(head)

    def test_the_arrays(self) -> None:
        labels = self.arrays["labels2"]
        image, places = self.arrays["image2"], self.arrays["places2"]
        for changes in (
            {"labels2": np.zeros((4, 4), np.uint8)},
            {"labels2": labels.astype(float)},
            {"labels2": np.array(["a"])},
            {"labels2": np.zeros((0, 0, 0), np.uint8)},
            {"labels2": np.zeros_like(labels)},  # places of labels that are not there
            {"labels2": None},
            {"labels2": -labels.astype(np.int16)},
            {"image2": image[:3, :3, :3]},
            {"image2": np.full(image.shape, NAN)},
            {"image2": image.astype(np.int16)},
            {"places2": np.full((5, 4), 999, np.int16)},
            {"places2": -places},
            {"places2": places[:0]},
            {"places2": np.zeros(3, np.int16)},
            {"places2": places.astype(float)},
            {"places2": places[:, [0, 2, 3, 1]][::-1] + 1},
            {"places2": None},
        ):
            with self.subTest(str(changes)[:60]):
                self.refused(**changes)

    def test_the_file(self) -> None:
        whole = self.pack.read_bytes()
        middle = len(whole) // 2
        for number, content in enumerate(
            (
                *(b"", b"hello", whole[:middle], whole[:-1], b"PK\x05\x06" + b"\0" * 18),
                *(
                    whole[:place] + b"\xff\x00" * 20 + whole[place + 40 :]
                    for place in (300, middle)
                ),
            )
        ):
            path = self.folder / f"{number}.npz"
            path.write_bytes(content)
            with self.subTest(number), self.assertRaisesRegex(InputError, f"{number}.npz"):
                read_pack(path)
        os.mkfifo(self.folder / "pipe.npz")
        for name in ("pipe.npz", "nowhere.npz", "."):
            with self.subTest(name), self.assertRaises(InputError):
                read_pack(self.folder / name)
        self.assertEqual(len(read_pack(self.pack).volumes), 4)


class ParcelTest(PackedCase):
    """A checkpoint on its way through parts that anybody may have changed."""

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(self.train("--episodes", "4"), (0, ""))
        self.parts, self.grown = self.folder / "parts", self.folder / "grown"
        self.assertEqual(self.command("shrink", self.folder / "run", self.parts)[0], 0)
        (self.part,) = self.parts.iterdir()
        self.tensors = safetensors.torch.load_file(self.part)
        with safe_open(self.part, "pt") as file:
            said = file.metadata()
        self.said = {key: said[key] for key in ("metadata", "parts")}
        self.metadata = json.loads(self.said["metadata"])

    def grow(self, tensors: dict[str, torch.Tensor] | None = None, **said: Any) -> tuple[int, str]:
        """Grow from a part without a seal, as older ones are, and go on from that."""
        safetensors.torch.save_file(
            self.tensors if tensors is None else tensors, self.part, {**self.said, **said}
        )
        (self.grown / "checkpoint.safetensors").unlink(missing_ok=True)
        status, err = self.command("grow", self.parts, self.grown)
        if status == 0:
            status, err = self.train("--episodes", "5", "--resume", out="grown")
        return status, err

    def test_whole_ones_go_on(self) -> None:
        status, err = self.command("grow", self.parts, self.grown)
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(self.train("--episodes", "5", "--resume", out="grown"), (0, ""))
        for file in self.grown.iterdir():
            file.unlink()
        self.assertEqual(self.grow(), (0, ""))  # without a seal

    def test_any_change_of_a_sealed_part_is_reported(self) -> None:
        whole = bytearray(self.part.read_bytes())
        for place in (8, 200, len(whole) // 2, len(whole) - 1):
            changed = bytearray(whole)
            changed[place] ^= 1
            self.part.write_bytes(changed)
            with self.subTest(place):
                status, err = self.command("grow", self.parts, self.grown)
                self.assertEqual(status, 2)
                self.assertIn("damaged", err)
        checkpoint = self.folder / "run" / "checkpoint.safetensors"
        checkpoint.write_bytes(checkpoint.read_bytes()[:-1] + b"x")
        for arguments in (("shrink", checkpoint.parent, self.parts),):
            status, err = self.command(*arguments)
            self.assertEqual(status, 2)
            self.assertIn("is damaged", err)

    def test_what_parts_say(self) -> None:
        changes: list[dict[str, str]] = [
            *({"parts": text} for text in ("x", "²", "9" * 5000, "0", "2", "-1", "")),
            *({"metadata": text} for text in ("{}", "[]", "{", "5", "", "null")),
        ]
        for key, values in (
            ("step", (3, "9" * 5000, "x", "-1", "²", "999999", None)),
            (
                "history",
                (5, "[5]", "{}", "x", '[{"episodes": 99}]', '[{"x": 1}]', '[{"step": "x"}]'),
            ),
            ("recipe", (5, "another")),
            ("more", ([1], "x")),
        ):
            changes += [{"metadata": json.dumps({**self.metadata, key: value})} for value in values]
        for change in changes:
            with self.subTest(str(change)[:90]):
                status, err = self.grow(**change)
                self.assertEqual(status, 2)
                self.assertRegex(err, r"^Error: .*\.$")

    def test_what_parts_hold(self) -> None:
        own = next(key for key in self.tensors if key.startswith("optimizer.0.exp"))
        for change in (
            {"running": torch.zeros(99)},
            {own: torch.zeros(7)},
            {own: torch.full_like(self.tensors[own], NAN)},
            {"optimizer.0.step": torch.zeros(2)},
            {"optimizer.999.exp_avg": torch.zeros(2)},
            {"optimizer.x.y": torch.zeros(2)},
            {"optimizer.0.other": torch.zeros(2)},
            {"optimizer.": torch.zeros(2)},
            {"optimizer.0": torch.zeros(2)},
        ):
            with self.subTest(next(iter(change))):
                status, err = self.grow({**self.tensors, **change})
                self.assertEqual(status, 2)
                self.assertIn("is damaged", err)
        for tensors in (
            {"a": torch.zeros(1)},
            {k: torch.full_like(t, NAN) for k, t in self.tensors.items() if t.is_floating_point()},
        ):
            with self.subTest(len(tensors)):
                self.assertEqual(self.grow(tensors)[0], 2)


class SmallPackTest(unittest.TestCase):
    """A group that trains on nothing is none."""

    def test_groups(self) -> None:
        group = make_pack().groups[0]
        for change in (
            {"weight": -1.0},
            {"zoom": (0.0, 1.0)},
            {"zoom": (2.0, 1.0)},
            {"shared": -1},
        ):
            with self.subTest(str(change)), self.assertRaises(InputError):
                replace(group, **change)


if __name__ == "__main__":
    unittest.main()
