"""Every method by name, and the settings that it is trained with by default."""

from __future__ import annotations

from dataclasses import asdict

from ..core.errors import InputError
from ..core.method_catalog import METHODS, PRESETS, method_named
from ..core.settings import TrainingSettings
from ..methods.tunings import TUNINGS, Tuning
from ..methods.tunings.frozen import Frozen
from .image_recipe import ImageLearner
from .published_recipe import PublishedLearner, published_settings, require_published_method


def default_settings(
    method: str, preset: str = "own", decoder: str | None = None
) -> TrainingSettings:
    """How a method is trained where nobody says otherwise.

    Args:
        preset: the project's own settings, or those of the paper.
        decoder: what the method does with it; None is the method's own choice.

    Raises:
        InputError: there is no such method, or the paper has no settings of it.
    """
    if preset == "published":
        return published_settings(method, decoder)
    return TrainingSettings(**asdict(method_named(method).schedule(preset)))


def choose_tuning(method: str, decoder: str | None, preset: str = "own") -> Tuning | None:
    """What is done to the backbone; None where it is frozen and its features are stored.

    Raises:
        InputError: there is no such method or preset, not that choice of decoder, or the preset has
            no settings of the method.
    """
    record = method_named(method)
    if preset not in PRESETS:
        raise InputError(f"There is no preset '{preset}'. Known: {', '.join(PRESETS)}.")
    if preset == "published":
        require_published_method(record)
    if record.trains_backbone:
        return TUNINGS[method](decoder)
    if decoder not in (None, "frozen"):
        others = [name for name, other in METHODS.items() if decoder in other.decoders]
        advice = f" A decoder that is {decoder} goes with {', '.join(others)}." if others else ""
        raise InputError(f"The method '{method}' leaves the whole backbone frozen.{advice}")
    return Frozen() if preset == "published" else None


def image_learner(preset: str) -> type[ImageLearner]:
    """How epochs on image crops run."""
    return PublishedLearner if preset == "published" else ImageLearner
