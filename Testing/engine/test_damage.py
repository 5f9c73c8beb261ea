"""Cached features that were damaged on the disk: found, reported, and computed anew."""

from __future__ import annotations

import io
import json
import os
import random
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from tiny import PREPROCESSING, OneThread, make_model, make_volume
from tiny_model import QUICK, STRUCTURES, TinyWorld

from FewShotSegLib.cli.progress import Progress
from FewShotSegLib.compute import locks
from FewShotSegLib.core import checksums
from FewShotSegLib.core.errors import Cancelled
from FewShotSegLib.features.extraction import FeatureSource
from FewShotSegLib.features.store import FeatureStore, VolumeFeatures
from FewShotSegLib.pipeline import Runtime, adapt, segment

Harm = Callable[[Path], Any]


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a file."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def zero(path: Path, start: int, count: int) -> None:
    """What a lost block of a disk looks like."""
    data = bytearray(path.read_bytes())
    assert any(data[start : start + count])
    data[start : start + count] = bytes(len(data[start : start + count]))
    path.write_bytes(data)


def edit(path: Path, **changes: Any) -> None:
    """Other metadata."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def swap(one: Path, other: Path) -> None:
    """Each file in the other's place."""
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def turn_level(path: Path) -> None:
    """A level whose header tells another order of the axes, of as many bytes."""
    data = path.read_bytes()
    shape = np.load(path, mmap_mode="r").shape
    other = tuple(reversed(shape))
    assert other != shape
    path.write_bytes(data.replace(str(shape).encode(), str(other).encode(), 1))


def accidents(other_entry: Path) -> dict[str, Harm]:
    """What can become of an entry."""
    flips = {
        f"a flipped bit, {share}": lambda f, share=share: flip(
            f / "level0.npy", int(share * 8 * (os.path.getsize(f / "level0.npy") - 1))
        )
        for share in (0.0, 0.2, 0.5, 0.999)
    }
    return flips | {
        "a lost block": lambda f: zero(f / "level0.npy", 4096, 4096),
        "a lost block of a coarse level": lambda f: zero(f / "level2.npy", 512, 512),
        "other scales": lambda f: edit(f / "meta.json", scales=[2.0, 1.0, 1.0]),
        "another shape": lambda f: edit(f / "meta.json", shape=[14, 19, 15]),
        "other strides": lambda f: edit(f / "meta.json", strides=[1, 2, 2]),
        "another key": lambda f: edit(f / "meta.json", key="0" * 40),
        "fewer levels": lambda f: edit(f / "meta.json", levels=[]),
        "a level cut short": lambda f: os.truncate(
            f / "level1.npy", os.path.getsize(f / "level1.npy") - 1
        ),
        "an empty level": lambda f: (f / "level1.npy").write_bytes(b""),
        "no level": lambda f: (f / "level1.npy").unlink(),
        "more bytes": lambda f: (f / "level0.npy").open("ab").write(b"\0"),
        "swapped levels": lambda f: swap(f / "level0.npy", f / "level1.npy"),
        "turned axes": lambda f: turn_level(f / "level0.npy"),
        "metadata of another entry": lambda f: (f / "meta.json").write_bytes(
            (other_entry / "meta.json").read_bytes()
        ),
        "all of another entry": lambda f: [
            file.write_bytes((other_entry / file.name).read_bytes()) for file in f.iterdir()
        ],
        "a level of another entry": lambda f: (f / "level0.npy").write_bytes(
            (other_entry / "level0.npy").read_bytes()
        ),
        "no metadata": lambda f: (f / "meta.json").unlink(),
        "metadata that nest without end": lambda f: (f / "meta.json").write_text("[" * 100_000),
        "metadata of zeros": lambda f: (f / "meta.json").write_bytes(bytes(300)),
    }


