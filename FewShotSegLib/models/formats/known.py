"""Every format that is known."""

from __future__ import annotations

from . import auto3dseg, monai_bundle, monai_network, nnunet
from .base import Format

FORMATS: list[Format] = [nnunet, monai_bundle, auto3dseg, monai_network]
"""In the order in which they are tried."""
