"""What MONAI's own networks have in common as backbones: levels are taken by hooks on the way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .base import Backbone, with_margin


class _Reached(Exception):
    """The network has come to its head: what would follow, the scores of all classes, is not
    needed."""


class MonaiNetwork(Backbone):
    """A network of MONAI's under its own names, so that its files load as they are.

    A subclass builds ``net`` and says which modules give the coarser levels. The finest level is
    what the published head is given.

    Attributes:
        net: MONAI's network.
    """

    net: Any

    @abstractmethod
    def level_modules(self) -> Sequence[tuple[nn.Module, bool]]:
        """Of every level but the finest, finer ones first: the module, and whether the level is
        what it gives (or else what it is given)."""

    @property
    @abstractmethod
    def head(self) -> nn.Conv3d:
        """The 1x1x1 convolution that scores the published classes."""

    def features(self, image: Tensor) -> list[Tensor]:
        """See :meth:`Backbone.features`; the last level is the bottleneck."""
        return with_margin(self._features, image, self.strides[-1])

    def _features(self, image: Tensor) -> list[Tensor]:
        caught: dict[int, Tensor] = {}

        def before(number: int) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
                caught[number] = inputs[0]
                if not number:
                    raise _Reached

            return hook

        def after(number: int) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
                caught[number] = output

            return hook

        hooks = [self.head.register_forward_pre_hook(before(0))]
        for number, (module, gives) in enumerate(self.level_modules(), 1):
            if gives:
                hooks.append(module.register_forward_hook(after(number)))
            else:
                hooks.append(module.register_forward_pre_hook(before(number)))
        try:
            self.net(image)
        except _Reached:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return [caught[number] for number in range(len(hooks))]

    def head_weights(self) -> tuple[Tensor, Tensor]:
        """See :meth:`Backbone.head_weights`."""
        weight, bias = self.head.weight, self.head.bias
        bias = torch.zeros(len(weight)) if bias is None else bias
        return weight.detach().flatten(1), bias.detach()

    def import_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load weights as MONAI saves them, or under the names of this class.

        Raises:
            ModelError: see :meth:`Backbone.import_state_dict`; nothing was loaded.
        """
        if isinstance(state, Mapping):
            state = {name: value for name, value in state.items() if not self.left_out(str(name))}
        super().import_state_dict(state)

    def left_out(self, name: str) -> bool:
        """Whether files hold this tensor and features don't need it, such as a head of deep
        supervision."""
        return False


def total_strides(steps: Sequence[Any]) -> tuple[Any, ...]:
    """Voxels of the image that a voxel of each level spans, from the stride to each; a number
    where it is the same along all axes."""
    spans, total = [], [1, 1, 1]
    for step in steps:
        along = (step,) * 3 if isinstance(step, int) else step
        total = [a * int(b) for a, b in zip(total, along, strict=True)]
        spans.append(total[0] if len(set(total)) == 1 else tuple(total))
    return tuple(spans)
