"""A training that was interrupted and resumed is the same training."""

from __future__ import annotations

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from training_case import SETTINGS, Training, make_adapter, make_query, make_support, weights

from FewShotSegLib.core.errors import Cancelled, InputError
from FewShotSegLib.core.size_prior import SizePrior
from FewShotSegLib.methods.adapters import ADAPTERS
from FewShotSegLib.methods.adapters.base import Adapter
from FewShotSegLib.training.checkpoint import Checkpoint


class Resuming(Training):
    """A training that was interrupted is the same training."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "adapter.checkpoint"
        patch = mock.patch("FewShotSegLib.training.checkpoint.SAVE_EVERY_SECONDS", 0.0)
        patch.start()
        self.addCleanup(patch.stop)

    def interrupt(self, adapter: Adapter, after: int, **options: Any) -> None:
        """Stop a training in the middle of an epoch, so many epochs in."""

        def check() -> None:
            done = [e["epoch"] for e in self.events if e["event"] == "epoch"]
            if done and done[-1] >= after:
                raise Cancelled("Stopped.")

        self.events.clear()
        with self.assertRaises(Cancelled):
            self.train(adapter, check=check, checkpoint=Checkpoint(self.path, "r"), **options)
        self.assertEqual(self.events[-1]["epoch"], after)
        self.events.clear()

    def test_resumed_equals_uninterrupted(self) -> None:
        for method in ADAPTERS:
            with self.subTest(method):
                whole = make_adapter(self.supports, method)
                expected = self.train(whole)
                self.interrupt(make_adapter(self.supports, method), after=5)
                resumed = make_adapter(self.supports, method, seed=99)
                self.assertTrue(self.differ(whole, resumed))
                result = self.train(resumed, checkpoint=Checkpoint(self.path, "r"))
                self.assertEqual([e["epoch"] for e in self.events], [6, 7, 8])
                self.assert_equal(resumed, whole)
                self.assertEqual(result.history, expected.history)
                self.assertEqual(result.epochs, 8)
                Checkpoint(self.path, "r").remove()
                self.assertFalse(self.path.exists())

    def test_it_can_be_interrupted_again_and_again(self) -> None:
        whole, resumed = (make_adapter(self.supports) for _ in range(2))
        self.train(whole)
        for after in (2, 3, 6):
            self.interrupt(make_adapter(self.supports), after)
        self.train(resumed, checkpoint=Checkpoint(self.path, "r"))
        self.assert_equal(resumed, whole)

    def test_with_a_query_too(self) -> None:
        """Even where it was last measured some epochs before the interruption."""
        options = {
            "priors": [SizePrior(600.0), SizePrior(900.0)],
            "settings": replace(SETTINGS, size_from=0.25, size_weight=1.0),
        }
        whole = make_adapter(self.supports)
        query = make_support(3)
        # Few boxes matter, so that much is only measured now and then.
        with mock.patch("FewShotSegLib.inference.query_sizes.MAX_VOXELS", 600):
            expected = self.train(whole, query=make_query(query), **options)
            for after in (4, 6, 7):
                with self.subTest(after):
                    self.path.unlink(missing_ok=True)
                    adapter = make_adapter(self.supports)
                    self.interrupt(adapter, after, query=make_query(query), **options)
                    resumed = make_adapter(self.supports)
                    result = self.train(
                        resumed,
                        query=make_query(query),
                        checkpoint=Checkpoint(self.path, "r"),
                        **options,
                    )
                    self.assertEqual(result.history, expected.history)
                    self.assert_equal(resumed, whole)
        self.assertTrue(all(record["size_loss"] > 0 for record in expected.history[2:]))

    def test_a_finished_training_is_not_trained_further(self) -> None:
        for settings in (SETTINGS, replace(SETTINGS, plateau=1e6, patience=2)):
            with self.subTest(settings.plateau):
                self.path.unlink(missing_ok=True)
                adapter = make_adapter(self.supports)
                first = self.train(adapter, settings, checkpoint=Checkpoint(self.path, "r"))
                self.events.clear()
                again = make_adapter(self.supports)
                second = self.train(again, settings, checkpoint=Checkpoint(self.path, "r"))
                self.assertEqual(self.events, [])
                self.assert_equal(again, adapter)
                self.assertEqual(second.history, first.history)
                self.assertEqual(second.stopped_early, first.stopped_early)

    def test_it_is_not_written_at_every_epoch(self) -> None:
        with mock.patch("FewShotSegLib.training.checkpoint.SAVE_EVERY_SECONDS", 1e9):
            checkpoint = Checkpoint(self.path, "r")
            checkpoint._last = -1e10
            with mock.patch("FewShotSegLib.training.state_file.write_sealed") as save:
                save.side_effect = lambda path, data, metadata: Path(path).write_bytes(b"x")
                self.train(make_adapter(self.supports), checkpoint=checkpoint)
        self.assertEqual(save.call_count, 1)

    def test_another_recipe_is_refused(self) -> None:
        self.interrupt(make_adapter(self.supports), after=3)
        adapter = make_adapter(self.supports)
        before = weights(adapter)
        with self.assertRaisesRegex(InputError, "other supports or settings"):
            self.train(adapter, checkpoint=Checkpoint(self.path, "another"))
        for name, tensor in adapter.state_dict().items():
            self.assertTrue(torch.equal(tensor, before[name]))
        self.assertTrue(self.path.exists())

    def test_a_damaged_file_is_refused(self) -> None:
        self.interrupt(make_adapter(self.supports), after=3)
        whole = self.path.read_bytes()
        for name, content in {
            "half": whole[: len(whole) // 2],
            "empty": b"",
            "zeros": bytes(len(whole)),
            "text": b"this is no checkpoint",
            "no history": whole.replace(b'"history"', b'"mystery"'),
        }.items():
            self.path.write_bytes(content)
            with self.subTest(name), self.assertRaisesRegex(InputError, "damaged.*start again"):
                self.train(make_adapter(self.supports), checkpoint=Checkpoint(self.path, "r"))

    def test_stopping_is_immediate(self) -> None:
        calls = []

        def check() -> None:
            calls.append(1)
            if len(calls) == 4:
                raise Cancelled("Stopped.")

        with self.assertRaises(Cancelled):
            self.train(make_adapter(self.supports), check=check)
        self.assertEqual(len(calls), 4)
        # 2 steps an epoch: the second had not ended.
        self.assertEqual([e["epoch"] for e in self.events], [1])


if __name__ == "__main__":
    unittest.main()
