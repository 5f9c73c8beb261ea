"""Weights fetched over the network or imported from a file: whole, or none."""

from __future__ import annotations

import errno
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from download_case import DownloadTestCase, remove_model_weights
from file_server import FileServer
from filelock import FileLock
from tiny_model import write_model

from FewShotSegLib.core.errors import Cancelled, ModelError, StorageError
from FewShotSegLib.core.model_folders import recorded_sha256, remove_model
from FewShotSegLib.models.download import download, import_weights
from FewShotSegLib.models.fetching import is_safe
from FewShotSegLib.models.registry import find_model, list_entries


class Fetching(DownloadTestCase):
    """The way over the network."""

    def test_the_file_is_put_in_its_place_with_progress(self) -> None:
        self.assertEqual(self.fetch(), self.weights)
        self.assert_installed()
        self.assertEqual(self.events[0]["event"], "phase")
        done = [(e["done"], e["total"]) for e in self.events[1:]]
        self.assertEqual(done[0], (0, len(self.content)))
        self.assertEqual(done[-1], (len(self.content), len(self.content)))
        self.assertEqual(done, sorted(done))
        self.assertGreater(len(done), 5)
        self.assertIsNotNone(find_model("tiny").backbone)

    def test_a_cut_line_is_taken_up_where_it_ended(self) -> None:
        self.server.cuts = [self.half, self.half // 2]
        self.fetch()
        self.assert_installed()
        first, second, third = self.server.asked
        self.assertIsNone(first)
        for asked, least in ((second, self.half - 512), (third, self.half)):
            self.assertGreater(int(asked.removeprefix("bytes=").removesuffix("-")), least)

    def test_a_stopped_download_goes_on_in_another_process_later(self) -> None:
        def cancel() -> bool:
            return any(e.get("done", 0) > self.half for e in self.events)

        with self.assertRaisesRegex(Cancelled, "goes on"):
            download("tiny", self.events.append, cancel)
        self.assertFalse(self.weights.exists())
        part = self.models / ".part-tiny.safetensors"
        self.assertEqual(part.read_bytes(), self.content[: part.stat().st_size])
        self.assertGreater(part.stat().st_size, self.half)
        self.server.asked.clear()
        self.fetch()
        self.assertEqual(len(self.server.asked), 1)
        self.assertIsNotNone(self.server.asked[0])
        self.assert_installed()

    def half_fetched(self) -> None:
        self.server.cuts = [self.half]
        self.server.statuses = []
        with mock.patch("FewShotSegLib.models.fetching.ATTEMPTS", 1):
            self.assert_refused("connection was cut.*goes on from where it was")

    def test_a_file_that_changed_meanwhile_is_fetched_anew(self) -> None:
        self.half_fetched()
        torch.manual_seed(7)
        write_model(self.elsewhere.parent, "other", seed=7)
        self.server.content = (self.elsewhere.parent / "other.safetensors").read_bytes()
        self.server.tag = '"two"'
        self.fetch()
        self.assertEqual(self.weights.read_bytes(), self.server.content)

    def test_servers_that_cannot_go_on_in_the_middle(self) -> None:
        for name, value in (("ranges", False), ("tag", "")):
            with self.subTest(name):
                self.half_fetched()
                with mock.patch.object(self.server, name, value):
                    self.fetch()
                self.assert_installed()
                remove_model_weights(self.weights)

    def test_all_was_there_but_not_yet_installed(self) -> None:
        with mock.patch("FewShotSegLib.models.download.file_sha256", side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                self.fetch()
        self.fetch()
        self.assertEqual(len(self.server.asked), 2)
        self.assert_installed()

    def test_a_server_that_is_busy_for_a_moment(self) -> None:
        self.server.statuses = [503]
        self.fetch()
        self.assert_installed()

    def test_it_gives_up_in_a_sentence_and_soon(self) -> None:
        self.server.statuses = [404]
        self.assert_refused("can't be fetched: the server answers 404 Not Found.")
        self.assertEqual(len(self.server.asked), 1)
        self.server.asked.clear()
        self.server.statuses = [500] * 20
        self.assert_refused("the server answers 500")
        self.assertEqual(len(self.server.asked), 2)
        self.server.asked.clear()
        self.server.statuses, self.server.cuts = [], [600, *[0] * 20]
        self.assert_refused("the connection was cut")
        self.assertLessEqual(len(self.server.asked), 6)
        self.describe(weights_url="http://127.0.0.1:9/weights.pt")
        self.assert_refused("there is no connection. Check the network")

    def test_only_ways_on_which_nobody_can_change_it(self) -> None:
        self.assertTrue(is_safe("https://example.org/a"))
        for url in ("http://example.org/a", "file:///etc/passwd", "ftp://example.org/a", "x"):
            self.assertFalse(is_safe(url), url)
        self.describe(weights_url="http://example.org/a")
        self.assert_refused("not offered over https")
        self.assertEqual(self.server.asked, [])

    def test_a_redirection_to_an_unsafe_address_is_not_believed(self) -> None:
        with FileServer(self.content).running() as other:
            self.server.redirect = other.url
            with mock.patch(
                "FewShotSegLib.models.fetching.is_safe", lambda url: not url.startswith(other.url)
            ):
                self.assert_refused("leads to an address that is not https")

    def test_a_full_disk(self) -> None:
        full = OSError(errno.ENOSPC, "No space left on device")
        with mock.patch("FewShotSegLib.models.fetching._require_space", side_effect=full):
            self.assert_refused("can't be written.*No space left", StorageError)
        with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=100)):
            self.assert_refused("No space left", StorageError)

    def test_two_in_parallel(self) -> None:
        lock = self.models / ".lock-.part-tiny.safetensors"
        with FileLock(lock):
            self.assert_refused("Another process is downloading")
        self.fetch()

    def test_a_manual_download_is_reported_with_its_page_and_its_command(self) -> None:
        self.describe(weights_url=None)
        self.assert_refused("by hand from https://example.org/tiny.*fewshotseg import tiny FILE")


