"""Run in Slicer by the workflow: the CPU build of torch, and the rest, Slicer's own left alone."""

import sys
import tempfile
from pathlib import Path

import slicer

ROOT = Path(__file__).resolve().parents[1]
INDEX = "https://download.pytorch.org/whl/cpu"

sys.path[:0] = [str(ROOT / "FewShotSeg"), str(ROOT)]
try:
    from FewShotSegSlicer.machine.packages import constraints

    from FewShotSegLib.core.requirements import missing_packages

    needed = missing_packages()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "constraints.txt"
        path.write_text("\n".join(constraints()) + "\n", encoding="utf-8")
        slicer.util.pip_install([*needed, "--extra-index-url", INDEX, "--constraint", str(path)])
except Exception as error:
    print(f"The packages could not be installed: {error}")
    slicer.util.exit(1)
slicer.util.exit(0)
