"""Stopped in training: what is kept from the first epoch on, and going on from it."""

from __future__ import annotations

import os
import unittest
from dataclasses import replace
from typing import Any
from unittest import mock

from tiny_model import QUICK, STRUCTURES, TinyWorld, run

from FewShotSegLib.core.errors import Cancelled
from FewShotSegLib.pipeline import adapt
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.training import checkpoint, learner

EPOCHS = 12


class InterruptedTest(TinyWorld):
    """Alone, and jointly with a query, whose sizes count from the middle of the training on."""

    def adapt(self, joint: bool, runtime: Any = None, **options: Any) -> TrainedAdapter:
        return adapt(
            [patient.paths for patient in self.supports],
            structures=STRUCTURES,
            model=str(self.model),
            settings=replace(QUICK, epochs=EPOCHS),
            query=self.query.image if joint else None,
            runtime=runtime or self.runtime,
            **options,
        )

    def stopped(self, joint: bool, epochs: int) -> None:
        """A training that is stopped in the epoch after so many."""
        reported: list[int] = []

        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "epoch":
                reported.append(event["epoch"])

        runtime = replace(self.runtime, events=listen, cancel=lambda: len(reported) >= epochs)
        with self.assertRaises(Cancelled):
            self.adapt(joint, runtime, out=self.folder / "x.fseft")
        self.assertEqual(reported[-1], epochs)

    def resumed_at(self, joint: bool) -> tuple[int, str]:
        """The first epoch of a run that goes on, and what comes of it."""
        reported: list[int] = []

        def listen(event: dict[str, Any]) -> None:
            if event["event"] == "epoch":
                reported.append(event["epoch"])

        trained = self.adapt(
            joint,
            replace(self.runtime, events=listen),
            out=self.folder / "x.fseft",
            resume=True,
        )
        return reported[0], trained.content_sha256()

    def test_the_first_epoch_is_kept_and_every_one_that_can_be(self) -> None:
        for joint, moments in ((False, {1: 2, 7: 8}), (True, {1: 2, 4: 5, 6: 7, 8: 7, 11: 11})):
            whole = self.adapt(joint).content_sha256()
            for epochs, first in moments.items():
                with self.subTest(joint=joint, epochs=epochs):
                    with mock.patch.object(checkpoint, "SAVE_EVERY_SECONDS", 0.0):
                        self.stopped(joint, epochs)
                    self.assertEqual(self.resumed_at(joint), (first, whole))

    def test_kept_at_the_usual_pace(self) -> None:
        """States are written every few seconds; the first one immediately."""
        with mock.patch.object(checkpoint, "SAVE_EVERY_SECONDS", 3600.0):
            for joint in (False, True):
                self.stopped(joint, 3)
                self.assertEqual(self.resumed_at(joint)[0], 2)

    def test_ctrl_c_of_the_command_says_how_to_go_on(self) -> None:
        out = self.folder / "x.fseft"
        real, calls = learner.FeatureLearner.losses, []

        def losses(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == 5:  # in the second epoch; the first has four steps
                raise KeyboardInterrupt
            return real(*arguments)

        with mock.patch.object(learner.FeatureLearner, "losses", losses):
            ran = run(*self.adapt_arguments(out, epochs=3))
        self.assertEqual(ran.status, 2)
        self.assertIn("--resume goes on from the last checkpoint", ran.err)
        self.assertEqual(os.listdir(self.folder), ["x.fseft.partial"])
        self.assertEqual(run(*self.adapt_arguments(out, "--resume", epochs=3)).status, 0)
        self.assertEqual(os.listdir(self.folder), ["x.fseft"])


if __name__ == "__main__":
    unittest.main()
