"""White-box methods from files to files."""

from __future__ import annotations

import copy
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import safetensors
import torch
from tiny_model import STRUCTURES, TinyWorld, run, write_patient
from tuning_case import QUICK, choices

from FewShotSegLib.core.adapter_header import EVIDENCE_FORMAT
from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import Cancelled, InputError
from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.methods.tuned_model import TunedNetwork
from FewShotSegLib.methods.tunings import TUNINGS
from FewShotSegLib.models.registry import Model, find_model
from FewShotSegLib.pipeline import adapt, read_support, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter, read_metadata
from FewShotSegLib.training import checkpoint
from FewShotSegLib.training.recipes import default_settings


class WholeJob(TinyWorld):
    """From files to files."""

    def adapt(self, **options) -> TrainedAdapter:
        return adapt(
            [support.paths for support in self.supports],
            **{
                "structures": STRUCTURES,
                "model": str(self.model),
                "settings": QUICK,
                "runtime": self.runtime,
                **options,
            },
        )

    def segment(self, adapter: TrainedAdapter, **options):
        return segment(
            adapter, self.query.image, model=str(self.model), runtime=self.runtime, **options
        )

    def dice(self, result) -> list[float]:
        wanted = [Structure("bean", 4), Structure("pea", 5)]
        truth = read_support(*self.query.paths, wanted).annotation
        return [dice(truth.mask(s.name), result.masks[s.name]) for s in wanted]

    def test_full_fine_tuning_and_scratch_find_structures(self) -> None:
        # With the small model's trivial batch statistics the backbone bears small steps only.
        for method, rate in (("ft", 0.005), ("scratch", 0.01)):
            with self.subTest(method):
                settings = replace(QUICK, epochs=40, learning_rate=rate)
                trained = self.adapt(method=method, settings=settings)
                self.assertGreater(min(self.dice(self.segment(trained))), 0.6)

    def test_memory_and_file_agree(self) -> None:
        path = self.folder / "a.fseft"
        trained = self.adapt(out=path, method="ft", settings=replace(QUICK, epochs=2))
        loaded = TrainedAdapter.load(path)
        self.assertEqual(loaded.content_sha256(), trained.content_sha256())
        np.testing.assert_array_equal(self.segment(trained).labels, self.segment(loaded).labels)

    def test_only_what_is_trained_is_stored(self) -> None:
        path = self.folder / "a.fseft"
        for tuning in choices():
            settings = replace(QUICK, epochs=1, steps_per_epoch=1)
            trained = self.adapt(
                out=path, method=tuning.name, decoder=tuning.decoder, settings=settings
            )
            backbone = copy.deepcopy(find_model(str(self.model)).backbone)
            tuning.apply(backbone, find_model(str(self.model)).entry.build)
            wanted = {f"backbone.{name}" for name in tuning.trained_tensors(backbone)}
            with safetensors.safe_open(path, "pt") as file:
                self.assertEqual(set(file.keys()) - set(trained.adapter.state_dict()), wanted)
            data = read_metadata(path)
            self.assertEqual((data["format"], data["decoder"]), (2, tuning.decoder))
            numbers = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
            numbers += trained.adapter.trained_parameters()
            self.assertEqual(data["trained_parameters"], numbers)

    def test_adapters_files_are_as_before(self) -> None:
        path = self.folder / "a.fseft"
        self.adapt(out=path, settings=replace(QUICK, epochs=1))
        data = read_metadata(path)
        self.assertEqual(data["format"], EVIDENCE_FORMAT)
        self.assertNotIn("decoder", data)

    def test_the_store_never_serves_frozen_features_for_a_trained_backbone(self) -> None:
        runtime = replace(self.runtime, cache=self.folder / "cache")
        frozen = self.adapt(method="linear-probe", runtime=runtime)
        options = {"model": str(self.model), "runtime": runtime}
        query = self.query.image
        self.assertEqual(segment(frozen, query, **options).report["backbone_passes"], 1)
        short = replace(QUICK, epochs=1)
        one = self.adapt(method="ft", settings=short, runtime=runtime)
        two = self.adapt(method="ft", settings=short, seed=1, runtime=runtime)
        for trained, passes in ((one, 1), (one, 0), (two, 1), (frozen, 0)):
            report = segment(trained, query, **options).report
            self.assertEqual(report["backbone_passes"], passes)

    def test_a_known_structure_starts_as_the_models_own_class(self) -> None:
        still = replace(QUICK, epochs=1, steps_per_epoch=1, learning_rate=1e-12)
        model: Model = find_model(str(self.model))
        image = torch.rand(1, 1, 16, 16, 16)
        weight, bias = model.class_head("kidney_left")
        expected = torch.einsum("c,bcijk->bijk", weight, model.backbone.features(image)[0]) + bias
        for decoder, known in (("tuned", True), ("new", False)):
            trained = self.adapt(
                method="ft", decoder=decoder, structures="4=Left kidney,5=pea", settings=still
            )
            self.assertEqual(bool(trained.training["started_from_classes"]), known)
            network = TunedNetwork(model, TUNINGS["ft"](decoder), trained.adapter)
            network.tuning.load(network.backbone, trained.tuned)
            with torch.no_grad():
                score = network.eval().scores(image)[:, 0]
            same = torch.allclose(score, expected, atol=1e-3)
            self.assertEqual(same, known)

    def test_the_head_alone_is_refined(self) -> None:
        trained = self.adapt(method="ft")
        before = {name: tensor.clone() for name, tensor in trained.tuned.items()}
        result = self.segment(trained, priors_ml={"bean": 1.0}, gamma=0.1)
        change = result.report["structures"]["bean"]["transduction"]
        self.assertGreater(result.report["refined_epochs"], 0)
        self.assertLess(change["soft_size_after_ml"], 0.98 * change["soft_size_before_ml"])
        for name, tensor in trained.tuned.items():
            self.assertTrue(torch.equal(tensor, before[name]))

    def test_what_has_no_meaning_is_reported(self) -> None:
        for options, telling in (
            (
                {"method": "ft", "query": self.query.image},
                "'segment' refines what is on the features",
            ),
            ({"method": "adapter", "decoder": "tuned"}, "leaves the whole backbone frozen"),
            ({"method": "scratch", "decoder": "tuned"}, "'scratch' the decoder is new"),
            ({"method": "magic"}, "no method 'magic'. Known: .*scratch"),
        ):
            with self.assertRaisesRegex(InputError, telling):
                self.adapt(**options)

    def test_resumed_equals_uninterrupted(self) -> None:
        for method in ("ft", "scratch"):
            with self.subTest(method), mock.patch.object(checkpoint, "SAVE_EVERY_SECONDS", 0.0):
                out = self.folder / f"{method}.fseft"
                settings = replace(QUICK, epochs=6, steps_per_epoch=2)
                whole = self.adapt(method=method, settings=settings)
                asked = 0

                def cancel() -> bool:
                    nonlocal asked
                    asked += 1
                    return asked > 400

                stopping = replace(self.runtime, cancel=cancel)
                with self.assertRaises(Cancelled):
                    self.adapt(method=method, settings=settings, out=out, runtime=stopping)
                self.assertTrue(Path(f"{out}.partial").exists())
                resumed = self.adapt(method=method, settings=settings, out=out, resume=True)
                self.assertEqual(resumed.content_sha256(), whole.content_sha256())

    def test_the_command(self) -> None:
        path, out = self.folder / "a.fseft", self.folder / "out.nii.gz"
        more = ("--method", "ft", "--decoder", "new")
        ran = run(*self.adapt_arguments(path, *more, epochs=1))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertIn("ft, decoder new over 3 feature level(s), ", ran.out)
        trained = TrainedAdapter.load(path)
        settings = replace(default_settings("ft"), epochs=1, learning_rate=0.02)
        self.assertEqual(trained.training["settings"], settings.to_json())
        ran = run(*self.segment_arguments(path, out, str(self.query.image)))
        self.assertEqual(ran.status, 0, ran.err)
        ran = run(*self.adapt_arguments(path, "--decoder", "new", epochs=1))
        self.assertEqual(ran.status, 2)
        self.assertIn("leaves the whole backbone frozen", ran.err)

    def test_partial_labels(self) -> None:
        partly = write_patient(self.folder, "partly", 2, annotated=[4])
        trained = adapt(
            [self.supports[0].paths, partly.paths],
            structures=STRUCTURES,
            model=str(self.model),
            method="ft",
            settings=replace(QUICK, epochs=2),
            runtime=self.runtime,
        )
        self.assertEqual(trained.priors["pea"].count, 1)


if __name__ == "__main__":
    unittest.main()
