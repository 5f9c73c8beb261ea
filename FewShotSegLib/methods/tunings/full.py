"""FT and Scratch: every number of the network is trained, from the pre-trained ones or random."""

from __future__ import annotations

from torch import nn

from ...models.backbones.base import Backbone
from .base import Tuning


class FullTuning(Tuning):
    """Full fine-tuning (the paper's FT): encoder, decoder and a new head."""

    name = "ft"
    learning_rate = 2e-3
    head_factor = 5.0  # the linear probe's own rate

    def tune_encoder(self, backbone: Backbone) -> None:
        """All of it."""
        for part in backbone.encoder_parts():
            part.requires_grad_(True)


class Scratch(FullTuning):
    """The same network from random weights (the paper's Scratch): what the supports alone teach.

    Its batch statistics are those of the crops.
    """

    name = "scratch"
    head_factor = 2.0

    def new_parts(self, backbone: Backbone) -> list[nn.Module]:
        """All."""
        return [*backbone.encoder_parts(), *backbone.decoder_parts()]
