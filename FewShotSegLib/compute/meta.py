"""Networks without values, on torch's meta device: for their names and sizes alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _ReadableNumbers(TorchFunctionMode):
    """``linspace`` keeps its values: MONAI reads the rates of its stochastic depth from one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


@contextmanager
def without_values() -> Iterator[None]:
    """What is built inside has names, shapes and types, and takes neither memory nor time."""
    with torch.device("meta"), _ReadableNumbers():
        yield
