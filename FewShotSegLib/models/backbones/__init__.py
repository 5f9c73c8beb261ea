"""Every backbone by the name of its architecture, which a registry entry names.

A new one is a file here and a record in ``core.architecture_catalog``.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...core.architecture_catalog import ARCHITECTURES
from ...core.register import Implementations
from .base import Backbone

__all__ = ["BACKBONES", "Backbone"]

BACKBONES: Mapping[str, type[Backbone]] = Implementations(ARCHITECTURES, Backbone)
