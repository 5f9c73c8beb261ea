"""The command: its flags, its files, its exit status, and what programs and people read of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import numpy as np
from tiny_model import (
    STRUCTURES,
    Ran,
    TinyWorld,
    make_grid,
    run,
    write_array,
    write_model,
    write_patient,
)

from FewShotSegLib import __version__
from FewShotSegLib.io.annotations import read_annotation
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import list_entries
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter

COMMANDS = ("adapt", "segment", "evaluate", "models", "inspect", "demo", "pretrain")
ROOT = Path(__file__).resolve().parents[2]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own, started in the project's folder."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900
    )


class CommandTestCase(TinyWorld):
    """With an adapter that the command trained; every test of it starts there."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.adapter = cls.world / "trained.fseft"
        cls.trained = run(*cls.adapt_arguments(cls.adapter, epochs=20))

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(self.trained.status, 0, self.trained.err)

    def done(self, *arguments: str) -> Ran:
        """A command that must succeed."""
        ran = run(*arguments)
        self.assertEqual(ran.status, 0, ran.err)
        return ran

    def segmented(self, out: Path, *more: str) -> Ran:
        return self.done(*self.segment_arguments(self.adapter, out, *more))

    def written(self) -> list[str]:
        return sorted(os.listdir(self.folder))


class Help(unittest.TestCase):
    """``--help`` teaches, and at once."""

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


