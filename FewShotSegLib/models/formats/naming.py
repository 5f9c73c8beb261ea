"""Names for what is added."""

from __future__ import annotations

import re
from typing import Any


def proposed_id(*parts: Any) -> str:
    """An id from names in the files, such as ``hippocampus-3d_fullres``."""
    text = "-".join(str(part) for part in parts if part)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-._")[:80] or "model"


def file_stem(model_id: str) -> str:
    """A plain file name of an id."""
    return re.sub(r"[^\w.-]", "_", model_id).strip(".-_") or "model"
