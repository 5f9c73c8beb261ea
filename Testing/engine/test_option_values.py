"""Odd values of every option: each is used, or refused in one sentence; no traceback, no hang."""

from __future__ import annotations

import math
import os
import unittest
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from soak_profile import examples
from tiny_model import QUICK, TrainedWorld, run

from FewShotSegLib.core import limits
from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import FewShotSegError, InputError
from FewShotSegLib.core.limits import Range, require_device, require_path
from FewShotSegLib.core.size_prior import PriorChange, SizePrior
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.overlay.picture import Legend, Panel, draw_overlay
from FewShotSegLib.pipeline import adapt, segment
from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.training.loop import TrainingSettings
from FewShotSegLib.training.transduction import RefinementSettings

NUMBERS = (
    *("-1", "0", "-0", "1", "2.5", "1e300", "1e-300", "1e308", "1e309", "-1e300", "nan", "-nan"),
    *("inf", "-inf", "Infinity", "NaN", "1_0", "0x10", "٣", "1e", "--", "+5", " 7 ", "9" * 5000),
    *(str(2**31), str(2**32), str(2**63 - 1), str(2**63), str(2**64 - 1), str(2**64), "1e6"),
)
TEXTS = (
    *("", " ", "-", "--", "=", "a=", "=1", "x" * 256, "ü" * 200, "x" * 5000, "a\nb", "\x1b[31m"),
    *(
        "\u202e",
        "肝臓",
        "🫘",
        "%s",
        "{}",
        "$x^{$",
        "../..",
        "~",
        "NUL",
        "a/b",
        ".",
        "..",
        "a" * 255,
    ),
    *("1=a,1=b", "1=a,2=a", "0=a", "-1=a", "4=$x^{$", "4=" + "n" * 300, "4=a,5=a/b", "4=bean,,"),
    *("bean=nan", "bean=inf", "bean=1e300", "bean=-1", "bean=off", "bean=1e-300", "nut=1", "=off"),
    *("cpu", "hpu", "meta", "cuda", "cuda:99", "cuda:-1", "mps", "xla", "CPU", "cpu:0", "auto "),
    *("1=a,65535=b", "1=a,65536=b", "1e3=a", "1.5=a", str(2**63) + "=a", "4=bean;5=pea"),
)
SLOW = 30
"""More epochs than this are no odd value, but a long training."""
values = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30),
)


