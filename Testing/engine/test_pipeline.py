"""The Python API from supports to a result: right place, right labels, reproducible, reported."""

from __future__ import annotations

import gzip
import json
import os
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage
from tiny_model import (
    DIRECTIONS,
    QUICK,
    SHAPE,
    STRUCTURES,
    Patient,
    TinyWorld,
    make_grid,
    make_labels,
    make_values,
    write_array,
    write_patient,
)

import FewShotSegLib
from FewShotSegLib.core.annotation import Annotation, Structure
from FewShotSegLib.core.errors import Cancelled, InputError, ModelError
from FewShotSegLib.core.geometry import Grid
from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.inference.tiles import box_scores
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.results import write_segments
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline import Runtime, Segmentation, adapt, read_support, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.pipeline.inputs import looks_like
from FewShotSegLib.training import checkpoint
from FewShotSegLib.training.support_set import Support
from FewShotSegLib.training.transduction import RefinementSettings

VALUES = {"bean": 4, "pea": 5}


def state_bytes(trained: TrainedAdapter) -> dict[str, bytes]:
    """The adapter's numbers to the last bit."""
    return {k: v.cpu().numpy().tobytes() for k, v in trained.adapter.state_dict().items()}


def strict_json(path: Path) -> dict[str, Any]:
    """A JSON file, refusing the NaN and Infinity that Python would take."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


class PipelineTestCase(TinyWorld):
    """With an adapter that was trained on the supports."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.trained = cls.adapt()

    @classmethod
    def adapt(cls, *supports: Any, **options: Any) -> TrainedAdapter:
        """An adapter trained on these, or on the usual supports."""
        usual = {
            "structures": STRUCTURES,
            "model": str(cls.model),
            "settings": QUICK,
            "runtime": cls.runtime,
        }
        given = supports or [s.paths for s in cls.supports]
        return adapt(given, **{**usual, **options})

    def segment(
        self, query: Any = None, out: Path | None = None, adapter: Any = None, **options: Any
    ) -> Segmentation:
        """The query segmented with the usual adapter, or others."""
        usual = {"model": str(self.model), "runtime": self.runtime}
        query = self.query.image if query is None else query
        return segment(adapter or self.trained, query, out, **{**usual, **options})

    def assert_found(self, result: Segmentation, patient: Patient, at_least: float = 0.5) -> None:
        """Both structures are where they were drawn."""
        truth = read_image(patient.segmentation).array
        for name, value in VALUES.items():
            self.assertGreater(dice(result.masks[name], truth == value), at_least, name)


