"""What is not the structure is not taken for it: pieces, the border, and what transduction did."""

from __future__ import annotations

import json
import unittest
from dataclasses import replace
from typing import Any

import numpy as np
from test_annotation_grid import ball
from test_pipeline import PipelineTestCase
from tiny import random_features
from tiny_model import SPACING, STRUCTURES, make_grid, make_labels, make_values, run, write_array

from FewShotSegLib.cli.describe import result_text
from FewShotSegLib.compute.pieces import Pieces, find_pieces, reaches_border
from FewShotSegLib.core.annotation import Annotation, Structure
from FewShotSegLib.core.geometry import Grid, Volume
from FewShotSegLib.core.size_prior import PriorChange, SizePrior, override_priors
from FewShotSegLib.inference.query_sizes import Query
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.overlay.page import Panel
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.pipeline.remarks import change_remark, far_from, piece_remark
from FewShotSegLib.pipeline.report import make_report
from FewShotSegLib.pipeline.segmentation import Segmentation
from FewShotSegLib.training.support_set import Support, SupportSet, prepare_support

STRAIGHT = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
GRID = Grid((80, 40, 30), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), STRAIGHT)
MAIN = (20, 40, 45)


def islands(*balls: tuple[tuple[float, float, float], float]) -> np.ndarray:
    """Balls (centre in mm, radius) on the grid."""
    mask = np.zeros(GRID.shape, bool)
    for centre, radius in balls:
        mask |= ball(GRID, centre, radius)
    return mask


class FindingPieces(unittest.TestCase):
    def test_sizes_and_distances(self) -> None:
        mask = islands((MAIN, 10), ((60, 40, 45), 5), ((20, 40, 12), 7))
        pieces = find_pieces(mask, GRID)
        sizes = [
            ball(GRID, c, r).sum() * 6.0
            for c, r in ((MAIN, 10), ((20, 40, 12), 7), ((60, 40, 45), 5))
        ]
        self.assertEqual(pieces.volumes, tuple(sizes))
        # From the last voxel of one to the first of the other: 60 - 4 - (20 + 9), and along k
        # 45 - 9 - (12 + 6).
        self.assertEqual(pieces.distances, (0.0, 18.0, 27.0))

    def test_on_an_oblique_grid(self) -> None:
        grid = replace(make_grid(shape=(30, 20, 20)), spacing=(1.0, 2.0, 3.0))
        mask = np.zeros(grid.shape, bool)
        mask[2:6, 4:8, 4:8] = mask[15:18, 4:8, 4:8] = True
        self.assertAlmostEqual(find_pieces(mask, grid).distances[1], 10.0)

    def test_corners_hold_together_and_specks_are_none(self) -> None:
        mask = islands((MAIN, 10))
        diagonal = np.arange(5)
        mask[50 + diagonal, 10 + diagonal, 5 + diagonal] = True
        self.assertEqual(len(find_pieces(mask, GRID).volumes), 1)  # 5 voxels are a speck
        mask[50 + diagonal, 10 + diagonal, 6 + diagonal] = True
        self.assertEqual(find_pieces(mask, GRID).volumes[1:], (60.0,))
        small = np.zeros(GRID.shape, bool)
        small[5, 5, 5:9] = small[40, 5, 5:7] = True  # of a structure of four voxels, two are half
        self.assertEqual(find_pieces(small, GRID).volumes, (24.0, 12.0))
        self.assertEqual(find_pieces(small & False, GRID), Pieces())

    def test_what_an_annotation_shows_in_pieces(self) -> None:
        both = find_pieces(islands((MAIN, 10), ((60, 40, 45), 8), ((60, 70, 45), 3)), GRID)
        self.assertEqual((len(both.volumes), both.own, both.apart), (3, 2, both.distances[1]))
        one = find_pieces(islands((MAIN, 10), ((60, 70, 45), 3)), GRID)
        self.assertEqual((len(one.volumes), one.own, one.apart), (2, 1, 0.0))


