"""Verdicts on results: what they rest on, how they follow from it, and how they are said."""

from __future__ import annotations

import json
import math
import unittest
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from pipeline_case import PipelineTestCase, strict_json
from tiny import make_features
from tiny_model import TrainedWorld, run, write_array
from training_case import CPU, THOROUGH, Training, make_adapter

from FewShotSegLib.cli.describe import result_text
from FewShotSegLib.core.adapter_header import EVIDENCE_FORMAT, KEY, read_header
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.trust import (
    FINE,
    LEARNED,
    LOOK,
    UNKNOWN,
    UNUSABLE,
    Judgement,
    Signals,
    TrustModel,
    Weights,
    of_support,
    shipped_model,
    worst,
)
from FewShotSegLib.core.trust import judge as judge_all
from FewShotSegLib.inference import evidence
from FewShotSegLib.inference.evidence import agreement, confidence, describe
from FewShotSegLib.inference.prediction import model_probabilities
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline.adapter_file import EVIDENCE, TrainedAdapter

OLD = Path(__file__).resolve().parents[1] / "old_files"
NAMES = (
    "held_out", "agreement", "mutual", "confidence", "region", "region_times", "volume",
    "volume_times", "size", "pieces", "apart", "moved",
)  # fmt: skip
WHOLE = Signals(
    3, 0.8, 0.9, 0.9, 0.95, 1.0, 1.0, 0.5, 0.5, size=0.0, largest=1.0, apart=0.0, moved=1.0
)
"""As good as it gets."""


def judge(signals: Signals | None, given: TrustModel | None = None) -> Judgement:
    """The verdict on the only structure of a result."""
    return judge_all({"it": signals}, given)["it"]


def model(**loss: float) -> TrustModel:
    """A model by which these doubts, times their weights, are lost."""
    weights = {name: 0.0 for name in NAMES} | loss
    nothing = dict.fromkeys(NAMES, 0.0)
    foreign = dict.fromkeys(NAMES, 0.0) | {"volume_times": 1.0}
    return TrustModel(
        Weights(0.1, weights, nothing), 0.1, 0.0, Weights(-2.0, foreign, nothing), 0.2, 0.8
    )


class OfASupport(unittest.TestCase):
    def test_it_is_never_fine_and_says_why_first(self) -> None:
        for verdict, shown in (
            (FINE, LOOK), (UNKNOWN, LOOK), (LOOK, LOOK), (UNUSABLE, UNUSABLE),
        ):  # fmt: skip
            found = of_support(Judgement(verdict, ("else",), 0.9))
            self.assertEqual(found, Judgement(shown, (LEARNED, "else"), 0.9))


