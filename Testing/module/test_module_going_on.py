"""After an accepted result the training begins with the present adapter, where that is possible."""

from __future__ import annotations

import slicer_world  # noqa: F401 (before slicer, which it puts in place)

# isort: split
import unittest

import slicer
from FewShotSegSlicer.jobs.train import adapter_to_go_on_with
from process_case import ProcessTestCase


class GoingOnTest(ProcessTestCase):
    """The real process on a small model."""

    def setUp(self) -> None:
        super().setUp()
        self.logic.getParameterNode().learningRate = 0.0

    def header(self, adapter_id: str) -> dict:
        return self.logic.session.adapters.header(adapter_id)

    def test_a_third_of_the_epochs_and_one_more_round(self) -> None:
        first = self.logic.train()
        result = self.logic.segment(self.query)
        self.logic.acceptResult(result)
        self.logic.startTraining(goOn=True)
        end = self.logic.wait()
        self.assertEqual(end.state, "finished", end.message)
        self.assertIn("beginning with the one before: 20 epochs", end.message)
        now, before = self.header(end.adapter_id), self.header(first)
        self.assertEqual(before["training"]["epochs"], 60)
        self.assertEqual([len(one["supports"]) for one in (before, now)], [2, 3])
        self.assertEqual([one["supports"] for one in now["rounds"]], [2, 3])
        self.assertEqual(self.folders(), [])

    def test_what_keeps_it_from_going_on(self) -> None:
        session, parameters = self.logic.session, self.logic.getParameterNode()
        self.assertEqual(adapter_to_go_on_with(session), "", "there is none")
        adapter = self.logic.train(epochs=1)
        parameters.epochs = 0
        self.assertEqual(adapter_to_go_on_with(session), adapter)
        for name, other in (
            ("method", "linear-probe"),
            ("method", "ft"),
            ("preset", "published"),
            ("overlapAllowed", True),
            ("epochs", 5),
            ("learningRate", 0.01),
            ("modality", "MR"),
        ):
            before = getattr(parameters, name)
            setattr(parameters, name, other)
            with self.subTest(name, other=other):
                self.assertEqual(adapter_to_go_on_with(session), "")
            setattr(parameters, name, before)
        parameters.modality = "CT"
        self.assertEqual(adapter_to_go_on_with(session), adapter)
        row = self.logic.structures()[0]
        self.logic.tickStructure(row.id, False)
        self.assertEqual(adapter_to_go_on_with(session), "", "other structures")
        self.logic.tickStructure(row.id, True)
        self.assertEqual(adapter_to_go_on_with(session), adapter)
        slicer.mrmlScene.RemoveNode(session.adapters.node(adapter))
        self.assertEqual(adapter_to_go_on_with(session), "", "it is gone")


if __name__ == "__main__":
    unittest.main()
