"""Every method from the module: what is said of it, what is refused; some through the process."""

from __future__ import annotations

import slicer_world  # before qt, which it puts in place

# isort: split
import json
import unittest
from unittest import mock

import numpy as np
import qt
import slicer
from FewShotSegSlicer.jobs import task
from FewShotSegSlicer.jobs.train import TrainRun
from FewShotSegSlicer.machine import estimates, models, timing
from FewShotSegSlicer.machine.estimates import Plan, Training, estimate, workload
from FewShotSegSlicer.machine.methods import method_titles, round_number
from module_logic import LogicTestCase
from module_scenes import add_volume, affine_of
from process_case import ProcessTestCase
from tiny_model import write_model

from FewShotSegLib.core.adapter_header import read_header
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.method_catalog import METHODS, PRESETS, white_box_methods
from FewShotSegLib.core.model_folders import entry_paths, read_entry

ENTRIES = {entry["id"]: entry for entry in map(read_entry, entry_paths())}
CT = [((512, 512, 120), np.diag([0.8, 0.8, 3.0, 1.0]))] * 3


class DefaultModelTest(LogicTestCase):
    """Which foundation model is used where nobody chose one."""

    def setUp(self) -> None:
        super().setUp()
        write_model(self.folder / "home" / "models", "mine")
        defaults = {"CT": "embedded", "MR": "mine"}
        self.enterContext(mock.patch.object(models, "DEFAULT_MODELS", defaults))
        self.addCleanup(self.logic.setModel, self.logic.model())

    def with_volume(self, lowest: int) -> str:
        volume = add_volume(np.full((4, 4, 4), lowest, np.int16), affine_of(), f"at {lowest}")
        return self.logic.addSupport(volume)

    def test_it_follows_the_supports(self) -> None:
        self.assertEqual(self.logic.model(), "embedded")
        mr = self.with_volume(0)
        self.assertEqual(self.logic.model(), "mine")
        self.with_volume(-1000)
        self.logic.tickSupport(mr, False)
        self.assertEqual(self.logic.model(), "embedded")
        self.logic.getParameterNode().modality = "MR"  # a person's word counts for more
        self.assertEqual(self.logic.model(), "mine")

    def test_a_choice_stays_until_it_is_the_default_again(self) -> None:
        self.with_volume(0)
        self.logic.setModel("embedded")
        self.assertEqual(self.logic.model(), "embedded")
        self.logic.setModel("mine")
        self.logic.getParameterNode().modality = "CT"
        self.assertEqual(self.logic.model(), "embedded")


class WordsTest(LogicTestCase):
    """What the panel says of methods."""

    def choose(self, **choices: str) -> None:
        for name, value in choices.items():
            setattr(self.logic.getParameterNode(), name, value)

    def obstacles(self) -> list[str]:
        return [text for text in self.logic.blockers("train") if "annotated volume" not in text]

    def test_every_method_is_listed_the_recommended_one_first(self) -> None:
        self.assertEqual(list(method_titles()), list(METHODS))
        self.logic.setModel("embedded")
        rows = self.logic.methods()
        self.assertEqual([row.id for row in rows], list(METHODS))
        text = {row.id: row.explanation for row in rows}
        self.assertIn("About 87 thousand parameters.", text["adapter"])
        self.assertIn("About 5.6 million parameters.", text["ft"])
        for name in METHODS:
            self.assertEqual("Takes longer" in text[name], name in white_box_methods(), name)
        self.choose(preset="published")
        self.assertTrue(all("Takes longer" in row.explanation for row in self.logic.methods()))
        self.assertEqual({row.epochs for row in self.logic.methods()}, {200})

    def test_the_decoder_counts(self) -> None:
        self.logic.setModel("embedded")
        self.choose(method="lora", decoder="tuned")
        text = {row.id: row.explanation for row in self.logic.methods()}
        self.assertIn("About 4.8 million", text["lora"])
        self.assertIn("About 87 thousand", text["adapter"])

    def test_round_numbers(self) -> None:
        shown = [round_number(n) for n in (437, 4021, 97205, 999_999, 62_000_000)]
        self.assertEqual(shown, ["437", "4 thousand", "97 thousand", "1000 thousand", "62 million"])

    def test_wrong_choices_get_one_sentence(self) -> None:
        self.logic.setModel("embedded")
        for choices, words in (
            ({"method": "adapter", "decoder": "tuned"}, "leaves the whole model frozen"),
            ({"method": "scratch", "decoder": "frozen"}, "the decoder is new"),
            ({"method": "adaptformer", "decoder": "auto"}, "is for a transformer"),
            ({"method": "ft", "effort": "best"}, "set Effort to «Standard"),
        ):
            with self.subTest(**choices):
                self.choose(**choices)
                (text,) = self.obstacles()
                self.assertIn(words, text)
                with self.assertRaisesRegex(InputError, words):
                    self.logic.startTraining()
        self.choose(method="adapter", decoder="frozen")
        self.assertEqual(self.obstacles(), [], "the best effort goes with an adapter")

    def test_what_a_network_can_not_have(self) -> None:
        for model, choices, words in (
            ("fseft", {"method": "cnn-adapter"}, "for a convolutional network"),
            ("abdomen-unet", {"preset": "published", "method": "ft"}, "takes raw values"),
        ):
            self.choose(method="adapter", decoder="auto", preset="own")
            self.logic.setModel(model)
            self.assertFalse(any(words in text for text in self.obstacles()))
            self.choose(**choices)
            self.assertTrue(any(words in text for text in self.obstacles()), self.obstacles())

    def test_the_console_refuses_unknown_names(self) -> None:
        for setting in ("method", "decoder", "preset"):
            with self.assertRaisesRegex(InputError, setting):
                self.logic.train(**{setting: "nonsense"})


