"""The registry: what ships is sound, what is wrong is named, and anybody's weights work."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from shared_data import data_folder, models_folder
from tiny_model import make_network, write_model

from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import ModelError
from FewShotSegLib.core.modality import MODALITIES
from FewShotSegLib.core.model_folders import (
    DEFAULT_MODEL,
    DEFAULT_MODELS,
    EMBEDDED_FOLDER,
    SUPERSEDED,
    home_folder,
)
from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.features.extraction import FeatureSource
from FewShotSegLib.features.store import FeatureStore
from FewShotSegLib.inference.prediction import model_probabilities, original_masks
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.models.registry import (
    Model,
    ModelEntry,
    find_model,
    list_entries,
    same_class,
    unusable_entries,
)


class RegistryTestCase(unittest.TestCase):
    """With a home of its own, empty at first, and a folder for entries elsewhere."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "elsewhere"
        self.home = Path(folder.name) / "home"
        patch = mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(self.home)})
        patch.start()
        self.addCleanup(patch.stop)

    def assert_refused(self, telling: str, function: Callable[..., Any], *args: Any) -> None:
        """A ModelError of one line that says this."""
        with self.assertRaisesRegex(ModelError, telling) as caught:
            function(*args)
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        self.assertLess(len(message), 1000)
        self.assertRegex(message, r"\.$")


