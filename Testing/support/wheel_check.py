"""Builds the distributions, installs the wheel where nothing else is, and uses it from elsewhere.

    python Testing/support/wheel_check.py [--torch "torch --index-url URL"] [--keep FOLDER]

What ``make wheel-check`` runs. The environment that it makes holds what ``requirements.txt`` lists,
which is what Slicer installs, and nothing of the tests: in it run ``fewshotseg models`` and
``demo``, a Swin UNETR, and the background process.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from distributions import build_sdist, build_wheel, copy_source

SWIN = """
import torch
from FewShotSegLib.models.registry import find_model
backbone = find_model("fseft").entry.build().eval()
with torch.inference_mode():
    levels = backbone.features(torch.zeros(1, 1, 32, 32, 32))
print([level.shape[1] for level in levels])
"""
WORKER = """
import subprocess, sys
from pathlib import Path
from FewShotSegLib.core.job_protocol import PhantomsJob, write_job
folder = Path(sys.argv[1])
folder.mkdir(mode=0o700)
write_job(folder, PhantomsJob(str(folder.parent / "patients"), 1))
sys.exit(subprocess.run([sys.executable, "-m", "FewShotSegLib.worker", str(folder)]).returncode)
"""
WHERE = "import FewShotSegLib; print(FewShotSegLib.__file__)"


class Place:
    """A Python environment of its own, an empty folder to stand in, and an empty home."""

    def __init__(self, folder: Path) -> None:
        self.empty, home = folder / "elsewhere", folder / "home"
        self.empty.mkdir()
        home.mkdir()
        venv.create(folder / "venv", with_pip=True)
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.environment = {**kept, "HOME": str(home), "USERPROFILE": str(home)}
        self.environment.pop("FEWSHOTSEG_HOME", None)

    def run(self, program: str, *arguments: str, what: str = "") -> str:
        """What a program of the environment prints; the script ends where it fails."""
        start = time.monotonic()
        done = subprocess.run(
            [str(self.bin / program), *arguments],
            cwd=self.empty,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        what = what or " ".join((program, *arguments[:4]))
        print(f"{time.monotonic() - start:6.1f} s  {what}", flush=True)
        if done.returncode:
            print(done.stdout)
            sys.exit(f"{what}: exit status {done.returncode}")
        return done.stdout


def require(is_so: bool, what: str) -> None:
    """End the script where something is not so."""
    if not is_so:
        sys.exit(f"wrong: {what}")


def main() -> None:
    """Build, install, use; the first thing that is wrong ends it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", default="", help="installed first: what pip is to be given")
    parser.add_argument("--keep", type=Path, help="an empty folder, kept; else a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        check(args.keep or Path(temporary), shlex.split(args.torch))


def check(folder: Path, torch: list[str]) -> None:
    """All of it in a folder."""
    sdist = build_sdist(copy_source(folder / "source"), folder / "sdist")
    wheel = build_wheel(sdist, folder / "wheel")  # from the sdist: nothing is missing there
    print(f"{sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
    place = Place(folder)
    pip = ("-m", "pip", "--disable-pip-version-check")
    if torch:
        place.run("python", *pip, "install", "--quiet", *torch)
    place.run("python", *pip, "install", "--quiet", str(wheel))
    place.run("python", *pip, "check")
    require(str(folder / "venv") in place.run("python", "-c", WHERE), "the checkout is imported")
    models = place.run("fewshotseg", "models")
    for name in ("embedded", "fseft"):
        require(name in models, f"fewshotseg models does not list {name}")
    place.run("fewshotseg", "demo", "--out", "demo-output")
    made = {path.name for path in (place.empty / "demo-output").iterdir()}
    require({"adapter.fseft", "overlay.png", "report.json"} <= made, f"the demo left {made}")
    levels = place.run("python", "-c", SWIN, what="a Swin UNETR")
    require(levels.strip() == "[48, 48, 96, 192, 384, 768]", f"Swin UNETR's channels: {levels}")
    job = str(folder / "job")
    lines = place.run("python", "-c", WORKER, job, what="the background process").splitlines()
    require(json.loads(lines[-1])["event"] == "finished", f"the worker ended with {lines[-1]}")
    print("right: the wheel is whole, and works away from its source")


if __name__ == "__main__":
    main()
