"""The command from files to files: adapt, segment, evaluate, inspect, models."""

from __future__ import annotations

import json
import os
import re
import unittest

import numpy as np
from command_case import CommandTestCase
from tiny_model import (
    STRUCTURES,
    make_grid,
    run,
    write_array,
    write_model,
)

from FewShotSegLib.core.published_models import published_models
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import list_entries
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter


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
                "the adapter is written; measuring what Dice to expect",
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
            names += ["volumes.csv", "volumes.html"]
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
            ["pictures", "query_seg.nii.gz", "report.json", "support0_seg.nii.gz"]
            + ["volumes.csv", "volumes.html"],
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
        # Those published as archives are no entries yet; each has a line.
        self.assertLessEqual(len(lines), len(data) + len(published_models()) + 9)
        self.assertLessEqual(max(map(len, lines)), 110)
        listed = {line.split()[0]: line for line in lines[2 : 2 + len(data)]}
        self.assertEqual(list(listed), [entry["id"] for entry in data])
        for entry in data:
            line = listed[entry["id"]]
            for part in ("/".join(entry["modality"]), entry["architecture"]["name"]):
                self.assertIn(part, line)
            self.assertIn(entry["licence"], line)
        self.assertRegex(listed["mine"], r"here, \d+ kB$")
        self.assertRegex(listed["btcv"], r"SwinUNETR \(62 M\).*not here, download$")
        self.assertRegex(listed["fseft"], "not here, by hand$")
        self.assertRegex(listed["abdomen-unet"], r"not here, download of 3\.6 MB$")
        self.assertIn("Default: embedded", text)
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
        reported = self.done(*self.adapt_arguments(path, "--gamma", "1.2", epochs=1)).out
        out = self.segmented(self.folder / "x.nii.gz", str(self.query.image), "--gamma", "1.2").out
        for text in (reported, out):
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
            ("embedded", entries["embedded"]["weights"]),
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


if __name__ == "__main__":
    unittest.main()
