"""Several volumes segmented with one press: in the real process, and on the panel."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import unittest
from typing import Any

import numpy as np
import slicer
from FewShotSegSlicer.interface.rows import QueryRow
from module_scenes import add_patient, add_volume, affine_of
from panel_case import PanelTestCase, settle, texts, tick
from process_case import ProcessTestCase

from FewShotSegLib.core.errors import InputError


class SeveralTest(ProcessTestCase):
    """The real process on a small model."""

    def setUp(self) -> None:
        super().setUp()
        for seed in (8, 9):
            _volume, drawn = add_patient(seed, f"Query {seed}")
            slicer.mrmlScene.RemoveNode(drawn)

    def rows(self) -> dict[str, QueryRow]:
        return {row.name: row for row in self.logic.queries()}

    def ids(self) -> list[str]:
        return [row.id for row in self.logic.queries()]

    def states(self) -> dict[str, str]:
        return {name: row.state for name, row in self.rows().items()}

    def wait(self) -> None:
        slicer_world.process_events_until(
            lambda: not self.logic._pending and self.logic.running() is None, 600
        )

    def test_all_but_one_that_cannot_be(self) -> None:
        self.assertEqual(set(self.states().values()), {"open"})
        self.assertEqual(set(self.rows()), {"Query", "Query 8", "Query 9"}, "no support")
        with self.assertRaisesRegex(InputError, "Train or load"):
            self.logic.startSeveral(self.ids())
        self.logic.train(epochs=1)
        with self.assertRaisesRegex(InputError, "Tick the volumes"):
            self.logic.startSeveral([])
        gone = add_volume(np.zeros((8, 8, 8), np.int16), affine_of(), "Gone")
        sheared = add_volume(np.zeros((8, 8, 8), np.int16), affine_of(), "Sheared")
        ids = self.ids()
        matrix = np.eye(4)
        matrix[0, 1] = 0.5
        sheared.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
        slicer.mrmlScene.RemoveNode(gone)
        heard: list[dict[str, str]] = []
        self.logic.listen(lambda notice: heard.append(self.states()))
        self.logic.startSeveral(ids)
        with self.assertRaisesRegex(InputError, "running task"):
            self.logic.startSeveral(ids)
        self.assertEqual(self.rows()["Query"].state, "running")
        self.assertEqual(self.rows()["Query 9"].state, "waiting")
        self.wait()
        self.assertEqual({r.query.GetName() for r in self.logic.results()}, set(self.rows()))
        self.assertEqual(set(self.states().values()), {"done"})
        self.assertEqual(self.logic._outcomes[sheared.GetID()][0], "failed")
        self.assertIn("sheared", self.logic._outcomes[sheared.GetID()][1])
        self.assertTrue(all(list(s.values()).count("running") <= 1 for s in heard))
        self.assertEqual(self.folders(), [])

    def test_cancel_stops_those_that_wait_and_the_rest_can_be_done_later(self) -> None:
        self.logic.train(epochs=1)
        self.logic.startSeveral(self.ids())
        self.logic.cancel()
        self.wait()
        self.assertEqual(set(self.states().values()), {"stopped"})
        self.assertEqual(self.logic.results(), [])
        self.logic.startSeveral(self.ids()[:1])
        self.wait()
        self.assertEqual(sorted(self.states().values()), ["done", "open", "open"])

    def test_a_volume_that_makes_the_process_fail_does_not_stop_the_others(self) -> None:
        self.logic.train(epochs=1)
        volume = slicer.util.getNode("Query 8")
        array = np.full(volume.GetImageData().GetDimensions(), np.nan, np.float32)
        bad = add_volume(array, affine_of(), "Bad")
        self.logic.startSeveral([bad.GetID(), *self.ids()[:1]])
        self.wait()
        states = self.states()
        self.assertEqual((states["Bad"], states["Query"]), ("failed", "done"))
        self.assertTrue(self.rows()["Bad"].message.endswith("."))

    def test_another_scene_has_nothing_to_wait_for(self) -> None:
        self.logic.train(epochs=1)
        self.logic.startSeveral(self.ids())
        slicer_world.clear_scene()
        self.wait()
        self.assertEqual(self.logic.queries(), [])


class PanelTest(PanelTestCase):
    """The list and its button."""

    def rows(self, *states: str) -> list[QueryRow]:
        return [QueryRow(f"v{n}", None, f"CT {n}", s) for n, s in enumerate(states)]

    def show(self, *states: str) -> Any:
        self.logic.query_rows = self.rows(*states)
        self.logic.changed("results")
        settle()
        return self.panel.several

    def test_what_has_no_result_is_ticked_and_segmented(self) -> None:
        view = self.show("open", "done", "failed")
        self.assertEqual(
            texts(view.table.widget), [["CT 0", "–"], ["CT 1", "done"], ["CT 2", "failed"]]
        )
        self.assertTrue(view.button.enabled)
        tick(view.table.widget, 2, 0, False)
        tick(view.table.widget, 1, 0, True)
        view.button.click()
        self.assertIn(("startSeveral", ["v0", "v1"]), self.logic.calls)

    def test_the_button_says_why_it_is_off(self) -> None:
        view = self.show("done")
        self.assert_gated(view.button, "Tick the volumes")
        self.logic.task = "train"
        view = self.show("open")
        self.assert_gated(view.button, "running task")


if __name__ == "__main__":
    unittest.main()
