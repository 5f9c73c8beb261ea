"""What is asked for as a value: checked once, and the same from Python, flags, jobs and plans."""

from __future__ import annotations

import json
import math
import unittest
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

from old_files import OLD
from tiny_model import STRUCTURES, TinyWorld, run

import FewShotSegLib as fss
from FewShotSegLib.cli.commands import COMMANDS
from FewShotSegLib.cli.commands.common import adapt_options, segment_options
from FewShotSegLib.cli.flags import build_parser
from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import KINDS
from FewShotSegLib.core.json_schema import from_json
from FewShotSegLib.core.options import AdaptOptions, SegmentOptions
from FewShotSegLib.core.settings import RefinementSettings, TrainingSettings, default_settings
from FewShotSegLib.core.size_prior import PriorChange
from FewShotSegLib.evaluation.benchmark.plan import Method
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter

OTHER: dict[str, Any] = {
    "structures": "4=bean",
    "model": "btcv",
    "method": "ft",
    "decoder": "frozen",
    "features": "last",
    "preset": "published",
    "modality": "MR",
    "intensity_offset": 5.0,
    "seed": 3,
    "settings": {"epochs": 7},
    "gamma": 0.5,
    "priors_ml": {"bean": 2.0},
    "exclusive": False,
    "sparse": "axial",
    "validate": False,
    "effort": "quick",
}
"""Another value than the default of every option of a training, for the method ``bias``."""


class Values(unittest.TestCase):
    """Of both kinds."""

    def test_they_are_never_changed(self) -> None:
        for options in (AdaptOptions(), SegmentOptions()):
            with self.assertRaises(FrozenInstanceError):
                options.seed = 1
        settings = {"epochs": 3}
        options = AdaptOptions(settings=settings)
        settings["epochs"] = 4
        self.assertEqual(options.training.epochs, 3)

    def test_what_cannot_be_is_refused_immediately(self) -> None:
        both: tuple[dict[str, Any], ...] = (
            {"seed": -1},
            {"seed": True},
            {"gamma": math.nan},
            {"intensity_offset": math.inf},
            {"priors_ml": {"bean": 0.0}},
            {"priors_ml": {"bean": PriorChange(deviation_ml=-1.0)}},
        )
        training: tuple[dict[str, Any], ...] = (
            {"structures": "4"},
            {"structures": [Structure("a", 1), Structure("A", 2)]},
            {"method": "magic"},
            {"decoder": "tuned"},
            {"method": "ft-last", "decoder": "frozen"},
            {"preset": "best"},
            {"features": "most"},
            {"structures": []},
            {"structures": 4},
            {"modality": "PET"},
            {"settings": {"epochs": 0}},
            {"settings": {"epoch": 3}},
            {"settings": 3},
        )
        segmentation: tuple[dict[str, Any], ...] = (
            {"refinement": {"epochs": 0}},
            {"refinement": {"epoch": 1}},
            {"refinement": TrainingSettings()},
        )
        for kind, cases in ((AdaptOptions, training), (SegmentOptions, segmentation)):
            for changes in (*both, *cases):
                with self.subTest(kind.__name__, **changes):
                    with self.assertRaisesRegex(InputError, r"\.$"):
                        kind(**changes)
                    with self.assertRaises(InputError):
                        kind.of(**changes)

    def test_a_name_that_there_is_not(self) -> None:
        for kind in (AdaptOptions, SegmentOptions):
            with self.assertRaisesRegex(TypeError, "no option 'epoch'. Did you mean 'epochs'?"):
                kind.of(epoch=3)
            with self.assertRaisesRegex(TypeError, "no option 'zzz'. Known: .*seed"):
                kind.of(zzz=3)
            with self.assertRaisesRegex(TypeError, "not dict"):
                kind.of({"seed": 3})

    def test_settings_by_their_own_names(self) -> None:
        options = AdaptOptions.of(epochs=7, learning_rate=None, method="ft")
        self.assertEqual(options.training, replace(default_settings("ft"), epochs=7))
        whole = TrainingSettings(epochs=9, crops=1)
        options = AdaptOptions.of(AdaptOptions(settings=whole), crops=2)
        self.assertEqual(options.training, TrainingSettings(epochs=9, crops=2))
        options = AdaptOptions.of(settings=whole, crops=3)
        self.assertEqual(options.training, TrainingSettings(epochs=9, crops=3))
        how = SegmentOptions.of(size_weight=0.3)
        self.assertEqual(how.refinement, RefinementSettings(size_weight=0.3))

    def test_what_is_left_to_the_method_follows_it(self) -> None:
        options = AdaptOptions.of(epochs=7)
        other = replace(options, method="ft", preset="published")
        expected = replace(default_settings("ft", "published"), epochs=7)
        self.assertEqual(other.training, expected)
        self.assertEqual((options.feature_levels, other.feature_levels), ("multi", "last"))
        self.assertEqual((options.chosen_decoder, other.chosen_decoder), (None, "tuned"))
        self.assertIsNone(AdaptOptions(decoder="frozen").chosen_decoder)

    def test_all_that_decides_a_training_is_in_its_fingerprint(self) -> None:
        """An option is, unless it acts on the inputs, which a checkpoint's hash covers itself."""
        base = AdaptOptions(method="bias")
        elsewhere = {
            *("structures", "model", "modality", "intensity_offset", "gamma", "priors_ml"),
            *("sparse", "exclusive", "validate", "effort"),
        }
        self.assertEqual(set(OTHER), {field.name for field in fields(AdaptOptions)})
        for name, value in OTHER.items():
            if name == "decoder":
                value = "tuned"
            other = replace(base, **{name: value})
            self.assertNotEqual(other, base, name)
            with self.subTest(name):
                same = other.fingerprint() == base.fingerprint()
                self.assertEqual(same, name in elsewhere)
        json.dumps(base.fingerprint())
        self.assertEqual(
            AdaptOptions(method="bias", decoder="frozen", features="multi").fingerprint(),
            base.fingerprint(),  # said, or the method's own
        )


