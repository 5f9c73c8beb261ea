"""CT or MR, derived from the values where no file says which."""

from __future__ import annotations

MODALITIES = ("CT", "MR")
LOWEST_MR = -200
"""No MR image goes below this; every CT that shows air does."""


def modality_of(lowest: float) -> str:
    """``CT`` or ``MR``, by a volume's lowest value."""
    return "CT" if lowest < LOWEST_MR else "MR"
