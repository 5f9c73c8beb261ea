"""The Python API from a query to a report: transduction, and what a result rests on."""

from __future__ import annotations

import json
import os
import unittest
from dataclasses import replace
from typing import Any

import numpy as np
from pipeline_case import VALUES, PipelineTestCase, state_bytes, strict_json
from tiny_model import (
    QUICK,
    SHAPE,
    make_grid,
    make_values,
    write_array,
    write_patient,
)

import FewShotSegLib
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.training.transduction import RefinementSettings


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


class Reports(PipelineTestCase):
    """``report.json``, and what a person is warned of."""

    def test_in_one_line_in_a_notebook(self) -> None:
        result = self.segment()
        volumes = [result.report["structures"][name]["volume_ml"] for name in VALUES]
        shown = repr(result)
        self.assertTrue(shown.startswith("<Segmentation: "), shown)
        for name, volume in zip(VALUES, volumes, strict=True):
            self.assertIn(f"{name} {volume:.1f} ml", shown)
        names = ", ".join(VALUES)
        self.assertEqual(
            repr(replace(self.trained, expected=None)),
            f"<TrainedAdapter: {names}; adapter on {self.trained.model_id}, "
            f"{len(self.trained.supports)} supports>",
        )

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

    def test_another_users_report_is_not_overwritten(self) -> None:
        for text in ('{"patients": 3}', "not JSON"):
            (self.folder / "report.json").write_text(text)
            with self.assertRaisesRegex(InputError, "is not a FewShotSeg report"):
                self.segment(out=self.folder / "x.nii.gz")
            self.assertEqual(os.listdir(self.folder), ["report.json"])
            self.assertEqual((self.folder / "report.json").read_text(), text)

    def test_a_query_that_is_a_support(self) -> None:
        report = self.segment(self.supports[1].image).report
        self.assertTrue(any("is one of the adapter's supports" in w for w in report["warnings"]))
        self.assertTrue(report["is_support"])
        report = self.segment().report
        self.assertFalse(any("one of the adapter's supports" in w for w in report["warnings"]))
        self.assertFalse(report["is_support"])

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

    def test_nothing_found_is_reported(self) -> None:
        empty = make_values(0, np.zeros(SHAPE, np.uint8))
        image = write_array(self.folder / "q.nii.gz", empty, make_grid())
        result = self.segment(image, transductive=False)
        self.assertFalse(result.labels.any())
        self.assertIn("No voxel was found to be bean.", result.report["warnings"])
        self.assertEqual(result.report["structures"]["bean"]["volume_ml"], 0)


if __name__ == "__main__":
    unittest.main()
