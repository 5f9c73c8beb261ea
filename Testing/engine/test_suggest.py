"""What to annotate next: the order, its reasons, and every way to ask for it."""

from __future__ import annotations

import csv
import json
import shutil
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from job_case import put
from pipeline_case import PipelineTestCase
from tiny_model import (
    STRUCTURES,
    make_grid,
    make_labels,
    make_values,
    run,
    write_array,
    write_patient,
)

import FewShotSegLib as fss
from FewShotSegLib.core.errors import Cancelled, InputError
from FewShotSegLib.core.events import ignore
from FewShotSegLib.core.job_protocol import SuggestJob, make_private, read_suggestions
from FewShotSegLib.core.trust import FOREIGN
from FewShotSegLib.features.extraction import FeatureSource
from FewShotSegLib.inference.choosing import (
    distances,
    farthest_order,
    usual_scale,
)
from FewShotSegLib.inference.evidence import Description
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline import Runtime, suggest
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.worker.jobs import run_job


def on_a_line(*places: float) -> list[Description]:
    """Volumes with one channel, whose mean alone differs."""
    nothing = np.zeros((0, 1), np.float32), np.zeros(0, bool)
    return [
        Description(np.array([x], np.float32), np.ones(1, np.float32), *nothing) for x in places
    ]


class Order(unittest.TestCase):
    """Which volume comes when."""

    def order(self, places: list[float], known: list[float]) -> list[int]:
        own, annotated = on_a_line(*places), on_a_line(*known)
        scale = usual_scale([*own, *annotated])
        order = farthest_order(distances(own, own, scale), distances(own, annotated, scale))
        return [choice.number for choice in order]

    def test_the_typical_one_is_first_then_the_farthest(self) -> None:
        places = [0.0, 1.0, 1.1, 1.2, 5.0, 5.1, 20.0]
        self.assertEqual(self.order(places, [])[:4], [3, 6, 5, 0])
        self.assertEqual(self.order([0.0, 0.9, 1.8], [0.5])[0], 2)
        self.assertEqual(self.order([0.0, 0.1, 5.0], [0.05])[0], 2)

    def test_each_is_the_farthest_from_all_before(self) -> None:
        rng = np.random.default_rng(3)
        points, annotated = rng.normal(size=(12, 4)), rng.normal(size=(3, 4))
        between = np.linalg.norm(points[:, None] - points[None], axis=-1)
        known = np.linalg.norm(points[:, None] - annotated[None], axis=-1)
        chosen: list[int] = []
        for choice in farthest_order(between, known):
            before = np.concatenate([known, between[:, chosen]], axis=1).min(1)
            left = [n for n in range(12) if n not in chosen]
            self.assertEqual(choice.number, max(left, key=before.__getitem__))
            self.assertAlmostEqual(choice.nearest, before[choice.number])
            nearer = np.flatnonzero(between[:, choice.number] < before)
            self.assertEqual(sorted((*choice.followers, choice.number)), nearer.tolist())
            chosen.append(choice.number)
        self.assertEqual(sorted(chosen), list(range(12)))
        first = farthest_order(between, np.zeros((12, 0)))[0]
        self.assertEqual((first.number, first.nearest), (int(between.sum(0).argmin()), None))

    def test_distance_is_of_mean_and_spread_in_units(self) -> None:
        (first,), (other,) = on_a_line(0.0), on_a_line(3.0)
        wide = Description(first.mean, 3 * first.deviation, first.regions, first.present)
        scale = np.array([2.0])
        np.testing.assert_allclose(distances([first], [other, wide], scale), [[1.5, 1.0]])
        np.testing.assert_allclose(usual_scale([first, wide]), [np.sqrt(5)])


