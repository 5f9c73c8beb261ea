"""How a method is trained: what is done to the backbone, and which learner does it."""

from __future__ import annotations

from ..core.method_catalog import METHODS
from ..core.options import require_method
from ..core.settings import default_settings
from ..methods.tunings import TUNINGS, Tuning
from ..methods.tunings.frozen import Frozen
from .image_recipe import ImageLearner
from .published_recipe import PublishedLearner

__all__ = ["choose_tuning", "default_settings", "image_learner"]


def choose_tuning(method: str, decoder: str | None, preset: str = "own") -> Tuning | None:
    """What is done to the backbone; None where it is frozen and its features are stored.

    Raises:
        InputError: there is no such method or preset, not that choice of decoder, or the preset has
            no settings of the method.
    """
    require_method(method, decoder, preset)
    if METHODS[method].trains_backbone:
        return TUNINGS[method](decoder)
    return Frozen() if preset == "published" else None


def image_learner(preset: str) -> type[ImageLearner]:
    """How epochs on image crops run."""
    return PublishedLearner if preset == "published" else ImageLearner