class OnTheQuerysGrid(PipelineTestCase):
    """A result lies on its query to the last bit, whatever the grid."""

    def test_every_grid(self) -> None:
        for name in DIRECTIONS:
            with self.subTest(name):
                patient = write_patient(self.folder, "x", 3, make_grid(name, (19, 24, 13)))
                out = self.folder / "x_seg.nii.gz"
                result = self.segment(patient.image, out, transductive=False)
                self.assertEqual(result.grid, read_image(patient.image).grid)
                query, written = (sitk.ReadImage(str(p)) for p in (patient.image, out))
                for numbers in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                    self.assertEqual(getattr(written, numbers)(), getattr(query, numbers)())
                headers = [gzip.decompress(p.read_bytes())[:348] for p in (patient.image, out)]
                for part in (slice(40, 56), slice(76, 92), slice(252, 328)):
                    self.assertEqual(headers[0][part], headers[1][part])

    def test_how_a_patient_is_stored_does_not_matter(self) -> None:
        """The same voxels along other axes, the other way, or slightly turned: the same result."""
        volume = read_image(self.query.image)
        expected = self.segment(transductive=False).labels
        turned = np.reshape(volume.grid.direction, (3, 3)) @ np.asarray(DIRECTIONS["oblique"]).T
        for axes in ((0, 1, 2), (2, 0, 1), (1, 0, 2)):
            for flips in ((False, False, False), (True, False, False), (True, False, True)):
                with self.subTest(axes=axes, flips=flips):
                    corner = [
                        n - 1 if flips[axes.index(a)] else 0
                        for a, n in enumerate(volume.grid.shape)
                    ]
                    signs = np.where(flips, -1, 1)
                    cut = tuple(slice(None, None, int(sign)) for sign in signs)
                    grid = Grid(
                        tuple(volume.grid.shape[a] for a in axes),
                        tuple(volume.grid.spacing[a] for a in axes),
                        tuple((turned @ (corner * np.asarray(volume.grid.spacing))).tolist()),
                        tuple((turned[:, axes] * signs).ravel().tolist()),
                    )
                    stored = volume.array.transpose(axes)[cut]
                    path = write_array(self.folder / "q.nii.gz", stored, grid)
                    result = self.segment(path, transductive=False)
                    np.testing.assert_array_equal(result.labels, expected.transpose(axes)[cut])

    def test_other_spacings_than_the_supports(self) -> None:
        grid = make_grid("left-handed")
        grid = replace(grid, spacing=(0.9, 2.9, 2.0), shape=(50, 15, 21))
        patient = write_patient(self.folder, "x", 4, grid)
        self.assert_found(self.segment(patient.image), patient)

    def test_label_values_are_those_of_the_structures(self) -> None:
        for extension in (".nii.gz", ".nrrd", ".mha"):
            out = self.folder / f"x{extension}"
            result = self.segment(out=out)
            labels = read_image(out).array
            np.testing.assert_array_equal(labels, result.labels)
            self.assertEqual(np.unique(labels).tolist(), [0, 4, 5])
            for name, value in VALUES.items():
                np.testing.assert_array_equal(labels == value, result.masks[name])

    def test_values_beyond_a_byte(self) -> None:
        labels = read_image(self.supports[0].segmentation)
        large = np.where(labels.array == 4, 300, 0).astype(np.uint16)
        path = write_array(self.folder / "large.nii.gz", large, labels.grid)
        trained = self.adapt((self.supports[0].image, path), structures="300=bean")
        result = self.segment(out=self.folder / "x.nii.gz", adapter=trained)
        self.assertEqual(result.labels.dtype, np.uint16)
        self.assertEqual(np.unique(read_image(self.folder / "x.nii.gz").array).tolist(), [0, 300])

    def test_named_segments(self) -> None:
        out = self.folder / "x.seg.nrrd"
        result = self.segment(out=out)
        annotation = read_annotation(out, result.grid)
        self.assertEqual([(s.name, s.value) for s in annotation.structures], list(VALUES.items()))
        for name in VALUES:
            np.testing.assert_array_equal(annotation.masks[name], result.masks[name])

    def test_probabilities(self) -> None:
        out = self.folder / "x.nii.gz"
        result = self.segment(out=out, probabilities=True)
        self.assertEqual(
            sorted(os.listdir(self.folder)),
            ["report.json", "x.nii.gz", "x_prob_bean.nii.gz", "x_prob_pea.nii.gz"],
        )
        both = np.stack([result.probabilities[name] for name in VALUES])
        self.assertTrue(((both >= 0) & (both <= 1)).all())
        # Too near to a half or to each other, rounding may decide.
        clear = (abs(both - 0.5) > 1e-3).all(0) & (abs(both[0] - both[1]) > 1e-3)
        for k, name in enumerate(VALUES):
            expected = (both[k] > 0.5) & (both.argmax(0) == k)
            np.testing.assert_array_equal(result.masks[name][clear], expected[clear])
            written = read_image(self.folder / f"x_prob_{name}.nii.gz")
            np.testing.assert_array_equal(written.array, both[k])
            self.assertEqual(written.grid, result.grid)

    def test_a_query_in_memory_is_as_good_as_its_file(self) -> None:
        fromfile = self.segment()
        result = self.segment(read_image(self.query.image))
        np.testing.assert_array_equal(result.labels, fromfile.labels)

    def test_the_query_itself_is_never_overwritten(self) -> None:
        before = self.query.image.read_bytes()
        with self.assertRaisesRegex(InputError, "is one of the inputs"):
            self.segment(out=self.query.image)
        self.assertEqual(self.query.image.read_bytes(), before)


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
        with self.assertRaisesRegex(InputError, "no method 'magic'. Known: linear-probe"):
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
            scores = box_scores(trained.adapter, features, trained.levels, box, cpu)[0]
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

    def test_a_damaged_checkpoint_is_told(self) -> None:
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


