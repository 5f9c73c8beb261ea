"""Weights fetched over the network or imported from a file: the right ones, or none."""

from __future__ import annotations

import shutil
import unittest
from unittest import mock

from download_case import DownloadTestCase
from tiny_model import write_model

from FewShotSegLib.core.errors import ModelError, StorageError
from FewShotSegLib.core.model_folders import recorded_sha256, remove_model
from FewShotSegLib.models.registry import find_model


class Checksums(DownloadTestCase):
    """Which file it has to be."""

    def test_the_published_one(self) -> None:
        self.describe(sha256=self.digest, size=len(self.content))
        self.fetch()
        self.assertEqual(self.weights.read_bytes(), self.content)
        self.assertIsNone(recorded_sha256("tiny.safetensors"))

    def test_another_file_than_the_published_one(self) -> None:
        self.describe(sha256="0" * 64)
        self.assert_refused("not the file that the registry announces .its sha256 differs")
        self.assertEqual(self.left(), {"tiny.json"})
        self.describe(size=len(self.content) + 1)
        self.assert_refused("its size differs")
        self.assertEqual(self.left(), {"tiny.json"})

    def test_without_one_the_first_use_counts(self) -> None:
        self.fetch()
        self.assertEqual(recorded_sha256("tiny.safetensors"), self.digest)
        line = (self.models / "SHA256SUMS").read_text()
        self.assertEqual(line, f"{self.digest}  tiny.safetensors\n")
        self.assertEqual(find_model("tiny").weights_sha256, self.digest)

    def change(self) -> bytes:
        """The weights' publisher, or another site, puts another file there."""
        write_model(self.elsewhere.parent, "other", seed=7)
        return (self.elsewhere.parent / "other.safetensors").read_bytes()

    def test_a_file_that_changed_on_this_computer_is_refused(self) -> None:
        self.fetch()
        self.weights.write_bytes(self.change())
        with self.assertRaisesRegex(ModelError, "have changed since they were first used") as got:
            _ = find_model("tiny").backbone
        self.assertNotIn("\n", str(got.exception))

    def test_a_file_that_changed_at_its_publishers_is_refused_until_it_is_removed(self) -> None:
        self.fetch()
        self.weights.unlink()
        self.server.content = self.change()
        self.server.tag = '"two"'
        self.assert_refused("not the file that was first used here.*fewshotseg remove tiny")
        self.assertEqual(self.left(), {"tiny.json", "SHA256SUMS"})
        entry = (self.models / "tiny.json").read_text()
        remove_model("tiny")
        (self.models / "tiny.json").write_text(entry)
        self.fetch()
        self.assertEqual(self.weights.read_bytes(), self.server.content)

    def test_weights_that_were_put_there_by_hand_are_remembered_at_their_first_use(self) -> None:
        shutil.copy(self.elsewhere, self.weights)
        self.assertIsNone(recorded_sha256("tiny.safetensors"))
        self.assertEqual(find_model("tiny").weights_sha256, self.digest)
        self.assertEqual(recorded_sha256("tiny.safetensors"), self.digest)
        self.weights.write_bytes(self.change())
        with self.assertRaisesRegex(ModelError, "remove the line of tiny.safetensors"):
            _ = find_model("tiny").weights_sha256

    def test_a_folder_that_may_only_be_read_is_no_obstacle_to_use(self) -> None:
        shutil.copy(self.elsewhere, self.weights)
        with mock.patch(
            "FewShotSegLib.models.registry.record_sha256", side_effect=StorageError("read-only")
        ):
            self.assertIsNotNone(find_model("tiny").backbone)

    def test_a_page_instead_of_the_weights_is_not_installed(self) -> None:
        self.server.content = b"<html>Please sign in</html>" * 100
        self.assert_refused("Nothing was installed. The weights file http.*can't be read")
        self.assertEqual(self.left(), {"tiny.json"})

    def test_weights_of_another_network_are_not_installed(self) -> None:
        self.describe(architecture={"name": "DynamicUNet", "filters": [4, 6, 9], "out_channels": 2})
        self.assert_refused("Nothing was installed.*not of the architecture")
        self.assertEqual(self.left(), {"tiny.json"})

    def test_what_is_here_is_not_fetched_again(self) -> None:
        self.fetch()
        self.server.asked.clear()
        with self.assertRaisesRegex(ModelError, "are here already.*fewshotseg remove tiny"):
            self.fetch()
        self.assertEqual(self.server.asked, [])


if __name__ == "__main__":
    unittest.main()
