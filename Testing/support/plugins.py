"""Packages that add to FewShotSeg, installed where a test alone sees them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = Path(__file__).resolve().parent / "example_plugin"


def install_example(target: Path) -> Path:
    """The example package as pip installs it, offline; the folder for ``PYTHONPATH``.

    Args:
        target: a folder that isn't there yet; what is built lies beside what is installed.
    """
    source = target / "source"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    place = target / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--disable-pip-version-check", "--target", str(place)]
    done = subprocess.run(
        [*command, str(source)], capture_output=True, text=True, check=False, cwd=target
    )
    if done.returncode:
        raise RuntimeError(f"pip failed:\n{done.stderr[-2000:]}")
    return place


def write_package(target: Path, name: str, entry_points: str, modules: Mapping[str, str]) -> None:
    """A package as it lies there once it is installed, with these entry points and modules."""
    info = target / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        (target / f"{module}.py").write_text(text)


def environment(*places: Path, **more: str) -> dict[str, str]:
    """That of a process which finds the checkout, and what is installed in these folders."""
    paths = [str(place) for place in (*places, ROOT)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def run_command(
    environ: Mapping[str, str], *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The ``fewshotseg`` command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "FewShotSegLib", *arguments],
        env=dict(environ),
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
