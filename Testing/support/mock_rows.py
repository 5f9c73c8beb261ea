"""A parameter node without a scene, and a result, for the mock of the logic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from FewShotSegSlicer.interface.rows import (
    PriorRow,
    Result,
    ResultRow,
)


@dataclass(eq=False)
class Parameters:
    """A parameter node without a scene."""

    queryVolume: Any = None
    adapterId: str = ""
    method: str = "adapter"
    decoder: str = "auto"
    preset: str = "own"
    effort: str = "default"
    features: str = "multi"
    effort: str = "default"
    epochs: int = 0
    learningRate: float = 0.0
    seed: int = 0
    modality: str = "auto"
    transductive: bool = True
    overlapAllowed: bool = False
    onlyDrawnSlices: bool = False
    drawnPlane: str = "auto"
    uncertainty: bool = False
    largestComponent: bool = False

    def connectGui(self, ui: Any) -> int:
        return 1

    def disconnectGui(self, tag: int) -> None:
        pass

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return 1

    def RemoveObserver(self, tag: int) -> None:
        pass

    def HasObserver(self, *args: Any) -> bool:
        return False


def make_result(
    query: Any, segmentation: Any, unrefined: Any = None, result_id: str = "r0"
) -> Result:
    """One structure as expected, one too large."""
    prior = PriorRow(24.5, 2.2, 3, gamma=0.3, lower_ml=17.2, upper_ml=31.9)
    rows = (
        ResultRow("gland_right", (0.2, 0.78, 0.74), 25.1, 29.4, prior, True),
        ResultRow("pouch", (0.72, 0.55, 0.98), 48.0, 52.0, prior, False, "«pouch» is large."),
    )
    return Result(
        query,
        segmentation,
        unrefined,
        None,
        rows,
        seconds=12.0,
        adapter_id="a0",
        id=result_id,
        created="2025-01-31 14:05:00",
    )
