"""Weights fetched over the network or imported from a file: whole, the right ones, or none."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from file_server import FileServer
from filelock import FileLock
from tiny_model import make_network, write_model

from FewShotSegLib.cli.command_line import main
from FewShotSegLib.core.errors import Cancelled, FewShotSegError, ModelError, StorageError
from FewShotSegLib.core.events import ignore
from FewShotSegLib.core.job_protocol import (
    DownloadJob,
    ImportJob,
    make_private,
    read_job,
    write_job,
)
from FewShotSegLib.core.model_folders import recorded_sha256, remove_model
from FewShotSegLib.models.download import download, import_weights
from FewShotSegLib.models.fetching import is_safe
from FewShotSegLib.models.registry import find_model, list_entries
from FewShotSegLib.worker.jobs import run_job


class Terminal(io.StringIO):
    """Somebody who can be asked."""

    def isatty(self) -> bool:
        return True


class DownloadTestCase(unittest.TestCase):
    """With a home of its own, where an entry lies without its weights, and a server that has them.

    Pieces are small, so that a cut line has brought some; pauses are short.
    """

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.home = Path(folder.name) / "home"
        self.models = self.home / "models"
        patches = (
            mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(self.home)}),
            mock.patch("FewShotSegLib.models.fetching.PIECE", 512),
            mock.patch("FewShotSegLib.models.fetching.PAUSE_SECONDS", 0.01),
        )
        for patch in patches:
            patch.start()
            self.addCleanup(patch.stop)
        self.weights = self.models / "tiny.safetensors"
        self.elsewhere = Path(folder.name) / "elsewhere.safetensors"
        write_model(self.models)
        shutil.move(self.weights, self.elsewhere)
        self.content = self.elsewhere.read_bytes()
        self.digest = hashlib.sha256(self.content).hexdigest()
        self.half = len(self.content) // 2
        self.events: list[dict[str, Any]] = []
        self.server = FileServer(self.content)
        running = self.server.running()
        running.__enter__()
        self.addCleanup(running.__exit__, None, None, None)
        self.describe()

    def describe(self, **fields: Any) -> None:
        """Write the entry, with these fields."""
        path = self.models / "tiny.json"
        data = json.loads(path.read_text())
        path.write_text(json.dumps({**data, "weights_url": self.server.url, **fields}))

    def fetch(self) -> Path:
        return download("tiny", self.events.append)

    def assert_installed(self) -> None:
        self.assertEqual(self.weights.read_bytes(), self.content)
        self.assertEqual(self.left(), {"tiny.json", "tiny.safetensors", "SHA256SUMS"})

    def left(self) -> set[str]:
        """What is in the models' folder beside locks."""
        return {p.name for p in self.models.iterdir() if not p.name.startswith(".lock-")}

    def assert_refused(self, telling: str, kind: type[FewShotSegError] = ModelError) -> None:
        with self.assertRaisesRegex(kind, telling) as caught:
            self.fetch()
        self.assertNotIn("\n", str(caught.exception))
        self.assertFalse(self.weights.exists())


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
        with mock.patch("FewShotSegLib.models.fetching._require_room", side_effect=full):
            self.assert_refused("can't be written.*No space left", StorageError)
        with mock.patch("shutil.disk_usage", return_value=mock.Mock(free=100)):
            self.assert_refused("No space left", StorageError)

    def test_two_at_once(self) -> None:
        lock = self.models / ".lock-.part-tiny.safetensors"
        with FileLock(lock):
            self.assert_refused("Another process is downloading")
        self.fetch()

    def test_a_manual_download_is_told_with_its_page_and_its_command(self) -> None:
        self.describe(weights_url=None)
        self.assert_refused("by hand from https://example.org/tiny.*fewshotseg import tiny FILE")


def remove_model_weights(weights: Path) -> None:
    """Of a model whose entry stays."""
    entry = weights.with_suffix(".json")
    text = entry.read_text()
    remove_model(weights.stem)
    entry.write_text(text)


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
        """The weights' publisher, or somebody else, puts another file there."""
        write_model(self.elsewhere.parent, "other", seed=7)
        return (self.elsewhere.parent / "other.safetensors").read_bytes()

    def test_a_file_that_changed_on_this_computer_is_refused(self) -> None:
        self.fetch()
        self.weights.write_bytes(self.change())
        with self.assertRaisesRegex(ModelError, "have changed since they were first used") as told:
            _ = find_model("tiny").backbone
        self.assertNotIn("\n", str(told.exception))

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
            with self.assertRaisesRegex(ModelError, "can't be read .Permission denied.") as told:
                import_weights("tiny", self.elsewhere)
        self.assertNotIn("\n", str(told.exception))
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


