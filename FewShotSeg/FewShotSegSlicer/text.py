"""Numbers as a person reads them: memory, time, volumes. Nothing of Slicer is needed."""

from __future__ import annotations


def bytes_text(count: int | None) -> str:
    """Memory or a file's size, such as ``3.6 MB`` or ``12 GB``; empty where unknown."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"


def seconds_text(seconds: float) -> str:
    """A span that nobody needs to the second, such as ``40 s`` or ``3 min``."""
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 90:
        return f"{round(seconds / 5) * 5} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def ml_text(volume_ml: float | None) -> str:
    """A volume in ml with the digits that mean something; a dash where unknown."""
    if volume_ml is None:
        return "–"
    if abs(volume_ml) >= 100:
        return f"{volume_ml:.0f}"
    return f"{volume_ml:.1f}" if abs(volume_ml) >= 1 else f"{volume_ml:.2f}"


def range_text(lower_ml: float | None, upper_ml: float | None) -> str:
    """A tolerated range of volumes, either end of which may be open."""
    if lower_ml is None and upper_ml is None:
        return "–"
    if lower_ml is None:
        return f"≤ {ml_text(upper_ml)}"
    if upper_ml is None:
        return f"≥ {ml_text(lower_ml)}"
    return f"{ml_text(lower_ml)} to {ml_text(upper_ml)}"


def number(text: str) -> float | None:
    """What a person typed into a cell, ``24,5 ml`` or ``30 %`` too; None if it isn't a number."""
    cleaned = text.strip().removesuffix("%").removesuffix("ml").strip().replace(",", ".")
    try:
        value = float(cleaned)
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None
