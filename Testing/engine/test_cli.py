"""The command: its flags, its exit status, and what programs and people read of it."""

from __future__ import annotations

import json
import os
import unittest
from pathlib import Path
from typing import Any

from command_case import CommandTestCase, python
from tiny_model import (
    run,
    write_patient,
)

from FewShotSegLib import __version__
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter

COMMANDS = ("adapt", "segment", "evaluate", "suggest", "models", "inspect", "demo", "pretrain")


class Help(unittest.TestCase):
    """``--help`` teaches, and immediately."""

    def test_every_command_explains_itself(self) -> None:
        for command in ((), *((c,) for c in COMMANDS)):
            ran = run(*command, "--help")
            self.assertEqual((ran.status, ran.err), (0, ""))
            self.assertIn("usage: fewshotseg", ran.out)
        overview = run("--help").out
        for command in COMMANDS:
            self.assertIn(command, overview)
        for example in ("fewshotseg adapt --support", "fewshotseg segment --adapter", "--out"):
            self.assertIn(example, overview)

    def test_the_flags_that_other_programs_call_are_there(self) -> None:
        flags = {
            "adapt": "--support --structures --model --method --seed --out --events --resume",
            "segment": "--adapter --transductive --no-transductive --probabilities --out --events",
            "evaluate": "--reference --prediction --json --events",
            "suggest": "--adapter --annotated --csv --events",
            "models": "--events",
            "download": "--accept-licence --events",
            "import": "--events",
            "remove": "--events",
            "inspect": "--events",
            "demo": "--events",
            "pretrain": "--out --steps --resume --device --threads --events --seed",
        }
        for command, wanted in flags.items():
            text = run(command, "--help").out
            for flag in wanted.split():
                self.assertIn(flag, text, command)

    def test_neither_help_nor_a_wrong_flag_waits_for_torch(self) -> None:
        code = (
            "import sys\n"
            "from FewShotSegLib.cli.command_line import main\n"
            f"for command in {[[], *([c] for c in COMMANDS)]}:\n"
            "    for flag in ('--help', '--wrong'):\n"
            "        try:\n"
            "            main([*command, flag])\n"
            "        except SystemExit as end:\n"
            "            assert end.code == (0 if flag == '--help' else 2), end.code\n"
            "loaded = {'torch', 'monai', 'SimpleITK', 'numpy'} & set(sys.modules)\n"
            "assert not loaded, loaded\n"
        )
        done = python("-c", code)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_the_module_is_the_command(self) -> None:
        done = python("-m", "FewShotSegLib", "--version")
        self.assertEqual((done.returncode, done.stdout), (0, f"fewshotseg {__version__}\n"))
        done = python("-m", "FewShotSegLib", "inspect", "no.fseft")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertEqual(done.stderr, "fewshotseg: There is no adapter file at no.fseft.\n")


class Options(CommandTestCase):
    """Flags reach what they name."""

    def report(self, *more: str, out: str = "x.nii.gz") -> dict[str, Any]:
        """The report of the query segmented with these flags."""
        self.segmented(self.folder / out, str(self.query.image), *more)
        data = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        return data["results"][out]

    def test_priors(self) -> None:
        report = self.report("--prior", "bean=9", "--prior", "pea=off", "--gamma", "0.1")
        bean, pea = (report["structures"][name]["prior"] for name in ("bean", "pea"))
        self.assertEqual((bean["mean_ml"], bean["gamma"], bean["enabled"]), (9, 0.1, True))
        self.assertFalse(pea["enabled"])

    def test_transduction(self) -> None:
        for flags, expected in (
            ((), True),
            (("--transductive",), True),
            (("--no-transductive",), False),
        ):
            self.assertEqual(self.report(*flags)["transductive"], expected)

    def test_lambda(self) -> None:
        """Without weight the sizes move nothing."""
        prior = ("--prior", "bean=20")
        still = self.report(*prior, "--lambda", "0")
        moved = self.report(*prior, "--lambda", "10")
        changed = [
            r["structures"]["bean"]["transduction"]["changed_voxels"] for r in (still, moved)
        ]
        self.assertEqual(changed[0], 0)
        self.assertGreater(changed[1], 0)

    def test_seed_and_supports(self) -> None:
        report = self.report("--seed", "5", "--prior", "bean=9", *self.support_arguments())
        self.assertEqual(report["seed"], 5)
        self.assertTrue(report["refined_with_supports"])

    def test_probabilities_and_largest_component(self) -> None:
        self.report("--probabilities", "--largest-component")
        self.assertEqual(
            self.written(),
            ["report.json", "x.nii.gz", "x_prob_bean.nii.gz", "x_prob_pea.nii.gz"],
        )

    def test_named_segments(self) -> None:
        self.report(out="x.seg.nrrd")
        grid = read_image(self.query.image).grid
        found = read_annotation(self.folder / "x.seg.nrrd", grid).structures
        self.assertEqual([(s.name, s.value) for s in found], [("bean", 4), ("pea", 5)])

    def test_those_of_adapt(self) -> None:
        path = self.folder / "a.fseft"
        self.done(
            *self.adapt_arguments(path, epochs=1),
            *("--method", "linear-probe", "--features", "last", "--seed", "3", "--gamma", "0.2"),
            *("--modality", "CT", "--overlapping", "--prior", "bean=9", "--lambda", "0.5"),
        )
        trained = TrainedAdapter.load(path)
        self.assertEqual((trained.method, trained.features), ("linear-probe", "last"))
        self.assertEqual(trained.training["seed"], 3)
        self.assertEqual(trained.training["settings"]["size_weight"], 0.5)
        self.assertEqual(trained.priors["bean"].mean, 9000)
        self.assertEqual(trained.priors["pea"].gamma, 0.2)
        self.assertFalse(trained.exclusive)

    def test_a_query_of_adapt(self) -> None:
        path = self.folder / "a.fseft"
        self.done(*self.adapt_arguments(path, "--query", str(self.query.image), epochs=2))
        self.assertTrue(TrainedAdapter.load(path).training["joint_query"])

    def test_the_cache_is_where_it_was_said(self) -> None:
        cache = self.folder / "cache"
        self.report("--cache", str(cache))
        self.assertEqual(len(list(cache.glob("*/meta.json"))), 1)
        self.assertEqual(self.report("--cache", str(cache))["backbone_passes"], 0)

    def test_numbers_that_are_none(self) -> None:
        for flags in (
            ("--gamma", "-1"),
            ("--gamma", "nan"),
            ("--lambda", "much"),
            ("--seed", "-1"),
            ("--seed", "1.5"),
            ("--cache-size", "inf"),
        ):
            ran = run(*self.segment_arguments(self.adapter, self.folder / "x.nrrd", "q", *flags))
            self.assertEqual(ran.status, 2)
            self.assertIn(f"argument {flags[0]}", ran.err)


