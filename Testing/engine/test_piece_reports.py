"""What is said of pieces and of the border: in the adapter, the report and the picture."""

from __future__ import annotations

import json
import unittest
from dataclasses import replace
from typing import Any

import numpy as np
from islands import GRID, MAIN, islands
from pipeline_case import PipelineTestCase
from tiny_model import SPACING, STRUCTURES, make_grid, make_labels, make_values, run, write_array

from FewShotSegLib.cli.describe import result_text
from FewShotSegLib.compute.pieces import find_pieces
from FewShotSegLib.core.annotation import Annotation, Structure
from FewShotSegLib.core.geometry import Volume
from FewShotSegLib.core.options import SegmentOptions
from FewShotSegLib.core.size_prior import PriorChange, SizePrior, override_priors
from FewShotSegLib.core.trust import Signals
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.overlay.page import Panel
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.pipeline.report import Basis, make_report
from FewShotSegLib.pipeline.segmentation import Segmentation
from FewShotSegLib.training.support_set import Support, SupportSet, prepare_support


class Priors(PipelineTestCase):
    """What the supports show goes with the adapter; what old adapters don't say is not needed."""

    def prior_of(self, *masks: np.ndarray) -> SizePrior:
        structures = [Structure("a", 1)]
        source = self.runtime.source(find_model(str(self.model)), self.trained.preprocessing)
        values = np.random.default_rng(0).integers(-50, 50, GRID.shape).astype(np.int16)
        prepared = [
            prepare_support(
                Support(Volume(values, GRID), Annotation({"a": mask}, structures)),
                structures,
                source,
            )
            for mask in masks
        ]
        return SupportSet(structures, prepared).priors()["a"]

    def test_a_slip_at_the_border_cuts_nothing_off(self) -> None:
        whole = islands((MAIN, 12))
        slip = islands(((78, 40, 45), 3))
        self.assertGreater(slip.sum(), 10)
        prior = self.prior_of(whole | slip)
        self.assertEqual((prior.cut_off, prior.pieces, prior.apart), (False, 1, 0.0))
        self.assertGreater(prior.bounds()[0], 0)
        cut = self.prior_of(islands(((4, 40, 45), 12)))
        self.assertTrue(cut.cut_off)

    def test_left_and_right(self) -> None:
        one, both = islands((MAIN, 12)), islands((MAIN, 12), ((60, 40, 45), 10))
        prior = self.prior_of(one, both)
        self.assertEqual((prior.pieces, prior.cut_off), (2, False))
        self.assertAlmostEqual(prior.apart, find_pieces(both, GRID).distances[1], places=2)
        # One of the two at the border: what a query has of it is as little to be trusted.
        self.assertTrue(self.prior_of(islands((MAIN, 12), ((76, 40, 45), 10))).cut_off)

    def test_they_stay_where_a_user_knows_the_volume(self) -> None:
        prior = SizePrior(1000.0, pieces=2, apart=70.0)
        for changed in (
            override_priors({"a": prior}, 0.2, {"a": 30.0})["a"],
            override_priors({"a": prior}, None, {"a": PriorChange(mean_ml=30)})["a"],
            override_priors({"a": prior}, None, {"a": PriorChange(gamma=0.1)})["a"],
        ):
            self.assertEqual((changed.pieces, changed.apart), (2, 70.0))

    def test_the_adapter_file(self) -> None:
        path = self.folder / "new.fseft"
        self.trained.save(path)
        self.assertEqual(TrainedAdapter.load(path).priors, self.trained.priors)
        self.assertEqual(self.trained.priors["bean"].pieces, 1)
        old = {n: replace(p, pieces=None, apart=None) for n, p in self.trained.priors.items()}
        self.assertLessEqual(
            set(old["bean"].to_json()),
            {"mean", "deviation", "count", "gamma", "cut_off", "upper_trusted", "enabled"},
        )
        replace(self.trained, priors=old).save(path)
        self.assertEqual(TrainedAdapter.load(path).priors, old)


