"""Descriptions of a pre-training that are wrong: one sentence each, before any work."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pretraining_world import ROOT, World, description

from FewShotSegLib.core.errors import FewShotSegError, InputError
from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.pretraining.assembly import read_assembly
from FewShotSegLib.pretraining.ddp import Ranks
from FewShotSegLib.pretraining.run import pretrain
from FewShotSegLib.pretraining.settings import Augmentation, Targets, TrainingPlan
from FewShotSegLib.pretraining.trainer import Trainer


class BadAssemblies(World):
    """What is wrong is said in one sentence, before any work."""

    def assert_refused(self, telling: str, change: Callable[[dict[str, Any]], Any]) -> None:
        data = description()
        change(data)
        path = self.write(data, "bad.json")
        with self.subTest(telling), self.assertRaisesRegex(FewShotSegError, telling) as caught:
            pretrain(path, self.folder, runtime=Runtime("cpu"))
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        self.assertFalse((self.folder / "cases").exists())

    def test_each_is_refused(self) -> None:
        first = lambda data: data["data"][0]  # noqa: E731
        for telling, change in {
            "lacks the field 'classes'": lambda d: d.pop("classes"),
            "unknown field 'flips'": lambda d: d.update(flips=True),
            "'augmentation' has the unknown field 'flip'": lambda d: d["augmentation"].update(
                flip=1
            ),
            "have the same name": lambda d: d["classes"].append("Pea"),
            "no data set annotates the class 'husk'": lambda d: d["classes"].append("husk"),
            "'VNet' is not known; there are DynamicUNet": lambda d: d["architecture"].update(
                name="VNet"
            ),
            "unknown field 'depth'; known are filters": lambda d: d["architecture"].update(depth=3),
            "no 1x1x1 head": lambda d: d.update(architecture={"name": "ObeliskUNet"}),
            "multiples of 4": lambda d: d["training"].update(crop=[16, 16, 10]),
            "'crop' of 'training' is a list": lambda d: d["training"].update(crop=16),
            "'steps' of 'training' is a whole number": lambda d: d["training"].update(steps="many"),
            "learning_rate is 1e-09 to 1, not -1": lambda d: d["training"].update(learning_rate=-1),
            "anchors .* given together": lambda d: d["targets"].update(anchors=[]),
            "anchor 'husk'": lambda d: d["targets"].update(anchors=["husk"]),
            "rotation is 0 to 45, not 180": lambda d: d["augmentation"].update(rotation=180),
            "There is no folder": lambda d: first(d).update(folder="nowhere"),
            "modality has no part": lambda d: first(d).update(modality="PET"),
            "label value 'x'": lambda d: first(d)["labels"].update(x="bean"),
            "class 'nut' of label 6": lambda d: first(d)["labels"].update({"6": "nut"}),
            "lacks 'b0'": lambda d: first(d).update(annotated={"file": "empty.json"}),
            "no list of label values": lambda d: first(d).update(annotated={"file": "no.json"}),
            "no case 'b9' to hold out": lambda d: first(d).update(held_out=["b9"]),
            "which exclude names": lambda d: first(d).update(exclude=["b9"]),
            "left to train on": lambda d: first(d).update(held_out=3),
            "'grey' names 'nut'": lambda d: d["data"][1].update(grey={"nut": 0.5}),
            "grey value of 'pod' is not within": lambda d: d["data"][1].update(grey={"pod": 2}),
            "'grey' is for synthetic images": lambda d: first(d).update(grey={"bean": 0.5}),
            "weight is a number above 0": lambda d: first(d).update(weight=0),
            "trains on 'b1', which 'twin' holds out": lambda d: d["data"].append(
                dict(first(d), name="twin", held_out=["b1"])
            ),
            "no data set is MR": lambda d: (
                d["data"].pop(),
                d["classes"].remove("pod"),
                d.update(targets={}),
            ),
            "can't be 'Pretraining'": lambda d: d["model"].update(id="Pretraining"),
            "leaves one voxel": lambda d: d["training"].update(crop=[4, 4, 4]),
            "cases is a list of case names": lambda d: first(d).update(cases=[["b0"]]),
            "held_out is a number": lambda d: first(d).update(held_out=[["b0"]]),
            "one name": lambda d: d["data"].append(first(d)),
            "use window or percentiles": lambda d: d["preprocessing"]["MR"].update(
                intensity="identity"
            ),
            "'crop' of 'preprocessing' is for models": lambda d: d["preprocessing"]["CT"].update(
                crop="nonzero"
            ),
            "not one of the kind 'RAS'": lambda d: d["preprocessing"]["CT"].update(
                orientation="RAX"
            ),
        }.items():
            (self.world / "empty.json").write_text("{}")
            self.assert_refused(telling, change)

    def test_the_documented_example_is_one(self) -> None:
        pages = ROOT / "Documentation"
        text = (pages / "how-to" / "pretrain-a-model.md").read_text(encoding="utf-8")
        fields = (pages / "reference" / "pretraining-fields.md").read_text(encoding="utf-8")
        data = json.loads(text.split("```json\n")[1].split("```")[0])
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for case in ("patient_1", "patient_2", "patient_17"):
                for place in ("hospital-a", "hospital-b"):
                    for end in ("_ct.nii.gz", "_seg.nii.gz"):
                        file = folder / place / f"{case}{end}"
                        file.parent.mkdir(exist_ok=True)
                        file.touch()
            (folder / "brain-label-maps").mkdir()
            for number in range(3):
                (folder / "brain-label-maps" / f"brain{number}.nii.gz").touch()
            index = {"train": {f"patient_{n}": [1] for n in (1, 2, 17)}}
            (folder / "hospital-a" / "index.json").write_text(json.dumps(index))
            data["data"][0]["held_out"] = 1  # of three
            (folder / "assembly.json").write_text(json.dumps(data))
            assembly = read_assembly(folder / "assembly.json", steps=7)
        self.assertEqual([len(d.sources) for d in assembly.data], [2, 2, 1])
        self.assertEqual([len(d.held_out) for d in assembly.data], [1, 0, 2])
        self.assertEqual(assembly.training.steps, 7)
        for part in (Targets, Augmentation, TrainingPlan):
            for field in dataclasses.fields(part):
                self.assertIn(f"`{field.name}`", fields)

    def test_files_that_are_no_assembly(self) -> None:
        for text in ("{", "[]", '"text"', "3"):
            path = self.world / "bad.json"
            path.write_text(text)
            with self.assertRaises(InputError):
                read_assembly(path)
        with self.assertRaisesRegex(InputError, "There is no assembly"):
            read_assembly(self.world / "none.json")

    def test_a_diverged_training_is_reported(self) -> None:
        assembly = read_assembly(self.path)
        trainer = Trainer(assembly, self.cases(assembly), Ranks(torch.device("cpu")), 0)
        trainer.running[0, 0] = math.nan
        with self.assertRaisesRegex(InputError, "diverged"):
            trainer.reset_running()
        trainer.running.zero_()
        trainer.require_finite()
        with torch.no_grad():
            trainer.parameters[0].view(-1)[0] = math.inf  # by the last step; no loss shows it yet
        with self.assertRaisesRegex(InputError, "diverged"):
            trainer.require_finite()


if __name__ == "__main__":
    unittest.main()