class OneEntry(OneThread):
    """A store with a volume's features, and another's."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.volume = make_volume()
        self.reported: list[dict[str, Any]] = []
        self.other = self.folder / "cache" / self.ask(make_volume(seed=1))[0].key
        features, _ = self.ask()
        self.entry = self.folder / "cache" / features.key
        self.levels = [np.array(level) for level in features.levels]
        self.whole = {file.name: file.read_bytes() for file in self.entry.iterdir()}

    def ask(self, volume: Any = None) -> tuple[VolumeFeatures, FeatureSource]:
        """The features as a new process would get them."""
        checksums.forget()
        self.reported = []
        store = FeatureStore(self.folder / "cache")
        source = FeatureSource(
            make_model(self.folder), PREPROCESSING, store, torch.device("cpu"), self.reported.append
        )
        return source(volume or self.volume), source

    def assert_right(self, features: VolumeFeatures) -> None:
        self.assertEqual(len(features.levels), len(self.levels))
        for level, expected in zip(features.levels, self.levels, strict=True):
            np.testing.assert_array_equal(level, expected)
        meta = json.loads(self.whole["meta.json"])
        self.assertEqual(list(features.scales), meta["scales"])
        self.assertEqual(list(features.strides), meta["strides"])
        self.assertEqual(list(features.shape), meta["shape"])

    def warnings(self) -> list[str]:
        return [event["message"] for event in self.reported if event["event"] == "warning"]


class Damage(OneEntry):
    """Whatever happens to an entry, what is given is what the backbone gives."""

    def test_a_whole_entry_is_taken_as_it_is(self) -> None:
        features, source = self.ask()
        self.assert_right(features)
        self.assertEqual((source.passes, source.hits, self.warnings()), (0, 1, []))

    def test_every_accident_is_found_reported_and_mended(self) -> None:
        for name, harm in accidents(self.other).items():
            with self.subTest(name):
                harm(self.entry)
                features, source = self.ask()
                self.assertEqual(source.passes, 1)
                self.assert_right(features)
                (warning,) = self.warnings()
                self.assertRegex(warning, r"are damaged \(.+\); they are computed anew")
                features, source = self.ask()
                self.assertEqual((source.passes, self.warnings()), (0, []))
                self.assert_right(features)

    def test_a_flipped_bit_anywhere(self) -> None:
        """200 places drawn over all files of the entry, each by its size."""
        draw = random.Random(0)
        places = [(n, bit) for n, data in self.whole.items() for bit in range(8 * len(data))]
        store = FeatureStore(self.folder / "cache")
        for name, bit in draw.sample(places, 200):
            flip(self.entry / name, bit)
            checksums.forget()
            with self.subTest(name, bit=bit):
                self.assertIsNone(store.get(self.entry.name))
            (self.entry / name).write_bytes(self.whole[name])
        checksums.forget()
        self.assertIsNotNone(store.get(self.entry.name))

    def test_an_entry_from_before_checksums_is_absent(self) -> None:
        meta = json.loads(self.whole["meta.json"])
        old = {key: meta[key] for key in ("scales", "strides", "shape")}
        (self.entry / "meta.json").write_text(json.dumps(old))
        features, source = self.ask()
        self.assertEqual((source.passes, self.warnings()), (1, []))
        self.assert_right(features)

    def test_a_disk_that_fails_to_read_is_damage(self) -> None:
        with mock.patch.object(
            checksums, "_block_crc", side_effect=OSError(5, "Input/output error")
        ):
            self.assertIsNone(self.get(reported := []))
        self.assertEqual(reported, ["Input/output error"])

    def get(self, reported: list[str]) -> VolumeFeatures | None:
        checksums.forget()
        store = FeatureStore(self.folder / "cache")
        return store.get(self.entry.name, damaged=reported.append)

    def test_verifying_can_be_stopped(self) -> None:
        def stop() -> None:
            raise Cancelled("Stopped.")

        checksums.forget()
        with self.assertRaises(Cancelled):
            FeatureStore(self.folder / "cache").get(self.entry.name, stop)

    def test_a_process_reads_an_entry_once(self) -> None:
        """What it has verified, or written itself, is read again only once it has changed."""
        store = FeatureStore(self.folder / "cache")
        with mock.patch.object(checksums, "_block_crc", wraps=checksums._block_crc) as read:
            store.get(self.entry.name)
            self.assertEqual(read.call_count, 0)  # written by this process
            checksums.forget()
            store.get(self.entry.name)
            self.assertEqual(read.call_count, 3)
            FeatureStore(self.folder / "cache").get(self.entry.name)
            self.assertEqual(read.call_count, 3)
            later = time.time() + 10
            os.utime(self.entry / "level1.npy", (later, later))
            store.get(self.entry.name)
            self.assertEqual(read.call_count, 4)

    def test_blocks_are_separated(self) -> None:
        """Large files are summed in several blocks; each counts, and so does their order."""
        paths = [self.folder / "large", self.folder / "small", self.folder / "none"]
        data = np.random.default_rng(0).bytes(1000)
        for path, content in zip(paths, (data, data[:100], b""), strict=True):
            path.write_bytes(content)
        with mock.patch.object(checksums, "BLOCK", 300), mock.patch.object(checksums, "PIECE", 70):
            checksums.forget()
            sums = checksums.file_sums(paths)
            self.assertEqual([s["bytes"] for s in sums], [1000, 100, 0])
            self.assertEqual([len(s["crc32"]) // 8 for s in sums], [4, 1, 0])
            checksums.require_sums(dict(zip(paths, sums, strict=True)))
            for other in (data[300:600] + data[:300] + data[600:], data[:999] + b"\0"):
                paths[0].write_bytes(other)
                checksums.forget()
                with self.assertRaises(checksums.Damaged):
                    checksums.require_sums({paths[0]: sums[0]})


class Waiting(OneEntry):
    """For another process that computes the same features."""

    def test_it_is_reported_once_after_two_seconds(self) -> None:
        store = FeatureStore(self.folder / "cache")
        reported, clock, asked = [], iter(np.arange(0, 100, 0.5)), []

        def check() -> None:
            asked.append(len(reported))
            if len(asked) == 8:
                raise Cancelled("Stopped.")

        with (
            mock.patch.object(locks, "WAIT_SECONDS", 0.001),
            mock.patch.object(locks, "monotonic", lambda: float(next(clock))),
            store.lock("a"),
            self.assertRaises(Cancelled),
            store.lock("a", check, lambda: reported.append(1)),
        ):
            self.fail("two hold one lock")
        self.assertEqual(reported, [1])
        self.assertEqual(asked, [0, 0, 0, 0, 1, 1, 1, 1])  # 0.5, 1.0, 1.5, 2.0 s: reported after it

    def test_the_event_is_a_line_for_people(self) -> None:
        with (
            mock.patch.object(locks, "WAIT_SECONDS", 0.001),
            mock.patch.object(locks, "TELL_SECONDS", 0.0),
        ):
            store = FeatureStore(self.folder / "cache")
            events: list[dict[str, Any]] = []

            def stop() -> None:
                if events:
                    raise Cancelled("Stopped.")

            source = FeatureSource(
                make_model(self.folder),
                PREPROCESSING,
                store,
                torch.device("cpu"),
                events.append,
                stop,
            )
            with store.lock(self.entry.name), self.assertRaises(Cancelled):
                source(self.volume)
        (event,) = events
        self.assertEqual((event["event"], event["phase"]), ("waiting", "features"))
        stream = io.StringIO()
        Progress(stream)(event)
        self.assertEqual(
            stream.getvalue(), "Another process computes these features; waiting for it to end.\n"
        )


class SameSegmentation(TinyWorld):
    """The end of it all: a damaged cache gives the segmentation of an empty one."""

    def test_as_with_an_empty_cache(self) -> None:
        trained = adapt(
            [s.paths for s in self.supports],
            structures=STRUCTURES,
            model=str(self.model),
            settings=QUICK,
            runtime=self.runtime,
        )
        cache = self.folder / "cache"
        runtime = Runtime("cpu", cache)

        def labels() -> np.ndarray:
            checksums.forget()
            usual = {"model": str(self.model), "runtime": runtime, "transductive": False}
            return segment(trained, self.query.image, None, **usual).labels

        expected = labels()
        (entry,) = (path for path in cache.iterdir() if path.is_dir())
        segment(trained, self.supports[0].image, None, model=str(self.model), runtime=runtime)
        (other,) = (path for path in cache.iterdir() if path.is_dir() and path != entry)
        for name, harm in accidents(other).items():
            with self.subTest(name):
                harm(entry)
                np.testing.assert_array_equal(labels(), expected)


if __name__ == "__main__":
    unittest.main()
