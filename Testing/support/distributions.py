"""The sdist and the wheel, built by setuptools from a copy of what would be committed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = (
    *(".git", ".venv", ".github", "build", "dist", "demo-output", "shared", "*.egg-info"),
    *("__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis", "Testing"),
)
"""What no distribution needs, or a build leaves behind."""


def copy_source(target: Path) -> Path:
    """The checkout without what is left out; a build writes into it."""
    return Path(shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_OUT)))


def build_sdist(source: Path, out: Path) -> Path:
    """The source distribution of a folder."""
    return _build("build_sdist", source, out)


def build_wheel(sdist: Path, out: Path) -> Path:
    """The wheel of a source distribution, as pip makes it from there."""
    with tarfile.open(sdist) as archive:
        archive.extractall(out / "unpacked", filter="data")
    (source,) = (out / "unpacked").iterdir()
    return _build("build_wheel", source, out)


def _build(what: str, source: Path, out: Path) -> Path:
    """One hook of PEP 517. It runs in this Python: nothing is fetched for it."""
    out.mkdir(parents=True, exist_ok=True)
    program = f"import sys, setuptools.build_meta as b; print(b.{what}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(out.resolve())],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{what} failed:\n{done.stderr[-2000:]}")
    return out / done.stdout.strip().splitlines()[-1]


def files_of(wheel: Path) -> dict[str, bytes]:
    """Every file of a wheel by its name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
