"""Every method by name, and the settings that it is trained with by default."""

from __future__ import annotations

from .adapters import ADAPTERS
from .errors import InputError
from .training import TrainingSettings
from .tunings import TUNINGS, Tuning

METHODS = (*ADAPTERS, *TUNINGS)
WHITE_BOX = TrainingSettings(epochs=60, steps_per_epoch=5, crops=2, crop_size=64)
"""Some hundred steps: minutes on two cores. Larger crops show where in the body a voxel is."""


def default_settings(method: str) -> TrainingSettings:
    """How a method is trained where nobody says otherwise."""
    return WHITE_BOX if method in TUNINGS else TrainingSettings()


def choose_tuning(method: str, decoder: str | None) -> Tuning | None:
    """How a method trains the backbone; None for adapters, which leave it alone.

    Raises:
        InputError: there is no such method, or it does not have that choice of decoder.
    """
    if method not in METHODS:
        raise InputError(f"There is no method '{method}'. Known: {', '.join(METHODS)}.")
    if method in TUNINGS:
        return TUNINGS[method](decoder)
    if decoder not in (None, "frozen"):
        raise InputError(
            f"The method '{method}' leaves the whole backbone frozen. A decoder that is {decoder} "
            f"goes with {', '.join(name for name in TUNINGS if name != 'scratch')}."
        )
    return None
