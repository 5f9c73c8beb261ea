"""How the C library hands memory to a process of ours."""

from __future__ import annotations

import ctypes

_M_MMAP_MAX, _M_TRIM_THRESHOLD = -4, -1
"""Of ``mallopt(3)``, glibc's ``malloc.h``."""


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, for its next tensors, until it ends.

    By default glibc takes every large tensor's memory fresh from the kernel and gives it back when
    the tensor goes. The kernel then clears each page anew: two fifths of the time that SwinUNETR
    takes on a CPU (``Testing/benchmarks/allocation.py``). It may hold some tenths more at its peak.
    Only for a process that is ours alone, such as the command line's and the worker's.

    Returns:
        whether it could be set; only glibc (Linux) knows it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS and musl; Windows
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
