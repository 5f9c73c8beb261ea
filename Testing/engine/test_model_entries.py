"""Registry entries of anybody's: what is let in, shown as unusable, added and removed."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import tempfile
import typing
import unittest
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tiny_model import make_network, run, write_model

from FewShotSegLib.core.errors import InputError, ModelError
from FewShotSegLib.core.model_entry import EntryFields, entry_fields, fault_of_weights_name
from FewShotSegLib.core.model_folders import (
    EMBEDDED_FOLDER,
    add_model,
    entry_paths,
    file_sha256,
    read_entry,
    recorded_sha256,
    remove_model,
    usable_entries,
)
from FewShotSegLib.core.network_arguments import ARGUMENTS, network_arguments
from FewShotSegLib.models.backbones import ARCHITECTURES
from FewShotSegLib.models.backbones.patch_merging import ORDERS
from FewShotSegLib.models.registry import ModelEntry, find_model, list_entries, unusable_entries

UNUSABLE: dict[str, bytes] = {
    "half": b'{"id": "mine", "weights": "w.pt"}',
    "broken": b"{",
    "deep": b"[" * 100_000,
    "binary": bytes(range(256)),
    "empty": b"",
    "list": b"[]",
    "number": b'{"id": 3, "weights": 4}',
    "huge": b'{"id": "mine", "size": ' + b"9" * 10_000 + b"}",
    "half a character": b'{"id": "\\ud800", "weights": "w.pt"}',
}


class EntryTestCase(unittest.TestCase):
    """With a home of its own, and a folder for entries elsewhere."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="Größe ")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.home = self.folder / "home"
        self.models = self.home / "models"
        self.models.mkdir(parents=True)
        patch = mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(self.home)})
        patch.start()
        self.addCleanup(patch.stop)

    def entry(self, **changes: Any) -> dict[str, Any]:
        """A usable entry's JSON, with other fields."""
        data = json.loads(write_model(self.folder / "made").read_text())
        return {**data, **changes}

    def assert_refused(self, telling: str, action: Callable[[], Any]) -> None:
        with self.assertRaisesRegex(ModelError, telling) as caught:
            action()
        self.assertRegex(str(caught.exception), r"^[^\n]+\.$")

    def left(self) -> set[str]:
        return {path.name for path in self.models.iterdir()}


