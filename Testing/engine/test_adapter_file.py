"""The .fseft file: all of an adapter comes back, nothing of a patient, and only from our files."""

from __future__ import annotations

import errno
import json
import os
import pickletools
import struct
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import safetensors
import safetensors.torch
import torch
from adapter_files import make_adapter
from tiny import make_volume
from tiny_model import QUICK, STRUCTURES, Patient, TinyWorld, write_model, write_patient

from FewShotSegLib.core.adapter_header import FORMAT
from FewShotSegLib.core.errors import FewShotSegError, InputError, ModelError, StorageError
from FewShotSegLib.core.geometry import Volume
from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline import adapt
from FewShotSegLib.pipeline.adapter_file import (
    KEY,
    MEASURED,
    TrainedAdapter,
    content_hash,
    read_metadata,
)


class RoundTrip(TinyWorld):
    """Saved and loaded again."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / "a.fseft"

    def test_every_field_and_every_bit_comes_back(self) -> None:
        for method in ADAPTERS:
            for features in ("multi", "last"):
                with self.subTest(method=method, features=features):
                    adapter = make_adapter(method, features)
                    adapter.save(self.path)
                    loaded = TrainedAdapter.load(self.path)
                    mine, theirs = dict(vars(adapter)), dict(vars(loaded))
                    before = mine.pop("adapter").state_dict()
                    after = theirs.pop("adapter").state_dict()
                    self.assertEqual((mine.pop("name"), theirs.pop("name")), ("", "a"))
                    self.assertEqual(mine, theirs)
                    self.assertEqual(list(before), list(after))
                    for key, tensor in before.items():
                        self.assertEqual(tensor.dtype, after[key].dtype)
                        self.assertEqual(tensor.numpy().tobytes(), after[key].numpy().tobytes())
                    self.assertEqual(loaded.levels, (0, 1, 2) if features == "multi" else (0,))

    def test_the_hash_in_memory_is_the_hash_from_disk(self) -> None:
        adapter = make_adapter()
        adapter.save(self.path)
        self.assertEqual(TrainedAdapter.load(self.path).content_sha256(), adapter.content_sha256())

    def test_a_trained_adapter_has_its_hash_on_disk_too(self) -> None:
        trained = adapt(
            [self.supports[0].paths],
            self.path,
            structures=STRUCTURES,
            model=str(self.model),
            settings=QUICK,
            runtime=self.runtime,
        )
        loaded = TrainedAdapter.load(self.path)
        self.assertEqual(loaded.content_sha256(), trained.content_sha256())
        self.assertEqual(loaded.metadata(), json.loads(json.dumps(trained.metadata())))

    def test_the_hash_changes_with_any_number_and_any_meaning(self) -> None:
        hashes = {make_adapter().content_sha256()}
        for change in (
            {"exclusive": True},
            {"structures": make_adapter().structures[::-1]},
            {"modality": "CT"},
            {"weights_sha256": "ac" * 32},
            {"training": {"seed": 6}},
        ):
            adapter = make_adapter()
            vars(adapter).update(change)
            hashes.add(adapter.content_sha256())
        adapter = make_adapter()
        with torch.no_grad():
            adapter.adapter.classifiers[0].bias[0] += 1e-6
        hashes.add(adapter.content_sha256())
        self.assertEqual(len(hashes), 7)

    def test_the_hash_does_not_depend_on_how_long_the_run_took(self) -> None:
        adapter, slower = make_adapter(), make_adapter()
        slower.training |= {key: 99 for key in MEASURED}
        self.assertEqual(slower.content_sha256(), adapter.content_sha256())

    def test_the_file_is_safetensors_and_no_pickle(self) -> None:
        make_adapter().save(self.path)
        self.assertFalse(zipfile.is_zipfile(self.path))
        data = self.path.read_bytes()
        with self.assertRaises(ValueError):
            list(pickletools.genops(data))
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        self.assertEqual(list(header.pop("__metadata__")), [KEY, "sha256"])
        self.assertEqual(set(header), set(make_adapter().adapter.state_dict()))

    def test_a_failed_save_leaves_the_old_file(self) -> None:
        self.path.write_bytes(b"old")
        full = OSError(errno.ENOSPC, "No space left on device")
        for target in ("FewShotSegLib.pipeline.adapter_file.write_sealed", "os.replace"):
            with self.subTest(target), mock.patch(target, side_effect=full):
                with self.assertRaisesRegex(StorageError, "is full"):
                    make_adapter().save(self.path)
            self.assertEqual(self.path.read_bytes(), b"old")
            self.assertEqual(os.listdir(self.folder), ["a.fseft"])


class Privacy(TinyWorld):
    """An adapter travels; its supports' names do not."""

    def test_nothing_in_the_file_names_a_support(self) -> None:
        secret = [
            Patient(s.image.rename(s.image.parent / f"Mustermann_{n}.nii.gz"), s.segmentation)
            for n, s in enumerate(
                write_patient(self.folder / "Praxis Dr Sommer", f"p{n}", n) for n in range(2)
            )
        ]
        trained = adapt(
            [s.paths for s in secret],
            self.folder / "a.fseft",
            structures=STRUCTURES,
            model=str(self.model),
            settings=QUICK,
            runtime=self.runtime,
        )
        data = (self.folder / "a.fseft").read_bytes()
        # Two bytes stand by chance in the numbers of one file of three, six in one of ten thousand
        # million. Short words are looked for where there is text.
        for word in ("Mustermann", "Sommer", "patient", "manual", str(self.folder)):
            self.assertNotIn(word.encode(), data)
        with safetensors.safe_open(self.folder / "a.fseft", "np") as file:
            text = json.dumps([file.metadata(), list(file.keys())])
        self.assertIn("bean", text)
        for word in ("p0", "p1", ".nii", "_ct", "_seg"):
            self.assertNotIn(word, text)
        for support in trained.supports:
            self.assertEqual(
                set(support), {"shape", "spacing_mm", "sizes_mm3", "cut_off", "content"}
            )

    def test_a_support_is_recognised_by_its_voxels_alone(self) -> None:
        volume = make_volume()
        changed = volume.array.copy()
        changed[0, 0, 0] += 1
        same = Volume(np.asfortranarray(volume.array), volume.grid, "CT")
        self.assertEqual(content_hash(same), content_hash(volume))
        self.assertNotEqual(content_hash(Volume(changed, volume.grid)), content_hash(volume))