class ShippedEntries(RegistryTestCase):
    """What is in Resources/Models."""

    def test_every_file_is_a_listed_entry_and_the_default_comes_first(self) -> None:
        entries = list_entries()
        self.assertEqual(entries[0].id, DEFAULT_MODEL)
        files = sorted(path.stem for path in EMBEDDED_FOLDER.glob("*.json"))
        self.assertEqual(sorted(entry.id for entry in entries), files)

    def test_each_modality_has_a_model_that_comes_along(self) -> None:
        entries = {entry.id: entry for entry in list_entries()}
        self.assertEqual(sorted(DEFAULT_MODELS), sorted(MODALITIES))
        for modality, name in DEFAULT_MODELS.items():
            self.assertIn(modality, entries[name].preprocessing)
            self.assertEqual(entries[name].weights.parent, EMBEDDED_FOLDER)

    def test_weights_that_are_here_are_the_ones_described_and_load(self) -> None:
        found = [entry for entry in list_entries() if entry.weights.is_file()]
        self.assertIn(DEFAULT_MODEL, [entry.id for entry in found])
        for entry in found:
            with self.subTest(entry.id):
                data = entry.weights.read_bytes()
                self.assertEqual(hashlib.sha256(data).hexdigest(), entry.sha256)
                self.assertEqual(len(data), entry.size)
                backbone = Model(entry).backbone
                self.assertFalse(backbone.training)
                self.assertFalse(any(p.requires_grad for p in backbone.parameters()))

    def test_every_entry_says_where_it_is_from_and_under_which_licence(self) -> None:
        for entry in list_entries():
            with self.subTest(entry.id):
                for field in (
                    "title",
                    "licence",
                    "licence_url",
                    "checked",
                    "citation",
                    "source_url",
                ):
                    self.assertTrue(getattr(entry, field), field)
                # Some publishers state no checksum; of what ships there is one.
                if entry.weights.parent == EMBEDDED_FOLDER or entry.id == "abdomen-unet":
                    self.assertTrue(entry.sha256 and entry.size)
                self.assertEqual(entry.sha256 is None, entry.size is None)

    def test_entries_survive_json(self) -> None:
        for entry in list_entries():
            data = json.loads(json.dumps(entry.to_json(), allow_nan=False))
            self.assertEqual(data.pop("installed"), entry.weights.is_file())
            path = self.folder / f"{entry.id}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(data))
            self.assertEqual(ModelEntry.read(path), entry)

    def test_the_readme_documents_every_field_and_its_example_is_an_entry(self) -> None:
        text = (EMBEDDED_FOLDER / "README.md").read_text(encoding="utf-8")
        for field in ModelEntry.__dataclass_fields__:
            self.assertIn(f"| `{field}` |", text)
        path = self.folder / "example.json"
        path.parent.mkdir()
        path.write_text(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
        self.assertEqual(ModelEntry.read(path).id, "my-ct-unet")


class WhereModelsAre(RegistryTestCase):
    """Entries and weights in the user's folders."""

    def test_a_users_entry_is_listed_and_found_by_its_id(self) -> None:
        write_model(self.home / "models", "mine")
        self.assertIn("mine", [entry.id for entry in list_entries()])
        self.assertEqual(find_model("mine").backbone.channels, (4, 6, 8))

    def test_an_entry_anywhere_is_found_by_its_path(self) -> None:
        path = write_model(self.folder, "mine")
        self.assertEqual(find_model(str(path)).entry.id, "mine")
        self.assert_refused("no model 'mine'. Known models: embedded", find_model, "mine")

    def test_a_model_that_does_not_ship_any_more_is_said_to(self) -> None:
        for name in SUPERSEDED:
            with self.subTest(name):
                self.assertFalse((EMBEDDED_FOLDER / f"{name}.json").exists())
                self.assert_refused("does not ship any more: 'embedded' has", find_model, name)
        write_model(self.home / "models", SUPERSEDED[0])  # who kept it has it
        self.assertEqual(find_model(SUPERSEDED[0]).entry.id, SUPERSEDED[0])

    def test_weights_beside_the_entry_come_before_those_in_the_home(self) -> None:
        """The home is where a user puts what an entry elsewhere lacks."""
        path = write_model(self.folder, "mine", seed=0)
        write_model(self.home / "models", "other", seed=1)
        models = self.home / "models"
        os.rename(models / "other.safetensors", models / "mine.safetensors")
        beside, dropped = (f / "mine.safetensors" for f in (self.folder, models))
        self.assertEqual(ModelEntry.read(path).weights, beside)
        beside.unlink()
        model = find_model(str(path))
        self.assertEqual(model.entry.weights, dropped)
        weights = make_network(1).state_dict()
        torch.testing.assert_close(dict(model.backbone.state_dict()), dict(weights))

    def test_missing_weights_are_reported_with_their_source_and_their_place(self) -> None:
        path = write_model(self.folder, "mine")
        (self.folder / "mine.safetensors").unlink()
        model = find_model(str(path))
        self.assert_refused("https://example.org/tiny", lambda: model.weights_sha256)
        self.assert_refused(re.escape(str(self.home / "models")), lambda: model.backbone)
        self.assertFalse(model.entry.to_json()["installed"])

    def test_the_home_is_the_users_unless_moved(self) -> None:
        self.assertEqual(home_folder(), self.home)
        with mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": ""}):
            self.assertEqual(home_folder(), Path.home() / ".fewshotseg")


class WhatIsRefused(RegistryTestCase):
    """Each with one sentence for the person who wrote or copied the files."""

    def test_entries(self) -> None:
        box = {"orientation": "RAS", "spacing": [3, 3, 3], "intensity": "window"}
        unet = {"name": "DynamicUNet", "filters": [4, 6, 8], "out_channels": 2}
        refused = {
            "unknown field 'colour'; known are .*README.md lists": {"colour": "red"},
            "it lacks the field 'licence'": {"licence": None},
            "it lacks the field 'weights'": {"weights": None},
            "architecture 'FooNet' is not known.*DynamicUNet, .*ObeliskUNet": {
                "architecture": {"name": "FooNet"}
            },
            "'architecture' lacks the field 'name'": {"architecture": {}},
            "one part for each modality": {"modality": ["CT"]},
            "'overlap' is a number from 0 to 0.95, not 1.0": {"overlap": 1.0},
            "'overlap' is a number, not 'much'": {"overlap": "much"},
            "'activation' is \"sigmoid\" or \"softmax\", not 'relu'": {"activation": "relu"},
            "'window' is a list of 3, not of 2": {"window": [32, 32]},
            "'liver' of 'classes' is a row of the head, 0 or more": {"classes": {"liver": -1}},
            "needs low < high": {"preprocessing": {"CT": box, "MR": box}},
            "has the unknown field 'depth'": {"architecture": {**unet, "depth": 5}},
            "row 2 of a head of 2 rows": {"classes": {"liver": 2}},
            "Orientation 'RAA'": {"preprocessing": {"CT": {**box, "orientation": "RAA"}}},
            "'CT' of 'preprocessing' has the unknown field 'gain'": {
                "preprocessing": {"CT": {**box, "gain": 2}}
            },
        }
        for telling, fields in refused.items():
            with self.subTest(telling):
                path = write_model(self.folder, **fields)
                self.assert_refused(telling, find_model, str(path))
        for telling, fields in {
            "not of the architecture DynamicUNet.*another shape": {
                "architecture": {**unet, "filters": [4, 6, 9]}
            },
            "not of the architecture ObeliskUNet.*missing": {
                "architecture": {"name": "ObeliskUNet"}
            },
            "another version.*sha256": {"sha256": "0" * 64},
        }.items():
            with self.subTest(telling):
                model = find_model(str(write_model(self.folder, **fields)))
                self.assert_refused(telling, lambda model=model: model.backbone)

    def test_files_that_are_no_entries(self) -> None:
        self.folder.mkdir()
        path = self.folder / "x.json"
        self.assert_refused("There is no model entry at .*No such file", find_model, str(path))
        for text, telling in (
            ("{", "is not JSON"),
            ("[]", "it is no object"),
            ("{}", "lacks the field 'id'"),
        ):
            path.write_text(text)
            self.assert_refused(telling, find_model, str(path))

    def test_damaged_weights(self) -> None:
        path = write_model(self.folder)
        weights = self.folder / "tiny.safetensors"
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        whole = weights.read_bytes()
        for sha256, telling in ((digest, "damaged or another version"), (None, "can't be read")):
            write_model(self.folder, sha256=sha256)
            weights.write_bytes(whole[:-100])
            model = find_model(str(path))
            self.assert_refused(telling, lambda model=model: model.backbone)

    def test_pickles_that_are_no_state_dict(self) -> None:
        """Nothing in a weights file is ever run."""
        path = write_model(self.folder, weights="tiny.pth")
        run = self.folder / "was run"

        class Hostile:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(run),)

        for content in (make_network(), Hostile()):
            torch.save(content, self.folder / "tiny.pth")
            model = find_model(str(path))
            self.assert_refused("no|not a plain state dict", lambda model=model: model.backbone)
        (self.folder / "tiny.pth").write_bytes(b"garbage")
        model = find_model(str(path))
        self.assert_refused("tiny.pth", lambda: model.backbone)
        self.assertFalse(run.exists())

    def test_two_models_of_one_id(self) -> None:
        write_model(self.home / "models", DEFAULT_MODEL)
        own = next(entry for entry in list_entries() if entry.id == DEFAULT_MODEL)
        self.assertEqual(own.weights.parent, EMBEDDED_FOLDER)
        (other,) = unusable_entries()
        self.assertEqual(other.path, self.home / "models" / f"{DEFAULT_MODEL}.json")
        self.assertRegex(other.reason, f"Two models are called '{DEFAULT_MODEL}'.*home")

    def test_an_id_that_nobody_has(self) -> None:
        self.assert_refused(f"no model 'x'. Known models: {DEFAULT_MODEL}", find_model, "x")


