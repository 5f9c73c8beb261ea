"""Durations, sizes of files and volumes as a person reads them; units are the same in any language.

The command line and the panel both write them, so they are written here. What differs by purpose is
not: an expected range of volumes is plain ASCII in a terminal's table (``cli.describe``), where a
lower bound of 0 is none, and has signs such as ≤ in the panel (``text``).
"""

from __future__ import annotations


def duration_text(seconds: float, rough: bool = False) -> str:
    """Seconds for a person: ``45 s``, ``12 min``, ``1 h 10 min``.

    Args:
        rough: of an estimate: from 10 s on in steps of 5, and never nothing at all.
    """
    if rough:
        seconds = max(1, seconds) if seconds < 10 else 5 * round(seconds / 5)
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def bytes_text(count: float | None) -> str:
    """Memory or a file's size, such as ``3.6 MB`` or ``12 GB``; empty where unknown."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.1f} {unit}" if value < 9.95 and unit != "B" else f"{value:.0f} {unit}"


def ml_text(volume_ml: float) -> str:
    """A volume in ml with three significant digits, the unit left out."""
    if abs(volume_ml) >= 99.95:
        return f"{volume_ml:.0f}"
    return f"{volume_ml:.1f}" if abs(volume_ml) >= 9.995 else f"{volume_ml:.2f}"