class WhatIsRefused(TinyWorld):
    """Files that are no adapters of ours, and models that are not the adapter's."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / "a.fseft"

    def assert_refused(self, telling: str, error: type[FewShotSegError] = InputError) -> None:
        with self.assertRaisesRegex(error, telling) as caught:
            TrainedAdapter.load(self.path)
        self.assertIn(str(self.path), str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def write(self, metadata: dict[str, object] | None, **changes: object) -> Path:
        """An adapter file whose header says something else."""
        adapter = make_adapter()
        data = {**adapter.metadata(), **changes} if metadata is None else metadata
        state = {key: value.clone() for key, value in adapter.adapter.state_dict().items()}
        header = {KEY: json.dumps(data)} if data else None
        safetensors.torch.save_file(state, self.path, header)
        return self.path

    def test_a_newer_format(self) -> None:
        self.write(None, format=FORMAT + 1, version="9.1")
        self.assert_refused(r"written by a newer FewShotSeg \(9.1\)")

    def test_a_missing_file(self) -> None:
        self.assert_refused("There is no adapter file")
        self.path.mkdir()
        self.assert_refused("There is no adapter file")

    def test_files_that_are_not_ours(self) -> None:
        self.path.write_bytes(b"")
        self.assert_refused("is not a FewShotSeg adapter")
        self.path.write_bytes(b"garbage " * 99)
        self.assert_refused("is not a FewShotSeg adapter")
        torch.save({"a": torch.zeros(3)}, self.path)
        self.assert_refused("is not a FewShotSeg adapter")
        for metadata in ({}, {"a": 1}):
            self.write(metadata)
            self.assert_refused("is not a FewShotSeg adapter")
        for header in ([], "text", {"format": None}, {"format": "x"}):
            safetensors.torch.save_file({"a": torch.zeros(3)}, self.path, {KEY: json.dumps(header)})
            self.assert_refused("is not a FewShotSeg adapter")

    def test_files_cut_short(self) -> None:
        self.write(None)
        whole = self.path.read_bytes()
        for size in (4, 100, len(whole) // 2, len(whole) - 1):
            with self.subTest(size):
                self.path.write_bytes(whole[:size])
                self.assert_refused("is not a FewShotSeg adapter, or is damaged")

    def test_headers_that_do_not_fit(self) -> None:
        """Whatever is wrong inside a file of ours is one sentence, never a traceback."""
        fitting = make_adapter().metadata()
        self.write(fitting)
        TrainedAdapter.load(self.path)
        without = [{k: v for k, v in fitting.items() if k != key} for key in fitting]
        wrong = [
            {**fitting, "method": ["adapter"]},
            {**fitting, "channels": [4, 6, 9]},
            {**fitting, "features": "some"},
            {**fitting, "structures": [{"title": "a"}, {"title": "b"}]},
            {**fitting, "structures": 3},
            {**fitting, "model": "tiny"},
            {**fitting, "priors": []},
        ]
        optional = ("trained_parameters",)
        for data in [*without, *wrong]:
            missing = set(fitting) - set(data)
            if missing & set(optional):
                continue
            with self.subTest(missing or data):
                self.write(data)
                self.assert_refused("damaged")
        self.write(None, preprocessing={"orientation": "RAS"})
        self.assert_refused("damaged .'preprocessing' lacks the field 'spacing'")

    def test_a_method_that_is_not_known_here(self) -> None:
        """As another package adds one: its file is whole, and the sentence says what is missing."""
        self.write({**make_adapter().metadata(), "method": "magic"})
        self.assert_refused(r"the method 'magic', which is not known here\. Install the package")

    def test_the_header_is_read_without_the_weights(self) -> None:
        self.write(None)
        expected = json.loads(json.dumps(make_adapter().metadata()))
        with mock.patch.object(safetensors.torch, "load_file", side_effect=MemoryError):
            self.assertEqual(read_metadata(self.path), expected)

    def test_another_models_weights(self) -> None:
        own = find_model(str(self.model))
        adapter = make_adapter()
        adapter.model_id, adapter.weights_sha256 = "tiny", own.weights_sha256
        self.assertEqual(adapter.find_model(str(self.model)).entry.id, "tiny")
        other = write_model(self.folder, "tiny", seed=3)
        with self.assertRaisesRegex(ModelError, "was trained on 'tiny'.*Use the same") as caught:
            adapter.find_model(str(other))
        for digest in (own.weights_sha256, find_model(str(other)).weights_sha256):
            self.assertIn(digest[:12], str(caught.exception))

    def test_a_model_that_is_not_installed(self) -> None:
        adapter = make_adapter()
        with self.assertRaisesRegex(ModelError, "no model 'others'.*path of an entry"):
            adapter.find_model()


if __name__ == "__main__":
    unittest.main()