class Reports(PipelineTestCase):
    """``report.json``, the command's table, the picture."""

    def report_of(
        self,
        mask: np.ndarray,
        before: np.ndarray | None = None,
        prior: SizePrior | None = None,
        transductive: bool = True,
        signals: Signals | None = None,
    ) -> dict[str, Any]:
        """What is reported of one structure; by default of a prior that fits exactly."""
        volume = float(mask.sum()) * GRID.voxel_volume
        masks = {"bean": mask}
        model = find_model(str(self.model))
        return make_report(
            Segmentation(
                [Structure("bean", 4)], masks, masks if before is None else {"bean": before}, {},
                GRID,
            ),
            self.trained,
            Basis(
                {"bean": prior or SizePrior(volume, pieces=1, apart=0.0)},
                model,
                SegmentOptions(transductive=transductive),
                self.runtime.source(model, self.trained.preprocessing),
                signals=None if signals is None else {"bean": signals},
            ),
            {},
        )  # fmt: skip

    def test_one_piece_of_the_right_size_is_as_expected(self) -> None:
        report = self.report_of(islands((MAIN, 12)))
        bean = report["structures"]["bean"]
        self.assertTrue(bean["as_expected"])
        self.assertEqual((bean["remarks"], bean["warnings"], report["warnings"]), ([], [], []))
        self.assertEqual((bean["pieces"]["count"], bean["pieces"]["distances_mm"]), (1, [0.0]))

    def test_a_far_island(self) -> None:
        mask = islands((MAIN, 12), ((76, 40, 45), 3))
        report = self.report_of(mask)
        bean = report["structures"]["bean"]
        self.assertEqual(bean["remarks"], ["2 pieces, the other more than 4 cm away"])
        self.assertEqual(bean["pieces"]["distances_mm"], [0.0, 43.0])
        self.assertTrue(bean["within_prior"])
        self.assertFalse(bean["as_expected"])
        self.assertIn("--largest-component", report["warnings"][0])
        self.assertEqual(report["warnings"], bean["warnings"])
        self.assertIn("more than 4 cm away", result_text(report["structures"]))
        json.dumps(report, allow_nan=False)

    def test_a_far_island_is_to_be_looked_at_and_where_it_is(self) -> None:
        far = islands((MAIN, 12), ((76, 40, 45), 3), ((50, 40, 45), 4))
        good = Signals(3, 0.95, 0.97, 0.97, 0.95, 0.3, 0.3, 0.1, 0.1)
        bean = self.report_of(far, signals=good)["structures"]["bean"]
        trust, ml = bean["trust"], bean["pieces"]["far"]["volume_ml"]
        self.assertEqual(trust["verdict"], "look at this")
        self.assertEqual(trust["reasons"], [f"a piece of {ml:.2f} ml lies 43 mm away from it"])
        self.assertEqual(trust["place_mm"], bean["pieces"]["far"]["place_mm"])
        voxel = np.linalg.solve(GRID.affine, [*trust["place_mm"], 1.0])[:3]
        self.assertLess(np.linalg.norm(voxel * GRID.spacing - (76, 40, 45)), 3.0)
        near = self.report_of(islands((MAIN, 12), ((50, 40, 45), 4)), signals=good)
        trust = near["structures"]["bean"]["trust"]
        self.assertEqual((trust["verdict"], trust["place_mm"]), ("fine", None))
        unknown = self.report_of(far)["structures"]["bean"]["trust"]
        self.assertEqual((unknown["verdict"], unknown["place_mm"]), ("not known", None))

    def test_an_old_adapter_names_them_without_a_verdict(self) -> None:
        mask = islands((MAIN, 12), ((60, 40, 45), 11))
        volume = float(mask.sum()) * GRID.voxel_volume
        bean = self.report_of(mask, prior=SizePrior(volume))["structures"]["bean"]
        self.assertEqual(bean["remarks"], ["2 pieces"])
        self.assertTrue(bean["as_expected"])
        known = SizePrior(volume, pieces=2, apart=20.0)
        bean = self.report_of(mask, prior=known)["structures"]["bean"]
        self.assertEqual((bean["remarks"], bean["as_expected"]), ([], True))

    def test_halved_to_its_range(self) -> None:
        mask, before = islands((MAIN, 12)), islands((MAIN, 12), ((60, 40, 45), 14))
        report = self.report_of(mask, before)
        bean = report["structures"]["bean"]
        self.assertTrue(bean["within_prior"])
        self.assertFalse(bean["as_expected"])
        self.assertEqual(bean["remarks"], ["transduction more than halved it"])
        sizes = f"from {before.sum() * 0.006:.1f} to {mask.sum() * 0.006:.1f} ml"
        self.assertTrue(
            report["warnings"][0].startswith(f"Transduction more than halved bean, {sizes}")
        )
        self.assertIn("more than halved", result_text(report["structures"]))
        plain = self.report_of(mask, before, transductive=False)["structures"]["bean"]
        self.assertEqual((plain["remarks"], plain["as_expected"]), ([], True))

    def test_nothing_found(self) -> None:
        bean = self.report_of(
            islands((MAIN, 12)) & False, islands((MAIN, 12)), SizePrior(1000.0, pieces=1)
        )["structures"]["bean"]
        self.assertEqual(bean["pieces"]["count"], 0)
        self.assertFalse(bean["as_expected"])
        self.assertIn("No voxel was found to be bean.", bean["warnings"])

    def test_the_card_of_the_picture(self) -> None:
        from FewShotSegLib.overlay.page import CardPlace, Legend, Page

        written: list[tuple[str, str]] = []

        class Listening(Page):
            def write(self, x: float, y: float, text: str, size: float, color: str = "",
                      **how: str) -> None:  # fmt: skip
                written.append((text, color))

        mask = islands((MAIN, 12))
        said = "transduction more than halved it"
        for remarks in (None, {"bean": said}):
            written.clear()
            panel = Panel("Adapter", {"bean": mask}, None, remarks)
            Listening(300).write_card(
                CardPlace(0, 0, 200, 60),
                panel,
                Legend([Structure("bean", 4)], prior_ml={"bean": (1.0, 100.0)}),
                0.006,
            )
            colors = dict(written)
            size = f"{mask.sum() * 0.006:.1f}".rstrip("0").rstrip(".")
            self.assertTrue(any(text.startswith(size[:2]) for text in colors), colors)
            if remarks:
                self.assertEqual(colors[said], "#ffb347")
            else:
                self.assertNotIn("#ffb347", colors.values())