class CommandValuesTest(TrainedWorld):
    """Each flag of each command, one odd value at a time."""

    def commands(self) -> dict[str, tuple[list[str], tuple[str, ...]]]:
        """A command that works, and the flags to try."""
        out = self.folder / "out"
        shared = ("--device", "--cache-size", "--cache", "--model", "--seed", "--gamma", "--lambda")
        drawn = str(self.supports[0].segmentation)
        nowhere = str(self.folder / "nowhere.json")
        return {
            "adapt": (
                self.adapt_arguments(out / "x.fseft", epochs=1),
                (
                    *shared,
                    *("--epochs", "--learning-rate", "--prior", "--structures", "--method"),
                    *("--decoder", "--features", "--preset", "--modality", "--intensity-offset"),
                    *("--out", "--query"),
                ),
            ),
            "segment": (
                self.segment_arguments(self.adapter, out / "x.nii.gz", str(self.query.image)),
                (*shared, "--prior", "--intensity-offset", "--out", "--adapter"),
            ),
            "evaluate": (
                ["evaluate", "--reference", drawn, "--prediction", drawn],
                ("--tolerance", "--structures", "--json", "--reference", "--prediction"),
            ),
            "suggest": (
                ["suggest", str(self.query.image), "--model", str(self.model)],
                (
                    *("--device", "--cache-size", "--cache", "--modality", "--intensity-offset"),
                    *("--most", "--csv", "--adapter", "--annotated", "--model"),
                ),
            ),
            "pretrain": (
                ["pretrain", nowhere, "--out", str(out / "p")],
                ("--steps", "--seed", "--threads", "--device", "--data", "--out"),
            ),
            "benchmark": (
                ["benchmark", nowhere],
                (
                    *("--minutes", "--methods", "--shots", "--tasks", "--device", "--cache-size"),
                    *("--data", "--out"),
                ),
            ),
            "demo": (
                ["demo", "--out", str(out / "d"), "--data", str(self.folder / "none")],
                ("--supports", "--seed", "--model", "--device", "--cache-size", "--structures"),
            ),
        }

    PATHS = ("--out", "--json", "--csv", "--data", "--cache", "--query", "--adapter", "--reference")

    def check(self, command: str, flag: str, value: str) -> None:
        """It is done, or refused in a sentence."""
        arguments, _ = self.commands()[command]
        if flag in (*self.PATHS, "--prediction") and value:
            value = f"{self.folder}/out/{value}"  # nothing is written elsewhere
        try:
            many = flag == "--epochs" and int(value) > SLOW
        except ValueError:
            many = False
        assume(not many or int(value) > 10**6)
        ran = run(*arguments, f"{flag}={value}")
        self.assertIn(ran.status, (0, 2))
        self.assertNotIn("Traceback", ran.err)
        if ran.status == 2:
            self.assertTrue(ran.err.strip(), "refused without a word")
            last = ran.err.strip().splitlines()[-1]
            self.assertNotIn("unexpected", last)
        for folder, _, files in os.walk(self.folder):
            for name in files:
                self.assertFalse(name.startswith("."), f"{folder}/{name} was left")

    def flags(self) -> list[tuple[str, str]]:
        return [(name, flag) for name, (_, flags) in self.commands().items() for flag in flags]

    @examples(60)
    @given(st.data())
    def test_any_value(self, data: st.DataObject) -> None:
        command, flag = data.draw(st.sampled_from(self.flags()))
        self.check(command, flag, data.draw(values))

    def test_values_that_were_tracebacks(self) -> None:
        long = "n" * 300
        for command, flag, value in (
            ("adapt", "--seed", str(2**64)),
            ("segment", "--seed", str(2**64)),
            ("adapt", "--seed", str(2**64 - 1)),
            ("segment", "--seed", str(2**64 - 1)),
            ("adapt", "--learning-rate", "1e300"),
            ("adapt", "--cache-size", "1e300"),
            ("segment", "--cache-size", "inf"),
            ("adapt", "--device", "hpu"),
            ("segment", "--device", "meta"),
            ("adapt", "--out", f"{long}.fseft"),
            ("adapt", "--out", "n" * 245 + ".fseft"),
            ("segment", "--out", f"{long}.nii.gz"),
            ("segment", "--out", f"{long}/x.nii.gz"),
            ("segment", "--cache", long),
            ("adapt", "--query", long),
            ("evaluate", "--tolerance", "1e300"),
            ("evaluate", "--json", long),
            ("evaluate", "--reference", long),
            ("pretrain", "--threads", "1000000000"),
            ("pretrain", "--seed", str(2**64)),
            ("demo", "--supports", str(10**30)),
            ("adapt", "--model", long),
            ("segment", "--model", long),
            ("adapt", "--gamma", "1e300"),
            ("adapt", "--prior", "bean=1e300"),
            ("segment", "--lambda", "1e300"),
        ):
            with self.subTest(command, flag=flag, value=value[:20]):
                self.check(command, flag, value)

    def test_the_same_from_python(self) -> None:
        supports = [patient.paths for patient in self.supports]
        usual: dict[str, Any] = {
            "model": str(self.model),
            "runtime": self.runtime,
            "settings": QUICK,
        }
        for options in (
            {"seed": 2**64},
            {"seed": -1},
            {"seed": 1.5},
            {"seed": math.nan},
            {"gamma": math.nan},
            {"gamma": 1e300},
            {"priors_ml": {"bean": math.inf}},
            {"priors_ml": {"bean": PriorChange(deviation_ml=math.nan)}},
            {"features": "most"},
            {"method": "magic"},
            {"preset": "best"},
            {"modality": "PET"},
            {"decoder": "odd", "method": "bias"},
            {"out": self.folder / ("n" * 250 + ".fseft")},
            {"out": ""},
            {"query": self.folder / ("n" * 300)},
        ):
            with self.subTest(str(options)[:60]), self.assertRaises(FewShotSegError):
                adapt(supports, **{**usual, **options})
        del usual["settings"]
        for options in (
            {"seed": 2**64},
            {"seed": "1"},
            {"gamma": -1.0},
            {"priors_ml": {"bean": 0}},
            {"out": self.folder / "x.png"},
            {"out": self.folder / ("n" * 300 + ".nii.gz")},
        ):
            with self.subTest(str(options)[:60]), self.assertRaises(FewShotSegError):
                segment(self.adapter, self.query.image, **{**usual, **options})


