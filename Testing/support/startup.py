"""What a Python process has loaded once it did something: for the test and the benchmark."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("numpy", "scipy", "SimpleITK", "torch", "monai", "matplotlib", "requests")
"""Libraries that take long to load, in the order of how early they may be."""
FIRST_EVENT = """
import sys
from pathlib import Path
from FewShotSegLib.worker import process

class Watched(process.EventWriter):
    def __call__(self, event):
        global loaded
        if event["event"] == "started":
            loaded = sorted(sys.modules)
        super().__call__(event)

process.EventWriter = Watched
process.main(Path(FOLDER))
"""
"""A worker in the folder ``FOLDER``; what is there at its first event is kept in ``loaded``."""
COMMAND = """
from FewShotSegLib.cli import main
try:
    status = main(ARGUMENTS)
except SystemExit as end:
    status = end.code
assert status == STATUS, status
"""
"""A ``fewshotseg`` command in a process that can be asked afterwards."""


def loaded_after(program: str, **values: object) -> set[str]:
    """The modules that a program leaves in ``sys.modules``, or in a list named ``loaded``.

    Args:
        values: names that it finds defined.

    Raises:
        AssertionError: it failed.
    """
    head = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "loaded.json")
        tail = (
            "\nimport sys\nfrom pathlib import Path\nimport json\n"
            f"names = globals().get('loaded') or sorted(sys.modules)\n"
            f"Path({str(answer)!r}).write_text(json.dumps(names))\n"
        )
        result = subprocess.run(
            [sys.executable, "-c", head + program + tail],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return set(json.loads(answer.read_text()))


def heavy(modules: set[str]) -> list[str]:
    """The heavy libraries among modules."""
    return [name for name in HEAVY if name in modules]
