"""Four patients in a folder, and a benchmark plan that is quickly run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_model import STRUCTURES, TinyWorld, run, write_patient

from FewShotSegLib.evaluation.benchmark.results import NAME

CASES = ("a", "b", "c", "d")


class BenchmarkCase(TinyWorld):
    """Four patients in a folder, and a plan that is quickly run."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.data = cls.world / "data"
        for seed, name in enumerate(CASES):
            patient = write_patient(cls.data, name, seed)
            patient.segmentation.rename(cls.data / f"{name}_seg.nii.gz")

    def plan(self, **fields: Any) -> dict[str, Any]:
        """A plan as JSON; ``fields`` in place of its own."""
        return {
            "title": "Small",
            "model": str(self.model),
            "shots": [1, "all"],
            "methods": [
                {"name": "Adapter", "method": "adapter", "refine": True, "epochs": 2},
                {"name": "Probe", "method": "linear-probe", "epochs": 2, "shots": ["all"]},
            ],
            "tasks": [
                {
                    "name": "peas",
                    "data": "data",
                    "structures": STRUCTURES,
                    "groups": {"beans": ["bean"], "peas": ["pea"]},
                    "draws": [
                        {"seed": 0, "supports": ["a", "b"], "queries": ["c", "d"]},
                        {"seed": 1, "supports": ["d", "c"], "queries": ["a", "b"]},
                    ],
                }
            ],
            **fields,
        }

    def write(self, **fields: Any) -> Path:
        path = self.folder / "small.json"
        path.write_text(json.dumps(self.plan(**fields)), encoding="utf-8")
        return path

    def benchmark(self, path: Path, *more: str):
        places = ("--data", str(self.world), "--cache", str(self.world / "cache"))
        return run("benchmark", str(path), *places, "--device", "cpu", *more)

    def rows(self) -> list[dict[str, Any]]:
        text = (self.folder / "small" / NAME).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def refused_method() -> dict[str, str]:
    """One whose training can't begin, which no plan shows: published settings want one level."""
    method = {"name": "refused", "method": "adapter", "preset": "published"}
    return {**method, "features": "multi"}