class ThroughTheCommand(PipelineTestCase):
    """A query with a second bean at the border of its field of view."""

    def test_island_at_the_border(self) -> None:
        grid = make_grid("straight", (56, 19, 12))
        labels = make_labels(0, grid)
        place = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
        island = np.linalg.norm((place - (52, 10, 6)) * SPACING, axis=-1) < 10
        query = write_array(
            self.folder / "q.nii.gz", make_values(0, np.where(island, 4, labels)), grid
        )
        adapter = self.folder / "a.fseft"
        self.trained.save(adapter)
        out = self.folder / "out.nii.gz"
        arguments = self.segment_arguments(adapter, out, str(query))
        ran = run(*arguments)
        self.assertEqual(ran.status, 0, ran.err)
        bean = json.loads((self.folder / "report.json").read_text())["results"][out.name][
            "structures"
        ]["bean"]
        self.assertGreater(bean["pieces"]["count"], 1)
        self.assertFalse(bean["transduction"]["query_cut_off"])
        self.assertNotIn("border of the field of view", ran.err)
        self.assertRegex(ran.err, r"bean is in \d pieces, .* more than \S+ cm away")
        self.assertIn("--largest-component", ran.err)
        self.assertRegex(ran.out, r"bean .* pieces, ")
        ran = run(*arguments, "--largest-component")
        self.assertEqual(ran.status, 0, ran.err)
        self.assertNotIn("pieces", ran.err + ran.out)

    def test_a_prior_that_does_not_fit_the_image(self) -> None:
        adapter, out = self.folder / "a.fseft", self.folder / "out.nii.gz"
        self.trained.save(adapter)
        ran = run(
            *self.segment_arguments(adapter, out, str(self.query.image), "--prior", "bean=0.5")
        )
        self.assertEqual(ran.status, 0, ran.err)
        self.assertIn("Transduction more than halved bean, from", ran.err)
        self.assertRegex(ran.out, "bean .*transduction more than halved it")
        self.assertIn(STRUCTURES.split("=")[1].split(",")[0], ran.out)


if __name__ == "__main__":
    unittest.main()
