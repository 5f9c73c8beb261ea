"""A small frozen network and every white-box method that fits it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from tiny import OneThread, make_model

from FewShotSegLib.core.method_catalog import METHODS
from FewShotSegLib.methods.adapters import HEAD
from FewShotSegLib.methods.tuned_model import TunedNetwork
from FewShotSegLib.methods.tunings import TUNINGS
from FewShotSegLib.methods.tunings.base import Tuning
from FewShotSegLib.training.loop import TrainingSettings

QUICK = TrainingSettings(
    epochs=12, steps_per_epoch=3, crops=2, crop_size=24, learning_rate=0.01, patience=50
)
CPU = torch.device("cpu")
TRANSFORMERS_ONLY = ("adaptformer", "compacter")


def choices(*left_out: str) -> Iterator[Tuning]:
    """Every method for convolutional networks with everything that it may do to the decoder."""
    for tuning in TUNINGS.values():
        for decoder in METHODS[tuning.name].decoders:
            if tuning.name not in (*TRANSFORMERS_ONLY, *left_out):
                yield tuning(decoder)


class OnTinyModel(OneThread):
    """A small frozen model with batch statistics that aren't the trivial ones."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.model = make_model(Path(folder.name))
        cls.image = torch.rand(2, 1, 16, 16, 8, generator=torch.Generator().manual_seed(3))

    def network(self, tuning: Tuning, seed: int = 0) -> TunedNetwork:
        backbone = self.model.backbone  # draws numbers where it is loaded for the first time
        torch.manual_seed(seed)
        return TunedNetwork(self.model, tuning, HEAD(backbone.channels, 2))

    def step(self, network: TunedNetwork) -> None:
        """One optimiser step on nonsense."""
        network.begin_epoch(0.0)
        optimizer = torch.optim.AdamW(network.parameter_groups(0.01), lr=0.01)
        network.scores(self.image).square().mean().backward()
        optimizer.step()