class SchemaTest(EntryTestCase):
    """Field by field."""

    def test_every_shipped_entry_and_the_tests_own_is_let_in(self) -> None:
        paths = [path for path in entry_paths() if path.parent == EMBEDDED_FOLDER]
        self.assertGreaterEqual(len(paths), 11)
        for path in [*paths, write_model(self.folder / "made")]:
            data = json.loads(path.read_text(encoding="utf-8"))
            read = entry_fields(data, path)
            for field in fields(EntryFields):
                value = getattr(read, field.name)
                if field.name == "preprocessing":
                    value = {
                        kind: {k: v for k, v in vars(part).items() if v is not None}
                        for kind, part in value.items()
                    }
                if field.name in data:
                    self.assertEqual(json.loads(json.dumps(value)), data[field.name], path.name)

    def test_what_is_out_of_its_bounds_is_named(self) -> None:
        box = {"orientation": "RAS", "spacing": [3, 3, 3], "intensity": "window", "low": 0}
        unet = {"name": "DynamicUNet", "out_channels": 2}
        swin = {"name": "SwinUNETR", "downsample": "monai-0.9"}

        def prepared(**changes: Any) -> dict[str, Any]:
            part = {**box, "high": 1, **changes}
            return {"preprocessing": {"CT": part, "MR": part}}

        for telling, changes in {
            "'id' is a short name": {"id": "a b"},
            "'id' is a short": {"id": "../x"},
            "'id' is a short n": {"id": "x.json"},
            "'id' is a text, not 3": {"id": 3},
            "'title' is a text": {"title": None},
            "item 1 of 'modality' is": {"modality": ["PET"]},
            "'modality' is .*list": {"modality": []},
            "'modality' is .* list, not ": {"modality": ["CT", "CT"]},
            "'window' is a list of three numbers": {"window": [0, 32, 32]},
            "'window' is a list of three": {"window": [1024, 1024, 1024]},
            "item 1 of 'window' is a whole number, not 32.5": {"window": [32.5, 32, 32]},
            "item 1 of 'window' is a whole number, not True": {"window": [True, 32, 32]},
            "'overlap' is a number from 0": {"overlap": -0.1},
            "'size' is a number of bytes": {"size": 2**60},
            "'sha256' is 64 hexadecimal digits": {"sha256": "zz"},
            "'weights_url' is an address": {"weights_url": "file:///etc/passwd"},
            "'weights_url' is an": {"weights_url": "https://a b/"},
            "'weights_url' is": {"weights_url": "https://[::1"},
            "class '' has no name of its own": {"classes": {"": 0}},
            "class 'left kidney' has no name": {"classes": {"kidney_left": 0, "left kidney": 1}},
            "'x' of 'classes' is a whole number": {"classes": {"x": 1.0}},
            "'filters' of 'architecture' .DynamicUNet. is a list of 3 to 8": {
                "architecture": {**unet, "filters": [4, 6]}
            },
            "item 2 of 'filters' of .* is a number of channels from 1 to 2048, not 0": {
                "architecture": {**unet, "filters": [4, 0, 6]}
            },
            "billion parameters": {"architecture": {**unet, "filters": [2048] * 8}},
            "'feature_size' of .* is a multiple of 12 up to 192, not 50": {
                "architecture": {**swin, "feature_size": 50}
            },
            "'layout' of .* is \"plain\" or": {"architecture": {**swin, "layout": "odd"}},
            "Spacing .1e-300, 1.0, 1.0. is not": prepared(spacing=[1e-300, 1, 1]),
            "'spacing' of 'CT' of 'preprocessing' is a list of 3": prepared(spacing=[1, 1]),
            "0.001 or more apart": prepared(high=1e-300),
            "within a million": prepared(high=1e300),
            "percentiles low and high are within 0 to 100": prepared(
                intensity="percentiles", high=101
            ),
            "Orientation 'ＲAS'": prepared(orientation="ＲAS"),
        }.items():
            with self.subTest(telling):
                data = self.entry(**changes)
                self.assert_refused(telling, lambda data=data: entry_fields(data, "x.json"))

    def test_names_that_weights_cannot_have(self) -> None:
        for name in (
            *("", " ", ".", "..", "SHA256SUMS", "sha256sums", "Sha256Sums.pt", "x.json", "X.JSON"),
            *(".part-w.pt", ".hidden", "-w.pt", "w.tag", "w.pt.", "w.pt ", "CON", "con.pt"),
            *("Com1.safetensors", "nul", "LPT9.x", "a/b.pt", "a\\b.pt", "../w.pt", "C:w.pt"),
            *("w\x00.pt", "w\n.pt", "w\u202egnp.pt", "w*.pt", "w?.pt", "é" * 120, "w.lock"),
        ):
            with self.subTest(name):
                self.assertTrue(fault_of_weights_name(name))
                data = self.entry(weights=name)
                self.assert_refused("'weights' can't be", lambda data=data: entry_fields(data, "x"))
        for name in ("w.pt", "Größe 2 (1).safetensors", "console.pt", "v1.2+final.pth", "w"):
            self.assertEqual(fault_of_weights_name(name), "")
            self.assertEqual(entry_fields(self.entry(weights=name), "x").weights, name)

    def test_a_full_path_to_weights_leads_to_a_file_of_this_computer(self) -> None:
        path = str(self.folder / "made" / "tiny.safetensors")
        self.assertEqual(entry_fields(self.entry(weights=path), "x").weights, path)
        for path in ("//evil/share/w.pt", f"{self.folder}/../w.pt", f"{self.models}/SHA256SUMS"):
            data = self.entry(weights=path)
            self.assert_refused("'weights' can't be", lambda data=data: entry_fields(data, "x"))

    def test_arguments_are_those_of_the_networks(self) -> None:
        self.assertEqual(set(ARGUMENTS), set(ARCHITECTURES))
        for name, network in ARCHITECTURES.items():
            with self.subTest(name):
                wanted = dict(inspect.signature(network.__init__).parameters)
                del wanted["self"]
                own = {field.name: field.default for field in fields(ARGUMENTS[name])}
                self.assertEqual(own, {key: value.default for key, value in wanted.items()})
                self.assertTrue(typing.get_type_hints(ARGUMENTS[name]))
                given = {"downsample": "monai-0.9"} if name == "SwinUNETR" else {}
                self.assertGreater(network_arguments({"name": name, **given}).rows, 0)

    def test_the_patch_merging_of_a_swin_unetr_must_be_said(self) -> None:
        for order in ORDERS:
            network_arguments({"name": "SwinUNETR", "downsample": order})
        for given, telling in (
            ({}, 'lacks the field \'downsample\'.*"monai-0.9" for.*"monai-1.5" for'),
            ({"downsample": "merging"}, "'downsample' of.*merging"),
            ({"downsample": "monai-1.4"}, "'downsample' of.*monai-1.4"),
            ({"downsample": 9}, "'downsample' of"),
        ):
            with self.subTest(given), self.assertRaisesRegex(InputError, telling):
                network_arguments({"name": "SwinUNETR", **given})

    def test_smallest_networks_that_are_let_in_can_be_built(self) -> None:
        for architecture in (
            {"name": "DynamicUNet", "filters": [1, 1, 1], "out_channels": 1},
            {"name": "ObeliskUNet", "filters": [1] * 6, "out_channels": 1},
            {"name": "SwinUNETR", "feature_size": 12, "out_channels": 1, "downsample": "mergingv2"},
            {"name": "VISTA3D", "width": 8, "blocks": [1, 1], "classes": 2},
            {"name": "GenesisUNet", "out_channels": 1, "batch_statistics": False},
        ):
            with self.subTest(architecture["name"]):
                data = self.entry(architecture=architecture, classes={})
                path = self.folder / "made" / "tiny.json"
                path.write_text(json.dumps(data))
                network = ModelEntry.read(path).build()
                rows = network_arguments(architecture).rows
                self.assertEqual(len(network.head_weights()[0]), rows)
                with self.assertRaises(InputError):
                    network_arguments({**architecture, "out_chanels": 1})


