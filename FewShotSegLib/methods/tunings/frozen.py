"""No tuning at all: an adapter trained on crops of images, through the frozen backbone."""

from __future__ import annotations

from ...models.backbones.base import Backbone
from .base import Tuning


class Frozen(Tuning):
    """The backbone stays; it only runs again on every crop, for the sake of augmentation.

    It is no method of its own, and so in no registry: the published settings train adapters so.
    """

    name = "frozen"
    learning_rate = 1e-2
    head_factor = 1.0
    decoders = ("frozen",)

    def tune_encoder(self, backbone: Backbone) -> None:
        """None of it."""
