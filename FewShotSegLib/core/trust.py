"""Whether a result can be used: a verdict on each structure, with its reasons in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Signals:
    """What is known of one structure of a result without a reference; None where it is not.

    Attributes:
        supports: how many annotated volumes the adapter was trained on.
        held_out: mean Dice of the supports that were held out.
        agreement: mean Dice of the result without transduction with those of adapters that each
            lacked a support. mutual: of these with each other.
        confidence: the Dice that the probabilities expect, if they were right.
        region: how far the features within the structure are from the nearest support's, in
            deviations; usual_region: how far supports are from each other.
        volume, usual_volume: the same of the whole volume.
        size: natural logarithm of the volume over the expected one; None where it is cut off.
        largest: the part of its volume in as many of the largest pieces as the supports show.
        apart: mm from the largest piece to the farthest.
        moved: Dice of the result with that without transduction.
    """

    supports: int = 0
    held_out: float | None = None
    agreement: float | None = None
    mutual: float | None = None
    confidence: float | None = None
    region: float | None = None
    usual_region: float | None = None
    volume: float | None = None
    usual_volume: float | None = None
    size: float | None = None
    largest: float | None = None
    apart: float | None = None
    moved: float | None = None

    def with_result(
        self,
        volume_ml: float,
        mean_ml: float,
        whole: bool,
        pieces_ml: Sequence[float],
        distances_mm: Sequence[float],
        expected_pieces: int,
        unmoved: float | None,
    ) -> Signals:
        """With what the result itself shows."""
        total = sum(pieces_ml)
        return replace(
            self,
            size=math.log(volume_ml / mean_ml) if whole and volume_ml > 0 else None,
            largest=sum(pieces_ml[:expected_pieces]) / total if total else None,
            apart=max(distances_mm, default=0.0) if total else None,
            moved=unmoved,
        )

    def to_json(self) -> dict[str, Any]:
        """For a report: rounded."""
        return {k: v if v is None else round(v, 4) for k, v in asdict(self).items()}