class Events(CommandTestCase):
    """``--events`` is for programs: JSON lines, begun and ended as promised."""

    def events(self, *arguments: str, status: int = 0, last: str = "finished") -> list[dict]:
        """The events of a command, which are all of its standard output."""
        ran = run(*arguments, "--events")
        self.assertEqual(ran.status, status, ran.err)
        events = ran.events
        times = [event["time"] for event in events]
        self.assertEqual(times, sorted(times))
        self.assertEqual(events[0]["event"], "started")
        self.assertEqual(events[0]["command"], arguments[0])
        self.assertEqual((events[0]["pid"], events[0]["version"]), (os.getpid(), __version__))
        self.assertEqual([e["event"] for e in events if e["event"] == last], [last])
        self.assertEqual(events[-1]["event"], last)
        if not status:
            self.assertEqual(ran.err, "")
        return events

    def test_adapt(self) -> None:
        path = self.folder / "a.fseft"
        events = self.events(*self.adapt_arguments(path, epochs=2))
        epochs = [event for event in events if event["event"] == "epoch"]
        self.assertEqual([(e["phase"], e["epoch"], e["epochs"]) for e in epochs], [
            ("train", 1, 2),
            ("train", 2, 2),
        ])  # fmt: skip
        for event in epochs:
            self.assertAlmostEqual(event["loss"], event["dice_loss"] + event["cross_entropy"])
        phases = [event["phase"] for event in events if event["event"] == "phase"]
        self.assertEqual(list(dict.fromkeys(phases)), ["read", "features", "train", "validate"])
        results = [(e["kind"], e["path"]) for e in events if e["event"] == "result"]
        self.assertEqual(results, [("adapter", str(path))])
        self.assertGreaterEqual(events[-1]["seconds"], 0)

    def test_segment(self) -> None:
        out = self.folder / "x.nii.gz"
        events = self.events(
            *self.segment_arguments(self.adapter, out, str(self.query.image)),
            *("--probabilities", "--prior", "bean=20"),
        )
        results = {e["kind"]: e["path"] for e in events if e["event"] == "result"}
        self.assertEqual(set(results), {"segmentation", "probability", "report"})
        self.assertEqual(results["segmentation"], str(out))
        self.assertTrue(all(Path(path).is_file() for path in results.values()))
        refined = [e for e in events if e["event"] == "epoch"]
        self.assertTrue(all(e["phase"] == "refine" for e in refined))
        self.assertEqual(set(refined[0]["sizes_ml"]), {"bean"})
        warnings = [e["message"] for e in events if e["event"] == "warning"]
        report = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        self.assertEqual(warnings, report["results"]["x.nii.gz"]["warnings"])
        for event in events:
            if event["event"] == "progress":
                self.assertLessEqual(event["done"], event["total"])

    def test_the_others(self) -> None:
        truth, scores = str(self.query.segmentation), self.folder / "s.json"
        self.events("models")
        self.events("inspect", str(self.adapter))
        events = self.events(
            "evaluate", "--reference", truth, "--prediction", truth, "--json", str(scores)
        )
        self.assertEqual([e["path"] for e in events if e["event"] == "result"], [str(scores)])

    def test_a_failure(self) -> None:
        events = self.events("inspect", "no.fseft", status=2, last="failed")
        self.assertEqual(events[-1]["kind"], "InputError")
        self.assertEqual(events[-1]["message"], "There is no adapter file at no.fseft.")

    def test_one_bad_query_is_a_warning(self) -> None:
        queries = (str(self.folder / "no.nii.gz"), str(self.query.image))
        events = self.events(
            *self.segment_arguments(self.adapter, self.folder, *queries), status=2, last="failed"
        )
        warnings = [e["message"] for e in events if e["event"] == "warning"]
        self.assertTrue(any("no.nii.gz was left out" in message for message in warnings))
        self.assertTrue((self.folder / "query_seg.nii.gz").is_file())


class MagneticResonance(CommandTestCase):
    """The same command on MR."""

    def test_mr(self) -> None:
        supports = [write_patient(self.folder, f"mr{n}", n, modality="MR") for n in range(2)]
        self.done(*self.adapt_arguments(self.folder / "a.fseft", supports=supports, epochs=1))
        self.assertEqual(TrainedAdapter.load(self.folder / "a.fseft").modality, "MR")


if __name__ == "__main__":
    unittest.main()
