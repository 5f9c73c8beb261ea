"""This computer's memory, and a process's, in bytes; through psutil, the same on every system.

psutil is imported where a function is called: Slicer's process imports this package before
«Install...» has brought psutil. It asks through ``machine/memory.py``, which knows what to answer
then.
"""

from __future__ import annotations


def total_memory() -> int:
    """All of this computer's memory."""
    import psutil

    return int(psutil.virtual_memory().total)


def available_memory() -> int:
    """What programs could still be given, without the system writing others' memory to disk."""
    import psutil

    return int(psutil.virtual_memory().available)


def held_memory() -> int:
    """What this process holds of the memory now."""
    import psutil

    return int(psutil.Process().memory_info().rss)
