"""Every format that is known."""

from __future__ import annotations

from .base import Format

FORMATS: list[Format] = []
"""In the order in which they are tried."""