class Transduction(PipelineTestCase):
    """A copy is refined; everything that was used is in the report."""

    def test_without_it_nothing_is_refined(self) -> None:
        result = self.segment(transductive=False, priors_ml={"bean": 9})
        for name in VALUES:
            np.testing.assert_array_equal(result.masks[name], result.unrefined[name])
            self.assertIsNone(result.report["structures"][name]["transduction"])
        self.assertFalse(result.report["transductive"])
        self.assertEqual(result.report["refined_epochs"], 0)
        self.assertNotIn("refine", result.report["seconds"])

    def test_it_moves_the_size_towards_what_is_known(self) -> None:
        plain = self.segment(transductive=False)
        small = plain.report["structures"]["bean"]["volume_ml"]
        refined = self.segment(priors_ml={"bean": 3 * small, "pea": None}, gamma=0.1)
        found = refined.report["structures"]["bean"]
        self.assertGreater(found["volume_ml"], small)
        self.assertEqual(found["transduction"]["volume_before_ml"], small)
        np.testing.assert_array_equal(refined.unrefined["bean"], plain.masks["bean"])
        changed = np.count_nonzero(refined.masks["bean"] ^ plain.masks["bean"])
        self.assertEqual(found["transduction"]["changed_voxels"], changed)
        self.assertGreater(changed, 0)
        self.assertGreater(refined.report["refined_epochs"], 0)

    def test_the_trained_adapter_stays_as_it_was(self) -> None:
        before, digest = state_bytes(self.trained), self.trained.content_sha256()
        report = self.segment(priors_ml={"bean": 20}).report
        self.assertGreater(report["refined_epochs"], 0)
        self.assertEqual(state_bytes(self.trained), before)
        self.assertEqual(self.trained.content_sha256(), digest)
        self.assertEqual(report["adapter"]["sha256"], digest)

    def test_what_is_already_plausible_is_left_alone(self) -> None:
        result = self.segment(gamma=0.9)
        self.assertEqual(result.report["refined_epochs"], 0)
        np.testing.assert_array_equal(result.labels, self.segment(transductive=False).labels)

    def test_an_adapter_from_a_file_expects_the_same_sizes(self) -> None:
        # Names in another order than the alphabet's, and a size that one alone can have.
        trained = self.adapt(structures="5=pea,4=bean")
        self.assertEqual([s.name for s in trained.structures], ["pea", "bean"])
        trained.save(self.folder / "order.fseft")
        loaded = TrainedAdapter.load(self.folder / "order.fseft")
        self.assertEqual(list(loaded.priors.items()), list(trained.priors.items()))
        for options in ({}, {"priors_ml": {"bean": 20}}):
            ours, theirs = (self.segment(adapter=a, **options) for a in (trained, loaded))
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            self.assertEqual(ours.report["structures"], theirs.report["structures"])

    def test_supports_hold_the_refinement(self) -> None:
        options = {"priors_ml": {"bean": 20}, "refinement": RefinementSettings(epochs=2)}
        held = self.segment(supports=[s.paths for s in self.supports], **options)
        self.assertTrue(held.report["refined_with_supports"])
        self.assertFalse(self.segment(**options).report["refined_with_supports"])

    def test_a_known_volume_reaches_the_report(self) -> None:
        for transductive in (True, False):
            report = self.segment(
                transductive=transductive, priors_ml={"bean": 9, "pea": None}, gamma=0.1
            ).report
            bean, pea = (report["structures"][name] for name in VALUES)
            self.assertEqual(
                (bean["prior"]["mean_ml"], bean["prior"]["gamma"], bean["prior"]["supports"]),
                (9.0, 0.1, 0),
            )
            self.assertAlmostEqual(bean["prior"]["lower_ml"], 8.1)
            self.assertAlmostEqual(bean["prior"]["upper_ml"], 9.9)
            within = 0.95 * 8.1 <= bean["volume_ml"] <= 1.05 * 9.9
            self.assertEqual(bean["within_prior"], within)
            self.assertFalse(pea["prior"]["enabled"])
            self.assertIsNone(pea["prior"]["upper_ml"])
            self.assertTrue(pea["within_prior"])
            self.assertFalse(any(w.startswith("pea is") for w in report["warnings"]))

    def test_a_known_volume_can_be_given_to_the_training(self) -> None:
        once = replace(QUICK, epochs=1)
        trained = self.adapt(priors_ml={"bean": 9, "pea": None}, gamma=0.2, settings=once)
        self.assertEqual(trained.priors["bean"].mean, 9000)
        self.assertEqual(trained.priors["bean"].gamma, 0.2)
        self.assertFalse(trained.priors["pea"].enabled)
        self.assertGreater(trained.priors["pea"].mean, 0)

    def test_priors_that_make_no_sense(self) -> None:
        refused = {
            "no structure 'beam' to set a prior for. There are: bean, pea": {"beam": 1},
            r"above 0 ml and at most 1e\+09, not 0": {"bean": 0},
            r"above 0 ml and at most 1e\+09, not -1": {"bean": -1},
            r"above 0 ml and at most 1e\+09, not nan": {"bean": float("nan")},
        }
        for telling, priors in refused.items():
            for transductive in (True, False):
                with self.subTest(telling), self.assertRaisesRegex(InputError, telling):
                    self.segment(priors_ml=priors, transductive=transductive)

    def test_a_structure_that_the_query_cuts_off_may_be_small(self) -> None:
        volume = read_image(self.query.image)
        labels = read_image(self.query.segmentation).array
        middle = int(np.argwhere(labels == 4)[:, 0].mean())
        cut = replace(volume.grid, shape=(SHAPE[0] - middle, *SHAPE[1:]))
        image = write_array(self.folder / "cut.nii.gz", volume.array[middle:], cut)
        report = self.segment(image).report
        bean = report["structures"]["bean"]
        self.assertFalse(bean["prior"]["lower_bound_trusted"])
        self.assertTrue(bean["transduction"]["query_cut_off"])
        self.assertEqual(bean["prior"]["lower_ml"], 0)
        self.assertTrue(any("border of the field of view" in w for w in report["warnings"]))
        self.assertTrue(report["structures"]["pea"]["prior"]["lower_bound_trusted"])


