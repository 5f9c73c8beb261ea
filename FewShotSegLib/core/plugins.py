"""What installed packages add to FewShotSeg, and what of it can't be used; without torch."""

from __future__ import annotations

from .architecture_catalog import ARCHITECTURES
from .method_catalog import METHODS


def plugin_remarks() -> list[str]:
    """Methods and architectures of other packages that are left out, and why: one text each."""
    return [*METHODS.remarks, *ARCHITECTURES.remarks]
