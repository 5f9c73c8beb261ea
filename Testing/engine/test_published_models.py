"""Models published as archives: fetched from a server of the tests, unpacked safely, added.

The archives have the layout that nnU-Net's export and TotalSegmentator's releases have; the real
ones are larger than a test may fetch.
"""

from __future__ import annotations

import contextlib
import io
import stat
import unittest
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import nnunet_files
import torch
from entry_case import EntryTestCase
from file_server import FileServer
from tiny_model import run

from FewShotSegLib.core import published_models as core_published
from FewShotSegLib.core.errors import Cancelled, ModelError
from FewShotSegLib.core.published_models import PublishedModel, published_models
from FewShotSegLib.models import archives
from FewShotSegLib.models.archives import unpack
from FewShotSegLib.models.download import download
from FewShotSegLib.models.published import download_published, import_published
from FewShotSegLib.models.registry import find_model, list_entries

FOLDER = "Dataset297_TotalSegmentator_total_3mm_1559subj"


def archive_of(folder: Path) -> bytes:
    """A zip file as releases have it: the data set's folder, and what a training leaves beside."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{FOLDER}/", b"")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{FOLDER}/{path.relative_to(folder).as_posix()}")
        archive.writestr(f"{FOLDER}/nnUNetTrainer__nnUNetPlans__3d_fullres/progress.png", b"png")
        archive.writestr(f"__MACOSX/{FOLDER}/._plans.json", b"\0")
    return packed.getvalue()


class PublishedCase(EntryTestCase):
    """With a server for the archive of a tiny model, published under TotalSegmentator's id."""

    def setUp(self) -> None:
        super().setUp()
        trained = nnunet_files.write(self.folder / "train")
        self.content = archive_of(trained.parent)
        self.server = FileServer(self.content)
        running = self.server.running()
        running.__enter__()
        self.addCleanup(running.__exit__, None, None, None)
        known = published_models()
        real = known["totalsegmentator-ct-3mm"]
        self.model = replace(
            real, archive_url=self.server.url, classes={"left kidney": 1, "right kidney": 2}
        )
        patch = mock.patch.object(
            core_published, "published_models", lambda: {**known, self.model.id: self.model}
        )
        patch.start()
        self.addCleanup(patch.stop)


