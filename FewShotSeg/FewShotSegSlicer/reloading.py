"""Reload for developers: the module's own library is read again, not only its first file."""

from __future__ import annotations

import importlib
import sys

PACKAGES = ("FewShotSegSlicer", "FewShotSegLib")


def forget_library() -> list[str]:
    """Forget every module of the library, so that the next import reads it again.

    Returns:
        their names.
    """
    names = [name for name in sys.modules if name.split(".")[0] in PACKAGES]
    for name in names:
        del sys.modules[name]
    importlib.invalidate_caches()
    return names
