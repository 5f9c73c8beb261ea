"""Networks and adapters in bfloat16 where the device computes it fast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch


@cache
def fast_dtype(device: torch.device) -> torch.dtype | None:
    """bfloat16 where this device computes it fast, else None.

    On a CPU with bfloat16 instructions a whole backbone pass is several times faster. (float16
    would need its losses scaled, and its range is too small for some published networks.)
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        fast = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        return torch.bfloat16 if fast() else None
    return None


def at_speed(device: torch.device) -> AbstractContextManager[None]:
    """Within it, networks run in :func:`fast_dtype`; to be entered anew in every thread."""
    dtype = fast_dtype(device)
    return torch.autocast(device.type, dtype) if dtype else nullcontext()
