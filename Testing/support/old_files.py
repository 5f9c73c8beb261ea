"""Files that FewShotSeg 0.1.0 wrote."""

from pathlib import Path

OLD = Path(__file__).resolve().parents[1] / "old_files"