class OneValueForAll(unittest.TestCase):
    """Flags, jobs and plans become the same value as the arguments of Python."""

    def parsed(self, *arguments: str) -> Any:
        return build_parser({name: lambda *_: 0 for name in COMMANDS}).parse_args(arguments)

    def test_the_flags_of_a_training(self) -> None:
        needed = ("adapt", "--support", "a", "b", "--out", "x.fseft")
        self.assertEqual(adapt_options(self.parsed(*needed)).training, TrainingSettings())
        flags = {
            "structures": ("--structures", "4=bean"),
            "model": ("--model", "btcv"),
            "method": ("--method", "ft"),
            "decoder": ("--method", "ft", "--decoder", "frozen"),
            "features": ("--features", "last"),
            "preset": ("--preset", "published"),
            "modality": ("--modality", "MR"),
            "intensity_offset": ("--intensity-offset", "5"),
            "seed": ("--seed", "3"),
            "settings": ("--epochs", "7"),
            "gamma": ("--gamma", "0.5"),
            "priors_ml": ("--prior", "bean=2"),
            "exclusive": ("--overlapping",),
            "validate": ("--no-validate",),
            "effort": ("--effort", "quick"),
            "sparse": ("--sparse", "axial"),
        }
        self.assertEqual(set(flags), set(OTHER))
        for name, words in flags.items():
            given = {"method": "ft"} if name == "decoder" else {}
            expected = AdaptOptions.of(**{name: OTHER[name]}, **given)
            found = adapt_options(self.parsed(*needed, *words))
            with self.subTest(name):
                self.assertEqual(found.training, expected.training)
                self.assertEqual(replace(found, settings={}), replace(expected, settings={}))

    def test_the_flags_of_a_segmentation(self) -> None:
        words = (
            *("segment", "--adapter", "a.fseft", "--out", "o.nii.gz", "q.nii.gz"),
            *("--no-transductive", "--probabilities", "--largest-component", "--seed", "3"),
            *("--intensity-offset", "5", "--prior", "bean=off", "--gamma", "0.5"),
            *("--model", "btcv", "--lambda", "0.3"),
        )
        expected = SegmentOptions.of(
            transductive=False,
            probabilities=True,
            largest_component=True,
            seed=3,
            intensity_offset=5,
            priors_ml={"bean": None},
            gamma=0.5,
            model="btcv",
            size_weight=0.3,
        )
        self.assertEqual(segment_options(self.parsed(*words)), expected)

    def test_a_job_of_before(self) -> None:
        def job(kind: str) -> Any:
            data = json.loads((OLD / f"{kind}.job.json").read_text())
            own = {k: v for k, v in data.items() if k not in ("format", "kind", "caller")}
            return from_json(KINDS[kind], own, "")

        train = job("train")
        options = train.options()
        self.assertEqual(options.priors_ml, train.priors)
        self.assertEqual(options.structures, tuple(train.structures))
        self.assertEqual((options.training.epochs, options.training.learning_rate), (3, 0.02))
        for name in ("model", "method", "decoder", "features", "preset", "modality", "seed"):
            self.assertEqual(getattr(options, name), getattr(train, name), name)
        with self.assertRaisesRegex(InputError, "'epoch.*'settings' of the job|unknown field"):
            replace(train, settings={"epoch": 3}).options()
        segment = job("segment")
        self.assertEqual(segment.options().priors_ml, segment.priors)
        self.assertEqual(segment.options().seed, segment.seed)

    def test_a_line_of_a_plan(self) -> None:
        line = Method("Mine", "lora", "new", epochs=7, model="btcv")
        expected = AdaptOptions.of(method="lora", decoder="new", model="btcv", epochs=7)
        self.assertEqual(line.options, expected)


class OneTraining(TinyWorld):
    """Python and the command train the same adapter."""

    def test_the_same_numbers_give_the_same_adapter(self) -> None:
        out = self.folder / "command.fseft"
        ran = run(*self.adapt_arguments(out, "--gamma", "0.4", "--seed", "5", epochs=2))
        self.assertEqual(ran.status, 0, ran.err)
        pairs = [patient.paths for patient in self.supports]
        asked: dict[str, Any] = {
            "structures": STRUCTURES,
            "model": self.model,
            "gamma": 0.4,
            "seed": 5,
        }
        ways: tuple[Callable[[], TrainedAdapter], ...] = (
            lambda: fss.adapt(pairs, epochs=2, learning_rate=0.02, runtime=self.runtime, **asked),
            lambda: fss.adapt(
                pairs,
                options=fss.AdaptOptions(settings={"epochs": 2, "learning_rate": 0.02}, **asked),
                runtime=self.runtime,
            ),
        )
        expected = TrainedAdapter.load(out).content_sha256()
        for way in ways:
            self.assertEqual(way().content_sha256(), expected)
        with self.assertRaisesRegex(TypeError, "Did you mean 'structures'"):
            fss.adapt(pairs, structure=STRUCTURES)
        with self.assertRaisesRegex(TypeError, "Did you mean 'transductive'"):
            fss.segment(out, self.query.image, transduction=True)
        with self.assertRaisesRegex(TypeError, "Did you mean 'transductive'"):
            fss.segment_each(out, [self.query.image], self.folder, transduction=True)


if __name__ == "__main__":
    unittest.main()
