"""FT-last: the layers that make the finest level, and a new head."""

from __future__ import annotations

from collections.abc import Callable

from ...models.backbones.base import Backbone
from .base import Tuning


class LastTuning(Tuning):
    """The last block of the decoder is trained on; all before it stays frozen (the paper's
    FT-last)."""

    name = "ft-last"
    learning_rate = 1e-3

    def apply(self, backbone: Backbone, build: Callable[[], Backbone]) -> None:
        """See :meth:`Tuning.apply`."""
        backbone.requires_grad_(False)
        for part in backbone.last_parts():
            part.requires_grad_(True)

    def tune_encoder(self, backbone: Backbone) -> None:
        """None of it."""