class WholeJob(CommandTestCase):
    """adapt, segment, evaluate, inspect, models."""

    def test_adapt_writes_the_adapter_and_tells_of_it(self) -> None:
        for text in ("bean", "pea", "A small random network", "seed 0, on 2 support", "expected"):
            self.assertIn(text, self.trained.out)
        self.assertTrue(self.trained.out.endswith(f"{self.adapter}\n"))
        self.assertEqual(
            self.trained.err.splitlines(),
            [
                "foundation model",
                "foundation model: support0.nii.gz",
                "foundation model: support1.nii.gz",
                "training",
            ],
        )
        trained = TrainedAdapter.load(self.adapter)
        self.assertEqual([(s.value, s.name) for s in trained.structures], [(4, "bean"), (5, "pea")])
        self.assertEqual(trained.training["settings"]["epochs"], 20)
        self.assertEqual(trained.training["settings"]["learning_rate"], 0.02)

    def test_segment_writes_one_file(self) -> None:
        ran = self.segmented(self.folder / "out.nii.gz", str(self.query.image))
        self.assertEqual(self.written(), ["out.nii.gz", "report.json"])
        result = read_image(self.folder / "out.nii.gz")
        self.assertEqual(result.grid, read_image(self.query.image).grid)
        self.assertEqual(np.unique(result.array).tolist(), [0, 4, 5])
        for text in ("bean", "pea", "expected ml", str(self.folder / "out.nii.gz")):
            self.assertIn(text, ran.out)

    def test_the_label_values_are_those_of_structures(self) -> None:
        path = self.folder / "a.fseft"
        arguments = [a if a != STRUCTURES else "5=pea" for a in self.adapt_arguments(path)]
        self.done(*arguments)
        trained = TrainedAdapter.load(path)
        self.assertEqual([(s.value, s.name) for s in trained.structures], [(5, "pea")])
        arguments = self.segment_arguments(path, self.folder / "x.nii.gz", str(self.query.image))
        self.done(*arguments, "--no-transductive")
        values = np.unique(read_image(self.folder / "x.nii.gz").array).tolist()
        self.assertIn(values, ([0], [0, 5]))

    def test_several_queries_go_into_a_folder(self) -> None:
        volume = read_image(self.query.image)
        other = write_array(self.world / "second.x.nrrd", volume.array, volume.grid)
        queries = [str(self.query.image), str(other)]
        for out in (self.folder, self.folder / "new"):
            self.segmented(out, *queries)
            names = ["query_seg.nii.gz", "report.json", "second.x_seg.nii.gz"]
            self.assertEqual(sorted(p.name for p in out.iterdir() if p.is_file()), names)
            report = json.loads((out / "report.json").read_text(encoding="utf-8"))
            self.assertEqual(sorted(report["results"]), [names[0], names[2]])
            first, second = (read_image(out / name) for name in (names[0], names[2]))
            self.assertEqual(first.grid, volume.grid)
            np.testing.assert_array_equal(first.array, second.array)

    def test_a_folder_whose_name_ends_with_a_slash_may_look_like_a_file(self) -> None:
        arguments = self.segment_arguments(self.adapter, self.folder / "x", str(self.query.image))
        arguments[arguments.index(str(self.folder / "x"))] += ".nrrd/"
        self.done(*arguments)
        self.assertEqual(
            sorted(os.listdir(self.folder / "x.nrrd")), ["query_seg.nii.gz", "report.json"]
        )

    def test_one_bad_query_does_not_cost_the_others(self) -> None:
        bad = self.folder / "bad.nii.gz"
        bad.write_bytes(b"garbage")
        queries = (str(self.query.image), str(bad), str(self.supports[0].image))
        ran = run(*self.segment_arguments(self.adapter, self.folder / "out", *queries))
        self.assertEqual(ran.status, 2)
        self.assertEqual(
            sorted(os.listdir(self.folder / "out")),
            ["query_seg.nii.gz", "report.json", "support0_seg.nii.gz"],
        )
        notes = [line for line in ran.err.splitlines() if "bad.nii.gz was left out" in line]
        self.assertEqual(len(notes), 1)
        self.assertRegex(
            ran.err,
            r"fewshotseg: 1 of 3 queries could not be segmented; the other 2 were\.\n"
            rf" +{re.escape(str(bad))} can't be read: .*\n$",
        )

    def test_evaluate_scores_what_segment_wrote(self) -> None:
        out, scores = self.folder / "out.nii.gz", self.folder / "scores.json"
        self.segmented(out, str(self.query.image))
        ran = self.done(
            *("evaluate", "--reference", str(self.query.segmentation), "--prediction", str(out)),
            *("--structures", STRUCTURES, "--json", str(scores)),
        )
        data = json.loads(scores.read_text(encoding="utf-8"))
        self.assertEqual(list(data["structures"]), ["bean", "pea"])
        for found in data["structures"].values():
            self.assertGreater(found["dice"], 0.5)
            self.assertLessEqual(
                {"hd95_mm", "surface_dice", "volume_error_ml", "volume_error_percent"}, set(found)
            )
        self.assertEqual(data["tolerance_mm"], 2.0)
        for text in ("bean", "pea", "Dice", "HD95", "mean of 2"):
            self.assertIn(text, ran.out)

    def test_a_perfect_prediction_is_perfect(self) -> None:
        scores = self.folder / "scores.json"
        truth = str(self.query.segmentation)
        self.done("evaluate", "--reference", truth, "--prediction", truth, "--json", str(scores))
        data = json.loads(scores.read_text(encoding="utf-8"))
        self.assertEqual((data["mean_dice"], set(data["structures"])), (1, {"label_4", "label_5"}))

    def test_an_empty_prediction_is_a_score_of_zero_and_no_error(self) -> None:
        truth = read_image(self.query.segmentation)
        empty = write_array(self.folder / "empty.nii.gz", truth.array * 0, truth.grid)
        scores = self.folder / "scores.json"
        for more in ((), ("--structures", STRUCTURES)):
            self.done(
                *("evaluate", "--reference", str(self.query.segmentation)),
                *("--prediction", str(empty), "--json", str(scores), *more),
            )
            data = json.loads(scores.read_text(encoding="utf-8"))
            self.assertEqual([s["dice"] for s in data["structures"].values()], [0, 0])
            self.assertEqual(data["mean_dice"], 0)

    def test_inspect_shows_what_is_inside(self) -> None:
        text = self.done("inspect", str(self.adapter)).out
        self.assertTrue(self.trained.out.startswith(text))
        data = json.loads(self.done("inspect", str(self.adapter), "--json").out)
        self.assertEqual([s["name"] for s in data["structures"]], ["bean", "pea"])
        self.assertEqual(data, json.loads(json.dumps(TrainedAdapter.load(self.adapter).metadata())))

    def test_models_lists_the_registry(self) -> None:
        write_model(self.world / "home" / "models", "mine")
        text = self.done("models").out
        data = json.loads(self.done("models", "--json").out)
        self.assertEqual([entry["id"] for entry in data], [entry.id for entry in list_entries()])
        lines = text.splitlines()
        self.assertLessEqual(len(lines), len(data) + 6)
        self.assertLessEqual(max(map(len, lines)), 110)
        listed = {line.split()[0]: line for line in lines[2 : 2 + len(data)]}
        self.assertEqual(list(listed), [entry["id"] for entry in data])
        for entry in data:
            line = listed[entry["id"]]
            for part in ("/".join(entry["modality"]), entry["architecture"]["name"]):
                self.assertIn(part, line)
            self.assertIn(entry["licence"], line)
        self.assertRegex(listed["mine"], r"here, \d\.\d MB$")
        self.assertRegex(listed["btcv"], r"SwinUNETR \(62 M\).*not here, download$")
        self.assertRegex(listed["fseft"], "not here, by hand$")
        self.assertRegex(listed["abdomen-unet"], r"not here, download of 3\.6 MB$")
        self.assertIn("Default: embedded-ct", text)
        self.assertEqual(
            {entry["id"]: entry["installed"] for entry in data},
            {entry.id: entry.weights.is_file() for entry in list_entries()},
        )

    def test_evaluate_says_reference_where_it_means_it(self) -> None:
        truth = read_image(self.query.segmentation)
        turned = write_array(self.folder / "turned.nii.gz", truth.array, make_grid("straight"))
        empty = write_array(self.folder / "empty.nii.gz", truth.array * 0, truth.grid)
        for reference, prediction, words in (
            (self.query.segmentation, turned, "The reference and prediction have different grids"),
            (empty, turned, "empty.nii.gz is empty: nothing is annotated in it"),
        ):
            ran = run("evaluate", "--reference", str(reference), "--prediction", str(prediction))
            self.assertEqual(ran.status, 2)
            self.assertIn(words, ran.err)
            self.assertNotIn("image", ran.err)
        self.assertIn(f"The reference {empty}", ran.err)

    def test_a_folder_of_results_is_no_prediction(self) -> None:
        """Of one prediction it would have to hold a mask a structure; it isn't all missed."""
        truth = read_image(self.query.segmentation)
        results = self.folder / "results"
        write_array(results / "query_seg.nii.gz", (truth.array > 0).astype(np.uint8), truth.grid)
        asked = ("evaluate", "--reference", str(self.query.segmentation))
        asked += ("--structures", STRUCTURES, "--prediction", str(results))
        ran = run(*asked)
        self.assertEqual(ran.status, 2)
        self.assertIn("without a mask of bean, pea; it has: query_seg", ran.err)
        write_array(results / "bean.nii.gz", np.zeros(truth.array.shape, np.uint8), truth.grid)
        self.assertIn("missed", self.done(*asked).out)  # an empty mask is an answer

    def test_progress_in_a_file_names_every_query(self) -> None:
        volume = read_image(self.query.image)
        other = write_array(self.world / "named.nrrd", volume.array, volume.grid)
        ran = self.segmented(self.folder, str(self.query.image), str(other), "--prior", "bean=20")
        lines = [line for line in ran.err.splitlines() if not line.startswith("Note: ")]
        for name in ("query.nii.gz", "named.nrrd"):
            own = [line for line in lines if line.endswith(f": {name}")]
            self.assertEqual(own, [f"{phase}: {name}" for phase in (
                "foundation model", "segmenting", "transduction")])  # fmt: skip

    def test_a_bound_that_cannot_act_is_not_shown_as_one(self) -> None:
        path = self.folder / "wide.fseft"
        told = self.done(*self.adapt_arguments(path, "--gamma", "1.2", epochs=1)).out
        out = self.segmented(self.folder / "x.nii.gz", str(self.query.image), "--gamma", "1.2").out
        for text in (told, out):
            line = next(line for line in text.splitlines() if line.startswith("bean"))
            self.assertRegex(line, r"up to \d+\.\d")
            self.assertIn("no lower bound: the tolerance is 120 % of the mean", line)
            self.assertNotIn("0.0 to", text)
        narrow = self.done("inspect", str(self.adapter)).out
        self.assertNotIn("no lower bound", narrow)

    def test_models_tells_all_of_one(self) -> None:
        entries = {e["id"]: e for e in json.loads(self.done("models", "--json").out)}
        for name, way in (
            ("btcv", "fewshotseg download btcv"),
            ("fseft", "fewshotseg import fseft FILE"),
            ("embedded-ct", entries["embedded-ct"]["weights"]),
        ):
            text = " ".join(self.done("models", name).out.split())
            for field in ("title", "description", "licence", "citation", "source_url"):
                self.assertIn(entries[name][field], text)
            for wanted in (*entries[name]["classes"], way):
                self.assertIn(wanted, text)
            other = next(iter(entries.keys() - {name}))
            self.assertNotIn(entries[other]["title"], text)
            self.assertEqual(json.loads(self.done("models", name, "--json").out), [entries[name]])
        self.assertIn("There is no model 'none'", run("models", "none").err)

    def test_every_column_has_a_name(self) -> None:
        out, truth = self.folder / "x.nii.gz", str(self.query.segmentation)
        texts = {
            "segment": self.segmented(out, str(self.query.image), "--prior", "bean=900").out,
            "inspect": self.done("inspect", str(self.adapter)).out,
            "models": self.done("models").out,
            "evaluate": self.done("evaluate", "--reference", truth, "--prediction", truth).out,
        }
        self.assertIn("outside the expected range", texts["segment"])
        for command, text in texts.items():
            lines = text.splitlines()
            rule = next(n for n, line in enumerate(lines) if set(line) <= {"-", " "} and line)
            header, widest = lines[rule - 1], lines[rule]
            if command == "evaluate":
                self.assertTrue(header.endswith("note"))
                continue
            starts = [n for n, c in enumerate(widest) if c == "-" and widest[n - 1 : n] != "-"]
            for start, stop in zip(starts, [*starts[1:], len(widest)], strict=True):
                self.assertTrue(header[start:stop].strip(), (command, header))
            for line in lines[rule + 1 : rule + 3]:
                self.assertLessEqual(len(line), len(widest), command)


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
        self.assertEqual(list(dict.fromkeys(phases)), ["read", "features", "train"])
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