class UnusableTest(EntryTestCase):
    """One file that is no entry hides no other, and is shown with its reason."""

    def test_the_others_are_listed_and_work(self) -> None:
        write_model(self.models, "good")
        for name, content in UNUSABLE.items():
            (self.models / f"{name}.json").write_bytes(content)
        (self.models / "folder.json").mkdir()
        (self.models / "nowhere.json").symlink_to(self.folder / "nothing")
        expected = {f"{name}.json" for name in (*UNUSABLE, "folder", "nowhere")}
        self.assertEqual({fault.path.name for fault in unusable_entries()}, expected)
        self.assertEqual({fault.path.name for fault in usable_entries()[1]}, expected)
        shipped = {path.stem for path in EMBEDDED_FOLDER.glob("*.json")}
        self.assertEqual({entry.id for entry in list_entries()}, {"good", *shipped})
        self.assertEqual(find_model("good").backbone.channels, (4, 6, 8))
        self.assert_refused("lacks the field 'title'", lambda: find_model("half"))
        self.assert_refused("There is no model 'x'.*half.json", lambda: find_model("x"))

        ran = run("models")
        self.assertEqual(ran.status, 0, ran.err)
        self.assertIn("half.json: The model entry", ran.out)
        self.assertIn("good ", ran.out)
        self.assertNotIn("Traceback", ran.err)
        ran = run("models", "--events")
        result = next(event for event in ran.events if event["event"] == "result")
        self.assertEqual({Path(f["path"]).name for f in result["unusable"]}, expected)
        self.assertTrue(all(fault["reason"].endswith(".") for fault in result["unusable"]))

    def test_they_are_refused_when_they_are_added(self) -> None:
        (self.folder / "w.pt").write_bytes(b"weights")
        for name, content in UNUSABLE.items():
            with self.subTest(name):
                path = self.folder / f"{name}.json"
                path.write_bytes(content)
                self.assert_refused("model entry", lambda path=path: add_model(path))
        self.assertEqual(self.left(), set())