class Suggesting(PipelineTestCase):
    """On volumes with a model; an adapter was trained on two others."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.adapter, cls.archive = cls.world / "shared.fseft", cls.world / "archive"
        for n in range(3):
            write_patient(cls.archive, f"usual{n}", 10 + n)
        grid = make_grid()
        values = make_values(20, make_labels(20, grid))
        # Air nearly everywhere: in another way of imaging.
        odd = np.where(np.indices(grid.shape)[0] < 20, -1000, values).astype(np.int16)
        write_array(cls.archive / "odd.nii.gz", odd, grid)
        for path in cls.archive.glob("*_manual.nii.gz"):
            path.unlink()

    def suggest(self, *volumes: Any, **options: Any) -> Any:
        usual = {"model": str(self.model), "runtime": self.runtime}
        return suggest(volumes or [self.archive], **{**usual, **options})

    def names(self, result: Any) -> list[str]:
        return [one.name for one in result]

    def command(self, *arguments: str) -> Any:
        return run(
            "suggest",
            *arguments,
            *("--model", str(self.model), "--cache", str(self.world / "cache"), "--device", "cpu"),
        )

    def test_the_most_typical_one_first_and_why(self) -> None:
        result = self.suggest()
        self.assertEqual(sorted(self.names(result)), ["odd", "usual0", "usual1", "usual2"])
        self.assertTrue(result[0].name.startswith("usual"))
        self.assertEqual(result[0].reasons, ("the most typical of these 4 volumes",))
        self.assertEqual(result[1].name, "odd", "all others are like the first")
        self.assertIn("no other is like it", result[1].reasons[0])
        self.assertIn("adds little", result[3].reasons[0])
        self.assertEqual([one.place for one in result], [1, 2, 3, 4])
        self.assertIsNone(result[0].dice)
        self.assertIn(result[0].name, repr(result))
        self.assertIn("the most typical", result._repr_html_())
        self.assertIs(fss.suggest, suggest)

    def test_no_feature_is_computed_twice(self) -> None:
        self.suggest()
        with mock.patch.object(FeatureSource, "_run", side_effect=AssertionError):
            again = self.suggest()
            self.assertFalse(again.failed, again.left_out)
            self.assertEqual(len(again), 4)

    def test_what_is_annotated_counts_and_is_left_out(self) -> None:
        usual = self.archive / "usual1.nii.gz"
        shutil.copy(self.archive / "odd.nii.gz", self.folder / "copy.nii.gz")
        result = self.suggest(self.archive, self.folder, annotated=[usual])
        self.assertEqual(self.names(result)[0], "odd")
        self.assertEqual(
            {one.name: one.why for one in result.left_out},
            {"usual1": "It is annotated already.", "copy": "It has the voxels of odd."},
        )
        self.assertFalse(result.failed)
        both = self.suggest(annotated=[read_image(usual), self.archive / "odd.nii.gz"])
        self.assertEqual(set(self.names(both)), {"usual0", "usual2"})
        self.assertTrue(all("adds little" in one.reasons[0] for one in both), both.suggestions)

    def test_with_an_adapter_what_it_will_reach_and_strange_ones_last(self) -> None:
        supports = [s.image for s in self.supports]
        result = self.suggest(self.archive, *supports, adapter=self.adapter)
        self.assertEqual(
            {one.name: one.why for one in result.left_out},
            {"support0": "It is annotated already.", "support1": "It is annotated already."},
        )
        for one in result[:-1]:
            self.assertRegex(one.reasons[-1], r"^expected Dice 0\.\d\d \(")
            self.assertIn(one.structure, STRUCTURES)
            self.assertEqual(f"{one.dice:.2f}", one.reasons[-1].split()[2])
        self.assertEqual(result[-1].name, "odd")
        self.assertIn(FOREIGN, result[-1].reasons[0])
        segmented = fss.segment(
            self.adapter, self.archive / "usual0.nii.gz", model=str(self.model),
            runtime=self.runtime, transductive=False,
        ).report["structures"]  # fmt: skip
        shown = next(one for one in result if one.name == "usual0")
        self.assertEqual(shown.dice, min(e["trust"]["dice"] for e in segmented.values()))
        loaded = TrainedAdapter.load(self.adapter)
        loaded.evidence = None
        heard: list[str] = []
        runtime = Runtime(
            "cpu",
            self.world / "cache",
            events=lambda event: heard.append(event.get("message", "")),
        )
        blind = self.suggest(adapter=loaded, runtime=runtime)
        self.assertIn("name their images as annotated", " ".join(heard))
        self.assertIn("most typical", blind[0].reasons[0])
        self.assertIsNone(blind[0].dice)

    def test_a_bad_file_costs_no_other(self) -> None:
        folder = self.folder / "in"
        shutil.copytree(self.archive, folder)
        whole = (folder / "usual0.nii.gz").read_bytes()
        (folder / "broken.nii.gz").write_bytes(whole[: len(whole) // 2])
        table = self.folder / "next.csv"
        ran = self.command(str(folder), "--csv", str(table), "--most", "2")
        self.assertEqual(ran.status, 2)
        self.assertIn(f"1 of 5 volumes can't be used:\n    {folder / 'broken.nii.gz'} is", ran.err)
        self.assertNotIn("Traceback", ran.err)
        self.assertIn(f"(2 more in {table})", ran.out)
        rows = list(csv.DictReader(table.open(encoding="utf-8-sig")))
        self.assertEqual([row["place"] for row in rows], ["1", "2", "3", "4", ""])
        self.assertEqual(rows[0]["path"], str(folder / f"{rows[0]['volume']}.nii.gz"))
        self.assertEqual(rows[4]["volume"], "broken")
        self.assertIn("broken.nii.gz", rows[4]["left_out"])

    def test_the_command_prints_a_table_or_events(self) -> None:
        ran = self.command(str(self.archive), "--adapter", str(self.adapter))
        self.assertEqual((ran.status, ran.err.count("Note")), (0, 0), ran.err)
        lines = ran.out.splitlines()
        self.assertRegex(lines[0], r"^ +annotate next +expected Dice +reason$")
        self.assertRegex(lines[2], r"^1  usual\d +0\.\d\d  ")
        ran = self.command(str(self.archive), "--events")
        (found,) = [event for event in ran.events if event["event"] == "result"]
        self.assertEqual(found["kind"], "suggestions")
        self.assertEqual(len(found["suggestions"]), 4)
        self.assertEqual(found["suggestions"][1]["path"], str(self.archive / "odd.nii.gz"))

    def test_what_cannot_be_is_refused(self) -> None:
        image = self.archive / "usual0.nii.gz"
        ran = self.command(str(image), "--csv", str(image))
        self.assertEqual(ran.status, 2)
        self.assertIn("is one of the inputs", ran.err)
        mixed = write_patient(self.folder, "mr", 3, modality="MR").image
        with self.assertRaisesRegex(InputError, "Some volumes look like CT and others like MR"):
            self.suggest(self.archive, mixed)
        for given, words in (([], "at least one"), (str(image), "as a list")):
            with self.assertRaisesRegex(InputError, words):
                suggest(given)
        with self.assertRaisesRegex(InputError, "modality is one of auto, CT, MR"):
            self.suggest(modality="PET")
        runtime = Runtime("cpu", self.world / "cache", cancel=lambda: True)
        with self.assertRaises(Cancelled):
            self.suggest(runtime=runtime)

    def test_a_job_ranks_volumes_by_their_numbers(self) -> None:
        folder = make_private(self.folder / "job")
        files, known = [], []
        for number, name in enumerate(("usual0", "odd", "usual2")):
            volume = read_image(self.archive / f"{name}.nii.gz")
            files.append(put(folder, f"v{number}.npy", volume.array, volume.grid.affine))
        bad = np.full((8, 8, 8), np.nan, np.float32)
        files.insert(1, put(folder, "bad.npy", bad, np.eye(4)))
        support = read_image(self.supports[0].image)
        known = [put(folder, "known.npy", support.array, support.grid.affine)]
        shutil.copy(self.adapter, folder / "adapter.fseft")
        usual = {"model": str(self.model), "device": "cpu", "cache": str(self.world / "cache")}
        for adapter in (None, "adapter.fseft"):
            job = SuggestJob(files, known, adapter, **usual)
            path = run_job(job, folder, ignore, lambda: False)
            order = read_suggestions(json.loads(Path(path).read_text())["order"])
            self.assertEqual(sorted(one.number for one in order), [1, 2, 3, 4])
            self.assertEqual(order[-1].number, 2)
            self.assertIn("Volume 2", order[-1].problem)
            self.assertTrue(all(one.reasons and not one.problem for one in order[:-1]))
            self.assertEqual(adapter is not None, order[0].dice is not None)
            self.assertEqual(order[2 if adapter else 0].number, 3, "the odd one")


if __name__ == "__main__":
    unittest.main()
