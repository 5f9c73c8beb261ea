"""Features: seamless windows, and a store that runs the backbone once and loses nothing."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import shutil
import tempfile
import time
import unittest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from filelock import FileLock
from monai.inferers import sliding_window_inference
from tiny import (
    FILTERS,
    PREPROCESSING,
    STRIDES,
    OneThread,
    make_backbone,
    make_model,
    make_volume,
)
from torch import Tensor, nn

from FewShotSegLib.cli.progress import Progress
from FewShotSegLib.core.errors import Cancelled, InputError, StorageError
from FewShotSegLib.core.events import ignore
from FewShotSegLib.core.geometry import Volume
from FewShotSegLib.features import writer as feature_writer
from FewShotSegLib.features.extraction import (
    FeatureSource,
    choose_device,
    feature_key,
    stream_features,
)
from FewShotSegLib.features.sliding_window import Windows, blend_windows, place_windows
from FewShotSegLib.features.store import FeatureStore, VolumeFeatures
from FewShotSegLib.models.backbones.base import Backbone
from FewShotSegLib.models.registry import Model

CPU = torch.device("cpu")


def extract_features(
    backbone: Backbone,
    image: Tensor,
    window: tuple[int, int, int],
    overlap: float,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> list[Tensor]:
    """The whole levels (channels, i, j, k), of slabs that come in order and once each."""
    windows = place_windows(image.shape[2:], window, overlap, max(backbone.strides))
    slabs: list[list[Tensor]] = [[] for _ in backbone.channels]

    def write(number: int, first: int, planes: Tensor) -> None:
        assert first == sum(slab.shape[1] for slab in slabs[number])
        assert planes.dtype == torch.float32
        slabs[number].append(planes.clone())

    stream_features(backbone, image, windows, CPU, write, on_window)
    return [torch.cat(slab, 1) for slab in slabs]


class FullPrecision(OneThread):
    """Bit-exactness would otherwise depend on what the machine computes fast."""

    def setUp(self) -> None:
        patch = mock.patch("FewShotSegLib.compute.precision.fast_dtype", return_value=None)
        patch.start()
        self.addCleanup(patch.stop)


class InFolder(FullPrecision):
    """With a folder of its own."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.store = FeatureStore(self.folder / "cache")

    def entries(self) -> set[str]:
        """Names of what the store's folder holds beside locks."""
        return {p.name for p in self.store.folder.iterdir() if p.suffix != ".lock"}