class Verdicts(unittest.TestCase):
    """From signals to words."""

    def test_the_verdict_follows_the_probability_of_a_bad_dice(self) -> None:
        for agree, verdict in ((0.95, FINE), (0.75, LOOK), (0.7, LOOK), (0.3, UNUSABLE)):
            found = judge(replace(WHOLE, agreement=agree), model(agreement=1.0))
            self.assertEqual(found.verdict, verdict)
            self.assertAlmostEqual(found.dice, 0.9 - (1 - agree))
            self.assertAlmostEqual(found.upper - found.dice, min(1.28155 * 0.1, 1 - found.dice), 4)
            self.assertAlmostEqual(found.dice - found.lower, 1.28155 * 0.1, 4)
            self.assertEqual(bool(found.reasons), verdict != FINE)

    def test_an_image_unlike_the_supports_is_not_to_be_used(self) -> None:
        found = judge(replace(WHOLE, volume=0.5 * math.exp(2.1)), model())
        self.assertEqual(found.verdict, UNUSABLE)
        self.assertIn("unlike the supports", found.reasons[0])
        self.assertIsNone(found.dice)
        self.assertEqual(judge(replace(WHOLE, volume=0.5 * math.exp(1.9)), model()).verdict, FINE)

    def test_whether_an_image_is_like_the_supports_is_of_all_its_structures(self) -> None:
        """By the mean over what was found, so that one odd structure condemns no image."""
        far, near = (replace(WHOLE, volume=0.5 * math.exp(by)) for by in (2.6, 1.0))
        empty = replace(far, largest=None)
        for signals, verdicts in (
            ({"a": far, "b": near}, [FINE, FINE]),
            ({"a": far, "b": far, "c": near}, [UNUSABLE] * 3),
            ({"a": near, "b": empty}, [FINE, UNUSABLE]),
        ):
            found = judge_all(signals, model())
            self.assertEqual([one.verdict for one in found.values()], verdicts)
        only = judge_all({"a": empty, "b": empty}, model())["a"]
        self.assertIn("unlike the supports", only.reasons[1])

    def test_nothing_found_is_not_to_be_used(self) -> None:
        found = judge(replace(WHOLE, largest=None), model())
        self.assertEqual((found.verdict, found.reasons), (UNUSABLE, ("nothing was found",)))

    def test_without_anything_to_judge_by_it_is_not_known(self) -> None:
        found = judge(None)
        self.assertEqual((found.verdict, found.dice), (UNKNOWN, None))
        self.assertIn("keeps nothing to judge by", found.reasons[0])

    def test_a_signal_that_is_missing_counts_as_usual(self) -> None:
        usual = dict.fromkeys(NAMES, 0.0) | {"agreement": 0.25}
        given = replace(model(), loss=Weights(0.1, {"agreement": 1.0}, usual))
        self.assertAlmostEqual(judge(replace(WHOLE, agreement=None), given).dice, 0.9)
        self.assertAlmostEqual(judge(replace(WHOLE, agreement=0.65), given).dice, 0.8)

    def test_reasons_are_what_costs_most_first(self) -> None:
        given = model(agreement=0.3, size=1.0, pieces=1.0, region=0.01)
        signals = replace(
            WHOLE, agreement=0.5, size=math.log(2.5), largest=0.7, apart=80.0, region=1.5
        )
        found = judge(signals, given)
        self.assertEqual(
            found.reasons,
            (
                "its volume is 2.5 times the supports'",
                "30 % of it is in further pieces, up to 80 mm away",
                "adapters that each lacked some supports find something else (their Dice with it "
                "is 0.50)",
            ),
        )

    def test_a_piece_far_away_is_to_be_looked_at_whatever_the_dice(self) -> None:
        far = replace(WHOLE, far=55.2, far_ml=0.314)
        found = judge(far, model())
        words = "a piece of 0.31 ml lies 55 mm away from it"
        self.assertEqual((found.verdict, found.reasons), (LOOK, (words,)))
        self.assertEqual(found.dice, judge(WHOLE, model()).dice)
        bad = judge(replace(far, agreement=0.3, largest=0.5), model(agreement=1.0, pieces=0.1))
        self.assertEqual(bad.verdict, UNUSABLE)
        self.assertEqual(bad.reasons[1:], (words,), "once, in place of what is said of pieces")
        foreign = judge(replace(far, volume=0.5 * math.exp(2.1)), model())
        self.assertIsNone(foreign.dice)

    def test_every_doubt_has_its_words(self) -> None:
        for signals in (WHOLE, Signals(largest=0.5)):
            for name in signals.doubts():
                found = judge(signals, replace(model(**{name: 1.0}), look=0.0))
                self.assertTrue(found.reasons[0])

    def test_size_and_pieces_of_a_result(self) -> None:
        found = Signals().with_result(5.0, 10.0, True, [3.0, 1.5, 0.5], [0.0, 20.0, 44.0], 2, 0.8)
        self.assertAlmostEqual(found.size, math.log(0.5))
        self.assertAlmostEqual(found.largest, 0.9)
        self.assertEqual((found.apart, found.moved, found.empty), (44.0, 0.8, False))
        empty = Signals().with_result(0.0, 10.0, True, [], [], 1, None)
        self.assertEqual((empty.size, empty.largest, empty.empty), (None, None, True))
        self.assertIsNone(Signals().with_result(5.0, 9.0, False, [5.0], [0.0], 1, 1.0).size)

    def test_the_worst_results_come_first(self) -> None:
        def entry(verdict: str, dice: float | None) -> dict[str, Any]:
            return {"verdict": verdict, "dice": dice}

        order = [
            [entry(FINE, 0.9), entry(UNUSABLE, None)],
            [entry(FINE, 0.9), entry(UNUSABLE, 0.1)],
            [entry(LOOK, 0.5), entry(FINE, 0.9)],
            [entry(LOOK, 0.6), entry(FINE, 0.9)],
            [entry(UNKNOWN, None)],
            [entry(FINE, 0.8)],
        ]
        self.assertEqual(sorted(reversed(order), key=worst), order)

    def test_the_shipped_model_never_likes_a_doubt(self) -> None:
        shipped = shipped_model()
        for weights in (shipped.loss, shipped.foreign):
            self.assertTrue(all(weight >= 0 for weight in weights.weights.values()))
            self.assertEqual(set(weights.weights), set(weights.usual))
            self.assertLessEqual(set(weights.weights), set(WHOLE.doubts()))
        self.assertEqual(judge(WHOLE).verdict, FINE)
        self.assertIn("trust_fit.py", shipped.command)


