"""The Python API on the tiny world: adapting and segmenting with few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_model import (
    QUICK,
    STRUCTURES,
    Patient,
    TinyWorld,
)

from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline import Segmentation, adapt, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter

VALUES = {"bean": 4, "pea": 5}


_trained: list[bytes] = []
"""The file of the usual adapter, once it was trained."""


def state_bytes(trained: TrainedAdapter) -> dict[str, bytes]:
    """The adapter's numbers to the last bit."""
    return {k: v.cpu().numpy().tobytes() for k, v in trained.adapter.state_dict().items()}


def strict_json(path: Path) -> dict[str, Any]:
    """A JSON file, refusing the NaN and Infinity that Python would take."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


class PipelineTestCase(TinyWorld):
    """With an adapter that was trained on the supports."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # The worlds of all classes are alike: one training a process is enough.
        if not _trained:
            cls.adapt().save(cls.world / "shared.fseft")
            _trained.append((cls.world / "shared.fseft").read_bytes())
        (cls.world / "shared.fseft").write_bytes(_trained[0])
        cls.trained = TrainedAdapter.load(cls.world / "shared.fseft")

    @classmethod
    def adapt(cls, *supports: Any, **options: Any) -> TrainedAdapter:
        """An adapter trained on these, or on the usual supports."""
        usual = {
            "structures": STRUCTURES,
            "model": str(cls.model),
            "settings": QUICK,
            "runtime": cls.runtime,
        }
        given = supports or [s.paths for s in cls.supports]
        return adapt(given, **{**usual, **options})

    def segment(
        self, query: Any = None, out: Path | None = None, adapter: Any = None, **options: Any
    ) -> Segmentation:
        """The query segmented with the usual adapter, or others."""
        usual = {"model": str(self.model), "runtime": self.runtime}
        query = self.query.image if query is None else query
        return segment(adapter or self.trained, query, out, **{**usual, **options})

    def assert_found(self, result: Segmentation, patient: Patient, at_least: float = 0.5) -> None:
        """Both structures are where they were drawn."""
        truth = read_image(patient.segmentation).array
        for name, value in VALUES.items():
            self.assertGreater(dice(result.masks[name], truth == value), at_least, name)
