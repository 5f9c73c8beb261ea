"""What is said of supports and queries that were read: to a person, and in the adapter's file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..compute.known_voxels import known_slices, plane_of
from ..core.events import make_event
from ..core.geometry import Volume
from ..training.support_set import PreparedSupport, Support
from .adapter_file import TrainedAdapter, content_hash
from .inputs import choose_modality, looks_like
from .rows import SUPPORT_WARNING
from .runtime import Runtime


def supports_modality(wanted: str, supports: Sequence[Support], runtime: Runtime) -> str:
    """What the supports are, by :func:`choose_modality`; odd values of MR are a warning."""
    chosen = choose_modality(wanted, [s.volume for s in supports])
    if chosen == "MR" and any(float(s.volume.array.min()) < 0 for s in supports):
        message = "Some supports have negative values; if they are CT, say --modality CT."
        runtime.events(make_event("warning", message=message))
    return chosen


def tell_notes(supports: Sequence[Support], query: Volume | None, runtime: Runtime) -> None:
    """What was changed about the images while they were read."""
    notes = [(f"Support {n}", s.volume.notes) for n, s in enumerate(supports, 1)]
    notes += [("The query", query.notes)] if query is not None else []
    for name, texts in notes:
        for text in texts:
            runtime.events(make_event("warning", message=f"{name}: {text}"))


def support_record(support: Support, prepared: PreparedSupport) -> dict[str, Any]:
    """What may be reported of a support: nothing that names a patient."""
    return {
        "shape": list(support.volume.grid.shape),
        "spacing_mm": [round(s, 4) for s in support.volume.grid.spacing],
        "sizes_mm3": dict(prepared.sizes),
        "cut_off": sorted(prepared.cut_off),
        "content": content_hash(support.volume),
        **_known_record(support, prepared),
    }


def _known_record(support: Support, prepared: PreparedSupport) -> dict[str, Any]:
    """What was known of one that was annotated in part; empty of the others."""
    known = support.annotation.known
    if known is None:
        return {}
    slices = known_slices(known)
    found: dict[str, Any] = {"part": round(float(known.mean()), 6)}
    if slices is not None:
        found["plane"] = plane_of(slices.axis, support.volume.grid)
        found["slices"] = len(slices.numbers)
    return {
        "known": found,
        "uncertainty_mm3": dict(prepared.uncertainty),
        "drawn_mm3": dict(prepared.drawn),
    }


def is_support(trained: TrainedAdapter, volume: Volume) -> bool:
    """Whether the adapter was trained on these very voxels."""
    return content_hash(volume) in {support.get("content") for support in trained.supports}


def query_warnings(trained: TrainedAdapter, volume: Volume, learned_from: bool) -> list[str]:
    """What is to be said of a query before it is segmented.

    Args:
        learned_from: whether it is one of the supports.
    """
    warnings = list(volume.notes)
    if learned_from:
        warnings.append(SUPPORT_WARNING)
    looks = looks_like(volume)
    if looks != trained.modality:
        warnings.append(
            f"The adapter was trained on {trained.modality}, but this query looks like {looks}."
        )
    return warnings
