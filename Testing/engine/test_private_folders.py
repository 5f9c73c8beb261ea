"""Folders that results rest on: nobody but the user may write there, or they are refused."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import sys
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from tiny_model import TinyWorld

from FewShotSegLib.cli import command_line as cli
from FewShotSegLib.core import private_folders
from FewShotSegLib.core.errors import StorageError
from FewShotSegLib.core.model_folders import own_folder, usable_entries
from FewShotSegLib.core.private_folders import make_private
from FewShotSegLib.features.store import FeatureStore

POSIX = unittest.skipUnless(os.name == "posix", "permissions are not of this kind")


def mode(folder: Path) -> int:
    return stat.S_IMODE(folder.stat().st_mode)


class InFolder(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "given"
        self.folder.mkdir(mode=0o700)

    def assert_refused(self, telling: str, function: Callable[..., object], *args: object) -> None:
        with self.assertRaisesRegex(StorageError, telling) as caught:
            function(*args)
        self.assertNotIn("\n", str(caught.exception))


@POSIX
class Private(InFolder):
    def owned_by(self, owner: int, user: int) -> contextlib.ExitStack:
        """As if the folder were another user's and the process another's: tests may run as root."""
        real = os.stat

        def other_stat(path: object, *args: object, **options: object) -> os.stat_result:
            found = list(real(path, *args, **options))
            found[4] = owner
            return os.stat_result(found)

        stack = contextlib.ExitStack()
        stack.enter_context(mock.patch.object(private_folders.os, "stat", other_stat))
        stack.enter_context(mock.patch.object(private_folders.os, "geteuid", lambda: user))
        return stack

    def test_a_new_one_is_the_users_alone(self) -> None:
        before = os.umask(0)
        try:
            make_private(self.folder / "a" / "b", "with --cache")
        finally:
            os.umask(before)
        self.assertEqual(mode(self.folder / "a" / "b"), 0o700)

    def test_ours_is_mended_where_others_can_write(self) -> None:
        for given, wanted in (
            (0o777, 0o700),
            (0o775, 0o700),
            (0o2770, 0o700),
            (0o702, 0o700),
            (0o755, 0o755),  # others can only look, at names of files that they can't open
            (0o700, 0o700),
            (0o500, 0o500),
        ):
            os.chmod(self.folder, given)
            with self.subTest(oct(given)):
                make_private(self.folder, "with --cache")
                self.assertEqual(mode(self.folder) & 0o777, wanted)

    def test_everybodys_is_refused_and_stays(self) -> None:
        os.chmod(self.folder, 0o1777)
        self.assert_refused(
            "Others can write to .*given.*of your own with --cache",
            make_private,
            self.folder,
            "with --cache",
        )
        self.assertEqual(mode(self.folder), 0o1777)

    def test_another_users_is_refused(self) -> None:
        for permissions in (0o700, 0o755, 0o777):
            os.chmod(self.folder, permissions)
            with self.owned_by(1234, 1000):
                self.assert_refused("belongs to another user", make_private, self.folder, "x")
            with self.owned_by(1234, 0):  # an administrator's own folders are root's
                self.assert_refused("belongs to another user", make_private, self.folder, "x")
            self.assertEqual(mode(self.folder), permissions)

    def test_an_administrators_is_trusted_unless_others_can_write(self) -> None:
        with self.owned_by(0, 1000):
            os.chmod(self.folder, 0o755)
            make_private(self.folder, "x")
            os.chmod(self.folder, 0o777)
            self.assert_refused("Others can write", make_private, self.folder, "x")
        self.assertEqual(mode(self.folder), 0o777)

    def test_where_permissions_cannot_be_changed(self) -> None:
        os.chmod(self.folder, 0o777)
        with mock.patch.object(os, "chmod"):  # as on a stick with FAT
            self.assert_refused("Others can write", make_private, self.folder, "x")
        denied = PermissionError(1, "Operation not permitted")
        with mock.patch.object(os, "chmod", side_effect=denied):
            self.assert_refused("Operation not permitted", make_private, self.folder, "x")

    def test_the_cache(self) -> None:
        store = FeatureStore(self.folder)
        os.chmod(self.folder, 0o777)
        with store.lock("a"):
            self.assertEqual(mode(self.folder), 0o700)
        (self.folder / "letters").mkdir()  # a user works there, perhaps with others
        os.chmod(self.folder, 0o777)
        with self.assertRaisesRegex(StorageError, "Others can write.*--cache"), store.lock("a"):
            self.fail("it was used")
        self.assertEqual(mode(self.folder), 0o777)

    def test_the_home_and_what_is_in_it(self) -> None:
        home = self.folder / "home"
        with mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(home)}):
            for name in ("cache", "locks", "models"):
                self.assertEqual(own_folder(name), home / name)
                self.assertEqual((mode(home), mode(home / name)), (0o700, 0o700))
                os.chmod(home, 0o777)
                os.chmod(home / name, 0o777)
                own_folder(name)
                self.assertEqual((mode(home), mode(home / name)), (0o700, 0o700))


@POSIX
class Models(InFolder):
    """Entries in a folder where others write are not used, and hide no other."""

    def test_they_are_shown_as_unusable(self) -> None:
        models = self.folder / "models"
        models.mkdir()
        (models / "mine.json").write_text("{}")
        with mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(self.folder)}):
            entries, unusable = usable_entries()
            self.assertNotIn("Others", unusable[0].reason)
            os.chmod(models, 0o777)
            usable_entries()
            self.assertEqual(mode(models), 0o700)
            os.chmod(models, 0o1777)
            again, unusable = usable_entries()
        self.assertEqual(again, entries)
        self.assertGreater(len(entries), 2)
        (fault,) = unusable
        self.assertRegex(fault.reason, "Others can write to .*FEWSHOTSEG_HOME")


class NotWritable(TinyWorld):
    """A home that can't be written to is one sentence, before any work, and exit status 2."""

    def run_command(self, *arguments: object) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            status = cli.main([str(argument) for argument in arguments])
        return status, said.getvalue()

    def homes(self) -> list[Path]:
        file = self.folder / "file"
        file.write_text("a file")
        homes = [file, file / "deeper"]
        if sys.platform == "linux":
            homes.append(Path("/proc/nothing"))  # not even for root
        return homes

    def adapt(self, *more: object) -> tuple[int, str]:
        support = self.supports[0]
        return self.run_command(
            *("adapt", "--support", support.image, support.segmentation),
            *("--structure", "4=bean", "--model", self.model, "--epochs", "1"),
            *("--out", self.folder / "a.fseft", *more),
        )

    def test_commands(self) -> None:
        for home in self.homes():
            with self.subTest(home), mock.patch.dict(os.environ, {"FEWSHOTSEG_HOME": str(home)}):
                status, said = self.adapt()
                self.assertEqual(status, 2)
                self.assertRegex(said, r"fewshotseg: .* can't be written to .*FEWSHOTSEG_HOME\.")
                self.assertNotIn("Traceback", said)
                weights = self.folder / "w.pt"
                weights.write_bytes(b"x")
                status, said = self.run_command("import", "btcv", weights)
                self.assertEqual(status, 2)
                self.assertRegex(said, r"fewshotseg: .* can't be written to .*FEWSHOTSEG_HOME\.")

    def test_a_cache_that_cannot_be_written_to(self) -> None:
        for cache in self.homes():
            with self.subTest(cache):
                status, said = self.adapt("--cache", cache)
                self.assertEqual(status, 2)
                self.assertRegex(said, r"fewshotseg: .* can't be written to .*--cache\.")

    @POSIX
    def test_a_cache_that_is_everybodys(self) -> None:
        cache = self.folder / "everybody"
        cache.mkdir()
        os.chmod(cache, 0o1777)
        status, said = self.adapt("--cache", cache)
        self.assertEqual(status, 2)
        self.assertRegex(said, "fewshotseg: Others can write to .*everybody")
        shutil.rmtree(cache)


if __name__ == "__main__":
    unittest.main()