class Structures(PipelineTestCase):
    """One voxel, one structure; or several."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.nested = []
        for number, support in enumerate(cls.supports):
            volume = read_image(support.image)
            labels = read_image(support.segmentation).array
            masks = {"both": labels > 0, "a/b": labels == 4}
            path = cls.world / f"nested{number}.seg.nrrd"
            structures = [Structure("both", 1), Structure("a/b", 2, (1.0, 0.0, 0.5))]
            write_segments(path, masks, structures, volume.grid)
            cls.nested.append((support.image, path))

    def test_overlapping_structures_overlap(self) -> None:
        trained = self.adapt(*self.nested, structures=None, exclusive=False)
        result = self.segment(out=self.folder / "x.seg.nrrd", adapter=trained, probabilities=True)
        shared = result.masks["both"] & result.masks["a/b"]
        self.assertGreater(dice(shared, result.masks["a/b"]), 0.8)
        written = read_annotation(self.folder / "x.seg.nrrd", result.grid)
        for name, mask in result.masks.items():
            np.testing.assert_array_equal(written.masks[name], mask)
        self.assertEqual(written.structures[1].color, (1.0, 0.0, 0.5))
        self.assertEqual(
            sorted(os.listdir(self.folder)),
            ["report.json", "x.seg.nrrd", "x_prob_a_b.nii.gz", "x_prob_both.nii.gz"],
        )
        with self.assertRaisesRegex(InputError, "may overlap.*seg.nrrd"):
            self.segment(out=self.folder / "x.nii.gz", adapter=trained)

    def test_exclusive_structures_do_not(self) -> None:
        trained = self.adapt(*self.nested, structures=None, exclusive=True)
        result = self.segment(adapter=trained)
        self.assertFalse((result.masks["both"] & result.masks["a/b"]).any())
        self.assertTrue(result.masks["both"].any() and result.masks["a/b"].any())

    def test_the_largest_component_alone_stays_if_asked_for(self) -> None:
        """A query with a second, smaller bean."""
        grid = make_grid("straight", (36, 19, 12))
        labels = make_labels(0, grid)
        place = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
        far = np.linalg.norm((place - (32, 10, 6)) * grid.spacing, axis=-1) < 6
        both = np.where(far, 4, labels)
        image = write_array(self.folder / "q.nii.gz", make_values(0, both), grid)
        options = {"transductive": False}
        every = self.segment(image, **options).masks["bean"]
        self.assertGreater(np.count_nonzero(every & far), 10)
        largest = self.segment(image, largest_component=True, **options).masks["bean"]
        self.assertEqual(ndimage.label(largest)[1], 1)
        self.assertFalse((largest & far).any())
        self.assertGreater(dice(largest, labels == 4), 0.5)

    def test_a_structure_that_no_support_annotates(self) -> None:
        with self.assertRaisesRegex(InputError, "'nut' .label 6. is not annotated in any"):
            self.adapt(structures="4=bean,6=nut")

    def test_no_supports(self) -> None:
        with self.assertRaisesRegex(InputError, "at least one support"):
            adapt([], model=str(self.model), runtime=self.runtime)
        volume = read_image(self.query.image)
        with self.assertRaisesRegex(InputError, "No support has an annotated structure"):
            self.adapt(Support(volume, Annotation({})), structures=None)


class Reports(PipelineTestCase):
    """``report.json``, and what a person is warned of."""

    def test_it_says_what_the_result_rests_on(self) -> None:
        out = self.folder / "x.nii.gz"
        result = self.segment(out=out, seed=3)
        data = strict_json(self.folder / "report.json")
        self.assertEqual(data["format"], "fewshotseg-report-1")
        report = data["results"]["x.nii.gz"]
        self.assertEqual(report, json.loads(json.dumps(result.report)))
        labels = read_image(out)
        for name, value in VALUES.items():
            found = report["structures"][name]
            prior = self.trained.priors[name]
            volume = np.count_nonzero(labels.array == value) * labels.grid.voxel_volume / 1000
            self.assertAlmostEqual(found["volume_ml"], volume, places=4)
            self.assertEqual(found["label"], value)
            self.assertAlmostEqual(found["prior"]["mean_ml"], prior.mean / 1000, places=3)
            self.assertAlmostEqual(found["prior"]["sd_ml"], prior.deviation / 1000, places=3)
            self.assertAlmostEqual(found["prior"]["lower_ml"], 0.7 * prior.mean / 1000)
            self.assertAlmostEqual(found["prior"]["upper_ml"], 1.3 * prior.mean / 1000)
            self.assertEqual(found["prior"]["supports"], 2)
        self.assertEqual((report["seed"], report["training_seed"]), (3, 0))
        model = find_model(str(self.model))
        expected = {"id": "tiny", "weights_sha256": model.weights_sha256}
        self.assertEqual(report["model"], {**expected, "network": model.entry.network()})
        self.assertEqual(report["adapter"]["sha256"], self.trained.content_sha256())
        self.assertEqual(report["versions"]["fewshotseg"], FewShotSegLib.__version__)
        self.assertLessEqual({"torch", "monai", "python"}, set(report["versions"]))
        self.assertLessEqual(
            {"read", "features", "segment", "refine", "write", "total"}, set(report["seconds"])
        )
        self.assertTrue(all(seconds >= 0 for seconds in report["seconds"].values()))

    def test_results_of_one_folder_share_it(self) -> None:
        for name in ("x.nii.gz", "y.nii.gz", "x.nii.gz"):
            self.segment(out=self.folder / name, transductive=name[0] == "x")
        results = strict_json(self.folder / "report.json")["results"]
        self.assertEqual(
            {name: r["transductive"] for name, r in results.items()},
            {"x.nii.gz": True, "y.nii.gz": False},
        )

    def test_somebody_elses_report_is_not_overwritten(self) -> None:
        for text in ('{"patients": 3}', "not JSON"):
            (self.folder / "report.json").write_text(text)
            with self.assertRaisesRegex(InputError, "is not a FewShotSeg report"):
                self.segment(out=self.folder / "x.nii.gz")
            self.assertEqual(os.listdir(self.folder), ["report.json"])
            self.assertEqual((self.folder / "report.json").read_text(), text)

    def test_a_query_that_is_a_support(self) -> None:
        report = self.segment(self.supports[1].image).report
        self.assertTrue(any("is one of the adapter's supports" in w for w in report["warnings"]))
        report = self.segment().report
        self.assertFalse(any("one of the adapter's supports" in w for w in report["warnings"]))

    def test_another_kind_of_image(self) -> None:
        mr = write_patient(self.folder, "mr", 3, modality="MR")
        warnings: list[str] = []

        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "warning":
                warnings.append(event["message"])

        result = self.segment(mr.image, runtime=replace(self.runtime, events=listen))
        telling = "The adapter was trained on CT, but this query looks like MR."
        self.assertIn(telling, result.report["warnings"])
        self.assertEqual(warnings, result.report["warnings"])

    def test_nothing_found_is_told(self) -> None:
        empty = make_values(0, np.zeros(SHAPE, np.uint8))
        image = write_array(self.folder / "q.nii.gz", empty, make_grid())
        result = self.segment(image, transductive=False)
        self.assertFalse(result.labels.any())
        self.assertIn("No voxel was found to be bean.", result.report["warnings"])
        self.assertEqual(result.report["structures"]["bean"]["volume_ml"], 0)


class Modalities(PipelineTestCase):
    """CT and MR with one model."""

    def mr_supports(self, count: int = 2) -> list[tuple[Path, Path]]:
        return [write_patient(self.folder, f"mr{n}", n, modality="MR").paths for n in range(count)]

    def test_mr_is_normalised_by_percentiles_and_segmented(self) -> None:
        """Whatever the scanner's scale was."""
        trained = self.adapt(*self.mr_supports())
        self.assertEqual(trained.modality, "MR")
        self.assertEqual(trained.preprocessing.intensity, "percentiles")
        query = write_patient(self.folder, "q", 7, modality="MR")
        volume = read_image(query.image)
        write_array(query.image, (volume.array * 5).astype(np.int16), volume.grid)
        self.assert_found(self.segment(query.image, adapter=trained), query)

    def test_a_mixture_is_refused_unless_said_which(self) -> None:
        mixed = [self.supports[0].paths, *self.mr_supports(1)]
        with self.assertRaisesRegex(InputError, "look like CT and others like MR.*--modality"):
            self.adapt(*mixed)
        once = replace(QUICK, epochs=1)
        self.assertEqual(self.adapt(*mixed, modality="MR", settings=once).modality, "MR")

    def test_without_a_model_the_images_decide(self) -> None:
        """Each modality has a model of its own that comes with the project."""
        defaults = {"CT": "nobody-ct", "MR": "nobody-mr"}
        with mock.patch.dict("FewShotSegLib.pipeline.adaptation.DEFAULT_MODELS", defaults):
            for supports in ([self.supports[0].paths], self.mr_supports(1)):
                modality = looks_like(read_image(supports[0][0]))
                with self.assertRaisesRegex(ModelError, f"no model '{defaults[modality]}'"):
                    self.adapt(*supports, model=None)

    def test_the_model_that_was_chosen_is_told(self) -> None:
        told: list[dict[str, Any]] = []
        runtime = replace(self.runtime, events=told.append)
        with mock.patch.dict(
            "FewShotSegLib.pipeline.adaptation.DEFAULT_MODELS", MR=str(self.model)
        ):
            once = replace(QUICK, epochs=1)
            self.adapt(*self.mr_supports(1), model=None, settings=once, runtime=runtime)
        chosen = [event for event in told if event["event"] == "model"]
        self.assertEqual([(e["id"], e["modality"]) for e in chosen], [("tiny", "MR")])

    def test_a_model_of_another_kind(self) -> None:
        with self.assertRaisesRegex(InputError, "'abdomen-unet' is for CT, but .* are MR"):
            self.adapt(*self.mr_supports(), model="abdomen-unet")


if __name__ == "__main__":
    unittest.main()
