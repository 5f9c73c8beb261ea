"""Every adapter by the name that ``--method`` takes: those of the records that name no decoder.

A new one is a file here and a record in ``core.method_catalog``.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...core.method_catalog import DEFAULT_METHOD, METHODS
from ...core.register import Implementations
from .base import Adapter
from .linear_probe import LinearProbe

__all__ = ["ADAPTERS", "DEFAULT_METHOD", "HEAD", "Adapter"]

ADAPTERS: Mapping[str, type[Adapter]] = Implementations(
    METHODS, Adapter, lambda record: not record.trains_backbone
)
HEAD = LinearProbe
"""What a white-box method puts on the backbone that it trains."""