class Command(DownloadTestCase):
    """``fewshotseg download``, ``import`` and ``remove``."""

    def run_command(self, *arguments: str, answer: str | None = None) -> tuple[int, str, str]:
        """Status and both outputs; with an answer, somebody sits at the terminal."""
        out, err = io.StringIO(), io.StringIO()
        stdin = io.StringIO() if answer is None else Terminal(answer)
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch("sys.stdin", stdin),
        ):
            status = main(arguments)
        return status, out.getvalue(), err.getvalue()

    def test_the_licence_is_shown_and_asked_for(self) -> None:
        for answer in ("n\n", "\n", ""):
            status, out, err = self.run_command("download", "tiny", answer=answer)
            self.assertEqual(status, 2)
            self.assertIn("Apache-2.0", out)
            self.assertIn("Nobody, Nowhere, 2020", out)
            self.assertIn("https://example.org/tiny", out)
            self.assertEqual(err, "fewshotseg: Nothing was downloaded.\n")
        self.assertEqual(self.server.asked, [])
        status, out, err = self.run_command("download", "tiny", answer="yes\n")
        self.assertEqual(status, 0, err)
        self.assertIn(str(self.weights), out)
        self.assert_installed()

    def size_told(self) -> str:
        """What is said of the size to somebody who then says no."""
        status, out, err = self.run_command("download", "tiny", answer="n\n")
        self.assertEqual((status, err), (2, "fewshotseg: Nothing was downloaded.\n"))
        before = out[: out.index("Do you accept")]
        return next(line for line in before.splitlines() if line.startswith("  size")).split(
            None, 1
        )[1]

    def test_the_size_is_told_before_anybody_is_asked(self) -> None:
        self.server.content = self.content * 80
        told = f"{len(self.server.content) / 1e6:.1f} MB"
        self.assertRegex(told, r"[1-9]\.\d MB")
        self.assertEqual(self.size_told(), told)
        self.assertEqual((self.server.heads, self.server.asked), (1, []))
        for refused in (403, 405, 501):  # signed addresses answer GET alone
            self.server.head_status = refused
            self.assertEqual(self.size_told(), told)
        self.describe(size=5 * 10**6)  # an entry that says it is believed without a request
        heads = self.server.heads
        self.assertEqual(self.size_told(), "5.0 MB")
        self.assertEqual(self.server.heads, heads)

    def test_a_size_that_nobody_tells_is_called_unknown(self) -> None:
        self.server.tells_size = False
        self.assertEqual(self.size_told(), "unknown: the server does not tell")
        self.server.tells_size = True
        self.server.head_status = 404
        self.server.statuses = [404]
        self.assertEqual(self.size_told(), "unknown: the server does not tell")
        self.describe(weights_url="http://127.0.0.1:1/none.safetensors")
        self.assertEqual(self.size_told(), "unknown: the server does not tell")

    def test_a_program_is_not_kept_waiting_for_a_size(self) -> None:
        status, _, err = self.run_command("download", "tiny", "--accept-licence", "--events")
        self.assertEqual((status, self.server.heads), (0, 0), err)

    def test_where_nobody_can_be_asked_it_has_to_be_said(self) -> None:
        for more in ((), ("--events",)):
            status, _, err = self.run_command("download", "tiny", *more)
            self.assertEqual(status, 2)
            self.assertIn("add --accept-licence", err)
        self.assertEqual(self.server.asked, [])
        for flag in ("--accept-licence", "--accept-license"):
            status, _, err = self.run_command("download", "tiny", flag)
            self.assertEqual(status, 0, err)
            self.assert_installed()
            remove_model_weights(self.weights)

    def test_events(self) -> None:
        status, out, _ = self.run_command("download", "tiny", "--accept-licence", "--events")
        self.assertEqual(status, 0)
        events = [json.loads(line) for line in out.splitlines()]
        kinds = list(dict.fromkeys(event["event"] for event in events))
        self.assertEqual(kinds, ["started", "phase", "progress", "result", "finished"])
        result = next(event for event in events if event["event"] == "result")
        self.assertEqual((result["kind"], result["path"]), ("weights", str(self.weights)))

    def test_an_interruption_tells_how_to_go_on(self) -> None:
        with mock.patch("FewShotSegLib.models.download.fetch", side_effect=KeyboardInterrupt):
            status, _, err = self.run_command("download", "tiny", "--accept-licence")
        self.assertEqual(status, 2)
        self.assertIn("the same command goes on from what has come", err)

    def test_import_and_remove(self) -> None:
        status, out, err = self.run_command("import", "tiny", str(self.elsewhere))
        self.assertEqual(status, 0, err)
        self.assertIn("Apache-2.0", out)
        self.assert_installed()
        status, out, err = self.run_command("remove", "tiny")
        self.assertEqual(status, 0, err)
        self.assertFalse(self.weights.exists())
        status, _, err = self.run_command("remove", "embedded-ct")
        self.assertEqual(status, 2)
        self.assertIn("ships with FewShotSeg", err)

    def test_fseft_is_told_with_its_page(self) -> None:
        status, _, err = self.run_command("download", "fseft", "--accept-licence")
        self.assertEqual(status, 2)
        self.assertIn("https://drive.google.com/", err)
        self.assertIn("fewshotseg import fseft FILE", err)


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

    def test_missing_weights_are_told_with_the_command(self) -> None:
        with self.assertRaisesRegex(ModelError, "Run: fewshotseg download tiny"):
            _ = find_model("tiny").backbone


class Job(DownloadTestCase):
    """The Slicer module's way to the same."""

    def test_a_download_job(self) -> None:
        folder = make_private(self.home / "job")
        write_job(folder, DownloadJob("tiny"))
        path = run_job(DownloadJob("tiny"), folder, ignore, lambda: False)
        self.assertEqual(json.loads(path.read_text())["path"], str(self.weights))
        self.assert_installed()
        torch.testing.assert_close(
            dict(find_model("tiny").backbone.state_dict()), dict(make_network().state_dict())
        )

    def test_an_import_job(self) -> None:
        folder = make_private(self.home / "job")
        write_job(folder, ImportJob("tiny", str(self.elsewhere)))
        job, _caller = read_job(folder)
        path = run_job(job, folder, ignore, lambda: False)
        self.assertEqual(json.loads(path.read_text())["path"], str(self.weights))
        self.assert_installed()


if __name__ == "__main__":
    unittest.main()
