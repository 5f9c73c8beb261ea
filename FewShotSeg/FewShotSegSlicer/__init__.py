"""The Slicer side of FewShotSeg: everything of the module but its few lines of registration."""

from __future__ import annotations

from .machine.engine import add_engine_to_path

add_engine_to_path()
