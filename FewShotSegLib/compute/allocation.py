"""How the C library hands memory to a process of ours."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
"""Of ``mallopt(3)``, glibc's ``malloc.h``."""
LARGEST = 512 * 2**20
"""Larger blocks still come and go. Few are, and kept ones would leave gaps of gigabytes."""


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, for its next tensors, until it ends.

    By default glibc takes every large tensor's memory fresh from the kernel and gives it back when
    the tensor goes. The kernel then clears each page anew: two fifths of the time that SwinUNETR
    takes on a CPU (``Testing/benchmarks/allocation.py``). Its peak of memory is half as high again.
    Only for a process that is ours alone, such as the command line's and the worker's.

    Returns:
        whether it could be set; only glibc (Linux) from 2.35 on knows it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS and musl; Windows
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


def return_freed_memory() -> bool:
    """Give what this process has freed and kept back to the system, until it needs it again.

    Returns:
        whether that could be done; only glibc (Linux) knows it.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    trim(0)
    return True
