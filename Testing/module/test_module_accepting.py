"""A result becomes an annotated volume: the table, the counts and the sizes follow."""

from __future__ import annotations

import slicer_world  # before slicer, which it puts in place

# isort: split
import unittest
from typing import Any

import numpy as np
import slicer
from FewShotSegSlicer.interface.rows import Result, ResultRow, TrustRow
from FewShotSegSlicer.panel.results import REMARK, result_cells
from FewShotSegSlicer.scene.results import measured
from FewShotSegSlicer.scene.state import QUERY, REFINED, UNREFINED
from FewShotSegSlicer.scene.verdict import (
    flags_of,
    judgement_of,
    kind_of,
    needs_look,
    sentence_of,
)
from module_logic import SHAPE, LogicTestCase
from module_scenes import add_segmentation, add_volume, affine_of
from panel_case import RealPanel, choose_row, settle, texts

from FewShotSegLib.core.errors import InputError


class AcceptingTest(LogicTestCase):
    """Two supports, and a query with a result that a segmentation left in the scene."""

    def setUp(self) -> None:
        super().setUp()
        for _ in range(2):
            self.support(bean=4, pea=2)
        self.query = add_volume(np.zeros(SHAPE, np.int16), affine_of(), "Query")

    def add_result(self, *names: str, row_id: str = "r0") -> Result:
        """A result in which these structures were found, 5 x 5 x 3 voxels each."""
        state = self.logic.session.state
        mask = np.zeros(SHAPE, bool)
        mask[1:6, 2:7, 1:4] = True
        line = {"color": [1, 0, 0], "volume_ml": 0.9, "unrefined_ml": 0.9, "within": True}
        prior = {"mean_ml": 1, "sd_ml": 0, "supports": 2, "gamma": 0.3, "lower_ml": 0.7}
        prior |= {"upper_ml": 1.3, "lower_bound_trusted": True, "enabled": True}
        table = [{**line, "name": name, "prior": prior, "note": ""} for name in names]
        for role in (REFINED, UNREFINED):
            masks = {name: mask for name in names}
            node = add_segmentation(masks, affine_of(), self.query, f"{role} {row_id}")
            state.refer(role, row_id, node)
        state.refer(QUERY, row_id, self.query)
        rows = state.read()
        row = {"id": row_id, "table": table, "warnings": [], "seconds": 1.0, "adapter": "a"}
        rows["results"].insert(0, row)
        state.write(rows)
        return self.logic.results()[0]

    def annotations(self) -> list[Any]:
        return [row.segmentation for row in self.logic.supports()]

    def test_a_size_that_no_annotation_tells_is_not_shown(self) -> None:
        """What was drawn of a structure is no volume to expect."""
        self.add_result("bean")
        state = self.logic.session.state
        rows = state.read()
        prior = rows["results"][0]["table"][0]["prior"]
        self.assertEqual(self.logic.results()[0].rows[0].prior.mean_ml, 1)
        prior |= {"basis": "part", "lower_ml": 0, "upper_ml": None, "lower_bound_trusted": False}
        state.write(rows)
        shown = self.logic.results()[0].rows[0].prior
        self.assertEqual((shown.mean_ml, shown.lower_ml, shown.upper_ml), (None, None, None))

    def test_the_table_the_structures_and_the_sizes_follow(self) -> None:
        panel = RealPanel()
        self.addCleanup(panel.close)
        logic, ui = panel.logic, panel.ui
        result = self.add_result("bean", "pea")
        logic.acceptResult(result)
        settle()
        self.assertEqual([row[0] for row in texts(ui.supportsTable)], ["v0", "v1", "Query"])
        self.assertEqual(ui.supportsSection.text, "1  Annotated volumes: 3 of 3 ready")
        self.assertEqual([row[2] for row in texts(ui.structuresTable)], ["3 / 3", "3 / 3"])
        slicer_world.process_events_until(
            lambda: all(row.prior.count == 3 for row in logic.structures())
        )
        logic.tickSupport(logic.supports()[2].id, False)
        settle()
        self.assertEqual([row[2] for row in texts(ui.structuresTable)], ["2 / 2", "2 / 2"])
        choose_row(ui.supportsTable, 2)
        ui.removeSupportButton.click()
        settle()
        self.assertIsNotNone(result.segmentation.GetScene(), "a result is no less for that")

    def test_a_correction_is_measured(self) -> None:
        result = self.add_result("bean", "pea")
        segments = result.segmentation.GetSegmentation()
        where = (
            result.segmentation,
            segments.GetSegmentIdBySegmentName("bean"),
            result.query,
        )

        def rows(volume_ml: float) -> list[ResultRow]:
            """Once the volume of the bean is what it should be."""
            slicer_world.process_events_until(
                lambda: abs(self.logic.measured(result).rows[0].volume_ml - volume_ml) < 1e-6, 20
            )
            return list(self.logic.measured(result).rows)

        self.assertEqual([flags_of(row) for row in rows(0.9)], [[], []])
        drawn = slicer.util.arrayFromSegmentBinaryLabelmap(*where)
        for planes, volume, flags in (
            (2, 0.6, ["corrected", "small"]),
            (0, 0.0, ["corrected", "not found"]),
        ):
            drawn[planes + 1 :] = 0
            slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, *where)
            bean, pea = rows(volume)
            self.assertEqual(flags_of(bean), flags)
            self.assertTrue(needs_look(bean))
            self.assertEqual(flags_of(pea), [])

    def test_a_correction_has_no_verdict(self) -> None:
        result = self.add_result("bean", "pea")
        state = self.logic.session.state
        rows = state.read()
        trust = {"verdict": "do not use", "reasons": ["its probabilities are undecided"]}
        trust |= {"dice": 0.4, "lower": 0.2, "upper": 0.6}
        for line in rows["results"][0]["table"]:
            line["trust"] = trust
        state.write(rows)
        [result] = self.logic.results()
        self.assertEqual([row.trust.dice for row in result.rows], [0.4, 0.4])
        self.assertIn("Do not use: bean, pea.", sentence_of(result))
        node = result.segmentation.GetSegmentation()
        ids = [node.GetSegmentIdBySegmentName(row.name) for row in result.rows]
        sizes = dict(zip(ids, (0.5, 0.9), strict=True))
        now = measured(result, lambda _node, segment_id: sizes[segment_id])
        self.assertEqual([row.trust.verdict for row in now.rows], ["not known", "do not use"])
        self.assertEqual((now.rows[0].trust, judgement_of(now.rows[0])), (TrustRow(), ""))

    def test_a_scene_without_verdicts_and_one_with_odd_ones(self) -> None:
        result = self.add_result("bean", "pea")  # as it was saved before there were any
        self.assertEqual([row.trust for row in result.rows], [TrustRow(), TrustRow()])
        self.assertEqual([result_cells(row)[REMARK].mark for row in result.rows], [None, None])
        self.assertEqual(kind_of(result), "done")
        state = self.logic.session.state
        rows = state.read()
        nothing = {"reasons": [], "dice": None, "lower": None, "upper": None}
        first, second = rows["results"][0]["table"]
        first["trust"], second["trust"] = None, {"verdict": "splendid", **nothing}
        state.write(rows)
        self.assertEqual([r.trust for r in self.logic.results()[0].rows], [TrustRow()] * 2)

    def test_there_is_one_row_a_volume(self) -> None:
        first = self.add_result("bean", "pea")
        row_id = self.logic.acceptResult(first)
        self.logic.tickSupport(row_id, False)
        again = self.add_result("bean", row_id="r1")
        self.assertEqual(self.logic.acceptResult(again, "unrefined"), row_id)
        self.assertEqual(len(self.logic.supports()), 3)
        self.assertIs(self.annotations()[2], again.unrefined)
        self.assertTrue(self.logic.supports()[2].ticked)
        with self.assertRaisesRegex(InputError, "one of the annotated volumes"):
            self.logic.deleteResult(again)

    def test_an_annotation_of_a_person_is_not_replaced(self) -> None:
        own = self.add_result("bean").unrefined  # any node that is no longer a result's
        state = self.logic.session.state
        state.refer(UNREFINED, "r0", None)
        self.logic.addSupport(self.query, own)
        before = self.annotations()
        with self.assertRaisesRegex(InputError, "«Query» is among the annotated volumes already"):
            self.logic.acceptResult(self.logic.results()[0])
        self.assertEqual(self.annotations(), before)

    def test_nothing_drawn_is_nothing_to_learn_from(self) -> None:
        with self.assertRaisesRegex(InputError, "Press Correct, and draw"):
            self.logic.acceptResult(self.add_result())
        self.assertEqual(len(self.logic.supports()), 2)


if __name__ == "__main__":
    assert slicer_world
    unittest.main()
