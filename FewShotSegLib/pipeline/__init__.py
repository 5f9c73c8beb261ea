"""What people do: adapt a foundation model to a few supports, segment a query, choose what to
annotate next."""

from __future__ import annotations

from .adaptation import adapt
from .batch import Outcome, segment_each
from .inputs import read_support
from .runtime import Runtime
from .segmentation import Segmentation, segment
from .suggesting import suggest
from .suggestions import Suggestion, Suggestions

__all__ = [
    "Outcome",
    "Runtime",
    "Segmentation",
    "Suggestion",
    "Suggestions",
    "adapt",
    "read_support",
    "segment",
    "segment_each",
    "suggest",
]
