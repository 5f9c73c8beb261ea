"""Every method by name, and the settings that it is trained with by default."""

from __future__ import annotations

from dataclasses import asdict

from ..core.errors import InputError
from ..core.method_catalog import ON_IMAGES, PRESETS
from ..core.settings import TrainingSettings
from ..methods.adapters import ADAPTERS
from ..methods.tunings import TUNINGS, Tuning
from ..methods.tunings.frozen import Frozen
from .image_recipe import ImageLearner
from .published_recipe import PublishedLearner, published_settings

METHODS = (*ADAPTERS, *TUNINGS)
WHITE_BOX = TrainingSettings(**asdict(ON_IMAGES))


def default_settings(
    method: str, preset: str = "own", decoder: str | None = None
) -> TrainingSettings:
    """How a method is trained where nobody says otherwise.

    Args:
        preset: the project's own settings, or those of the paper.
        decoder: what the method does with it; None is the method's own choice.
    """
    if preset == "published":
        return published_settings(method, decoder)
    return WHITE_BOX if method in TUNINGS else TrainingSettings()


def choose_tuning(method: str, decoder: str | None, preset: str = "own") -> Tuning | None:
    """What is done to the backbone; None where it is frozen and its features are stored.

    Raises:
        InputError: there is no such method or preset, or not that choice of decoder.
    """
    if method not in METHODS:
        raise InputError(f"There is no method '{method}'. Known: {', '.join(METHODS)}.")
    if preset not in PRESETS:
        raise InputError(f"There is no preset '{preset}'. Known: {', '.join(PRESETS)}.")
    if method in TUNINGS:
        return TUNINGS[method](decoder)
    if decoder not in (None, "frozen"):
        raise InputError(
            f"The method '{method}' leaves the whole backbone frozen. A decoder that is {decoder} "
            f"goes with {', '.join(name for name in TUNINGS if name != 'scratch')}."
        )
    return Frozen() if preset == "published" else None


def image_learner(preset: str) -> type[ImageLearner]:
    """How epochs on image crops run."""
    return PublishedLearner if preset == "published" else ImageLearner
