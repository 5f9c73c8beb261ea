"""Sealed files: adapters, checkpoints and prepared cases that were damaged are refused."""

from __future__ import annotations

import io
import json
import random
import struct
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from adapter_files import make_adapter
from tiny import OneThread
from torch import nn

from FewShotSegLib.core import checksums
from FewShotSegLib.core.adapter_header import FORMAT, read_header
from FewShotSegLib.core.checksums import Damaged, load_sealed, require_seal, write_sealed
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.pipeline.adapter_file import KEY, TrainedAdapter, read_metadata
from FewShotSegLib.pretraining.state import restore_state, save_state
from FewShotSegLib.training.checkpoint import Checkpoint

FLIPS = 300


def flipped(data: bytes, bit: int) -> bytes:
    """The same bytes with one bit turned."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def accidents(data: bytes, seed: int = 0) -> dict[str, bytes]:
    """What can become of a file: bits turned at random, lost blocks, cut short, too long."""
    draw, half = random.Random(seed), len(data) // 2
    (header,) = struct.unpack_from("<Q", data)
    # Half of the flips in the few bytes of the header, where all depends on each.
    ends = (8 * (8 + header), 8 * len(data))
    bits = {draw.randrange(ends[number % 2]) for number in range(FLIPS)}
    return {
        **{f"bit {bit}": flipped(data, bit) for bit in bits},
        "a block of zeros": data[:half] + bytes(64) + data[half + 64 :],
        "swapped halves": data[:-64] + data[-32:] + data[-64:-32],
        "cut short": data[:-1],
        "half": data[:half],
        "one byte more": data + b"\0",
        "zeros": bytes(len(data)),
        "nothing": b"",
    }


class InFolder(OneThread):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "file.fseft"

    def assert_fails(self, load: Callable[[], object], telling: str, seed: int = 0) -> None:
        """Every accident to the file is one sentence; the file itself is read."""
        whole = self.path.read_bytes()
        for name, data in accidents(whole, seed).items():
            self.assertNotEqual(data, whole)
            self.path.write_bytes(data)
            with self.subTest(name):
                with self.assertRaisesRegex(InputError, telling) as caught:
                    load()
                self.assertNotIn("\n", str(caught.exception))
        self.path.write_bytes(whole)
        load()


class Seal(InFolder):
    """Of a safetensors file."""

    def write(self, **metadata: str) -> bytes:
        tensors = {"b.x": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2])}
        write_sealed(self.path, safetensors.torch.save(tensors), metadata)
        return self.path.read_bytes()

    def test_it_is_a_safetensors_file(self) -> None:
        metadata = {"text": 'Größe "sha256":"' + "1" * 64 + '"', "other": "\\ \n \x00"}
        data = self.write(**metadata)
        self.assertEqual(data, self.write(**dict(reversed(metadata.items()))))
        (length,) = struct.unpack_from("<Q", data)
        self.assertEqual(length % 8, 0)
        with safetensors.safe_open(self.path, "pt") as file:
            seal = file.metadata().pop("sha256")
            self.assertEqual({**file.metadata(), "sha256": seal}, {**metadata, "sha256": seal})
        for tensors in (
            safetensors.torch.load_file(self.path),
            load_sealed(self.path, metadata)[0],
        ):
            self.assertEqual(sorted(tensors), ["a", "b.x"])
            torch.testing.assert_close(tensors["b.x"], torch.arange(6.0).reshape(2, 3))
        self.assertEqual(load_sealed(self.path, metadata)[1], metadata)

    def test_every_bit_counts(self) -> None:
        """All of them, one after another."""
        data = self.write(recipe="r")
        self.assertTrue(require_seal(io.BytesIO(data), ["recipe"]))
        for bit in range(8 * len(data)):
            with self.assertRaises(Damaged, msg=f"bit {bit}"):
                require_seal(io.BytesIO(flipped(data, bit)), ["recipe"])

    def test_without_a_seal(self) -> None:
        """Files of before have none; what they hold is known, so that a lost seal is not one."""
        data = safetensors.torch.save({"a": torch.ones(2)}, {"recipe": "r"})
        self.assertFalse(require_seal(io.BytesIO(data), ["recipe"]))
        self.assertFalse(require_seal(io.BytesIO(data), None))
        for known in ([], ["another"]):
            with self.assertRaises(Damaged):
                require_seal(io.BytesIO(data), known)
        bare = safetensors.torch.save({"a": torch.ones(2)})
        with self.assertRaises(Damaged):
            require_seal(io.BytesIO(bare), ["recipe"])

    def test_json(self) -> None:
        data = {"scales": [1.0, 2.5], "name": "Größe", "n": 10**15, "none": None}
        text = json.dumps(checksums.seal_json(data))
        self.assertEqual(checksums.require_json_seal(json.loads(text)), data)
        self.assertIsNone(checksums.require_json_seal(data))
        for other in ({"scales": [1.0, 2.4]}, {"more": 1}, {"n": "1"}):
            with self.assertRaises(Damaged):
                checksums.require_json_seal({**json.loads(text), **other})


class Adapters(InFolder):
    """``.fseft`` files, as the engine and as the Slicer module read them."""

    def test_a_damaged_file_is_reported(self) -> None:
        make_adapter().save(self.path)
        self.assert_fails(lambda: TrainedAdapter.load(self.path), "Train it again, or copy|Update")

    def test_so_is_its_header_alone(self) -> None:
        make_adapter("linear-probe").save(self.path)
        self.assert_fails(lambda: read_metadata(self.path), "copy it again|Update", seed=1)
        self.assert_fails(
            lambda: read_header(self.path.read_bytes(), "x"), "x is not a .* damaged|Update", seed=2
        )

    def test_files_without_a_seal_are_read(self) -> None:
        adapter = make_adapter()
        state = {key: value.clone() for key, value in adapter.adapter.state_dict().items()}
        header = {KEY: json.dumps(adapter.metadata())}
        safetensors.torch.save_file(state, self.path, header)
        loaded = TrainedAdapter.load(self.path)
        self.assertEqual(loaded.content_sha256(), adapter.content_sha256())
        expected = json.loads(header[KEY])
        self.assertEqual(read_header(self.path.read_bytes(), "x"), expected)

    def test_the_same_adapter_is_the_same_bytes(self) -> None:
        files = []
        for _ in range(4):
            make_adapter().save(self.path)
            files.append(self.path.read_bytes())
        self.assertEqual(len(set(files)), 1)

    def test_a_newer_one_is_reported_as_such(self) -> None:
        """It may hold what is not known here."""
        adapter = make_adapter()
        data = safetensors.torch.save({"a": torch.ones(2)})
        header = json.dumps({**adapter.metadata(), "format": FORMAT + 1, "version": "9.1"})
        write_sealed(self.path, data, {KEY: header, "novelty": "1"})
        for read in (read_metadata, lambda path: read_header(path.read_bytes(), "x")):
            with self.assertRaisesRegex(InputError, r"newer FewShotSeg \(9.1\)"):
                read(self.path)


class Unfinished(InFolder):
    """Checkpoints of trainings and pre-trainings: nobody goes on from a damaged one."""

    def test_of_a_training(self) -> None:
        torch.manual_seed(0)
        adapter = ADAPTERS["linear-probe"]((4, 6), 2)
        optimizer = torch.optim.Adam(adapter.parameters())
        sum(p.square().sum() for p in adapter.parameters()).backward()
        optimizer.step()
        history = [{"epoch": 1, "loss": 0.5}]
        checkpoint = Checkpoint(self.path, "r")
        checkpoint._last = -1e9
        checkpoint.save(adapter, optimizer, history)
        other = ADAPTERS["linear-probe"]((4, 6), 2)

        def restore() -> None:
            again = torch.optim.Adam(other.parameters())
            self.assertEqual(Checkpoint(self.path, "r").restore(other, again), history)

        self.assert_fails(restore, r"is damaged\. Remove it to start again")
        for name, tensor in adapter.state_dict().items():
            self.assertTrue(torch.equal(tensor, other.state_dict()[name]))

    def test_of_a_pretraining(self) -> None:
        torch.manual_seed(0)
        network, other = nn.Linear(3, 2), nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(network.parameters())
        network(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        running, history = torch.arange(3.0), [{"step": 5}]
        save_state(self.path, "r", 5, {"network": network}, optimizer, running, history)

        def restore() -> None:
            again = torch.optim.AdamW(other.parameters())
            kept = (self.path, "r", {"network": other}, again, torch.zeros(3))
            self.assertEqual(restore_state(*kept), (5, history))

        self.assert_fails(restore, "is damaged. Choose another --out, or remove it to start again")
        np.testing.assert_array_equal(network.weight.detach(), other.weight.detach())

    def test_those_of_before_go_on(self) -> None:
        network, other = nn.Linear(3, 2), nn.Linear(3, 2)
        tensors = {f"network.{key}": value.data for key, value in network.named_parameters()}
        metadata = {"recipe": "r", "step": "5", "history": "[]"}
        data = {**tensors, "running": torch.ones(3)}
        safetensors.torch.save_file(data, self.path, metadata)
        again = torch.optim.AdamW(other.parameters())
        kept = (self.path, "r", {"network": other}, again, torch.zeros(3))
        self.assertEqual(restore_state(*kept), (5, []))
        np.testing.assert_array_equal(network.weight.detach(), other.weight.detach())


if __name__ == "__main__":
    unittest.main()
