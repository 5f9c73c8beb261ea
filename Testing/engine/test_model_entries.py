"""Registry entries of anybody's: what is let in, and what is shown as unusable."""

from __future__ import annotations

import inspect
import json
import typing
import unittest
from dataclasses import fields
from pathlib import Path
from typing import Any

from entry_case import EntryTestCase
from tiny_model import run, write_model

from FewShotSegLib.core.architecture_catalog import ARCHITECTURES, network_arguments
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.model_entry import EntryFields, entry_fields, fault_of_weights_name
from FewShotSegLib.core.model_folders import (
    EMBEDDED_FOLDER,
    add_model,
    entry_paths,
    usable_entries,
)
from FewShotSegLib.models.backbones import BACKBONES
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


class SchemaTest(EntryTestCase):
    """Field by field."""

    def test_every_shipped_entry_and_the_tests_own_is_let_in(self) -> None:
        paths = [path for path in entry_paths() if path.parent == EMBEDDED_FOLDER]
        self.assertGreaterEqual(len(paths), 10)
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
        for name, network in BACKBONES.items():
            if name.startswith("Monai"):
                continue  # the arguments are those of MONAI's class: see test_monai_networks
            with self.subTest(name):
                wanted = dict(inspect.signature(network.__init__).parameters)
                del wanted["self"]
                arguments = ARCHITECTURES[name].arguments
                own = {field.name: field.default for field in fields(arguments)}
                self.assertEqual(own, {key: value.default for key, value in wanted.items()})
                self.assertTrue(typing.get_type_hints(arguments))
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


if __name__ == "__main__":
    unittest.main()