class TheBorder(unittest.TestCase):
    """The largest piece decides, or as many as the supports show."""

    def test_a_false_island_is_not_the_structure(self) -> None:
        whole, island = islands((MAIN, 10)), islands(((78, 40, 45), 5))
        cut = islands(((3, 40, 45), 10))
        for mask, expected in (
            (whole | island, False),
            (cut | island, True),
            (cut, True),
            (whole, False),
            (island, True),
            (whole & False, False),
        ):
            self.assertEqual(reaches_border(mask, at_least=10), expected)
        # Left and right in one: the smaller half counts where two are expected.
        half = islands(((76, 40, 45), 9))
        self.assertFalse(reaches_border(whole | half, at_least=10))
        self.assertTrue(reaches_border(whole | half, at_least=10, count=2))
        self.assertTrue(reaches_border(whole | half, at_least=10, count=None))
        self.assertFalse(reaches_border(whole | island, at_least=1, count=None))

    def test_within_a_field_of_view(self) -> None:
        view = (slice(0, 60), slice(0, 40), slice(0, 30))
        mask = islands((MAIN, 10), ((57, 40, 45), 4))
        self.assertFalse(reaches_border(mask, view, 5))
        self.assertTrue(reaches_border(mask, view, 5, count=2))

    def test_a_query(self) -> None:
        import torch

        shape = (40, 20, 16)
        features = random_features(shape)
        query = Query(
            features, [0], 1.0, (slice(0, 40), slice(0, 20), slice(0, 16)), torch.device("cpu")
        )
        probability = torch.zeros((2, *shape), dtype=torch.float16)
        probability[0, 8:18, 5:15, 4:12] = probability[0, 36:40, 5:10, 4:9] = 1
        probability[1, 0:9, 5:15, 4:12] = 1
        query.measure(probability)
        self.assertEqual(query.cut_off, {0: False, 1: True})
        query.expect([SizePrior(100.0, pieces=2), SizePrior(100.0)])
        query.measure(probability)
        self.assertEqual(query.cut_off, {0: True, 1: True})


class Remarks(unittest.TestCase):
    """The words."""

    def said(self, prior: SizePrior, *parts: tuple[float, float]) -> str | None:
        """Of pieces, each ml and mm away."""
        pieces = Pieces(tuple(ml * 1000 for ml, _ in parts), tuple(mm for _, mm in parts))
        remark = piece_remark("liver", pieces, prior)
        return remark and remark.brief

    def test_far_and_many(self) -> None:
        one = SizePrior(1e6, pieces=1)
        six = ((900, 0), (9, 90), (5, 55), (3, 8), (1, 41), (1, 40))
        self.assertEqual(self.said(one, *six), "6 pieces, 3 of them more than 4 cm away")
        self.assertEqual(
            self.said(one, (900, 0), (1, 55)), "2 pieces, the other more than 4 cm away"
        )
        self.assertEqual(self.said(one, (9, 0), (1, 5), (1, 5), (1, 5)), "4 pieces")
        self.assertEqual(self.said(one, (9, 0), (4, 5)), "2 pieces")
        self.assertIsNone(self.said(one, (900, 0), (1, 5), (1, 5)))
        self.assertIsNone(self.said(one, (900, 0)))
        self.assertIsNone(self.said(one))

    def test_what_the_supports_show_is_not_called_false(self) -> None:
        two = SizePrior(3e5, pieces=2, apart=80.0)
        self.assertIsNone(self.said(two, (150, 0), (140, 95)))
        self.assertIsNone(self.said(two, (150, 0)))
        self.assertEqual(
            self.said(two, (150, 0), (140, 80), (5, 130)),
            "3 pieces, 1 of them more than 12 cm away",
        )
        self.assertEqual(self.said(two, (150, 0), (140, 80), (20, 60)), "3 pieces")

    def test_far_is_nearer_for_what_is_small(self) -> None:
        for ml, mm in ((1000, 40), (5, 40), (1, 24.8), (0.01, 10)):
            self.assertAlmostEqual(far_from(ml * 1000, SizePrior(1.0)), mm, delta=0.05)

    def test_sentences(self) -> None:
        pieces = Pieces((9000.0, 1000.0), (0.0, 60.0))
        self.assertEqual(
            piece_remark("liver", pieces, SizePrior(1.0)).sentence,
            "liver is in 2 pieces, the other more than 4 cm away; the largest has 90 % of its "
            "volume: if it should be one piece, keep the largest alone (--largest-component; "
            "Largest piece only in Slicer).",
        )
        three = Pieces((5000.0, 4000.0, 1000.0), (0.0, 60.0, 20.0))
        self.assertEqual(
            piece_remark("kidney", three, SizePrior(1.0, pieces=2, apart=70.0)).sentence,
            "kidney is in 3 pieces (the supports show 2); the largest has 50 % of its volume: "
            "check whether all of them belong to it.",
        )

    def test_halved_and_doubled(self) -> None:
        for before, after, what in (
            (80.7, 31.4, "halved"), (10, 4.99, "halved"), (10, 0, "halved"), (10, 5, None),
            (10, 20, None), (10, 20.1, "doubled"), (0, 3, "doubled"), (0, 0, None), (7, 7, None),
        ):  # fmt: skip
            remark = change_remark("parotid", before, after)
            self.assertEqual(remark and remark.brief, what and f"transduction more than {what} it")
        self.assertEqual(
            change_remark("parotid", 80.7, 31.4).sentence,
            "Transduction more than halved parotid, from 80.7 to 31.4 ml: its size is then what "
            "was expected, not what was found. Check that it is in this image at all, and look at "
            "the result without transduction.",
        )


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

    def test_they_stay_where_somebody_knows_the_volume(self) -> None:
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
            {"bean": prior or SizePrior(volume, pieces=1, apart=0.0)},
            model,
            transductive,
            None,
            [],
            {},
            self.runtime.source(model, self.trained.preprocessing),
            0,
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