class DownloadTest(PublishedCase):
    """From the server to a usable entry."""

    def test_it_becomes_an_entry_with_its_makers_names(self) -> None:
        path = download_published(self.model)
        entry = find_model("totalsegmentator-ct-3mm").entry
        self.assertEqual(path, self.models / "totalsegmentator-ct-3mm.json")
        self.assertEqual(entry.classes, {"left kidney": 1, "right kidney": 2})
        self.assertEqual(entry.preprocessing["CT"].orientation[0], "S")  # as nnU-Net turns RAS
        self.assertEqual((entry.licence, entry.checked), ("Apache-2.0", self.model.checked))
        there = {name for name in self.left() if not name.startswith(".lock-")}
        self.assertEqual(there - {"SHA256SUMS"}, {path.name, entry.weights.name})
        backbone = find_model("totalsegmentator-ct-3mm").backbone
        expected = nnunet_files.network().state_dict()
        for key, value in backbone.state_dict().items():
            torch.testing.assert_close(value, expected[key])

    def test_a_cut_line_is_taken_up_where_it_ended(self) -> None:
        self.server.cuts = [len(self.content) // 2]
        with mock.patch("FewShotSegLib.models.fetching.PAUSE_SECONDS", 0.01):
            download_published(self.model)
        self.assertEqual(len(self.server.asked), 2)
        self.assertIn("totalsegmentator-ct-3mm", [entry.id for entry in list_entries()])

    def test_a_stop_leaves_what_has_come(self) -> None:
        with self.assertRaises(Cancelled):
            download_published(self.model, cancel=lambda: bool(self.server.asked))
        self.assertFalse((self.models / "totalsegmentator-ct-3mm.json").exists())

    def test_another_model_is_refused_and_goes(self) -> None:
        for telling, model in (
            ("a model of 2 classes, not of 1", replace(self.model, classes={"liver": 1})),
            ("has no folder Other", replace(self.model, folder="Other")),
        ):
            with self.assertRaisesRegex(ModelError, telling):
                download_published(model)
            self.assertEqual({n for n in self.left() if not n.startswith(".lock")}, set())

    def test_more_than_was_shown_is_not_taken(self) -> None:
        with self.assertRaisesRegex(ModelError, "sends more than"):
            download_published(self.model, size=1000)

    def test_as_any_other_model_from_python(self) -> None:
        self.assertEqual(download("totalsegmentator-ct-3mm").stem, "totalsegmentator-ct-3mm")
        with self.assertRaisesRegex(ModelError, "are here already"):
            download("totalsegmentator-ct-3mm")

    def test_from_a_file_without_a_network(self) -> None:
        file = self.folder / "weights.zip"
        file.write_bytes(self.content)
        import_published(self.model, file)
        self.assertIn("totalsegmentator-ct-3mm", [entry.id for entry in list_entries()])
        self.assertEqual(self.server.asked, [])
        self.assertTrue(file.exists())

    def test_the_commands(self) -> None:
        ran = run("models", "totalsegmentator-ct-3mm")
        self.assertIn("Apache-2.0", ran.out)
        self.assertIn("fewshotseg download totalsegmentator-ct-3mm", ran.out)
        self.assertIn("totalsegmentator-mr-3mm", run("models").out)
        ran = run("download", "totalsegmentator-ct-3mm")
        self.assertEqual(ran.status, 2)
        self.assertIn("add --accept-licence", ran.err)
        ran = run("download", "totalsegmentator-ct-3mm", "--accept-licence")
        self.assertEqual(ran.status, 0, ran.err)
        self.assertIn("left kidney", run("models", "totalsegmentator-ct-3mm").out)


class ListTest(unittest.TestCase):
    """What is published."""

    def test_each_is_complete_and_free_to_use(self) -> None:
        found = published_models()
        self.assertEqual(len(found), 9)
        for model in found.values():
            with self.subTest(model.id):
                self.assertIsInstance(model, PublishedModel)
                self.assertEqual((model.licence, model.orientation), ("Apache-2.0", "RAS"))
                self.assertTrue(model.archive_url.startswith("https://github.com/wasserth/"))
                self.assertTrue(model.archive_url.endswith(f"{model.folder}.zip"))
                rows = sorted(model.classes.values())
                self.assertEqual(rows, list(range(1, len(rows) + 1)))
        self.assertEqual(len(found["totalsegmentator-ct-3mm"].classes), 117)
        self.assertEqual(len(found["totalsegmentator-mr-3mm"].classes), 50)


Change = Callable[[zipfile.ZipFile], None]


def entry(name: str, content: bytes = b"x", mode: int = 0) -> Change:
    def write(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        archive.writestr(info, content)

    return write


class UnpackTest(EntryTestCase):
    """Nothing of an archive is written elsewhere, and not too much of it."""

    HOSTILE: dict[str, tuple[Change, str]] = {
        "zip slip": (entry("../escaped.json"), "would be written elsewhere"),
        "deep slip": (entry("a/b/../../../escaped.json"), "would be written elsewhere"),
        "absolute": (entry("/etc/escaped.json"), "would be written elsewhere"),
        "a drive": (entry("C:/escaped.json"), "would be written elsewhere"),
        "backslashes": (entry("..\\escaped.json"), "would be written elsewhere"),
        "a control character": (entry("a\x07.json"), "would be written elsewhere"),
        "a link": (entry("link", b"/etc/passwd", stat.S_IFLNK | 0o777), "is no plain file"),
        "a device": (entry("null", b"", stat.S_IFCHR | 0o666), "is no plain file"),
    }

    def unpack(self, change: Change, **limits: int) -> None:
        path, folder = self.folder / "a.zip", self.folder / "out"
        folder.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("good.json", b"{}")
            change(archive)
        with contextlib.ExitStack() as stack:
            for limit, value in limits.items():
                stack.enter_context(mock.patch.object(archives, limit, value))
            unpack(path, folder)

    def assert_refused_whole(self, telling: str, change: Change, **limits: int) -> None:
        with self.assertRaisesRegex(ModelError, telling) as caught:
            self.unpack(change, **limits)
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(list((self.folder / "out").iterdir()), [])
        self.assertEqual(list(self.folder.rglob("escaped*")), [])

    def test_hostile_entries(self) -> None:
        for name, (change, telling) in self.HOSTILE.items():
            with self.subTest(name):
                self.assert_refused_whole(telling, change)

    def test_too_much(self) -> None:
        bomb = entry("bomb.json", bytes(2**24))
        self.assert_refused_whole("becomes far larger when unpacked", bomb)
        self.assert_refused_whole(
            "unpacked it has more than", bomb, MAX_BYTES=2**20, MAX_RATIO=10**9
        )
        self.assert_refused_whole("it has 2 files", entry("more.json"), MAX_FILES=1)

    def test_twice(self) -> None:
        self.assert_refused_whole("twice", entry("GOOD.json"))

    def test_a_size_that_lies(self) -> None:
        """Announced as small in the directory; the bytes are counted as they come."""
        path, folder = self.folder / "a.zip", self.folder / "out"
        folder.mkdir()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("data.pth", bytes(2**22))
        data = path.read_bytes()
        where = data.rindex(b"PK\x01\x02")
        lying = bytearray(data)
        lying[where + 24 : where + 28] = (16).to_bytes(4, "little")
        path.write_bytes(bytes(lying))
        with self.assertRaisesRegex(ModelError, "not unpacked"):
            unpack(path, folder)

    def test_damaged(self) -> None:
        path, folder = self.folder / "a.zip", self.folder / "out"
        folder.mkdir()
        for content in (b"", b"no archive", b"PK\x03\x04half"):
            path.write_bytes(content)
            with self.assertRaisesRegex(ModelError, "damaged, or no zip file"):
                unpack(path, folder)

    def test_what_is_not_needed_is_not_written(self) -> None:
        path, folder = self.folder / "a.zip", self.folder / "out"
        folder.mkdir()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/b.json", b"{}")
            archive.writestr("a/c.png", b"x")
        unpack(path, folder, lambda name: name.endswith(".json"))
        self.assertEqual([p.name for p in folder.rglob("*") if p.is_file()], ["b.json"])


if __name__ == "__main__":
    unittest.main()