class KnownClasses(RegistryTestCase):
    """What a model knew before, by whatever name a person calls it."""

    def test_names_that_mean_the_same(self) -> None:
        for other in ("Left kidney", "kidney_left", "KIDNEY-left", "left_Kidney", "kidney (left)"):
            self.assertTrue(same_class("kidney_left", other), other)
        for other in ("kidney", "kidney_right", "left kidneys", "kidney_left_2", ""):
            self.assertFalse(same_class("kidney_left", other), other)

    def test_an_entrys_own_name_is_found(self) -> None:
        entry = find_model(str(write_model(self.folder))).entry
        self.assertEqual(entry.class_named("Left kidney"), "kidney_left")
        self.assertIsNone(entry.class_named("spleen"))

    def test_with_sigmoid_a_class_is_its_own_row(self) -> None:
        model = find_model(str(write_model(self.folder)))
        weights, biases = model.backbone.head_weights()
        for name, row in (("Left kidney", 0), ("LIVER", 1)):
            weight, bias = model.class_head(name)
            torch.testing.assert_close((weight, bias), (weights[row], biases[row]))
            self.assertEqual((tuple(weight.shape), tuple(bias.shape)), ((4,), ()))
        self.assertIsNone(model.class_head("spleen"))

    def test_with_softmax_a_class_is_its_row_against_the_background(self) -> None:
        """A sigmoid of that score is the softmax of the two."""
        fields = {"activation": "softmax", "background": 0, "classes": {"liver": 1}}
        model = find_model(str(write_model(self.folder, **fields)))
        weights, biases = model.backbone.head_weights()
        weight, bias = model.class_head("liver")
        features = torch.randn(4, 5)
        both = (weights @ features + biases[:, None]).softmax(0)
        torch.testing.assert_close((weight @ features + bias).sigmoid(), both[1])

    def test_a_head_can_be_changed_without_changing_the_model(self) -> None:
        model = find_model(str(write_model(self.folder)))
        before = model.class_head("liver")[0].clone()
        model.class_head("liver")[0].zero_()
        torch.testing.assert_close(model.class_head("liver")[0], before)