class Measuring(Training):
    """On synthetic features, against what is plainly computed."""

    def test_a_volume_in_a_few_numbers(self) -> None:
        rng = torch.Generator().manual_seed(0)
        fine = torch.randn(3, 8, 8, 8, generator=rng)
        coarse = torch.randn(2, 4, 4, 4, generator=rng)
        features = make_features([fine, coarse], (1, 2), (7, 8, 8), scales=[1.0, 2.0])
        inside = torch.zeros(2, 7, 8, 8, dtype=torch.bool)
        inside[0, 2:6, 2:6, 0:2] = True
        found = describe(features, (0, 1), [np.argwhere(mask) for mask in inside.numpy()])
        levels = [
            torch.from_numpy(a).float() * s
            for a, s in zip(features.levels, (1.0, 2.0), strict=True)
        ]
        wanted = [level.flatten(1) for level in levels]
        np.testing.assert_allclose(found.mean, torch.cat([w.mean(1) for w in wanted]), atol=2e-3)
        spread = torch.cat([w.std(1, correction=0) for w in wanted])
        np.testing.assert_allclose(found.deviation, spread, rtol=2e-3)
        own = torch.cat(
            [
                levels[0][:, 2:6, 2:6, 0:2].flatten(1).mean(1),
                levels[1][:, 1:3, 1:3, 0:1].flatten(1).mean(1),
            ]
        )
        np.testing.assert_allclose(found.regions[0], own, atol=2e-3)
        self.assertEqual(found.present.tolist(), [True, False])
        self.assertFalse(found.regions[1].any())

    def test_distances_are_to_the_nearest_support_that_shows_it(self) -> None:
        def volume(value: float, present: bool = True) -> evidence.Description:
            one = np.full(7, value, np.float32)
            there = np.array([present, True])
            return evidence.Description(one, np.ones(7, np.float32), np.stack([one, one]), there)

        adapter = make_adapter(self.supports)
        for number in range(2):
            getattr(adapter, f"deviation{number}").fill_(2.0)
        supports = [volume(0.0), volume(1.0, present=False), volume(6.0)]
        query = volume(1.5)
        self.assertAlmostEqual(evidence.volume_distance(query, supports, adapter), 0.25)
        self.assertAlmostEqual(evidence.region_distance(query, supports, adapter, 0), 0.75)
        self.assertAlmostEqual(evidence.region_distance(query, supports, adapter, 1), 0.25)
        self.assertIsNone(evidence.region_distance(volume(1.0, False), supports, adapter, 0))
        usual, regions = evidence.usual_distances(supports, adapter, 2)
        self.assertAlmostEqual(usual, (0.5 + 0.5 + 2.5) / 3)
        self.assertAlmostEqual(regions[0], 3.0)
        self.assertEqual(evidence.usual_distances(supports[:1], adapter, 2), (None, [None] * 2))

    def test_agreement_is_the_dice_of_whole_volumes(self) -> None:
        adapters = [make_adapter(self.supports, "adapter", seed) for seed in range(3)]
        for adapter in adapters:
            self.train(adapter, THOROUGH)
        features = self.supports[0].features
        own = model_probabilities(adapters[0], features, CPU)
        found = agreement(own, adapters[1:], features, CPU)
        masks = [(model_probabilities(a, features, CPU) > 0.5).numpy() for a in adapters]

        def dice(one: np.ndarray, other: np.ndarray) -> float:
            return 2 * np.count_nonzero(one & other) / (one.sum() + other.sum())

        for k in range(2):
            first = [dice(masks[0][k], other[k]) for other in masks[1:]]
            self.assertAlmostEqual(found[k][0], np.mean(first), delta=0.01)
            self.assertAlmostEqual(found[k][1], dice(masks[1][k], masks[2][k]), delta=0.01)
        self.assertEqual(agreement(own, [], features, CPU), [None, None])
        self.assertEqual(agreement(own * 0, adapters, features, CPU), [None, None])

    def test_confidence_is_the_dice_that_probabilities_expect(self) -> None:
        probability = torch.tensor([[0.9, 0.8, 0.2, 0.1], [0.0, 0.1, 0.2, 0.4]]).view(2, 1, 2, 2)
        found = confidence(probability.half())
        self.assertAlmostEqual(found[0], 2 * 1.7 / (2 + 2.0), delta=2e-3)
        self.assertIsNone(found[1])