class AddTest(EntryTestCase):
    """Entries and weights copied into the user's folder."""

    def test_what_is_added_is_there_and_remembered(self) -> None:
        path = write_model(self.folder / "theirs", "one")
        self.assertEqual(add_model(path), "one")
        self.assertEqual(self.left(), {"one.json", "one.safetensors", "SHA256SUMS"})
        theirs = self.folder / "theirs" / "one.safetensors"
        self.assertEqual((self.models / "one.safetensors").read_bytes(), theirs.read_bytes())
        self.assertEqual(recorded_sha256("one.safetensors"), file_sha256(theirs))
        self.assertIsNotNone(find_model("one").backbone)
        self.assert_refused("model 'one' already, in .*one.json", lambda: add_model(path))

    def test_a_second_one_of_the_same_file_names_replaces_nothing(self) -> None:
        for number, name in enumerate(("one", "two", "Three/3".replace("/", "."))):
            folder = self.folder / f"from {number}"
            path = write_model(folder, "model", seed=number)
            data = {**json.loads(path.read_text()), "id": name}
            if number == 2:  # a file system may not tell these apart
                (folder / "model.safetensors").rename(folder / "MODEL.safetensors")
                data["weights"] = "MODEL.safetensors"
            path.write_text(json.dumps(data))
            self.assertEqual(add_model(path), name)
        self.assertEqual([fault.reason for fault in unusable_entries()], [])
        for number, name in enumerate(("one", "two", "Three.3")):
            torch.testing.assert_close(
                dict(find_model(name).backbone.state_dict()),
                dict(make_network(number).state_dict()),
            )
        names = {name.casefold() for name in self.left()}
        self.assertEqual(len(names), 7, names)
        self.assertIn("model-two.safetensors", names)

    def test_the_weights_of_an_entry_without_any_here_are_not_taken_for_others(self) -> None:
        """Another model's weights that are still to be downloaded keep their name."""
        name = read_entry(EMBEDDED_FOLDER / "suprem_unet.json")["weights"].name
        path = write_model(self.folder / "theirs", "mine")
        (self.folder / "theirs" / "mine.safetensors").rename(self.folder / "theirs" / name)
        path.write_text(json.dumps({**json.loads(path.read_text()), "weights": name}))
        add_model(path)
        self.assertFalse(read_entry(EMBEDDED_FOLDER / "suprem_unet.json")["weights"].exists())
        self.assertNotIn(name, self.left())

    def test_weights_that_are_not_the_described_ones(self) -> None:
        path = write_model(self.folder / "theirs", "one", sha256="0" * 64)
        self.assert_refused("their sha256 differs.*Nothing was added", lambda: add_model(path))
        self.assertEqual(self.left(), set())
        path = write_model(self.folder / "theirs", "one")
        (self.folder / "theirs" / "one.safetensors").unlink()
        self.assert_refused("are not beside one.json", lambda: add_model(path))

    def test_weights_of_a_full_path_are_copied_and_named(self) -> None:
        path = write_model(self.folder / "theirs", "one")
        there = self.folder / "away" / "w.safetensors"
        there.parent.mkdir()
        shutil.move(self.folder / "theirs" / "one.safetensors", there)
        path.write_text(json.dumps({**json.loads(path.read_text()), "weights": str(there)}))
        add_model(path)
        self.assertEqual(find_model("one").entry.weights, self.models / "w.safetensors")
        remove_model("one")
        self.assertTrue(there.exists())


