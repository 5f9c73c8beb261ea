"""An adapter gone on with: it begins where it was, takes less time, and keeps its rounds."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from pipeline_case import PipelineTestCase, state_bytes
from tiny_model import QUICK, run, write_patient

from FewShotSegLib.cli.commands.adapters import next_name
from FewShotSegLib.cli.describe import adapter_text
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.expected import Expected, ExpectedDice
from FewShotSegLib.core.rounds import Round, changes_text, dice_by_supports
from FewShotSegLib.core.settings import TrainingSettings
from FewShotSegLib.pipeline import adaptation
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter, read_metadata


class Continuing(PipelineTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.third = write_patient(self.folder, "third", 3)
        self.all = [s.paths for s in (*self.supports, self.third)]
        self.events: list[dict[str, Any]] = []
        self.listening = replace(self.runtime, events=self.events.append)

    def go_on(self, *supports: Any, **options: Any) -> TrainedAdapter:
        """The usual adapter, with one support more or with others."""
        usual = {"continue_from": self.trained, "structures": None, "settings": {}}
        return self.adapt(*(supports or self.all), **{**usual, **options})

    def test_it_begins_with_the_adapters_parameters(self) -> None:
        """To the bit, its statistics among them; and leaves the adapter as it was."""
        begun: list[dict[str, bytes]] = []
        real = adaptation.fit

        def fit(learner: Any, *arguments: Any) -> Any:
            state = learner.network.state_dict()
            begun.append({k: v.cpu().numpy().tobytes() for k, v in state.items()})
            return real(learner, *arguments)

        before = state_bytes(self.trained)
        with mock.patch.object(adaptation, "fit", fit):
            found = self.go_on(validate=False)
        self.assertEqual(begun, [before])
        self.assertEqual(state_bytes(self.trained), before)
        self.assertNotEqual(state_bytes(found), before)
        self.assertEqual(state_bytes(found)["mean0"], before["mean0"])

    def test_it_takes_a_third_and_folds_begin_anew(self) -> None:
        found = self.go_on(runtime=self.listening)
        self.assertEqual(found.training["settings"]["epochs"], round(QUICK.epochs / 3))
        self.assertEqual(found.training["settings"]["crop_size"], QUICK.crop_size)
        self.assertAlmostEqual(found.training["settings"]["learning_rate"], 0.01)
        self.assertEqual(found.training["original_settings"], QUICK.to_json())
        # As of a new training on three: see ``fold_epochs``.
        fresh = self.adapt(*self.all)
        self.assertEqual(found.expected, fresh.expected)
        self.assertEqual(found.expected.folds, 3)

    def test_the_rounds_are_kept_and_shown(self) -> None:
        path = self.folder / "second.fseft"
        second = self.go_on(out=path)
        third = self.adapt(*self.all, continue_from=path, structures=None, settings={})
        self.assertEqual([(r.supports, r.added) for r in third.rounds], [(2, 2), (3, 1), (3, 0)])
        self.assertEqual(third.training["settings"]["epochs"], second.training["epochs"])
        means = {k: round(v.expected, 4) for k, v in second.expected.structures.items()}
        self.assertEqual(read_metadata(path)["rounds"][1]["expected"], means)
        loaded = TrainedAdapter.load(path)
        self.assertEqual(loaded.rounds, second.rounds)
        self.assertEqual(loaded.content_sha256(), second.content_sha256())
        text = adapter_text(third.metadata())
        self.assertIn("Rounds, with the Dice to expect after each", text)
        self.assertRegex(text, rf"\n +2 +3 +1 +{second.training['epochs']} ")
        self.assertNotIn("Rounds", adapter_text(self.trained.metadata()))
        bean = [
            self.trained.expected.structures["bean"].expected,
            third.rounds[-1].expected["bean"],
        ]
        change = f"from {bean[0]:.2f} with 2 to {bean[1]:.2f} with 3 annotated volumes"
        self.assertIn(f"bean: the Dice to expect went {change}.", text)

    def test_the_rounds_are_drawn(self) -> None:
        path, picture = self.folder / "second.fseft", self.folder / "rounds.svg"
        self.go_on(out=path)
        ran = run("inspect", str(path), "--plot", str(picture))
        self.assertEqual(ran.status, 0, ran.err)
        self.assertTrue(ran.out.endswith(f"{picture}\n"))
        for words in ("annotated volumes", "Dice to expect", "bean", "pea"):
            self.assertIn(f">{words}</text>", picture.read_text())
        first = self.folder / "first.fseft"
        self.trained.save(first)
        for name, file, words in (
            ("rounds.gif", path, "end with .png or .svg"),
            ("first.png", first, "There is nothing to plot"),
        ):
            ran = run("inspect", str(file), "--plot", str(self.folder / name))
            self.assertEqual(ran.status, 2)
            self.assertIn(words, ran.err)
            self.assertFalse((self.folder / name).exists())

    def test_of_as_many_supports_the_last_training_counts(self) -> None:
        def header(supports: int, dice: float | None, rounds: Any = ()) -> dict[str, Any]:
            expected = Expected("measured", structures={"a": ExpectedDice((dice,))})
            records = [{"content": str(n)} for n in range(supports)]
            known = {} if dice is None else {"expected": expected.to_json()}
            kept = {"rounds": [one.to_json() for one in rounds]} if rounds else {}
            return {"supports": records, "training": {}, **known, **kept}

        rounds = [Round(2, 2, 5, 1.0, {"a": 0.5}), Round(4, 2, 5, 1.0, {"a": 0.75, "b": 0.25})]
        found = dice_by_supports(
            [header(3, 0.6), header(1, None), header(3, 0.7), header(4, 0.1, rounds)]
        )
        self.assertEqual(found, {"a": [(2, 0.5), (3, 0.73), (4, 0.75)], "b": [(4, 0.25)]})
        self.assertEqual(
            changes_text(found),
            "a: the Dice to expect went from 0.50 with 2 to 0.75 with 4 annotated volumes.",
        )

    def test_what_the_user_says_counts(self) -> None:
        found = self.go_on(epochs=2, validate=False)
        self.assertEqual(found.training["epochs"], 2)
        found = self.go_on(settings=replace(QUICK, epochs=3), validate=False)
        self.assertEqual(found.training["epochs"], 3)

    def test_an_adapter_that_goes_on_still_segments(self) -> None:
        self.assert_found(self.segment(adapter=self.go_on(validate=False)), self.query)

    def test_supports_of_before_that_are_missing_are_a_warning(self) -> None:
        self.go_on(self.all[0], self.all[2], runtime=self.listening, validate=False)
        warnings = [e["message"] for e in self.events if e["event"] == "warning"]
        self.assertEqual(len(warnings), 1)
        self.assertIn("1 of the 2 annotated volumes of before are not given", warnings[0])
        self.events.clear()
        self.go_on(runtime=self.listening, validate=False)
        self.assertEqual([e for e in self.events if e["event"] == "warning"], [])

    def test_what_an_adapter_has_for_good(self) -> None:
        for options, words in (
            ({"method": "linear-probe"}, "has method adapter, not linear-probe"),
            ({"features": "last"}, "has features multi, not last"),
            ({"structures": "4=bean"}, "knows bean, pea. Train a new one"),
            ({"modality": "MR"}, "has modality CT, not MR"),
        ):
            with self.subTest(options), self.assertRaisesRegex(InputError, words):
                self.go_on(**options)
        white_box = self.adapt(
            method="bias", decoder="frozen", settings=TrainingSettings(epochs=1, steps_per_epoch=1)
        )
        with self.assertRaisesRegex(InputError, "trains the backbone"):
            self.go_on(continue_from=white_box)

    def test_rounds_that_can_not_be_are_refused(self) -> None:
        path = self.folder / "odd.fseft"
        odd = replace(self.trained, rounds=[Round(2, 2, 5, 1.0, {"bean": 1.5})])
        odd.save(path)
        with self.assertRaisesRegex(InputError, "damaged"):
            TrainedAdapter.load(path)

    def test_the_command_loses_no_adapter(self) -> None:
        path = self.folder / "beans.fseft"
        self.trained.save(path)
        before = path.read_bytes()
        arguments = ["adapt", "--continue", str(path), "--model", str(self.model)]
        arguments += ["--cache", str(self.world / "cache"), "--device", "cpu", "--epochs", "1"]
        for pair in self.all:
            arguments += ["--support", *map(str, pair)]
        for name in ("beans-2.fseft", "beans-3.fseft"):
            ran = run(*arguments, "--no-validate")
            self.assertEqual(ran.status, 0, ran.err)
            self.assertIn("Rounds", ran.out)
            self.assertTrue(ran.out.endswith(f"{self.folder / name}\n"))
        self.assertEqual(path.read_bytes(), before)
        self.assertEqual(
            sorted(n for n in os.listdir(self.folder) if n.endswith(".fseft")),
            ["beans-2.fseft", "beans-3.fseft", "beans.fseft"],
        )
        self.assertEqual(
            next_name(str(self.folder / "beans-2.fseft")), str(self.folder / "beans-4.fseft")
        )
        ran = run(*arguments[:1], *arguments[3:])
        self.assertEqual(ran.status, 2)
        self.assertIn("Say --out NAME.fseft", ran.err)

    def test_an_interrupted_one_is_resumed_only_from_its_own_beginning(self) -> None:
        out = self.folder / "x.fseft"
        epochs = 0

        def stop(event: dict[str, Any]) -> None:
            nonlocal epochs
            epochs += event["event"] == "epoch"

        stopping = replace(self.runtime, events=stop, cancel=lambda: epochs >= 5)
        with self.assertRaisesRegex(Exception, "Stopped"):
            self.go_on(out=out, runtime=stopping, epochs=8, validate=False)
        other = self.adapt(validate=False, settings=replace(QUICK, epochs=1))
        with self.assertRaises(InputError):
            self.go_on(out=out, continue_from=other, resume=True, epochs=8, validate=False)
        with self.assertRaisesRegex(Exception, "Stopped"):
            self.go_on(out=out, runtime=stopping, epochs=8, validate=False)
        epochs = 0
        resumed = self.go_on(out=out, resume=True, epochs=8, validate=False)
        whole = self.go_on(epochs=8, validate=False)
        for name, tensor in whole.adapter.state_dict().items():
            np.testing.assert_array_equal(tensor, resumed.adapter.state_dict()[name])
        self.assertTrue(torch.isfinite(resumed.adapter.mean0).all())
