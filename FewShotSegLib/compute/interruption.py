"""Stopping in the middle of a network's pass: a large crop takes seconds on a laptop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def make_stoppable(network: nn.Module, check: Callable[[], None]) -> list[Any]:
    """Call ``check``, which may raise, at every convolution forwards and backwards.

    Returns:
        the hooks' handles, to ``remove()`` them again.
    """

    def on_gradient(gradient: Tensor) -> None:
        check()

    def on_forward(module: nn.Module, inputs: object, output: Tensor) -> None:
        check()
        if output.requires_grad:
            output.register_hook(on_gradient)

    return [
        module.register_forward_hook(on_forward)
        for module in network.modules()
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d))
    ]


@contextmanager
def stoppable(network: nn.Module, check: Callable[[], None]) -> Iterator[None]:
    """:func:`make_stoppable` within a block."""
    handles = make_stoppable(network, check)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
