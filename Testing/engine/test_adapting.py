"""The Python API from supports to an adapter: reproducible, and resumed after a stop."""

from __future__ import annotations

import os
import unittest
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from pipeline_case import VALUES, PipelineTestCase, state_bytes
from tiny_model import (
    QUICK,
    write_patient,
)

import FewShotSegLib
from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import Cancelled, InputError
from FewShotSegLib.inference.tiles import box_scores
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline import Runtime, adapt, read_support, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.training import checkpoint


class Training(PipelineTestCase):
    """From supports to an adapter."""

    def test_the_same_seed_gives_the_same_adapter_and_result(self) -> None:
        again = self.adapt()
        self.assertEqual(state_bytes(again), state_bytes(self.trained))
        self.assertEqual(again.content_sha256(), self.trained.content_sha256())
        np.testing.assert_array_equal(
            self.segment(adapter=again).labels, self.segment(adapter=self.trained).labels
        )

    def test_another_seed_gives_another_adapter(self) -> None:
        other = self.adapt(seed=1, settings=replace(QUICK, epochs=1))
        first = self.adapt(seed=0, settings=replace(QUICK, epochs=1))
        self.assertNotEqual(state_bytes(other), state_bytes(first))

    def test_the_backbone_runs_once_for_each_volume(self) -> None:
        runtime = Runtime("cpu", self.folder / "cache")
        first = self.adapt(runtime=runtime, settings=replace(QUICK, epochs=1))
        self.assertEqual(first.training["backbone_passes"], len(self.supports))
        others = {
            "method": "linear-probe",
            "features": "last",
            "seed": 3,
            "gamma": 0.1,
            "settings": replace(QUICK, epochs=2, learning_rate=0.1),
        }
        second = self.adapt(runtime=runtime, **others)
        self.assertEqual(second.training["backbone_passes"], 0)
        self.assertEqual(second.training["backbone_seconds"], 0)
        new, known = self.query.image, self.supports[0].image
        for query, passes in ((new, 1), (new, 0), (known, 0)):
            report = self.segment(query, adapter=first, runtime=runtime).report
            self.assertEqual(report["backbone_passes"], passes)

    def test_supports_in_memory_are_as_good_as_their_files(self) -> None:
        wanted = [Structure("bean", 4), Structure("pea", 5)]
        supports = [read_support(*s.paths, wanted) for s in self.supports]
        self.assertEqual(
            self.adapt(*supports, structures=wanted).content_sha256(),
            self.trained.content_sha256(),
        )

    def test_the_public_names_are_these(self) -> None:
        self.assertIs(FewShotSegLib.adapt, adapt)
        self.assertIs(FewShotSegLib.segment, segment)

    def test_every_method_and_its_features(self) -> None:
        sizes = {}
        for method in ("linear-probe", "adapter", "adapter-1x1"):
            for features in ("multi", "last"):
                trained = self.adapt(
                    method=method, features=features, settings=replace(QUICK, epochs=1)
                )
                self.assertEqual((trained.method, trained.features), (method, features))
                sizes[method, features] = trained.adapter.trained_parameters()
                self.segment(adapter=trained, transductive=False)
            self.assertLess(sizes[method, "last"], sizes[method, "multi"])
        self.assertLess(sizes["linear-probe", "multi"], sizes["adapter-1x1", "multi"])
        self.assertLess(sizes["adapter-1x1", "multi"], sizes["adapter", "multi"])
        with self.assertRaisesRegex(InputError, "no method 'magic'. Known: adapter, linear-probe"):
            self.adapt(method="magic")

    def test_what_was_not_annotated_is_unknown(self) -> None:
        """In half of the supports the pea is there, but nobody drew it."""
        whole = [s.paths for s in self.supports]
        partly = [write_patient(self.folder, f"p{n}", n, annotated=[4]).paths for n in (2, 3)]
        trained = self.adapt(*whole, *partly)
        self.assertEqual(trained.priors["pea"].count, 2)
        self.assertEqual(trained.priors["bean"].count, 4)
        self.assertEqual(
            [set(s["sizes_mm3"]) for s in trained.supports], [{*VALUES}] * 2 + [{"bean"}] * 2
        )
        self.assert_found(self.segment(adapter=trained), self.query)

    def test_all_structures_are_learnt_where_none_is_named(self) -> None:
        trained = self.adapt(structures=None, settings=replace(QUICK, epochs=1))
        self.assertEqual(
            [(s.name, s.value) for s in trained.structures], [("label_4", 4), ("label_5", 5)]
        )

    def test_a_known_structure_starts_as_the_models_own_class(self) -> None:
        still = replace(QUICK, epochs=1, steps_per_epoch=1, learning_rate=1e-12)
        trained = self.adapt(structures="4=Left kidney,5=pea", settings=still)
        self.assertEqual(trained.training["started_from_classes"], {"Left kidney": "kidney_left"})
        model = find_model(str(self.model))
        preprocessing = model.entry.preprocessing["CT"]
        features = self.runtime.source(model, preprocessing)(read_image(self.query.image))
        box = tuple(slice(0, n) for n in features.shape)
        cpu = torch.device("cpu")
        with torch.no_grad():
            scores = box_scores(trained.adapter, features, box, cpu)[0]
        weight, bias = model.class_head("kidney_left")
        finest = torch.from_numpy(features.levels[0][(slice(None), *box)].astype(np.float32))
        expected = torch.einsum("c,cijk->ijk", weight, finest) + bias
        torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-3)

    def test_joint_training_follows_the_querys_size(self) -> None:
        epochs: list[dict[str, Any]] = []

        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "epoch":
                epochs.append(event)

        joint = self.adapt(
            query=self.query.image, runtime=replace(self.runtime, events=listen), gamma=0.0
        )
        self.assertTrue(joint.training["joint_query"])
        self.assertFalse(self.trained.training["joint_query"])
        half = QUICK.epochs // 2
        self.assertEqual(
            ["sizes_ml" in event for event in epochs],
            [False] * half + [True] * (QUICK.epochs - half),
        )
        self.assertEqual(set(epochs[-1]["bounds_ml"]), set(VALUES))
        self.assertNotEqual(state_bytes(joint), state_bytes(self.adapt(gamma=0.0)))
        self.assert_found(self.segment(adapter=joint), self.query)


