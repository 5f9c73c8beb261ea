"""The store of features on disk: bounded, private, and it loses nothing."""

from __future__ import annotations

import errno
import os
import shutil
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from feature_case import InFolder
from filelock import FileLock
from torch import Tensor

from FewShotSegLib.core.errors import Cancelled, StorageError
from FewShotSegLib.features import writer as feature_writer
from FewShotSegLib.features.store import FeatureStore


class Store(InFolder):
    """Entries on disk."""

    def put(self, key: str, seed: int = 0, store: FeatureStore | None = None) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        levels = [
            torch.randn(3, 8, 8, 4, generator=generator),
            torch.randn(5, 4, 4, 2, generator=generator),
        ]
        store = store or self.store
        with store.lock(key):
            store.put(key, levels, (1, 2), (7, 8, 4))
        return levels

    def test_what_is_put_can_be_got(self) -> None:
        self.assertIsNone(self.store.get("a"))
        levels = self.put("a")
        features = FeatureStore(self.store.folder).get("a")
        self.assertEqual((features.strides, features.shape), ((1, 2), (7, 8, 4)))
        self.assertEqual((features.scales, features.key), ((1.0, 1.0), "a"))
        for level, array in zip(levels, features.levels, strict=True):
            self.assertIsInstance(array, np.memmap)
            self.assertEqual(array.dtype, np.float16)
            np.testing.assert_array_equal(array, level.half().numpy())
        self.assertIsNone(self.store.get("b"))

    def test_put_gives_what_get_gives(self) -> None:
        level = torch.randn(2, 4, 4, 4)
        with self.store.lock("a"):
            features = self.store.put("a", [level], (1,), (4, 4, 4))
        self.assertIsInstance(features.levels[0], np.memmap)
        np.testing.assert_array_equal(features.levels[0], level.half().numpy())

    def test_large_values_do_not_overflow(self) -> None:
        level = torch.tensor([1e6, -3e6, 5.0, 0.0]).view(1, 4, 1, 1)
        small = torch.tensor([6e4, 1.0]).view(1, 2, 1, 1)
        with self.store.lock("a"):
            features = self.store.put("a", [level, small], (1, 2), (4, 1, 1))
        self.assertEqual(features.scales, (3e6 / 6e4, 1.0))
        for number, expected in enumerate((level, small)):
            array = features.levels[number].astype(np.float32) * features.scales[number]
            np.testing.assert_allclose(array, expected, rtol=1e-3, atol=0.01)

    def test_what_is_written_slab_by_slab_is_whole(self) -> None:
        """Also where the first slabs are there already when a larger number comes."""
        generator = torch.Generator().manual_seed(0)
        levels = [torch.randn(3, 9, 4, 5, generator=generator) for _ in range(2)]
        levels[0][1, 4, 2, 3], levels[0][2, 8, 0, 0] = 1e6, -7e6
        sizes = [level.shape for level in levels]
        with self.store.lock("a"):
            with self.store.writing("a", sizes, (1, 1), (9, 4, 5)) as writer:
                for first in (0, 3, 6):
                    for number, level in enumerate(levels):
                        writer.write(number, first, level[:, first : first + 3].clone())
            features = self.store.stored("a")
        self.assertEqual(features.scales, (7e6 / 6e4, 1.0))
        np.testing.assert_array_equal(features.levels[1], levels[1].half().numpy())
        found = features.levels[0].astype(np.float32) * features.scales[0]
        np.testing.assert_allclose(found, levels[0], rtol=2e-3, atol=0.01)

    def test_a_disk_that_is_too_small_is_said_before_the_work(self) -> None:
        usage = mock.Mock(free=2 * 8**3 * 3 - 1)
        with (
            self.store.lock("a"),
            mock.patch("shutil.disk_usage", return_value=usage),
            self.assertRaisesRegex(StorageError, "is full .*--cache"),
            self.store.writing("a", [(3, 8, 8, 8)], (1,), (8, 8, 8)),
        ):
            self.fail("the work began")
        self.assertEqual(self.entries(), set())

    def test_an_error_of_the_work_itself_is_not_the_disks(self) -> None:
        with self.store.lock("a"), self.assertRaises(BrokenPipeError):
            with self.store.writing("a", [(3, 8, 8, 8)], (1,), (8, 8, 8)):
                raise BrokenPipeError
        self.assertEqual(self.entries(), set())

    def test_least_recently_used_entries_go_first(self) -> None:
        self.put("first")
        size = self.store.size()
        self.assertGreater(size, 2 * (3 * 256 + 5 * 32))
        store = FeatureStore(self.store.folder, int(3.5 * size))
        for age, key in ((300, "first"), (200, "second"), (100, "third")):
            self.put(key, store=store)
            past = time.time() - age
            os.utime(store.folder / key, (past, past))
        self.assertEqual(self.entries(), {"first", "second", "third"})
        self.assertIsNotNone(store.get("first"))
        self.put("fourth", store=store)
        self.assertEqual(self.entries(), {"first", "third", "fourth"})
        self.assertLessEqual(store.size(), store.max_bytes)

    def test_the_entry_just_written_stays_however_small_the_store(self) -> None:
        store = FeatureStore(self.store.folder, max_bytes=1)
        self.put("a", store=store)
        self.put("b", store=store)
        self.assertEqual(self.entries(), {"b"})
        self.assertIsNotNone(store.get("b"))

    def test_features_in_use_outlive_their_entry(self) -> None:
        levels = self.put("a")
        features = self.store.get("a")
        self.store.clear()
        if os.name != "nt":
            self.assertEqual(self.entries(), set())
        np.testing.assert_array_equal(features.levels[0], levels[0].half().numpy())

    def test_an_entry_that_is_being_written_is_not_removed(self) -> None:
        self.put("a")
        with self.store.lock("a"):
            self.store.clear()
            self.assertEqual(self.entries(), {"a"})
        self.store.clear()
        self.assertEqual(self.entries(), set())

    def test_what_is_not_the_stores_is_left_alone(self) -> None:
        other = self.store.folder / "letters"
        other.mkdir(parents=True)
        (other / "letter.txt").write_text("Dear Sir")
        self.put("a", store=FeatureStore(self.store.folder, max_bytes=1))
        self.store.clear()
        self.assertEqual((other / "letter.txt").read_text(), "Dear Sir")
        self.assertEqual(self.entries(), {"letters"})

    def damage(self) -> dict[str, Callable[[Path], Any]]:
        """Ways in which an entry's folder comes out of a crash."""
        return {
            "no meta": lambda f: (f / "meta.json").unlink(),
            "empty meta": lambda f: (f / "meta.json").write_text(""),
            "zeros for meta": lambda f: (f / "meta.json").write_bytes(bytes(100)),
            "another meta": lambda f: (f / "meta.json").write_text("[]"),
            "meta of nothing": lambda f: (f / "meta.json").write_text("null"),
            "less meta": lambda f: (f / "meta.json").write_text('{"strides": [1, 2]}'),
            "no level": lambda f: (f / "level1.npy").unlink(),
            "empty level": lambda f: (f / "level1.npy").write_bytes(b""),
            "zeros for a level": lambda f: (f / "level0.npy").write_bytes(bytes(5000)),
            "half a level": lambda f: os.truncate(f / "level0.npy", 500),
            "half a header": lambda f: os.truncate(f / "level0.npy", 20),
        }

    def test_a_damaged_entry_is_none_and_can_be_replaced(self) -> None:
        for name, harm in self.damage().items():
            with self.subTest(name):
                levels = self.put("a")
                harm(self.store.folder / "a")
                self.assertIsNone(self.store.get("a"))
                self.put("a")
                np.testing.assert_array_equal(
                    self.store.get("a").levels[0], levels[0].half().numpy()
                )

    def test_a_full_disk_is_said_and_leaves_nothing(self) -> None:
        write = feature_writer._write_at

        for name, error in {
            "full": OSError(errno.ENOSPC, "No space left on device"),
            "quota": OSError(errno.EDQUOT, "Disk quota exceeded"),
        }.items():

            def fails_at_the_second(file: Any, *arguments: Any, error=error) -> None:
                if Path(file.name).name == "level1.npy":
                    raise error
                write(file, *arguments)

            with (
                self.subTest(name),
                mock.patch.object(feature_writer, "_write_at", fails_at_the_second),
                self.assertRaisesRegex(StorageError, "is full .*--cache"),
            ):
                self.put("a")
            self.assertEqual(self.entries(), set())
            self.assertIsNone(self.store.get("a"))
        self.put("a")
        self.assertIsNotNone(self.store.get("a"))

    def test_a_full_disk_at_the_last_moment_leaves_nothing_either(self) -> None:
        full = OSError(errno.ENOSPC, "No space left on device")
        for method in ("write_text", "rename", "mkdir"):
            self.store._make_folder()
            with (
                self.subTest(method),
                mock.patch.object(Path, method, side_effect=full),
                mock.patch.object(self.store, "_make_folder"),
                self.assertRaisesRegex(StorageError, "is full"),
            ):
                self.put("a")
            self.assertEqual(self.entries(), set())

    def test_a_folder_that_cannot_be_written_to_is_said(self) -> None:
        (self.folder / "file").write_text("")
        with self.assertRaisesRegex(StorageError, "can't be written to"):
            self.put("a", store=FeatureStore(self.folder / "file" / "cache"))
        denied = PermissionError(errno.EACCES, "Permission denied")
        with (
            mock.patch.object(FileLock, "acquire", side_effect=denied),
            self.assertRaisesRegex(StorageError, "can't be written to .Permission denied.*--cache"),
        ):
            self.put("a")

    @unittest.skipIf(os.name == "nt", "permissions are not of this kind")
    def test_nobody_else_may_look(self) -> None:
        self.put("a")
        for folder in (self.store.folder, self.store.folder / "a"):
            self.assertEqual(folder.stat().st_mode & 0o077, 0)

    def half_written(self, key: str) -> Path:
        """What a process leaves that is killed between two levels."""

        class Killed(BaseException):
            pass

        write = feature_writer._write_at

        def killed_at_the_second(file: Any, *arguments: Any) -> None:
            if Path(file.name).name == "level1.npy":
                raise Killed
            write(file, *arguments)

        before = self.entries() if self.store.folder.exists() else set()
        with (
            mock.patch.object(feature_writer, "_write_at", killed_at_the_second),
            mock.patch.object(shutil, "rmtree"),
            self.assertRaises(Killed),
        ):
            self.put(key)
        (left,) = self.entries() - before
        self.assertTrue((self.store.folder / left / "level0.npy").exists())
        return self.store.folder / left

    def test_what_a_killed_process_left_is_no_entry(self) -> None:
        self.half_written("a")
        self.assertIsNone(self.store.get("a"))

    def test_what_a_killed_process_left_goes_with_the_next_entry(self) -> None:
        self.half_written("a")
        self.half_written("b")
        self.put("b")
        self.assertEqual(self.entries(), {"b"})
        self.assertIsNotNone(self.store.get("b"))

    def test_what_a_living_process_is_writing_stays(self) -> None:
        partial = self.half_written("a")
        with self.store.lock("a"):
            self.put("b")
            self.assertTrue((partial / "level0.npy").exists())
        self.put("c")
        self.assertEqual(self.entries(), {"b", "c"})

    def test_waiting_can_be_stopped(self) -> None:
        asked = []

        def check() -> None:
            asked.append(1)
            if len(asked) == 2:
                raise Cancelled("Stopped.")

        with (
            mock.patch("FewShotSegLib.compute.locks.WAIT_SECONDS", 0.01),
            self.store.lock("a"),
            self.assertRaises(Cancelled),
            self.store.lock("a", check),
        ):
            self.fail("two hold one lock")
        self.assertEqual(len(asked), 2)
        with self.store.lock("a", check):
            pass


if __name__ == "__main__":
    unittest.main()
