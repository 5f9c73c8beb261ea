"""A process that is killed at any of its steps: nothing half written is used, or stays for ever."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import PREPROCESSING, OneThread, make_model, make_volume

from FewShotSegLib import atomic, checksums, feature_writer
from FewShotSegLib.errors import StorageError
from FewShotSegLib.feature_store import FeatureStore
from FewShotSegLib.features import FeatureSource

MOST_STEPS = 300


def killed_at(step: int, work: Callable[[], Any]) -> bool:
    """Do the work in a forked process that kills itself before its n-th change to the disk.

    Returns:
        whether it was killed: False where the work has fewer steps.
    """

    def run() -> None:
        left = step

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **options)

            return call

        for name in ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "utime"):
            setattr(os, name, counted(getattr(os, name)))
        feature_writer._write_at = counted(feature_writer._write_at)
        work()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


@unittest.skipUnless(sys.platform == "linux", "processes are forked and killed")
class Kills(OneThread):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        make_model(self.folder)
        self.cache = self.folder / "cache"

    def source(self) -> FeatureSource:
        checksums.forget()
        store = FeatureStore(self.cache)
        return FeatureSource(make_model(self.folder), PREPROCESSING, store, torch.device("cpu"))

    def assert_killed_everywhere(self, work: Callable[[], Any], after: Callable[[], None]) -> None:
        """Kill it before its first step, its second, and so on; then it is left alone."""
        for step in range(MOST_STEPS):
            killed = killed_at(step, work)
            with self.subTest(step=step):
                after()
            if not killed:
                self.assertGreater(step, 3)
                return
        self.fail("it never came to its end")

    def test_an_entry_of_the_cache(self) -> None:
        volume = make_volume(shape=(8, 8, 6))
        features = self.source()(volume)
        expected = [np.array(level) for level in features.levels]
        entry = self.cache / features.key
        # A damaged one is there already, which has to go first.
        shutil.copytree(entry, self.folder / "damaged")
        (self.folder / "damaged" / "level0.npy").write_bytes(b"")

        def prepare() -> None:
            shutil.rmtree(self.cache)
            shutil.copytree(self.folder / "damaged", entry)

        def after() -> None:
            found = FeatureStore(self.cache).get(features.key)
            for level, right in zip(found.levels if found else expected, expected, strict=True):
                np.testing.assert_array_equal(level, right)
            for level, right in zip(self.source()(volume).levels, expected, strict=True):
                np.testing.assert_array_equal(level, right)
            left = {path.name for path in self.cache.iterdir()}
            self.assertLessEqual(left, {features.key, f"{features.key}.lock"})
            prepare()

        prepare()
        self.assert_killed_everywhere(lambda: self.source()(volume), after)

    def test_removing_entries(self) -> None:
        volumes = [make_volume(n, shape=(8, 8, 6)) for n in range(2)]

        def prepare() -> None:
            for volume in volumes:
                self.source()(volume)

        def after() -> None:
            store = FeatureStore(self.cache)
            for path in self.cache.iterdir():
                if path.is_dir() and not path.name.startswith("partial-"):
                    self.assertIsNotNone(store.get(path.name), path.name)
            store.evict()
            entries = [path for path in self.cache.iterdir() if path.suffix != ".lock"]
            self.assertTrue(all(store.has(path.name) for path in entries), entries)
            prepare()

        prepare()
        self.assert_killed_everywhere(lambda: FeatureStore(self.cache).clear(), after)

    def test_a_file_that_is_replaced(self) -> None:
        path = self.folder / "place" / "report.json"

        def after() -> None:
            self.assertIn(path.read_text(), ('{\n  "n": 0\n}\n', '{\n  "n": 1\n}\n'))
            atomic.write_json(path, {"n": 0})
            self.assertEqual(os.listdir(path.parent), ["report.json"])

        atomic.write_json(path, {"n": 0})
        steps = 0
        while killed_at(steps, lambda: atomic.write_json(path, {"n": 1})):
            with self.subTest(step=steps):
                after()
            steps += 1
        self.assertGreaterEqual(steps, 3)  # the file to the disk, its name, the folder

    def test_a_limit_on_the_size_of_files(self) -> None:
        import resource

        volume = make_volume()

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            try:
                self.source()(volume)
            except StorageError as error:
                (self.folder / "told").write_text(str(error))

        process = multiprocessing.get_context("fork").Process(target=limited)
        process.start()
        process.join(60)
        self.assertEqual(process.exitcode, 0)
        told = (self.folder / "told").read_text()
        self.assertRegex(told, r"^The features .*larger file .*ulimit -f.*--cache\.$")
        self.assertEqual([p.suffix for p in self.cache.iterdir()], [".lock"])


if __name__ == "__main__":
    unittest.main()
