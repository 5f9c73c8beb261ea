"""What every white-box method shares: which of a backbone's parameters are trained, and the
decoder's.

A tuning changes a *copy* of the frozen backbone: it switches some of its parameters on, or adds a
few that start as if they were not there. Only what it trains is ever stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...core.errors import InputError
from ...core.method_catalog import METHODS
from ...models.backbones.base import Backbone

DECODER_RATE = 5e-4
"""A first step size where a pre-trained decoder is trained on; a guess, not yet measured."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Tuning(ABC):
    """A way to train a backbone.

    Batch statistics stay those of pre-training: a few crops would replace them by worse ones. Only
    where the weights before them are new, new ones are measured on the crops.

    Args:
        decoder: ``frozen``, ``tuned`` (trained on from the pre-trained weights) or ``new`` (from
            random ones), the bottleneck with it; None is the method's own choice.

    Raises:
        InputError: the method does not leave that choice.
    """

    name: str
    """As ``--method`` takes it: that of its record."""
    learning_rate: float
    """A first step size of the backbone's parameters. Those of ``ft`` and ``scratch`` are from
    single runs; the others have not been measured yet."""
    head_factor: float = 10.0
    """How many times faster the new head is trained than the backbone."""

    def __init__(self, decoder: str | None = None) -> None:
        self.decoder: str = decoder or self.decoders[0]
        if self.decoder not in self.decoders:
            raise InputError(
                f"With the method '{self.name}' the decoder is {' or '.join(self.decoders)}, not "
                f"{self.decoder}."
            )

    @property
    def decoders(self) -> tuple[str, ...]:
        """What ``decoder`` may be, the method's own choice first: those of its record."""
        return METHODS[self.name].decoders

    @abstractmethod
    def tune_encoder(self, backbone: Backbone) -> None:
        """Make the encoder of a wholly frozen backbone trainable, as far as the method does.

        Raises:
            InputError: the method has no meaning on this architecture.
        """

    def new_parts(self, backbone: Backbone) -> list[nn.Module]:
        """The modules that start from random weights."""
        return backbone.decoder_parts() if self.decoder == "new" else []

    def apply(self, backbone: Backbone, build: Callable[[], Backbone]) -> None:
        """Turn a backbone into the one to be trained, in place.

        Additions and new weights are drawn from torch's generator.

        Args:
            build: makes the same architecture with random weights.

        Raises:
            InputError: the method has no meaning on this architecture.
        """
        backbone.requires_grad_(False)
        new = self.new_parts(backbone)
        if new:
            for mine, theirs in zip(new, self.new_parts(build()), strict=True):
                mine.load_state_dict(theirs.state_dict())
                mine.requires_grad_(True)
        if self.decoder != "frozen":
            for part in backbone.decoder_parts():
                part.requires_grad_(True)
        self.tune_encoder(backbone)

    @property
    def keeps_features(self) -> bool:
        """Whether training starts from the pre-trained features, which the known classes' head is
        for."""
        return self.decoder != "new"

    def moving(self, backbone: Backbone) -> dict[str, _BatchNorm]:
        """The batch normalisations whose statistics are measured anew, by name."""
        new = {id(m) for part in self.new_parts(backbone) for m in part.modules()}
        return {
            name: module
            for name, module in backbone.named_modules()
            if id(module) in new and isinstance(module, _BatchNorm)
        }

    def trained_tensors(self, backbone: Backbone) -> dict[str, Tensor]:
        """What is trained of a backbone that this was applied to, by name: parameters, and the
        statistics that go with new ones."""
        tensors: dict[str, Tensor] = {
            name: parameter
            for name, parameter in backbone.named_parameters()
            if parameter.requires_grad
        }
        for name, module in self.moving(backbone).items():
            tensors |= {f"{name}.{key}": value for key, value in module.named_buffers()}
        return tensors

    @torch.no_grad()
    def load(self, backbone: Backbone, tensors: Mapping[str, Tensor]) -> None:
        """Put trained parameters into a backbone that this was applied to.

        Raises:
            ValueError: they are not exactly the ones that this trains.
        """
        own = self.trained_tensors(backbone)
        if set(own) != set(tensors) or any(own[n].shape != t.shape for n, t in tensors.items()):
            raise ValueError(f"these tensors are not those that '{self.name}' trains")
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def count_parameters(names_and_sizes: Iterable[tuple[str, int]]) -> int:
    """How many parameters are trained, given tensors' names and sizes; statistics are measured."""
    return sum(size for name, size in names_and_sizes if not name.endswith(STATISTICS))


class EncoderTuning(Tuning):
    """A method that trains few parameters of the encoder; the decoder stays frozen unless asked."""

    head_factor = 2.0

    def __init__(self, decoder: str | None = None) -> None:
        super().__init__(decoder)
        if self.decoder != "frozen":
            # What is right for a few new parameters is too fast for a whole pre-trained decoder.
            self.learning_rate, self.head_factor = DECODER_RATE, 10.0

    def encoder_modules(self, backbone: Backbone) -> list[nn.Module]:
        """Every module of the encoder, each once."""
        found = {id(m): m for part in backbone.encoder_parts() for m in part.modules()}
        return list(found.values())

    def transformer_blocks(self, backbone: Backbone) -> list[nn.Module]:
        """Those of the encoder's modules that are an attention and an MLP, as in MONAI."""
        names = ("attn", "mlp", "norm2")
        return [m for m in self.encoder_modules(backbone) if all(hasattr(m, n) for n in names)]

    def require(self, found: Sequence[Any], backbone: Backbone, what: str) -> None:
        """Refuse an architecture without what the method is for.

        Raises:
            InputError: ``found`` is empty.
        """
        if not found:
            raise InputError(
                f"The method '{self.name}' {what}, which the encoder of {type(backbone).__name__} "
                "does not have. Choose another method, such as lora or affine."
            )


ADDED = "added"
"""The name under which a module holds what runs beside or after it."""


def beside(module: nn.Module, added: nn.Module) -> None:
    """Add the output of ``added`` on a module's input to the module's own."""
    module.add_module(ADDED, added)
    module.register_forward_hook(lambda m, inputs, output: output + m._modules[ADDED](inputs[0]))


def after(module: nn.Module, added: nn.Module) -> None:
    """Add the output of ``added`` on a module's output to that output."""
    module.add_module(ADDED, added)
    module.register_forward_hook(lambda m, inputs, output: output + m._modules[ADDED](output))
