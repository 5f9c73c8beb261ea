"""The two things that people do: adapt a foundation model to a few supports, segment a query."""

from __future__ import annotations

from .adaptation import adapt
from .batch import Outcome, segment_each
from .inputs import read_support
from .runtime import Runtime
from .segmentation import Segmentation, segment

__all__ = [
    "Outcome",
    "Runtime",
    "Segmentation",
    "adapt",
    "read_support",
    "segment",
    "segment_each",
]
