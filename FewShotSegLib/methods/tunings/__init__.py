"""Every white-box method by the name that ``--method`` takes: those whose record names decoders.

A new one is a file here and a record in ``core.method_catalog``.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...core.method_catalog import METHODS
from ...core.register import Implementations
from .base import Tuning

__all__ = ["TUNINGS", "Tuning"]

TUNINGS: Mapping[str, type[Tuning]] = Implementations(
    METHODS, Tuning, lambda record: record.trains_backbone
)