class SomebodyElsesCheckpoint(RegistryTestCase):
    """A published network of another architecture, through an entry alone."""

    ENTRY = EMBEDDED_FOLDER / "abdomen-unet.json"

    def setUp(self) -> None:
        super().setUp()
        self.weights = models_folder() / "abdomen_unet" / "allconvunet_tcia_fold1.pth"
        if not self.weights.is_file():
            self.skipTest(f"no {self.weights}")

    def test_the_shipped_entry_works_once_its_weights_are_dropped_into_the_home(self) -> None:
        (self.home / "models").mkdir(parents=True)
        shutil.copy(self.weights, self.home / "models")
        model = find_model("abdomen-unet")
        self.assertEqual(model.entry.size, model.entry.weights.stat().st_size)
        self.assertEqual(model.backbone.strides[-1], 32)

    def test_it_finds_the_liver_without_any_training(self) -> None:
        """Its own classes, through the window, the store, the adapters' start and the inverse."""
        folder = data_folder() / "totalsegmentator"
        if not folder.is_dir():
            self.skipTest(f"no {folder}")
        self.folder.mkdir()
        data = json.loads(self.ENTRY.read_text(encoding="utf-8"))
        path = self.folder / "anybodys.json"
        path.write_text(json.dumps({**data, "weights": str(self.weights)}))
        model = find_model(str(path))
        volume = read_image(folder / "ct.nii.gz")
        preprocessing = model.entry.preprocessing["CT"]
        cpu = torch.device("cpu")
        source = FeatureSource(model, preprocessing, FeatureStore(self.folder / "cache"), cpu)
        features = source(volume)

        names = list(model.entry.classes)
        head = ADAPTERS["linear-probe"]([model.backbone.channels[0]], len(names))
        for k, name in enumerate(names):
            head.start_from(k, *model.class_head(name))
        probabilities = model_probabilities(head, features, cpu)
        placement = preprocessing.place(volume.grid)
        predicted = original_masks(probabilities, placement)[names.index("liver")]

        labels = json.loads((folder / "labels.json").read_text(encoding="utf-8"))["ct"]
        value = next(int(value) for value, name in labels.items() if name == "liver")
        wanted = [Structure("liver", value)]
        truth = read_annotation(folder / "ct_seg.nii.gz", volume.grid, wanted).masks["liver"]
        self.assertGreaterEqual(dice(truth, predicted), 0.85)
        self.assertEqual(predicted.shape, volume.grid.shape)


if __name__ == "__main__":
    unittest.main()