class SmallSight(Backbone):
    """A backbone whose levels see a voxel of theirs alone, or with its nearest neighbours."""

    channels = (2, 3, 4)
    strides = (1, 2, 4)

    def __init__(self, kernel: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(
            nn.Conv3d(1, c, kernel, padding=kernel // 2) for c in self.channels
        )

    def features(self, image: Tensor) -> list[Tensor]:
        return [
            conv(nn.functional.avg_pool3d(image, stride))
            for conv, stride in zip(self.convs, self.strides, strict=True)
        ]

    def head_weights(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 2), torch.zeros(1)


class SlidingWindow(FullPrecision):
    """One pass over a volume."""

    def setUp(self) -> None:
        super().setUp()
        self.generator = torch.Generator().manual_seed(0)

    def image(self, *shape: int) -> Tensor:
        return torch.randn(1, 1, *shape, generator=self.generator)

    def test_one_window_is_the_backbone_itself(self) -> None:
        backbone = make_backbone()
        image = self.image(16, 24, 8)
        with torch.inference_mode():
            expected = backbone.features(image)
        for window in ((16, 24, 8), (96, 96, 96), (14, 21, 7)):
            levels = extract_features(backbone, image, window, 0.25)
            self.assertEqual([level.dtype for level in levels], [torch.float32] * 3)
            for level, whole in zip(levels, expected, strict=True):
                torch.testing.assert_close(level, whole[0], atol=1e-5, rtol=1e-5)

    def test_sizes_need_not_be_multiples_of_the_stride(self) -> None:
        """The image is continued by its border, and every level covers all of it."""
        backbone = make_backbone()
        image = self.image(13, 18, 5)
        levels = extract_features(backbone, image, (32, 32, 32), 0.25)
        for level, channels, stride in zip(levels, FILTERS, STRIDES, strict=True):
            expected = (channels, 16 // stride, 20 // stride, 8 // stride)
            self.assertEqual(tuple(level.shape), expected)
        continued = nn.functional.pad(image, (0, 3, 0, 2, 0, 3), mode="replicate")
        with torch.inference_mode():
            expected = backbone.features(continued)
        for level, whole in zip(levels, expected, strict=True):
            torch.testing.assert_close(level, whole[0], atol=1e-5, rtol=1e-5)

    def errors(
        self, backbone: Backbone, window: tuple[int, int, int], overlap: float
    ) -> list[Tensor]:
        """How far each level is from that of the whole image at once, in its deviations."""
        backbone.eval().requires_grad_(False)
        image = self.image(41, 26, 50)
        padded = nn.functional.pad(image, (0, 2, 0, 2, 0, 3), mode="replicate")
        whole = [level[0] for level in backbone.features(padded)]
        levels = extract_features(backbone, image, window, overlap)
        self.assertEqual([level.shape for level in levels], [level.shape for level in whole])
        return [(a - b).abs() / b.std() for a, b in zip(levels, whole, strict=True)]

    def test_every_level_of_every_window_lies_in_its_place(self) -> None:
        """Where no voxel sees beyond its window, the result is that of the whole image."""
        for window, overlap in (((16, 16, 16), 0.5), ((24, 12, 20), 0.25), ((12, 28, 40), 0.7)):
            for error in self.errors(SmallSight(kernel=1), window, overlap):
                self.assertLess(float(error.max()), 1e-4)

    def test_window_borders_weigh_little(self) -> None:
        """There a network sees zeros instead of the neighbour; a Gaussian leaves little of it."""
        apart = self.errors(SmallSight(kernel=3), (16, 16, 16), 0.0)
        blended = self.errors(SmallSight(kernel=3), (16, 16, 16), 0.5)
        means = [(float(b.mean()), float(a.mean())) for a, b in zip(apart, blended, strict=True)]
        for b, a in means:
            self.assertLess(b, 0.7 * a)

    def test_a_network_that_sees_far_is_close_to_the_whole(self) -> None:
        """Much closer than to itself one voxel further."""
        backbone = make_backbone()
        image = self.image(48, 16, 16)
        with torch.inference_mode():
            whole = [level[0] for level in backbone.features(image)]
        levels = extract_features(backbone, image, (32, 16, 16), 0.5)
        for level, expected in zip(levels, whole, strict=True):
            error = (level - expected).square().mean()
            shifted = (level[:, 1:] - expected[:, :-1]).square().mean()
            self.assertLess(float(error), 0.1 * float(shifted))

    def test_windows_start_where_every_level_has_a_voxel(self) -> None:
        """Whatever the window and its overlap, all steps are multiples of the largest stride."""
        backbone = SmallSight(kernel=1).eval().requires_grad_(False)
        ramp = torch.arange(256.0).view(1, 1, -1, 1, 1).expand(-1, -1, -1, 4, 4).contiguous()
        for window in range(4, 129, 4):
            for overlap in (0.0, 0.25, 0.3, 0.5, 0.625, 0.8):
                starts = []
                counted = []
                features = SmallSight.features

                def record(self: SmallSight, image: Tensor, starts=starts, features=features):
                    starts.append(int(image[0, 0, 0, 0, 0]))
                    return features(self, image)

                with mock.patch.object(SmallSight, "features", record):
                    extract_features(
                        backbone,
                        ramp,
                        (window, 4, 4),
                        overlap,
                        lambda done, total, counted=counted: counted.append((done, total)),
                    )
                with self.subTest(window=window, overlap=overlap):
                    self.assertEqual([start % 4 for start in starts], [0] * len(starts))
                    expected = [(n, len(starts)) for n in range(len(starts) + 1)]
                    self.assertEqual(counted, expected)

    def test_it_is_the_sliding_window_of_monai(self) -> None:
        """Slab by slab as over the whole image at once, weights of coarser levels included."""
        backbone = make_backbone()
        image = self.image(44, 28, 52)
        for window in ((16, 12, 24), (24, 28, 20)):
            windows = place_windows(image.shape[2:], window, 0.25, 4)
            steps = [starts[1] if len(starts) > 1 else n for n, starts in self.rows(windows)]
            expected = sliding_window_inference(
                image,
                windows.side,
                1,
                lambda crop: tuple(backbone.features(crop)),
                overlap=[
                    max(0.0, 1 - (step + 0.5) / n)
                    for step, n in zip(steps, windows.side, strict=True)
                ],
                mode="gaussian",
            )
            self.assertGreater(windows.count, 8)
            for level, whole in zip(
                extract_features(backbone, image, window, 0.25), expected, strict=True
            ):
                torch.testing.assert_close(level, whole[0], atol=1e-5, rtol=1e-5)

    @staticmethod
    def rows(windows: Windows) -> list[tuple[int, tuple[int, ...]]]:
        return list(zip(windows.side, windows.starts, strict=True))

    def test_no_more_than_a_slab_is_handed_over(self) -> None:
        """What memory holds depends on the window, not on how long the image is."""
        planes = []
        windows = place_windows((160, 8, 8), (16, 8, 8), 0.25, 4)
        blend_windows(
            self.image(160, 8, 8),
            windows,
            SmallSight(1).requires_grad_(False).features,
            lambda number, first, values: planes.append((number, first, values.shape[1])),
        )
        finest = [(first, count) for number, first, count in planes if number == 0]
        self.assertEqual(finest, [(n * 12, 12) for n in range(12)] + [(144, 16)])

    def test_it_can_be_stopped_at_every_window(self) -> None:
        def stop(done: int, total: int) -> None:
            if done == 2:
                raise Cancelled("Stopped.")

        with self.assertRaises(Cancelled):
            extract_features(make_backbone(), self.image(40, 8, 8), (8, 8, 8), 0.0, stop)


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
            mock.patch("FewShotSegLib.core.locks.WAIT_SECONDS", 0.01),
            self.store.lock("a"),
            self.assertRaises(Cancelled),
            self.store.lock("a", check),
        ):
            self.fail("two hold one lock")
        self.assertEqual(len(asked), 2)
        with self.store.lock("a", check):
            pass


class Key(InFolder):
    """The name of an entry says all that its features depend on."""

    def test_it_changes_with_everything_that_matters(self) -> None:
        volume = make_volume()
        model = make_model(self.folder)
        brighter = volume.array.copy()
        brighter[3, 4, 5] += 1
        grid = volume.grid
        entry = model.entry
        keys = {
            "as it is": feature_key(volume, model, PREPROCESSING),
            "one voxel": feature_key(Volume(brighter, grid), model, PREPROCESSING),
            "dtype": feature_key(
                Volume(volume.array.astype(np.float64), grid), model, PREPROCESSING
            ),
            "mirrored array": feature_key(Volume(volume.array[::-1], grid), model, PREPROCESSING),
            "spacing": feature_key(
                Volume(volume.array, replace(grid, spacing=(2.0, 2.0, 3.5))), model, PREPROCESSING
            ),
            "direction": feature_key(
                Volume(volume.array, replace(grid, direction=(-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))),
                model,
                PREPROCESSING,
            ),
            "shape": feature_key(
                Volume(volume.array.reshape(14, 19, 10), replace(grid, shape=(14, 19, 10))),
                model,
                PREPROCESSING,
            ),
            "weights": feature_key(volume, make_model(self.folder, seed=1), PREPROCESSING),
            "intensity": feature_key(volume, model, replace(PREPROCESSING, high=98)),
            "model spacing": feature_key(
                volume, model, replace(PREPROCESSING, spacing=(2.0, 2.0, 2.5))
            ),
            "orientation": feature_key(volume, model, replace(PREPROCESSING, orientation="LPS")),
            "window": feature_key(
                volume, Model(replace(entry, window=(32, 16, 16))), PREPROCESSING
            ),
            "overlap": feature_key(volume, Model(replace(entry, overlap=0.5)), PREPROCESSING),
        }
        self.assertEqual(len(set(keys.values())), len(keys), keys)

    def test_it_does_not_change_with_what_does_not_matter(self) -> None:
        volume = make_volume()
        model = make_model(self.folder)
        expected = feature_key(volume, model, PREPROCESSING)
        self.assertEqual(
            feature_key(make_volume(), make_model(self.folder), PREPROCESSING), expected
        )
        in_another_order = Volume(np.asfortranarray(volume.array), volume.grid)
        self.assertEqual(feature_key(in_another_order, model, PREPROCESSING), expected)
        elsewhere = Volume(volume.array, replace(volume.grid, origin=(5.0, 6.0, 7.0)), "MR")
        self.assertEqual(feature_key(elsewhere, model, PREPROCESSING), expected)


def source_of(folder: Path, events: Callable[[dict[str, Any]], None] = ignore) -> FeatureSource:
    """A new source on a folder's store."""
    store = FeatureStore(folder / "cache")
    return FeatureSource(make_model(folder), PREPROCESSING, store, CPU, events)


def ask_in_another_process(folder: str, ask: Any, results: Any) -> None:
    """Say so, ask for the features of the volume that the parent is working on, and report."""
    torch.set_num_threads(1)
    source, volume = source_of(Path(folder)), make_volume()
    ask.set()
    features = source(volume)
    results.put((source.passes, source.hits, features.key))


class Source(InFolder):
    """The frozen backbone runs once for each volume."""

    def setUp(self) -> None:
        super().setUp()
        self.source = source_of(self.folder)

    def assert_same(self, one: VolumeFeatures, other: VolumeFeatures) -> None:
        for a, b in zip(one.levels, other.levels, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_features_are_those_of_the_backbone(self) -> None:
        volume = make_volume(shape=(15, 14, 10))
        features = self.source(volume)
        self.assertEqual(features.shape, (15, 14, 15))
        image, placement = PREPROCESSING(volume)
        self.assertEqual(features.shape, placement.shape)
        image = nn.functional.pad(image, (0, 1, 0, 2, 0, 1), mode="replicate")
        for array, level in zip(features.levels, make_backbone().features(image), strict=True):
            np.testing.assert_allclose(array, level[0].numpy(), rtol=2e-3, atol=2e-3)

    def test_a_second_call_runs_nothing(self) -> None:
        volume = make_volume()
        first = self.source(volume)
        self.assertEqual((self.source.passes, self.source.hits), (1, 0))
        with mock.patch("FewShotSegLib.features.extraction.stream_features") as extract:
            self.assert_same(self.source(volume), first)
            self.assertEqual((self.source.passes, self.source.hits), (1, 1))
            another = source_of(self.folder)
            self.assert_same(another(make_volume()), first)
            self.assertEqual((another.passes, another.hits), (0, 1))
            self.assertEqual(extract.call_count, 0)

    def test_another_volume_is_another_pass(self) -> None:
        first = self.source(make_volume())
        second = self.source(make_volume(seed=1))
        self.assertEqual((self.source.passes, self.source.hits), (2, 0))
        self.assertFalse(np.array_equal(first.levels[0], second.levels[0]))

    def test_a_damaged_entry_is_computed_again(self) -> None:
        volume = make_volume()
        first = self.source(volume)
        expected = [np.array(level) for level in first.levels]
        path = self.store.folder / first.key / "level2.npy"
        del first
        path.write_bytes(b"")
        again = self.source(volume)
        self.assertEqual((self.source.passes, self.source.hits), (2, 0))
        for array, level in zip(again.levels, expected, strict=True):
            np.testing.assert_array_equal(array, level)

    def test_progress_is_told_by_window(self) -> None:
        events: list[dict[str, Any]] = []
        source_of(self.folder, events.append)(make_volume(), "case 7")
        self.assertEqual(events[0]["event"], "phase")
        self.assertEqual(events[0]["subject"], "case 7")
        progress = [(e["done"], e["total"]) for e in events[1:]]
        self.assertEqual(progress, [(n, progress[0][1]) for n in range(len(progress))])
        self.assertEqual(progress[-1][0], progress[-1][1])
        json.dumps(events)

    def estimates(
        self, source: FeatureSource, volumes: list[Volume], window_seconds: float
    ) -> list[dict[str, Any]]:
        """What is said of a backbone that takes so long for a window."""
        events: list[dict[str, Any]] = []
        source.events, source.upcoming = events.append, volumes
        clock = iter(np.arange(10_000) * window_seconds)
        with mock.patch(
            "FewShotSegLib.features.extraction.time.perf_counter", lambda: float(next(clock))
        ):
            for volume in volumes:
                source(volume)
        self.events = events
        return [event for event in events if event["event"] in ("estimate", "warning")]

    def test_a_slow_backbone_is_announced_once_for_all_volumes_to_come(self) -> None:
        volumes = [make_volume(n, (19, 14, 20)) for n in range(3)]
        self.source(volumes[1])
        (told,) = self.estimates(self.source, volumes, 20.0)
        windows = place_windows(PREPROCESSING.place(volumes[0].grid).shape, (16,) * 3, 0.25, 4)
        self.assertGreater(windows.count, 2)
        self.assertEqual((told["windows"], told["volumes"]), (2 * windows.count, 2))
        self.assertEqual(told["window_seconds"], 20.0)
        self.assertEqual(told["seconds"], 20.0 * (2 * windows.count - 1))
        self.assertEqual((told["phase"], told["device"]), ("features", "cpu"))
        stored = [self.source(volume) for volume in (volumes[0], volumes[2])]
        on_disk = sum(level.nbytes for features in stored for level in features.levels)
        self.assertEqual(told["bytes"], on_disk)
        # Before all but the first window.
        before = self.events[: self.events.index(told)]
        done = [event["done"] for event in before if event["event"] == "progress"]
        self.assertEqual(done, [0])
        json.dumps(told)

    def test_what_a_first_window_sets_up_is_not_taken_for_work(self) -> None:
        events: list[dict[str, Any]] = []
        volume = make_volume(1, (40, 40, 40))
        now = 0.0

        def hear(event: dict[str, Any]) -> None:
            """The first window takes 4.5 s from when it is told, every other 2 s."""
            nonlocal now
            events.append(event)
            if event["event"] == "progress":
                now += 2.0 if event["done"] else 4.5

        self.source.events, self.source.upcoming = hear, [volume]
        with mock.patch("FewShotSegLib.features.extraction.time.perf_counter", lambda: now):
            self.source(volume)
        (told,) = (event for event in events if event["event"] == "estimate")
        self.assertEqual(told["window_seconds"], 2.0)
        self.assertEqual(told["seconds"], 2.0 * (told["windows"] - 2))
        before = events[: events.index(told)]
        done = [event["done"] for event in before if event["event"] == "progress"]
        self.assertEqual(done, [0, 1])

    def test_a_quick_backbone_is_not_announced(self) -> None:
        volumes = [make_volume(n, (19, 14, 20)) for n in range(3)]
        self.assertEqual(self.estimates(self.source, volumes, 1.0), [])
        self.assertEqual(self.estimates(self.source, volumes, 1000.0), [])  # all stored by now

    def test_a_cache_that_is_too_small_for_slow_work_is_said(self) -> None:
        self.source.store.max_bytes = 1000
        volumes = [make_volume(n, (19, 14, 20)) for n in range(2)]
        told, warning = self.estimates(self.source, volumes, 20.0)
        self.assertGreater(told["bytes"], 1000)
        self.assertIn("--cache-size 1 ", warning["message"])

    def test_the_estimate_on_a_terminal(self) -> None:
        for seconds, text in ((61.0, "61 s"), (733.0, "12 min"), (4200.0, "1 h 10 min")):
            self.source.store.clear()
            (told,) = self.estimates(self.source, [make_volume(1, (19, 14, 20))], 20.0)
            stream = io.StringIO()
            progress = Progress(stream)
            progress({"event": "phase", "phase": "features", "subject": "query"})
            progress({**told, "seconds": seconds})
            first, line = stream.getvalue().splitlines()
            self.assertEqual(first, "foundation model: query")
            self.assertIn(f"about {text} for {told['windows']} windows of 1 volume", line)
            self.assertIn("on this CPU, 20.0 s each. That is once: the features are cached.", line)

    def test_stopping_leaves_nothing(self) -> None:
        def stop() -> None:
            raise Cancelled("Stopped.")

        self.source.check = stop
        with self.assertRaises(Cancelled):
            self.source(make_volume())
        self.assertEqual(self.entries(), set())
        self.source.check = lambda: None
        self.source(make_volume())
        self.assertEqual(self.source.passes, 1)

    def test_features_that_are_not_finite_are_refused_and_not_stored(self) -> None:
        model = self.source.model
        model.backbone.head.weight.data.zero_()
        next(model.backbone.parameters()).data.fill_(torch.inf)
        with self.assertRaisesRegex(InputError, "no finite features"):
            self.source(make_volume())
        self.assertEqual(self.entries(), set())

    def test_two_processes_that_ask_at_once_run_the_backbone_once(self) -> None:
        """The other one asks while this one is in the middle of its pass."""
        context = multiprocessing.get_context("spawn")
        ask, results = context.Event(), context.Queue()
        arguments = (str(self.folder), ask, results)
        process = context.Process(target=ask_in_another_process, args=arguments)

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "phase":
                process.start()
                self.assertTrue(ask.wait(600), "the other process did not start")
                time.sleep(0.5)

        source = source_of(self.folder, on_event)
        features = source(make_volume())
        passes, hits, key = results.get(timeout=600)
        process.join(600)
        self.assertEqual((source.passes, source.hits), (1, 0))
        self.assertEqual((passes, hits, key), (0, 1, features.key))


class Device(unittest.TestCase):
    """Where to compute."""

    def test_names(self) -> None:
        self.assertEqual(choose_device("cpu"), CPU)
        self.assertIn(choose_device().type, ("cpu", "cuda"))
        for name in ("cuda:99", "abacus"):
            with self.subTest(name), self.assertRaisesRegex(InputError, f"no device '{name}'"):
                choose_device(name)


if __name__ == "__main__":
    unittest.main()