class Interrupted(PipelineTestCase):
    """Cancelled in the middle, and gone on with."""

    def setUp(self) -> None:
        super().setUp()
        every_epoch = mock.patch.object(checkpoint, "SAVE_EVERY_SECONDS", 0.0)
        every_epoch.start()
        self.addCleanup(every_epoch.stop)
        self.out = self.folder / "a.fseft"
        self.epochs: list[int] = []

    def listen(self, event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            self.epochs.append(event["epoch"])

    def cancel_after(self, epochs: int, **options: Any) -> None:
        runtime = replace(
            self.runtime, events=self.listen, cancel=lambda: len(self.epochs) >= epochs
        )
        with self.assertRaises(Cancelled):
            self.adapt(out=self.out, runtime=runtime, **options)
        self.assertEqual(self.epochs, list(range(1, epochs + 1)))
        self.epochs.clear()

    def resume(self, **options: Any) -> TrainedAdapter:
        runtime = replace(self.runtime, events=self.listen)
        return self.adapt(out=self.out, runtime=runtime, resume=True, **options)

    def test_a_resumed_run_ends_as_one_that_was_never_interrupted(self) -> None:
        self.out.write_bytes(b"old")
        self.cancel_after(7)
        self.assertEqual(sorted(os.listdir(self.folder)), ["a.fseft", "a.fseft.partial"])
        self.assertEqual(self.out.read_bytes(), b"old")
        resumed = self.resume()
        self.assertEqual(self.epochs, list(range(8, QUICK.epochs + 1)))
        self.assertEqual(state_bytes(resumed), state_bytes(self.trained))
        self.assertEqual(resumed.content_sha256(), self.trained.content_sha256())
        self.assertEqual(os.listdir(self.folder), ["a.fseft"])
        self.assertEqual(
            TrainedAdapter.load(self.out).content_sha256(), self.trained.content_sha256()
        )

    def test_joint_training_is_resumed_as_well(self) -> None:
        query = self.query.image
        whole = self.adapt(query=query)
        self.cancel_after(13, query=query)
        resumed = self.resume(query=query)
        self.assertGreater(self.epochs[0], 1)
        self.assertEqual(resumed.content_sha256(), whole.content_sha256())

    def test_without_resume_it_starts_anew(self) -> None:
        self.cancel_after(7)
        again = self.adapt(out=self.out, runtime=replace(self.runtime, events=self.listen))
        self.assertEqual(self.epochs[0], 1)
        self.assertEqual(again.content_sha256(), self.trained.content_sha256())
        self.assertEqual(os.listdir(self.folder), ["a.fseft"])

    def test_resuming_what_was_never_begun_is_a_usual_run(self) -> None:
        self.assertEqual(self.resume().content_sha256(), self.trained.content_sha256())

    def test_another_recipe_is_not_gone_on_with(self) -> None:
        self.cancel_after(2)
        kept = (self.folder / "a.fseft.partial").read_bytes()
        for options in (
            {"seed": 1},
            {"gamma": 0.7},
            {"method": "linear-probe"},
            {"settings": replace(QUICK, epochs=5)},
            {"structures": "4=bean"},
        ):
            with self.subTest(options), self.assertRaisesRegex(InputError, "other supports or"):
                self.resume(**options)
        self.assertEqual((self.folder / "a.fseft.partial").read_bytes(), kept)

    def test_a_damaged_checkpoint_is_reported(self) -> None:
        (self.folder / "a.fseft.partial").write_bytes(b"garbage")
        with self.assertRaisesRegex(InputError, "checkpoint .*a.fseft.partial is damaged"):
            self.resume()

    def test_a_cancelled_segmentation_writes_nothing(self) -> None:
        phases: list[str] = []

        def listen(event: dict[str, Any]) -> None:
            phases.append(event.get("phase", ""))

        for phase in ("features", "segment", "refine"):
            phases.clear()
            runtime = Runtime(
                "cpu", self.folder / phase, events=listen, cancel=lambda p=phase: p in phases
            )
            with self.subTest(phase), self.assertRaises(Cancelled):
                self.segment(out=self.folder / "x.nii.gz", runtime=runtime, priors_ml={"pea": 9})
            self.assertFalse((self.folder / "x.nii.gz").exists())
            self.assertFalse((self.folder / "report.json").exists())


if __name__ == "__main__":
    unittest.main()
