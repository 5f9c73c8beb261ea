"""What results are judged by: measured on the supports for an adapter's file, and on a query."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.trust import Signals
from ..features.store import VolumeFeatures
from ..inference.evidence import (
    Evidence,
    agreement,
    confidence,
    describe,
    region_distance,
    usual_distances,
    volume_distance,
)
from ..methods.adapters.base import Adapter
from ..training.support_set import SupportSet
from .adapter_file import TrainedAdapter


def support_evidence(supports: SupportSet, adapter: Adapter) -> Evidence:
    """The supports in a few numbers, for the file of an adapter that was trained on them."""
    return Evidence([describe(s.features, adapter.levels, s.centres) for s in supports.supports])


def find_signals(
    trained: TrainedAdapter,
    features: VolumeFeatures,
    scores: tuple[Tensor, Tensor],
    device: torch.device,
    check: Callable[[], None],
) -> dict[str, Signals] | None:
    """What the features say of a result, by structure name; None where the adapter's file keeps
    nothing to judge by.

    Args:
        features: of the query. scores: the adapter's probabilities (K, i, j, k) on the model grid,
            and those that the result is made of.
        check: called now and then; may raise to stop.
    """
    evidence, adapter = trained.evidence, trained.adapter
    if evidence is None:
        return None
    first, final = scores
    places = [np.argwhere(mask) for mask in (final > 0.5).numpy()]
    own = describe(features, adapter.levels, places)
    usual, usual_regions = usual_distances(evidence.supports, adapter, len(places))
    whole = volume_distance(own, evidence.supports, adapter)
    agreed = agreement(first, evidence.held_out, features, device, check)
    sure = confidence(final)
    found = {}
    for k, structure in enumerate(trained.structures):
        dice = agreed[k]
        expected = trained.expected and trained.expected.structures.get(structure.name)
        found[structure.name] = Signals(
            supports=len(evidence.supports),
            held_out=expected.mean if expected else None,
            agreement=dice and dice[0],
            mutual=dice and dice[1],
            confidence=sure[k],
            region=region_distance(own, evidence.supports, adapter, k),
            usual_region=usual_regions[k],
            volume=whole,
            usual_volume=usual,
        )
    return found


def completed(signals: Signals, entry: Mapping[str, Any]) -> Signals:
    """With what a structure's report says of its size and pieces, and of transduction."""
    with_result = signals.with_result(
        volume_ml=entry["volume_ml"],
        mean_ml=entry["prior"]["mean_ml"],
        whole=bool(entry["prior"]["lower_bound_trusted"]),
        pieces_ml=entry["pieces"]["volumes_ml"],
        distances_mm=entry["pieces"]["distances_mm"],
        expected_pieces=entry["pieces"]["expected"] or 1,
        unmoved=(entry["transduction"] or {}).get("dice_with_unrefined"),
    )
    far = entry["pieces"]["far"]
    if far is None:
        return with_result
    return replace(with_result, far=far["distance_mm"], far_ml=far["volume_ml"])
