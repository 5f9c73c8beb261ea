"""A small assembly of patients and label maps, for the tests of pre-training."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tiny import OneThread
from tiny_model import make_grid, make_labels, make_values, write_array

from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.pretraining.assembly import Assembly
from FewShotSegLib.pretraining.cases import Case, prepare_case
from FewShotSegLib.pretraining.run import Pretrained, pretrain

ROOT = Path(__file__).resolve().parents[2]
CROP = [16, 16, 12]
BOX = {"orientation": "RAS", "spacing": [3.0, 3.0, 3.0]}


def description(**changes: Any) -> dict[str, Any]:
    """A small assembly: two CT sets that annotate different classes, and label maps."""
    return {
        "model": {"id": "tiny-pretrained", "title": "Tiny", "licence": "Apache-2.0"},
        "classes": ["bean", "pea", "pod"],
        "preprocessing": {
            "CT": {**BOX, "intensity": "window", "low": -200, "high": 300},
            "MR": {**BOX, "intensity": "percentiles", "low": 0.5, "high": 99.5},
        },
        "architecture": {"name": "DynamicUNet", "filters": [4, 6, 8]},
        "data": [
            {
                "name": "beans",
                "folder": "beans",
                "modality": "CT",
                "labels": {"4": "bean", "5": "pea"},
                "annotated": {"file": "index.json", "part": "beans"},
                "weight": 3,
                "held_out": ["b2"],
            },
            {
                "name": "maps",
                "folder": "maps",
                "modality": "MR",
                "labels": {"4": "pod", "5": "pod"},
                "synthesis": True,
            },
        ],
        "targets": {
            "tissue": 0.2,
            "position": 1.0,
            "anchors": ["bean", "pod"],
            "distance": 1.0,
            "landmarks": ["skin", "bean", "pod"],
            "clean": 0.5,
        },
        "augmentation": {"contrast": 0.25, "narrow": 0.25},
        "training": {
            "steps": 6,
            "crop": CROP,
            "learning_rate": 0.01,
            "warm_up": 2,
            "epoch_steps": 2,
            "validate_every": 2,
            "freeze_statistics": 0.5,
        },
        **changes,
    }


class World(OneThread):
    """Three patients and two label maps in a folder."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory(prefix="kleine Größe ")
        cls.addClassCleanup(folder.cleanup)
        cls.world = Path(folder.name)
        for seed, grid in enumerate(map(make_grid, ("straight", "oblique", "left-handed"))):
            labels = make_labels(seed, grid)
            image = make_values(seed, labels)
            write_array(cls.world / "beans" / "images" / f"b{seed}.nii.gz", image, grid)
            write_array(cls.world / "beans" / "labels" / f"b{seed}.nii.gz", labels, grid)
        for seed in range(2):
            labels = make_labels(seed, make_grid()).astype(np.int16)
            labels[labels == 0] = 2000
            labels[:3] = 0
            write_array(cls.world / "maps" / f"m{seed}.nii.gz", labels, make_grid())
        index = {"beans": {"b0": [4, 5], "b1": [4], "b2": [4, 5]}}
        (cls.world / "index.json").write_text(json.dumps(index))
        cls.path = cls.write(description())
        cls.prepared = cls.world / "prepared"

    @classmethod
    def write(cls, data: Any, name: str = "assembly.json") -> Path:
        path = cls.world / name
        path.write_text(json.dumps(data))
        return path

    def setUp(self) -> None:
        self.folder = self.world / "out"
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    @classmethod
    def cases(cls, assembly: Assembly) -> list[list[Case]]:
        return [
            [prepare_case(assembly, d, source, cls.prepared, lambda: None) for source in d.sources]
            for d in assembly.data
        ]

    def trained(self, out: str = "run", **options: Any) -> Pretrained:
        return pretrain(self.path, self.folder / out, **{"runtime": Runtime("cpu"), **options})