class SettingsValuesTest(unittest.TestCase):
    """Settings of the Python API, which jobs of the Slicer module come through as well."""

    def test_each_field(self) -> None:
        for cls, fields in (
            (TrainingSettings, QUICK.to_json()),
            (RefinementSettings, {"epochs": 3, "alone_factor": 0.1, "size_weight": 0.1}),
        ):
            for field in fields:
                for value in (math.nan, math.inf, -1, "1", True, 1e300, [], 2**200, -(10**400)):
                    with self.subTest(field, value=value), self.assertRaises(InputError):
                        cls(**{**fields, field: value})
        self.assertEqual(TrainingSettings(epochs=np.int64(3)).epochs, 3)
        self.assertEqual(TrainingSettings(learning_rate=np.float32(0.5)).learning_rate, 0.5)

    def test_runtime(self) -> None:
        for options in (
            {"device": "hpu"},
            {"device": "meta"},
            {"device": "cuda:x"},
            {"device": 0},
            {"cache_bytes": math.inf},
            {"cache_bytes": -1},
            {"cache_bytes": 2**80},
            {"cache": "n" * 300},
            {"cache": ""},
        ):
            with self.subTest(options), self.assertRaises(InputError):
                Runtime(**options)
        for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:12"):
            self.assertEqual(require_device(name), name)

    def test_sizes(self) -> None:
        prior = SizePrior(20_000, 2_000, 4, 0.3)
        for change in (
            PriorChange(mean_ml=math.nan),
            PriorChange(mean_ml=1e300),
            PriorChange(gamma=math.inf),
            PriorChange(deviation_ml=-1),
        ):
            with self.subTest(change), self.assertRaises(InputError):
                change.apply(prior)

    def test_ranges_say_their_ends(self) -> None:
        with self.assertRaisesRegex(InputError, r"from 0 to 18446744073709551615, not -1\.$"):
            limits.SEED.check(-1)
        with self.assertRaisesRegex(InputError, r"must be above 0 and at most 1e\+30, not 0\.$"):
            limits.LEARNING_RATE.check(0)
        with self.assertRaisesRegex(InputError, r"must be from 0 to 1000 mm, not nan\.$"):
            limits.TOLERANCE_MM.check(math.nan)
        with self.assertRaisesRegex(InputError, r"not 999.*\.\.\. \(5000 characters\)\.$"):
            limits.GAMMA.check("9" * 5000)
        self.assertEqual(Range("X", 0, 1).check(1), 1)

    def test_paths(self) -> None:
        for path in ("", "a\0b", "n" * 256, "ü" * 128, "a/" * 3000, f"a/{'n' * 256}/b", "\ud800"):
            with self.subTest(ascii(path[:20])), self.assertRaises(InputError):
                require_path(path)
        for path in (
            "a",
            "n" * 255,
            "ü" * 127,
            "a/b/../c",
            "-",
            " ",
            "$x^{$",
            os.fsdecode(b"\xff"),
        ):
            self.assertEqual(require_path(path), path)


class PictureNamesTest(TrainedWorld):
    """Names that matplotlib would take for formulas."""

    def test_a_structure_of_dollars(self) -> None:
        volume = read_image(self.query.image)
        mask = np.zeros(volume.array.shape, bool)
        mask[8:14, 6:12, 3:8] = True
        for number, name in enumerate(("$x^{$", "$", "$$", r"\$a$", "a_b^c", "%d{}", "$\\frac{$")):
            out = self.folder / f"{number}.png"
            with mock.patch("warnings.warn"):
                draw_overlay(
                    out,
                    volume,
                    [Panel(name, {name: mask}, {name: 0.5})],
                    Legend([Structure(name, 1)], {name: mask}),
                    title=name,
                    subtitle=name,
                )
            self.assertGreater(out.stat().st_size, 10_000, name)


if __name__ == "__main__":
    unittest.main()