class RemoveTest(EntryTestCase):
    """Nothing goes that is another's."""

    def test_weights_that_two_entries_name_stay_until_the_last_goes(self) -> None:
        path = write_model(self.models, "one")
        other = {**json.loads(path.read_text()), "id": "two"}
        (self.models / "two.json").write_text(json.dumps(other))
        _ = find_model("one").weights_sha256
        remove_model("one")
        self.assertEqual(self.left(), {"two.json", "one.safetensors", "SHA256SUMS"})
        self.assertIsNotNone(recorded_sha256("one.safetensors"))
        self.assertIsNotNone(find_model("two").backbone)
        remove_model("two")
        self.assertEqual(self.left(), {"SHA256SUMS"})
        self.assertIsNone(recorded_sha256("one.safetensors"))

    def test_weights_that_an_unusable_entry_names_stay(self) -> None:
        write_model(self.models, "one")
        half = {"id": "half", "weights": "one.safetensors"}
        (self.models / "half.json").write_text(json.dumps(half))
        remove_model("one")
        self.assertEqual(self.left(), {"half.json", "one.safetensors"})
        self.assert_refused("delete .*half.json", lambda: remove_model("half"))
        self.assertEqual(self.left(), {"half.json", "one.safetensors"})

    def test_downloaded_weights_that_a_users_entry_names_stay(self) -> None:
        name = read_entry(EMBEDDED_FOLDER / "suprem_unet.json")["weights"].name
        path = write_model(self.models, "mine")
        (self.models / "mine.safetensors").rename(self.models / name)
        path.write_text(json.dumps({**json.loads(path.read_text()), "weights": name}))
        self.assert_refused("are those of 'mine' too", lambda: remove_model("suprem_unet"))
        remove_model("mine")
        self.assertEqual(self.left(), {name})
        remove_model("suprem_unet")
        self.assertEqual(self.left(), set())

    def test_a_link_goes_and_what_it_leads_to_stays(self) -> None:
        write_model(self.models, "one")
        there = self.folder / "there.safetensors"
        shutil.move(self.models / "one.safetensors", there)
        (self.models / "one.safetensors").symlink_to(there)
        remove_model("one")
        self.assertEqual(self.left(), set())
        self.assertTrue(there.exists())

    def test_weights_elsewhere_stay(self) -> None:
        path = write_model(self.folder / "theirs", "one")
        there = self.folder / "theirs" / "one.safetensors"
        data = {**json.loads(path.read_text()), "weights": str(there)}
        (self.models / "one.json").write_text(json.dumps(data))
        remove_model("one")
        self.assertEqual(self.left(), set())
        self.assertTrue(there.exists())

    def test_what_is_half_fetched_of_a_longer_name_stays(self) -> None:
        write_model(self.models, "one")
        for name in (
            ".part-one.safetensors",
            ".part-one.safetensors2",
            ".part-one.safetensors.tag",
        ):
            (self.models / name).write_text("half")
        remove_model("one")
        self.assertEqual(self.left(), {".part-one.safetensors2"})


class OneReadingTest(EntryTestCase):
    """The bytes that are loaded are the bytes that were hashed."""

    def test_a_file_that_changes_after_it_was_hashed_is_not_loaded(self) -> None:
        path = write_model(self.folder / "theirs", "one")
        model = find_model(str(path))
        _ = model.weights_sha256
        write_model(self.folder / "theirs", "one", seed=7)
        self.assert_refused("changed while they were in use", lambda: model.backbone)

    def test_a_file_is_read_once_to_be_hashed_and_loaded(self) -> None:
        path = write_model(self.folder / "theirs", "one")
        weights = self.folder / "theirs" / "one.safetensors"
        before = file_sha256(weights)
        write_model(self.folder / "other", "one", seed=7)
        real = Path.read_bytes

        def read_and_replace(self: Path) -> bytes:
            data = real(self)
            if self == weights:  # whoever waits for the moment between hashing and loading
                shutil.copy(weights.parents[1] / "other" / "one.safetensors", weights)
            return data

        model = find_model(str(path))
        with mock.patch.object(Path, "read_bytes", read_and_replace):
            backbone = model.backbone
        self.assertNotEqual(file_sha256(weights), before)
        self.assertEqual(model.weights_sha256, before)
        torch.testing.assert_close(dict(backbone.state_dict()), dict(make_network(0).state_dict()))


if __name__ == "__main__":
    unittest.main()
