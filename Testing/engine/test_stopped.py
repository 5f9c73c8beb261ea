"""A run that the user, or the system, ends: nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import unittest
from pathlib import Path
from unittest import mock

import prepared_python
from bad_input_case import ROOT, BadInputTestCase, contents
from tiny_model import (
    run,
)

from FewShotSegLib.pipeline.adapter_file import TrainedAdapter


class Stopped(BadInputTestCase):
    """A run that the user, or the system, ends."""

    EPOCHS = 20

    def stopped(self, number: signal.Signals, out: Path) -> subprocess.CompletedProcess[str]:
        """``adapt`` in a process of its own, sent a signal in the middle of its training."""
        process = subprocess.Popen(
            [
                *(prepared_python.program(), "-m", "FewShotSegLib"),
                *self.adapt_arguments(out, "--events", epochs=self.EPOCHS),
            ],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        with process:
            lines = []
            for line in process.stdout:
                lines.append(line)
                if json.loads(line)["event"] == "epoch":
                    process.send_signal(number)
                    break
            rest, errors = process.stdout.read(), process.stderr.read()
        text = "".join(lines) + rest
        return subprocess.CompletedProcess(process.args, process.returncode, text, errors)

    def test_by_a_signal_in_the_middle_of_training(self) -> None:
        whole = self.folder / "whole.fseft"
        self.assertEqual(run(*self.adapt_arguments(whole, epochs=self.EPOCHS)).status, 0)
        out = self.outputs / "a.fseft"
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number.name):
                before = contents(self.outputs)
                ended = self.stopped(number, out)
                self.assertEqual(ended.returncode, 2, ended.stderr)
                self.assertRegex(ended.stderr, r"\Afewshotseg: Stopped; .*--resume.*\n\Z")
                last = json.loads(ended.stdout.splitlines()[-1])
                self.assertEqual((last["event"], last["kind"]), ("cancelled", "Cancelled"))
                after = contents(self.outputs)
                self.assertEqual(set(after) - set(before), {"a.fseft.partial"})
                after.pop("a.fseft.partial")
                self.assertEqual(after, before)

                arguments = self.adapt_arguments(out, "--resume", "--events", epochs=self.EPOCHS)
                ran = run(*arguments)
                self.assertEqual(ran.status, 0, ran.err)
                epochs = [e["epoch"] for e in ran.events if e["event"] == "epoch"]
                self.assertGreater(epochs[0], 1)
                self.assertEqual(epochs, list(range(epochs[0], self.EPOCHS + 1)))
                self.assertEqual(set(contents(self.outputs)) - set(before), {"a.fseft"})
                self.assertEqual(
                    TrainedAdapter.load(out).content_sha256(),
                    TrainedAdapter.load(whole).content_sha256(),
                )
                out.unlink()

    def test_before_anything_was_begun(self) -> None:
        """It stops immediately, and the handlers of whoever called are put back."""
        before = signal.getsignal(signal.SIGINT)

        def interrupt(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        with mock.patch("FewShotSegLib.training.learner.standardise", interrupt):
            self.adapt("Stopped; nothing is half written")
        self.assertIs(signal.getsignal(signal.SIGINT), before)

    def test_resuming_with_other_inputs(self) -> None:
        out = self.outputs / "a.fseft"
        with mock.patch("FewShotSegLib.training.checkpoint.Checkpoint.remove"):
            self.assertEqual(run(*self.adapt_arguments(out)).status, 0)
        self.assertIn("a.fseft.partial", contents(self.outputs))
        self.assert_refused(
            "of a training with other supports or settings",
            *self.adapt_arguments(out, "--resume", "--seed", "1"),
        )


if __name__ == "__main__":
    unittest.main()
