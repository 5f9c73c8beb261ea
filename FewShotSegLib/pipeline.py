"""The two things that people do: adapt a foundation model to a few supports, segment a query."""

from __future__ import annotations

from .adaptation import adapt
from .inputs import read_support
from .runtime import Runtime
from .segmentation import Segmentation, segment

__all__ = ["Runtime", "Segmentation", "adapt", "read_support", "segment"]
