"""This computer's memory, as far as Slicer's process can tell."""

from __future__ import annotations

from FewShotSegLib.core import memory


def total_memory() -> int | None:
    """Bytes of this computer's memory; None until psutil is installed, with the other packages."""
    try:
        return memory.total_memory()
    except ImportError:
        return None
