"""Features: the name of an entry, and a backbone that runs once for each volume."""

from __future__ import annotations

import io
import json
import multiprocessing
import time
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from feature_case import InFolder, source_of
from tiny import (
    PREPROCESSING,
    make_backbone,
    make_model,
    make_volume,
)
from torch import nn

from FewShotSegLib.cli.progress import Progress
from FewShotSegLib.core.errors import Cancelled, InputError
from FewShotSegLib.core.geometry import Volume
from FewShotSegLib.features.extraction import (
    FeatureSource,
    feature_key,
)
from FewShotSegLib.features.sliding_window import place_windows
from FewShotSegLib.features.store import VolumeFeatures
from FewShotSegLib.models.registry import Model


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

    def test_progress_is_reported_by_window(self) -> None:
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
        (reported,) = self.estimates(self.source, volumes, 20.0)
        windows = place_windows(PREPROCESSING.place(volumes[0].grid).shape, (16,) * 3, 0.25, 4)
        self.assertGreater(windows.count, 2)
        self.assertEqual((reported["windows"], reported["volumes"]), (2 * windows.count, 2))
        self.assertEqual(reported["window_seconds"], 20.0)
        self.assertEqual(reported["seconds"], 20.0 * (2 * windows.count - 1))
        self.assertEqual((reported["phase"], reported["device"]), ("features", "cpu"))
        stored = [self.source(volume) for volume in (volumes[0], volumes[2])]
        on_disk = sum(level.nbytes for features in stored for level in features.levels)
        self.assertEqual(reported["bytes"], on_disk)
        # Before all but the first window.
        before = self.events[: self.events.index(reported)]
        done = [event["done"] for event in before if event["event"] == "progress"]
        self.assertEqual(done, [0])
        json.dumps(reported)

    def test_what_a_first_window_sets_up_is_not_taken_for_work(self) -> None:
        events: list[dict[str, Any]] = []
        volume = make_volume(1, (40, 40, 40))
        now = 0.0

        def hear(event: dict[str, Any]) -> None:
            """The first window takes 4.5 s from when it is announced, every other 2 s."""
            nonlocal now
            events.append(event)
            if event["event"] == "progress":
                now += 2.0 if event["done"] else 4.5

        self.source.events, self.source.upcoming = hear, [volume]
        with mock.patch("FewShotSegLib.features.extraction.time.perf_counter", lambda: now):
            self.source(volume)
        (reported,) = (event for event in events if event["event"] == "estimate")
        self.assertEqual(reported["window_seconds"], 2.0)
        self.assertEqual(reported["seconds"], 2.0 * (reported["windows"] - 2))
        before = events[: events.index(reported)]
        done = [event["done"] for event in before if event["event"] == "progress"]
        self.assertEqual(done, [0, 1])

    def test_a_quick_backbone_is_not_announced(self) -> None:
        volumes = [make_volume(n, (19, 14, 20)) for n in range(3)]
        self.assertEqual(self.estimates(self.source, volumes, 1.0), [])
        self.assertEqual(self.estimates(self.source, volumes, 1000.0), [])  # all stored by now

    def test_a_cache_that_is_too_small_for_slow_work_is_said(self) -> None:
        self.source.store.max_bytes = 1000
        volumes = [make_volume(n, (19, 14, 20)) for n in range(2)]
        reported, warning = self.estimates(self.source, volumes, 20.0)
        self.assertGreater(reported["bytes"], 1000)
        self.assertIn("--cache-size 1 ", warning["message"])

    def test_the_estimate_on_a_terminal(self) -> None:
        for seconds, text in ((61.0, "61 s"), (733.0, "12 min"), (4200.0, "1 h 10 min")):
            self.source.store.clear()
            (reported,) = self.estimates(self.source, [make_volume(1, (19, 14, 20))], 20.0)
            stream = io.StringIO()
            progress = Progress(stream)
            progress({"event": "phase", "phase": "features", "subject": "query"})
            progress({**reported, "seconds": seconds})
            first, line = stream.getvalue().splitlines()
            self.assertEqual(first, "foundation model: query")
            self.assertIn(f"about {text} for {reported['windows']} windows of 1 volume", line)
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

    def test_two_processes_that_ask_together_run_the_backbone_once(self) -> None:
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


if __name__ == "__main__":
    unittest.main()
