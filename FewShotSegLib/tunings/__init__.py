"""Every white-box method by the name that ``--method`` takes. A new one is a file and a line."""

from __future__ import annotations

from .base import Tuning
from .full import FullTuning, Scratch

TUNINGS: dict[str, type[Tuning]] = {
    tuning.name: tuning
    for tuning in (
        FullTuning,
        Scratch,
    )
}
DECODERS = ("frozen", "tuned", "new")