class Importing(DownloadTestCase):
    """Without a network."""

    def test_a_file_is_copied_and_remembered(self) -> None:
        self.assertEqual(import_weights("tiny", self.elsewhere), self.weights)
        self.assert_installed()
        self.assertEqual(self.elsewhere.read_bytes(), self.content)
        self.assertEqual(recorded_sha256("tiny.safetensors"), self.digest)
        self.assertEqual(self.server.asked, [])

    def test_progress_and_stopping_in_the_middle(self) -> None:
        def cancel() -> bool:
            return any(e.get("done", 0) > self.half for e in self.events)

        with mock.patch("FewShotSegLib.models.download.PIECE", 512):
            with self.assertRaisesRegex(Cancelled, "nothing was installed"):
                import_weights("tiny", self.elsewhere, self.events.append, cancel)
            self.assertEqual(self.left(), {"tiny.json"})
            self.events.clear()
            import_weights("tiny", self.elsewhere, self.events.append)
        self.assert_installed()
        self.assertEqual({e["phase"] for e in self.events}, {"import"})
        done = [(e["done"], e["total"]) for e in self.events[1:]]
        self.assertEqual(done[-1], (len(self.content), len(self.content)))
        self.assertEqual(done, sorted(done))
        self.assertGreater(len(done), 5)

    def test_what_a_stopped_download_left_goes(self) -> None:
        self.server.cuts = [self.half]
        with mock.patch("FewShotSegLib.models.fetching.ATTEMPTS", 1), self.assertRaises(ModelError):
            self.fetch()
        self.assertIn(".part-tiny.safetensors", self.left())
        import_weights("tiny", self.elsewhere)
        self.assert_installed()

    def test_a_file_that_may_not_be_read(self) -> None:
        def refuse(path: Path, mode: str) -> Any:
            if path == self.elsewhere:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return open(path, mode)

        with mock.patch("FewShotSegLib.models.download.open", refuse, create=True):
            with self.assertRaisesRegex(ModelError, "can't be read .Permission denied.") as got:
                import_weights("tiny", self.elsewhere)
        self.assertNotIn("\n", str(got.exception))
        self.assertEqual(self.left(), {"tiny.json"})

    def test_a_manual_download_under_any_name(self) -> None:
        self.describe(weights_url=None)
        download_ = self.elsewhere.with_name("model (1).safetensors")
        self.elsewhere.rename(download_)
        import_weights("tiny", download_)
        self.assert_installed()

    def test_what_is_refused(self) -> None:
        cases: dict[str, Any] = {"There is no file": self.elsewhere.with_name("none.pth")}
        damaged = self.elsewhere.with_name("damaged.safetensors")
        damaged.write_bytes(self.content[: self.half])
        cases[r"Nothing was installed.*damaged.safetensors can't be read"] = damaged
        for telling, file in cases.items():
            with self.subTest(telling), self.assertRaisesRegex(ModelError, telling):
                import_weights("tiny", file)
            self.assertEqual(self.left(), {"tiny.json"})
        self.describe(sha256="0" * 64)
        with self.assertRaisesRegex(ModelError, "its sha256 differs"):
            import_weights("tiny", self.elsewhere)
        self.assertEqual(self.left(), {"tiny.json"})


class Removing(DownloadTestCase):
    """Large files go when they are not wanted."""

    def test_nothing_stays(self) -> None:
        self.server.cuts = [self.half]
        with mock.patch("FewShotSegLib.models.fetching.ATTEMPTS", 1), self.assertRaises(ModelError):
            self.fetch()
        self.assertIn(".part-tiny.safetensors", self.left())
        entry = (self.models / "tiny.json").read_text()
        remove_model("tiny")
        self.assertEqual(self.left(), set())
        (self.models / "tiny.json").write_text(entry)
        self.fetch()
        remove_model("tiny")
        self.assertEqual(self.left(), {"SHA256SUMS"})
        self.assertEqual((self.models / "SHA256SUMS").read_text(), "")


class Shipped(DownloadTestCase):
    """What the registry offers."""

    def test_addresses_are_https_and_end_with_the_files_name(self) -> None:
        offered = [entry for entry in list_entries() if entry.weights_url and entry.id != "tiny"]
        self.assertGreaterEqual(len(offered), 7)
        for entry in offered:
            with self.subTest(entry.id):
                self.assertTrue(entry.weights_url.startswith("https://"))
                self.assertEqual(entry.weights_url.rsplit("/", 1)[1], entry.weights.name)
                self.assertTrue(entry.licence)

    def test_missing_weights_are_reported_with_the_command(self) -> None:
        with self.assertRaisesRegex(ModelError, "Run: fewshotseg download tiny"):
            _ = find_model("tiny").backbone


if __name__ == "__main__":
    unittest.main()
