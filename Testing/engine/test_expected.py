"""What Dice to expect of an adapter: measured by holding supports out, kept, and said."""

from __future__ import annotations

import json
import math
import tempfile
import unittest
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from pipeline_case import PipelineTestCase
from scipy import stats
from tiny_model import QUICK, STRUCTURES, run

from FewShotSegLib.cli.describe import adapter_text
from FewShotSegLib.core.adapter_header import read_header
from FewShotSegLib.core.annotation import Annotation, Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.expected import Expected, ExpectedDice, student_quantile
from FewShotSegLib.core.geometry import Grid, Volume
from FewShotSegLib.core.settings import TrainingSettings
from FewShotSegLib.features.extraction import FeatureSource
from FewShotSegLib.features.store import VolumeFeatures
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline import expectation, read_support
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter, read_metadata
from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.training import validation
from FewShotSegLib.training.run import Run
from FewShotSegLib.training.support_set import PreparedSupport, Support, SupportSet
from FewShotSegLib.training.validation import Subject, cross_validate, fold_epochs, held_out

LIVER, SPLEEN = Structure("liver", 1), Structure("spleen", 2)
OLD = Path(__file__).resolve().parents[1] / "old_files"


class Words(unittest.TestCase):
    """Numbers and sentences from the Dice of held-out supports."""

    def test_what_one_more_would_add(self) -> None:
        three = ExpectedDice((0.6, 0.7, 0.8))
        self.assertAlmostEqual(three.one_more, (1 - three.expected) * (1 - 0.75**0.1))
        self.assertAlmostEqual(three.one_more, 0.27 * 0.02836, 5)
        self.assertIn("One more would add about 0.01, on average.", three.sentence())
        self.assertNotIn("One more", ExpectedDice((0.95, 0.96, 0.97)).sentence(), "nothing to gain")
        for dice in ((), (0.5,), (0.5,) * 6):
            self.assertIsNone(ExpectedDice(dice).one_more)
            self.assertNotIn("One more", ExpectedDice(dice).sentence())
        summary = Expected("measured", structures={"a": three}).summary("a")
        self.assertEqual(summary["one_more"], round(three.one_more, 4))

    def test_the_interval_is_that_of_the_documentation(self) -> None:
        found = ExpectedDice((0.6, 0.7, 0.5))
        deviation = math.sqrt((2 * 0.06**2 + 0.02) / 4)
        reach = stats.t.ppf(0.9, 4) * deviation * math.sqrt(4 / 3)
        self.assertAlmostEqual(found.mean, 0.6)
        self.assertAlmostEqual(found.expected, 1 - 0.9 * 0.4)
        np.testing.assert_allclose(found.interval(), (0.64 - reach, 0.64 + reach), atol=1e-3)

    def test_the_quantile_is_students(self) -> None:
        for freedom in range(3, 60):
            wanted = stats.t.ppf(0.9, freedom)
            self.assertAlmostEqual(student_quantile(freedom), wanted, delta=1e-3)

    def test_the_interval_is_within_0_and_1(self) -> None:
        low, high = ExpectedDice((0.0, 0.99)).interval()
        self.assertEqual((low, high), (0.0, 1.0))

    def test_equal_values_are_no_certainty(self) -> None:
        low, high = ExpectedDice((0.7, 0.7)).interval()
        self.assertLess(low, 0.73 - 0.08)
        self.assertGreater(high, 0.73 + 0.08)

    def test_the_sentence_of_several(self) -> None:
        self.assertEqual(
            ExpectedDice((0.55, 0.77, 0.69)).sentence(),
            "expect a Dice of about 0.70 on a new volume like these, 4 times in 5 between 0.54 and "
            "0.86; 0.55 to 0.77 on these 3, each held out once. One more would add about 0.01, on "
            "average.",
        )

    def test_two_and_one_and_none_are_said_to_tell_little(self) -> None:
        self.assertIn("Two volumes tell little", ExpectedDice((0.5, 0.6)).sentence())
        self.assertNotIn("Two volumes", ExpectedDice((0.5, 0.6, 0.7)).sentence())
        self.assertIn("about 0.55", ExpectedDice((0.5,)).sentence())
        self.assertIsNone(ExpectedDice((0.5,)).interval())
        self.assertIn("not known", ExpectedDice().sentence())

    def test_every_reason_has_its_sentence(self) -> None:
        for status, words in (
            ("one support", "one annotated volume can't tell"),
            ("backbone", "the training for every annotated volume again"),
            ("skipped", "left out"),
            ("unfinished", "stopped"),
            ("of tomorrow", "of tomorrow"),
        ):
            self.assertIn(words, str(Expected(status)))


