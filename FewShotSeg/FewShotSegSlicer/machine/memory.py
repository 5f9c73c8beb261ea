"""This computer's memory."""

from __future__ import annotations

import os


def total_memory() -> int | None:
    """Bytes of this computer's memory, None where the system doesn't say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
