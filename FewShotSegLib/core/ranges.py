"""Ranges of the fields of a settings dataclass: wide enough for whatever trains, and no wider.

A value that no training can use is refused when its file is read, not reported by a diverged loss
hours later, or never.
"""

from __future__ import annotations

import math
from typing import Any

from .errors import InputError

WEIGHT, PART, SPREAD, COUNT = (0, 1000), (0, 1), (0, 2), (1, 10**9)
"""Of a term of a loss; a part of a whole, or how often; of intensities in [0, 1]; steps."""
STEEPNESS, DECAY, NORM = (1e-9, 1), (0, 1), (1e-6, 1e6)
"""A learning rate; a weight decay; the norm that gradients are clipped to."""
AVERAGE = (0, 0.999999)
"""The decay of a running average of weights."""
CROP = (1, 512)
"""Voxels of a crop along an axis."""
OPTIMISER = {
    "learning_rate": STEEPNESS,
    "weight_decay": DECAY,
    "warm_up": (0, 10**6),
    "clip": NORM,
    "average": AVERAGE,
    "freeze_statistics": PART,
}
"""Of what both pre-trainings say of their optimiser, by the field's name."""
COARSEST = (1, 32)
"""How many times coarser an image becomes."""
SHARE = (1e-9, 1e9)
"""How often something is drawn, relative to others."""


def require_within(settings: Any, **ranges: tuple[float, float]) -> None:
    """Check fields, or every number of a field that is a tuple. Both ends of a range are included.

    Raises:
        InputError: one is outside; the sentence names the field and its range.
    """
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            if not (math.isfinite(number) and low <= number <= high):
                raise InputError(f"{name} is {low:g} to {high:g}, not {number:g}")