class EstimateTest(unittest.TestCase):
    """Times and memory before anything has run, and after."""

    def guess(self, model: str = "embedded", **training: object) -> estimates.Estimate:
        entry = {**ENTRIES[model], "id": "never run"}
        return estimate(Plan(CT, entry, "CT", 2, "cpu", Training(**training)))

    def test_training_the_model_takes_longer(self) -> None:
        adapter = self.guess(method="adapter")
        for method in white_box_methods():
            self.assertGreater(self.guess(method=method).seconds, 1.2 * adapter.seconds, method)
        own, published = (self.guess(method="ft", preset=preset) for preset in PRESETS)
        self.assertGreater(published.seconds, 10 * own.seconds)
        self.assertGreater(published.memory_bytes, 4 * own.memory_bytes)
        self.assertIn(" min", published.text)
        swin = self.guess("fseft", method="ft")
        self.assertGreater(swin.seconds, 5 * own.seconds)
        self.assertFalse(adapter.measured or own.measured)
        self.assertLess(
            self.guess(method="lora", epochs=30).seconds, self.guess(method="lora").seconds
        )

    def test_a_second_network_is_in_the_estimate(self) -> None:
        alone, scratch = self.guess(method="adapter"), self.guess(method="scratch")
        both = self.guess(method="adapter", effort="best")
        entry = {**ENTRIES["embedded"], "id": "never run"}
        parts = workload(Plan(CT, entry, "CT", 2, "cpu", Training("scratch"))).parts
        once = sum(p.amount * p.guess for p in parts if p.phase != "train")  # start and reading
        self.assertAlmostEqual(both.seconds, alone.seconds + scratch.seconds - once, delta=1e-6)
        self.assertEqual(both.memory_bytes, max(alone.memory_bytes, scratch.memory_bytes))

    def test_what_was_measured_counts_for_its_method_alone(self) -> None:
        lora, bias = Training("lora"), Training("bias")
        entry = {**ENTRIES["embedded"], "id": "measured"}
        self.addCleanup(qt.QSettings().remove, f"{timing.SPEED}/measured")
        timing.remember("measured", "cuda:1", lora.speed_key, 0.5)
        plan = Plan(CT, entry, "CT", 2, "cuda:1", lora)
        found = estimate(plan)
        self.assertTrue(found.measured)
        voxels = 60 * 5 * 2 * 64**3 / 1e6
        others = sum(p.amount * p.guess for p in workload(plan).parts if p.phase != "train")
        self.assertAlmostEqual(found.seconds, others + 0.5 * voxels)
        self.assertFalse(estimate(Plan(CT, entry, "CT", 2, "cuda:1", bias)).measured)
        self.assertFalse(estimate(Plan(CT, entry, "CT", 2, "cpu", lora)).measured)


