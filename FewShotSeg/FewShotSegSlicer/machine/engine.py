"""Where the engine and the Python that runs it are. No torch is ever imported in this process."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path


def add_engine_to_path() -> None:
    """Make ``FewShotSegLib`` importable: installed beside the module, or in the source checkout."""
    if find_spec("FewShotSegLib") is None:
        sys.path.append(str(Path(__file__).resolve().parents[3]))


def engine_parent() -> Path:
    """The folder that holds ``FewShotSegLib``, for the background process."""
    import FewShotSegLib

    return Path(FewShotSegLib.__file__).resolve().parent.parent


def python_program() -> str:
    """The interpreter for background work: Slicer's own, which sees the packages it installed."""
    return shutil.which("PythonSlicer") or sys.executable
