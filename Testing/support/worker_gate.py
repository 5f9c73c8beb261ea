"""A gate in the workers of a cluster: they wait in the middle of a piece of work until it opens.

Runs on the workers, which import it by its name.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Any

SECONDS = 60


def put_up(folder: str, module: str, name: str) -> None:
    """Let a function of a module wait while ``closed`` is in the folder.

    Each call leaves a file ``begun-PID-...`` before it waits, and ``ended-PID-...`` at its end.
    """
    from importlib import import_module

    place = import_module(module)
    real = getattr(place, name)
    real = getattr(real, "behind_the_gate", real)

    def gated(*arguments: Any, **named: Any) -> Any:
        mark = f"{os.getpid()}-{secrets.token_hex(4)}"
        (Path(folder) / f"begun-{mark}").touch()
        end = time.monotonic() + SECONDS
        while (Path(folder) / "closed").exists() and time.monotonic() < end:
            time.sleep(0.02)
        result = real(*arguments, **named)
        (Path(folder) / f"ended-{mark}").touch()
        return result

    gated.behind_the_gate = real  # type: ignore[attr-defined]
    setattr(place, name, gated)