class InFiles(PipelineTestCase):
    """What an adapter's file keeps."""

    def test_the_file_gives_the_same_verdicts(self) -> None:
        trained = self.adapt(out=self.folder / "it.fseft")
        loaded = TrainedAdapter.load(self.folder / "it.fseft")
        self.assertEqual(len(loaded.evidence.held_out), 2)
        self.assertEqual(len(loaded.evidence.supports), 2)
        for name, tensor in trained.evidence.tensors().items():
            self.assertTrue(torch.equal(tensor, loaded.evidence.tensors()[name]), name)
        reports = [self.segment(adapter=a).report["structures"] for a in (trained, loaded)]
        self.assertEqual(*reports)
        signals = reports[0]["bean"]["signals"]
        self.assertNotIn(None, (signals["agreement"], signals["region"], signals["volume"]))
        header = read_header((self.folder / "it.fseft").read_bytes(), "it")
        self.assertEqual(header["format"], EVIDENCE_FORMAT)
        self.assertEqual(header["evidence"], {"supports": 2, "held_out": 2})

    def test_without_held_out_adapters_the_features_still_tell(self) -> None:
        trained = self.adapt(self.supports[0].paths)
        entry = self.segment(adapter=trained).report["structures"]["bean"]
        self.assertIsNone(entry["signals"]["agreement"])
        self.assertIsNotNone(entry["signals"]["volume"])
        self.assertIn(entry["trust"]["verdict"], (FINE, LOOK, UNUSABLE))

    def test_it_is_no_part_of_what_the_adapter_is(self) -> None:
        alone = replace(self.trained, evidence=None)
        self.assertEqual(alone.content_sha256(), self.trained.content_sha256())
        self.assertEqual(alone.metadata()["format"], 1)

    def test_another_image_is_farther_than_one_like_the_supports(self) -> None:
        volume = read_image(self.query.image)
        other = np.random.default_rng(0).permutation(volume.array.ravel())
        strange = write_array(
            self.folder / "o.nii.gz", other.reshape(volume.array.shape), volume.grid
        )
        near, far = (
            self.segment(query).report["structures"]["bean"]["signals"]["volume"]
            for query in (self.query.image, strange)
        )
        self.assertGreater(far, 1.5 * near)

    def test_damaged_evidence_is_refused(self) -> None:
        good = self.trained.evidence.tensors()

        def without(name: str) -> dict[str, torch.Tensor]:
            return {k: v for k, v in good.items() if k != name}

        def infinite(name: str) -> dict[str, torch.Tensor]:
            return good | {name: torch.full_like(good[name], math.inf)}

        first = next(name for name in good if name.startswith("held_out1."))
        for tensors in (
            without("mean"), without("present"), without(first), infinite("regions"),
            infinite(first), good | {"mean": good["mean"][:1].clone()},
            good | {"other": good["mean"].clone()},
            good | {"mean": good["mean"].float()}, good | {"held_outx.a": good["mean"].clone()},
            {k: v for k, v in good.items() if not k.startswith("held_out0.")},
            {k: v[:0] if not k.startswith("held_out") else v for k, v in good.items()},
            good | {"present": good["present"][0, 0]},
        ):  # fmt: skip
            with self.subTest(sorted(set(tensors) ^ set(good))):
                self.refused(lambda data, t=tensors: t)
        counts = {"supports": 2, "held_out": 1}
        self.refused(lambda data: data.update(evidence=counts) or good)
        self.refused(lambda data: {})

    def refused(self, change: Callable[[dict[str, Any]], dict[str, torch.Tensor]]) -> None:
        """A file with other evidence, and another header, does not load."""
        metadata = self.trained.metadata()
        kept = {EVIDENCE + name: tensor for name, tensor in change(metadata).items()}
        tensors = {**self.trained.adapter.state_dict(), **kept}
        path = self.folder / "damaged.fseft"
        path.write_bytes(safetensors.torch.save(tensors, {KEY: json.dumps(metadata)}))
        with self.assertRaisesRegex(InputError, "damaged"):
            TrainedAdapter.load(path)

    def test_old_files_load_and_say_that_it_is_not_known(self) -> None:
        old = TrainedAdapter.load(OLD / "adapter.fseft")
        self.assertIsNone(old.evidence)
        entry = self.segment(adapter=replace(self.trained, evidence=None)).report["structures"]
        self.assertEqual(entry["bean"]["trust"]["verdict"], UNKNOWN)
        self.assertIsNone(entry["bean"]["signals"])
        self.assertIn("bean: not known: the adapter's file keeps nothing", result_text(entry))


class InTheOutput(TrainedWorld):
    """In the command's output and its report."""

    def test_in_the_output_and_the_report(self) -> None:
        out = self.folder / "a.nii.gz"
        ran = run(*self.segment_arguments(self.adapter, out, str(self.query.image)))
        self.assertEqual(ran.status, 0, ran.err)
        report = strict_json(self.folder / "report.json")["results"]["a.nii.gz"]
        for name, entry in report["structures"].items():
            trust = entry["trust"]
            self.assertIn(trust["verdict"], (FINE, LOOK, UNUSABLE))
            self.assertRegex(ran.out, rf"{name} +\d +{trust['verdict']} ")
            for reason in trust["reasons"]:
                self.assertIn(reason, ran.out)


if __name__ == "__main__":
    unittest.main()
