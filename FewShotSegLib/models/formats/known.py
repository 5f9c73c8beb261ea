"""Every format that is known."""

from __future__ import annotations

from . import nnunet
from .base import Format

FORMATS: list[Format] = [nnunet]
"""In the order in which they are tried."""