class Folds(unittest.TestCase):
    """Who is held out, and for how long is trained."""

    def test_each_support_is_held_out_once(self) -> None:
        for count in range(2, 21):
            folds = held_out(count)
            self.assertEqual(sorted(n for fold in folds for n in fold), list(range(count)))
            self.assertEqual(len(folds), 3 if count == 3 else 2)
            self.assertLessEqual(max(map(len, folds)), -(-count // len(folds)))

    def epochs(self, epochs: int, folds: int, side: int) -> int:
        """Of each fold, for so many volumes of so many voxels a side."""
        settings = TrainingSettings(steps_per_epoch=4, crops=4, crop_size=30)
        support = mock.Mock()
        support.features.shape = (side,) * 3
        learned = SupportSet([LIVER], [support] * folds)
        return fold_epochs(Subject([], learned, settings, epochs), folds)

    def test_all_folds_and_their_segmenting_take_no_longer_than_the_training(self) -> None:
        for epochs in (20, 60):
            for folds in range(2, 6):
                for side in (1, 60, 100):
                    found = folds * self.epochs(epochs, folds, side)
                    cost = found * 4 * 4 * 30**3 * 3 + folds * side**3
                    self.assertLessEqual(cost, epochs * 4 * 4 * 30**3 * 3)
                    self.assertGreater(found, epochs / 2)
        self.assertEqual(self.epochs(60, 3, 1), 19)
        self.assertEqual(self.epochs(60, 3, 60), 19)
        self.assertEqual(self.epochs(60, 3, 200), 13)
        self.assertEqual(self.epochs(60, 3, 500), 10)
        self.assertEqual(self.epochs(1, 5, 1), 1)


class Scripted(unittest.TestCase):
    """Exact values, with adapters that predict what the test says."""

    SHAPE = (4, 5, 3)

    def setUp(self) -> None:
        self.trained_on: list[list[str]] = []

    def case(self, number: int, drawn: Sequence[str] = ("liver",)) -> tuple[Support, Any]:
        """A support whose structures are its first voxels, in a volume that is all its number."""
        grid = Grid(self.SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
        mask = np.zeros(self.SHAPE, bool)
        mask.flat[:10] = True
        structures = [s for s in (LIVER, SPLEEN) if s.name in drawn]
        annotation = Annotation({s.name: mask for s in structures}, structures)
        volume = Volume(np.full(self.SHAPE, number, np.int16), grid)
        features = VolumeFeatures((), (), (), self.SHAPE, str(number))
        centres = tuple(np.argwhere(mask & (s.name in drawn)) for s in (LIVER, SPLEEN))
        nothing = torch.zeros(0)
        prepared = PreparedSupport(
            features, nothing, nothing, centres, {}, frozenset(), str(number)
        )
        return Support(volume, annotation, str(number)), prepared

    def measure(self, *cases: Any, right: Sequence[int], epochs: int = 60) -> Expected:
        """``right``: how many of a held-out support's 10 voxels its fold's adapter finds."""
        read, prepared = zip(*cases, strict=True)
        learned = SupportSet([LIVER, SPLEEN], list(prepared))
        self.epochs: list[int] = []

        def start(supports: SupportSet, count: int, run: Run) -> Any:
            self.trained_on.append([s.subject for s in supports.supports])
            self.epochs.append(count)
            return mock.Mock(network="adapter of " + ", ".join(self.trained_on[-1]))

        def predict(adapter: Any, features: VolumeFeatures, volume: Volume) -> list[np.ndarray]:
            number = int(volume.array[0, 0, 0])
            self.assertEqual(features.key, str(number))
            self.assertNotIn(str(number), adapter.removeprefix("adapter of ").split(", "))
            mask = np.zeros(self.SHAPE, bool)
            mask.flat[: right[number]] = True
            return [mask, np.zeros(self.SHAPE, bool)]

        self.events: list[dict[str, Any]] = []
        run = Run(torch.device("cpu"), events=self.events.append)
        with mock.patch.object(validation, "fit") as fit:
            fit.return_value.epochs = 0
            subject = Subject(read, learned, TrainingSettings(), epochs)
            return cross_validate(subject, start, predict, run)

    def test_the_dice_of_each_support_by_an_adapter_without_it(self) -> None:
        found = self.measure(*map(self.case, range(3)), right=[10, 5, 0])
        self.assertEqual(self.trained_on, [["1", "2"], ["0", "2"], ["0", "1"]])
        self.assertEqual(found.structures["liver"].dice, (1.0, round(10 / 15, 4), 0.0))
        self.assertEqual((found.folds, found.epochs), (3, 19))
        self.assertEqual(self.epochs, [19] * 3)

    def test_many_supports_are_held_out_in_groups(self) -> None:
        found = self.measure(*map(self.case, range(7)), right=[10, 9, 8, 7, 6, 5, 4])
        wanted = [2 * n / (10 + n) for n in (10, 9, 8, 7, 6, 5, 4)]
        np.testing.assert_allclose(found.structures["liver"].dice, wanted, atol=1e-4)
        self.assertEqual(self.trained_on, [["1", "3", "5"], ["0", "2", "4", "6"]])

    def test_what_is_not_annotated_counts_for_nothing(self) -> None:
        cases = [self.case(0, ["liver", "spleen"]), self.case(1), self.case(2)]
        found = self.measure(*cases, right=[10, 10, 10])
        # The spleen is in support 0 alone: no adapter without it has learnt it.
        self.assertEqual(found.structures["spleen"].dice, ())
        self.assertEqual(len(found.structures["liver"].dice), 3)

    def test_where_nothing_is_known_nothing_counts(self) -> None:
        """Of a support that was annotated in part, neither what is missed nor what is found."""
        cases = [self.case(n) for n in range(3)]
        known = np.zeros(self.SHAPE, bool)
        known.flat[5:12] = True  # half of the structure, and two voxels that are none of it
        read, prepared = cases[1]
        part = replace(read, annotation=replace(read.annotation, known=known))
        found = self.measure(cases[0], (part, prepared), cases[2], right=[10, 30, 10])
        self.assertEqual(found.structures["liver"].dice, (1.0, round(10 / 12, 4), 1.0))
        self.assertEqual(found.sparse, 1)
        self.assertIn("measured there alone", found.sentences()["liver"])
        self.assertIn("measured there alone", found.summary("liver")["sentence"])
        whole = self.measure(*cases, right=[10, 10, 10])
        self.assertNotIn("measured there", str(whole))
        self.assertNotIn("sparse", whole.to_json())

    def test_a_fold_whose_supports_show_nothing_is_passed_over(self) -> None:
        found = self.measure(self.case(0, ["liver"]), self.case(1, []), right=[10, 10])
        self.assertEqual(self.trained_on, [["0"]])
        self.assertEqual(found.structures["liver"].dice, ())
        last = self.events[-1]
        self.assertEqual(last["done"], last["total"])

    def test_progress_reaches_its_total_and_is_of_the_phase(self) -> None:
        self.measure(*map(self.case, range(3)), right=[1, 1, 1])
        self.assertEqual({e["phase"] for e in self.events}, {"validate"})
        self.assertEqual([e["event"] for e in self.events], ["progress"] * len(self.events))
        last = self.events[-1]
        self.assertEqual(last["done"], last["total"])
        self.assertEqual(last["total"], 3 * 19 + 3)


class AfterTraining(PipelineTestCase):
    """In the pipeline, on the tiny world."""

    def setUp(self) -> None:
        super().setUp()
        self.out = self.folder / f"{self.id()}.fseft"
        self.events: list[dict[str, Any]] = []
        self.listening = replace(self.runtime, events=self.events.append)

    def test_the_files_numbers_are_those_of_adapters_trained_without_the_support(self) -> None:
        trained = self.adapt(out=self.out)
        short = replace(QUICK, epochs=trained.expected.epochs)
        self.assertIn(short.epochs, (QUICK.epochs // 2 - 1, QUICK.epochs // 2))
        for number, left_out in enumerate(self.supports):
            (other,) = (s for s in self.supports if s is not left_out)
            alone = self.adapt(other.paths, settings=short)
            truth = read_image(left_out.segmentation).array
            masks = self.segment(left_out.image, adapter=alone, transductive=False).masks
            for name, value in (("bean", 4), ("pea", 5)):
                both = np.count_nonzero(masks[name] & (truth == value))
                size = np.count_nonzero(masks[name]) + np.count_nonzero(truth == value)
                found = trained.expected.structures[name].dice[number]
                self.assertAlmostEqual(found, 2 * both / size, delta=5e-3)
        self.assertEqual(read_metadata(self.out)["expected"]["status"], "measured")
        self.assertEqual(TrainedAdapter.load(self.out).expected, trained.expected)

    def test_no_backbone_pass_and_no_other_adapter(self) -> None:
        calls = []
        real = FeatureSource.__call__

        def count(source: FeatureSource, volume: Volume, subject: str = "") -> VolumeFeatures:
            calls.append(subject)
            return real(source, volume, subject)

        with mock.patch.object(FeatureSource, "__call__", count):
            measured = self.adapt(runtime=Runtime("cpu", self.folder / self.id()))
        self.assertEqual(len(calls), len(self.supports))
        self.assertEqual(measured.training["backbone_passes"], len(self.supports))
        plain = self.adapt(validate=False)
        self.assertEqual(plain.expected, Expected("skipped"))
        self.assertEqual(plain.content_sha256(), measured.content_sha256())

    def test_a_held_out_label_never_enters_its_fold(self) -> None:
        """The label of a support is changed: its own score changes, the masks of its fold don't."""
        seen: list[list[bytes]] = []
        real = expectation.original_masks

        def keep(*args: Any) -> list[np.ndarray]:
            masks = real(*args)
            seen[-1].append(b"".join(mask.tobytes() for mask in masks))
            return masks

        first = [s.paths for s in self.supports]
        whole = [read_support(*paths, STRUCTURES) for paths in first]
        moved = replace(
            whole[0],
            annotation=replace(
                whole[0].annotation,
                masks={k: np.roll(m, 3, 0) for k, m in whole[0].annotation.masks.items()},
            ),
        )
        found = []
        for supports in (whole, [moved, whole[1]]):
            seen.append([])
            with mock.patch.object(expectation, "original_masks", keep):
                found.append(self.adapt(*supports).expected)
        self.assertEqual(seen[0][0], seen[1][0])  # held out: the first support
        self.assertNotEqual(seen[0][1], seen[1][1])  # its label taught this one
        dice = [e.structures["bean"].dice[0] for e in found]
        self.assertNotEqual(*dice)

    def test_one_support_can_not_tell(self) -> None:
        trained = self.adapt(self.supports[0].paths, runtime=self.listening)
        self.assertEqual(trained.expected, Expected("one support"))
        self.assertNotIn("validate", {e.get("phase") for e in self.events})
        self.assertIn("one annotated volume can't tell", adapter_text(trained.metadata()))

    def test_a_trained_backbone_is_not_measured(self) -> None:
        trained = self.adapt(
            method="bias", decoder="frozen", settings=TrainingSettings(epochs=1, steps_per_epoch=1)
        )
        self.assertEqual(trained.expected, Expected("backbone"))

    def test_the_file_is_there_before_and_stays_when_it_is_stopped(self) -> None:
        stopped = False

        def listen(event: dict[str, Any]) -> None:
            nonlocal stopped
            self.events.append(event)
            if event["event"] == "phase" and event["phase"] == "validate":
                self.assertEqual(read_metadata(self.out)["expected"]["status"], "unfinished")
                stopped = True

        runtime = replace(self.runtime, events=listen, cancel=lambda: stopped)
        trained = self.adapt(out=self.out, runtime=runtime)
        self.assertTrue(stopped)
        self.assertEqual(trained.expected, Expected("unfinished"))
        loaded = TrainedAdapter.load(self.out)
        self.assertEqual(loaded.content_sha256(), self.trained.content_sha256())
        self.assertEqual(loaded.expected, Expected("unfinished"))
        self.assertFalse(Path(f"{self.out}.partial").exists())

    def test_what_goes_wrong_costs_the_estimate_alone(self) -> None:
        with mock.patch.object(validation, "fit", side_effect=InputError("The training diverged.")):
            trained = self.adapt(out=self.out, runtime=self.listening)
        self.assertEqual(trained.expected, Expected("unfinished"))
        (warning,) = [e["message"] for e in self.events if e["event"] == "warning"]
        self.assertIn("could not be measured. The training diverged.", warning)
        self.assertEqual(TrainedAdapter.load(self.out).expected, Expected("unfinished"))

    def test_a_file_that_was_replaced_meanwhile_stays_as_it_is(self) -> None:
        def listen(event: dict[str, Any]) -> None:
            self.events.append(event)
            if event["event"] == "phase" and event["phase"] == "validate":
                self.out.unlink()
                self.out.write_bytes(b"another")

        self.adapt(out=self.out, runtime=replace(self.runtime, events=listen))
        self.assertEqual(self.out.read_bytes(), b"another")
        self.assertIn("changed meanwhile", self.events[-1]["message"])

    def test_it_is_in_the_report_of_a_result(self) -> None:
        trained = self.adapt()
        report = self.segment(adapter=trained).report["structures"]
        for name, found in trained.expected.structures.items():
            said = report[name]["expected_dice"]
            self.assertEqual(said["held_out"], list(found.dice))
            self.assertAlmostEqual(said["dice"], found.expected, delta=1e-4)
            self.assertEqual(said["sentence"], found.sentence())
            self.assertEqual((said["lower"], said["upper"]), tuple(np.round(found.interval(), 4)))
        trained.expected = None
        report = self.segment(adapter=trained).report["structures"]
        self.assertIsNone(report["bean"]["expected_dice"])

    def test_repr_is_one_line_with_the_numbers(self) -> None:
        text = repr(self.trained)
        self.assertEqual(len(text.splitlines()), 1)
        bean = self.trained.expected.structures["bean"].expected
        self.assertIn(f"expected Dice bean {bean:.2f}", text)
        self.assertNotIn("expected", repr(TrainedAdapter.load(OLD / "adapter.fseft")))

    def test_the_command_says_it(self) -> None:
        adapt = run(*self.adapt_arguments(self.out, epochs=4))
        self.assertEqual(adapt.status, 0, adapt.err)
        self.assertIn("bean: expect a Dice of about", adapt.out)
        inspect = run("inspect", str(self.out))
        self.assertIn("bean: expect a Dice of about", inspect.out)
        self.assertIn("pea: expect a Dice of about", inspect.out)
        skipped = run(*self.adapt_arguments(self.out, "--no-validate", epochs=4))
        self.assertIn("not measured: it was left out", skipped.out)

    def test_the_command_that_is_interrupted_says_that_the_adapter_is_there(self) -> None:
        with mock.patch.object(expectation, "cross_validate", side_effect=KeyboardInterrupt):
            ran = run(*self.adapt_arguments(self.out, epochs=2))
        self.assertEqual(ran.status, 2)
        self.assertIn(f"the adapter {self.out} is complete", ran.err)
        self.assertEqual(TrainedAdapter.load(self.out).expected, Expected("unfinished"))


class OldAndOtherFiles(unittest.TestCase):
    """Files without the field, and with what can't be in it."""

    def test_a_file_of_before_loads_and_says_so(self) -> None:
        for name in ("adapter", "bias", "linear-probe"):
            trained = TrainedAdapter.load(OLD / f"{name}.fseft")
            self.assertIsNone(trained.expected)
            self.assertIn("before this was measured", adapter_text(trained.metadata()))
            self.assertNotIn("expected", trained.metadata())

    def test_fields_that_can_not_be(self) -> None:
        trained = TrainedAdapter.load(OLD / "adapter.fseft")
        name = trained.structures[0].name
        for structures in ({name: ExpectedDice((1.5,))}, {"nothing": ExpectedDice((0.5,))}):
            trained.expected = Expected("measured", 2, 3, False, structures)
            with self.subTest(structures), self.assertRaisesRegex(InputError, "damaged"):
                read_header(saved(trained), "it")
        trained.expected = Expected("measured", 2, 3, False, {name: ExpectedDice((0.5, 0.6))})
        header = read_header(saved(trained), "it")
        self.assertEqual(header["expected"], json.loads(json.dumps(trained.expected.to_json())))


def saved(trained: TrainedAdapter) -> bytes:
    """The bytes of an adapter's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "it.fseft"
        trained.save(path)
        return path.read_bytes()


if __name__ == "__main__":
    unittest.main()