class WhiteBoxTest(ProcessTestCase):
    """Through the real process: train, save, load into another scene, segment."""

    def test_lora_with_a_tuned_decoder(self) -> None:
        phases: list[str] = []
        self.logic.listen(
            lambda notice: phases.append(notice.phase) if hasattr(notice, "fraction") else None
        )
        adapter = self.logic.train(
            method="lora", decoder="tuned", epochs=2, learningRate=0.002, seed=1
        )
        self.assertIn("prepare", phases)
        header = read_header(self.logic.session.adapters.content(adapter), "x")
        self.assertEqual((header["method"], header["decoder"]), ("lora", "tuned"))
        settings = header["training"]["settings"]
        own = METHODS["lora"].schedule("own")
        self.assertEqual(settings["crop_size"], own.crop_size, "the method's own, where not given")
        self.assertEqual((settings["epochs"], settings["learning_rate"]), (2, 0.002))
        self.assertEqual(self.logic.adapters()[0].method, "lora")
        self.assertTrue(self.logic.estimate("train").measured)

        path = self.folder / "lora.fseft"
        self.logic.saveAdapter(adapter, str(path))
        first = self.masks(self.logic.segment(self.query, adapter))
        loaded = self.logic.loadAdapter(str(path))
        self.assertNotEqual(loaded, adapter)
        second = self.masks(self.logic.segment(self.query, loaded))
        self.assertEqual(list(first), ["bean", "pea"])
        for name, mask in first.items():
            np.testing.assert_array_equal(mask, second[name])
        self.assertTrue(any(mask.any() for mask in first.values()))

    def masks(self, result: object) -> dict[str, np.ndarray]:
        node = result.segmentation
        segments = node.GetSegmentation()
        return {
            row.name: slicer.util.arrayFromSegmentBinaryLabelmap(
                node, segments.GetSegmentIdBySegmentName(row.name), self.query
            )
            for row in result.rows
        }

    def test_published_settings_reach_the_engine(self) -> None:
        self.logic.getParameterNode().learningRate = 0.0
        adapter = self.logic.train(preset="published", epochs=1)
        header = read_header(self.logic.session.adapters.content(adapter), "x")
        self.assertEqual(header["training"]["preset"], "published")
        self.assertEqual(header["features"], "last")
        self.assertEqual(header["training"]["settings"]["cross_entropy"], 0.0)
        json.dumps(header)

    def test_the_bar_of_a_training_without_stored_features(self) -> None:
        self.assertLess(self.bar("prepare", "train", method="ft"), 0.1)

    def test_the_bar_leaves_space_for_a_second_network(self) -> None:
        before = ("features", "train", "validate", "prepare")
        self.assertLess(self.bar(*before, "companion", effort="best"), 0.35)
        self.assertGreater(self.bar(*before[:3]), 0.6)

    def bar(self, *phases: str, **choices: str) -> float:
        """Where the bar is once the last of these begins."""
        for name, value in {"method": "adapter", "effort": "default", **choices}.items():
            setattr(self.logic.getParameterNode(), name, value)
        step = task.Task(TrainRun(self.logic.session), lambda notice: None)
        self.addCleanup(step.abort, "", True)
        for phase in phases:
            step._show(phase)
        return step.progress.fraction

    def test_the_effort_reaches_the_engine(self) -> None:
        adapter = self.logic.train(effort="quick", method="adapter", epochs=1)
        header = read_header(self.logic.session.adapters.content(adapter), "x")
        self.assertEqual(header["expected"]["status"], "skipped")
        self.assertNotIn("known", header["supports"][0])

    def test_slices_that_were_drawn_on_reach_the_engine(self) -> None:
        adapter = self.logic.train(
            effort="quick", epochs=1, onlyDrawnSlices=True, drawnPlane="coronal"
        )
        header = read_header(self.logic.session.adapters.content(adapter), "x")
        self.assertEqual({s["known"]["plane"] for s in header["supports"]}, {"coronal"})
        for support in header["supports"]:
            self.assertLess(support["known"]["part"], 0.9)


if __name__ == "__main__":
    assert slicer_world
    unittest.main()
