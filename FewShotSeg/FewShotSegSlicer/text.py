"""Volumes in the panel, as shown and as typed. Nothing of Slicer is needed.

Durations and sizes of files are written by ``core.quantities``, for both processes.
"""

from __future__ import annotations

from FewShotSegLib.core import quantities


def ml_text(volume_ml: float | None) -> str:
    """A volume in ml with the digits that mean something; a dash where unknown."""
    return "–" if volume_ml is None else quantities.ml_text(volume_ml)


def range_text(lower_ml: float | None, upper_ml: float | None, between: str = " to ") -> str:
    """A tolerated range of volumes, either end of which may be open."""
    if lower_ml is None and upper_ml is None:
        return "–"
    if lower_ml is None:
        return f"≤ {ml_text(upper_ml)}"
    if upper_ml is None:
        return f"≥ {ml_text(lower_ml)}"
    return f"{ml_text(lower_ml)}{between}{ml_text(upper_ml)}"


def number(text: str) -> float | None:
    """What a person typed into a cell, ``24,5 ml`` or ``30 %`` too; None if it isn't a number."""
    cleaned = text.strip().removesuffix("%").removesuffix("ml").strip().replace(",", ".")
    try:
        value = float(cleaned)
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None
