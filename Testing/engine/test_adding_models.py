"""Registry entries of anybody's: added, removed, and loaded as they were hashed."""

from __future__ import annotations

import json
import shutil
import unittest
from pathlib import Path
from unittest import mock

import torch
from entry_case import EntryTestCase
from tiny_model import make_network, write_model

from FewShotSegLib.core.model_folders import (
    EMBEDDED_FOLDER,
    add_model,
    file_sha256,
    read_entry,
    recorded_sha256,
    remove_model,
)
from FewShotSegLib.models.registry import find_model, unusable_entries


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
