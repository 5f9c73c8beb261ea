"""What once went wrong, and must not again."""

from __future__ import annotations

import io
import unittest
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from tiny_model import TrainedWorld, run

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.events import json_lines
from FewShotSegLib.models.registry import find_model, same_class
from FewShotSegLib.pipeline import read_support, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.pipeline.report import read_reports, write_report
from FewShotSegLib.training.loop import TrainingSettings


class Regressions(TrainedWorld):
    """What was once wrong, and stays right."""

    def test_a_support_that_annotates_only_some_structures_can_hold_a_refinement(self) -> None:
        trained = TrainedAdapter.load(self.adapter)
        support = read_support(*self.supports[0].paths, structures=trained.structures)
        first = support.annotation.structures[0].name
        partial = replace(
            support,
            annotation=replace(support.annotation, masks={first: support.annotation.mask(first)}),
        )
        result = segment(
            trained,
            self.query.image,
            supports=[partial],
            priors_ml={first: 500.0},
            model=str(self.model),
            runtime=self.runtime,
        )
        self.assertTrue(result.report["refined_with_supports"])
        self.assertGreater(result.report["refined_epochs"], 0)

    def test_no_input_is_ever_written_over(self) -> None:
        image, drawn = self.supports[0].paths
        before = Path(drawn).read_bytes()
        support = ("--support", str(image), str(drawn))
        arguments = self.segment_arguments(
            self.adapter, Path(drawn), str(self.query.image), *support
        )
        ran = run(*arguments)
        self.assertEqual(ran.status, 2)
        self.assertIn("is one of the inputs", ran.err)
        ran = run(
            "evaluate", "--reference", str(drawn), "--prediction", str(drawn), "--json", str(drawn)
        )
        self.assertEqual(ran.status, 2)
        self.assertEqual(Path(drawn).read_bytes(), before)

    def test_a_folders_own_segmentations_are_not_taken_for_results(self) -> None:
        folder = self.folder / "results"
        folder.mkdir()
        stem = Path(self.query.image).name.removesuffix(".nii.gz")
        drawn = folder / f"{stem}_seg.nii.gz"
        drawn.write_bytes(b"drawn by hand")
        arguments = self.segment_arguments(self.adapter, folder, str(self.query.image))
        ran = run(*arguments)
        self.assertEqual(ran.status, 2)
        self.assertEqual(drawn.read_bytes(), b"drawn by hand")
        drawn.unlink()
        for _ in range(2):  # and what we made ourselves may be made again
            self.assertEqual(run(*arguments).status, 0)
        self.assertIn(drawn.name, read_reports(folder / "report.json"))

    def test_an_adapter_that_finds_nothing_at_all(self) -> None:
        trained = TrainedAdapter.load(self.adapter)
        for classifier in trained.adapter.classifiers:
            classifier.weight.data.zero_()
            classifier.bias.data.fill_(-60.0)
        result = segment(trained, self.query.image, model=str(self.model), runtime=self.runtime)
        self.assertFalse(result.labels.any())
        self.assertTrue(any("No voxel" in text for text in result.report["warnings"]))
        self.assertTrue(any("hardly found" in text for text in result.report["warnings"]))

    def test_a_training_that_diverges_is_said_to(self) -> None:
        out = self.folder / "wild.fseft"
        arguments = self.adapt_arguments(out, "--learning-rate", "1e30", "--events", epochs=5)
        ran = run(*arguments)
        self.assertEqual(ran.status, 2)
        self.assertIn("diverged", ran.err)
        self.assertEqual(ran.events[-1]["event"], "failed")
        self.assertFalse(out.exists())
        with self.assertRaisesRegex(InputError, "above 0"):
            TrainingSettings(learning_rate=0.0)

    def test_a_broken_entry_of_the_user_stops_only_who_asks_for_it(self) -> None:
        folder = self.world / "home" / "models"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "broken.json").write_text("{", encoding="utf-8")
        self.addCleanup((folder / "broken.json").unlink)
        self.assertEqual(find_model().entry.id, "embedded")
        ran = run("models")
        self.assertEqual(ran.status, 0)
        self.assertIn("broken.json", ran.out.partition("Can't be used")[2])

    def test_results_for_programs_come_as_events(self) -> None:
        drawn = str(self.supports[0].segmentation)
        for arguments, key in (
            (("evaluate", "--reference", drawn, "--prediction", drawn), "structures"),
            (("inspect", str(self.adapter)), "metadata"),
            (("models",), "models"),
        ):
            with self.subTest(arguments[0]):
                events = run(*arguments, "--events").events
                kinds = [event["event"] for event in events]
                self.assertEqual(kinds, ["started", "result", "finished"])
                self.assertTrue(events[1][key])

    def test_processes_that_share_a_folder_keep_each_others_reports(self) -> None:
        names = [f"q{number}_seg.nii.gz" for number in range(24)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: write_report(self.folder / name, {"of": name}), names))
        self.assertEqual(set(read_reports(self.folder / "report.json")), set(names))


class Words(unittest.TestCase):
    """Names and numbers that are easily mistaken."""

    def test_classes_in_any_script(self) -> None:
        self.assertTrue(same_class("Left kidney", "kidney_left"))
        self.assertTrue(same_class("Hüfte links", "links-hüfte"))
        self.assertFalse(same_class("左腎", "肝臓"))
        self.assertFalse(same_class("Häftling", "Hüftling"))
        self.assertFalse(same_class("", "--"))

    def test_an_event_is_strict_json(self) -> None:
        stream = io.StringIO()
        with self.assertRaisesRegex(InputError, r"no finite number \(epoch: loss\)"):
            json_lines(stream)({"event": "epoch", "loss": float("nan")})
        self.assertEqual(stream.getvalue(), "")


if __name__ == "__main__":
    unittest.main()
