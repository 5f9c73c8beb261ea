"""Ten minutes of a CUDA machine, used whole: tests, a table of speeds, then pre-training.

    python tools/gpu/kit.py --pack pack.npz --recipe recipe.json --out OUT --minutes 9.5
    python tools/gpu/kit.py ... --checkpoint PARTS        # go on from what an earlier run returned
    python tools/gpu/kit.py ... --device cpu --scale 0.01 # a rehearsal without a GPU

What it leaves in OUT, eight files of at most 16 MB each: ``tests.txt``, ``speed.json``,
``train.log``, ``summary.json``, and ``partN.safetensors``, the checkpoint in half precision. On
the other side

    python -m FewShotSegLib.pretraining.packed grow OUT FOLDER

makes ``FOLDER/checkpoint.safetensors`` of it, with which ``train ... --out FOLDER --resume`` goes
on, on any device. A stage that fails costs none of the others; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FINISH_SECONDS = 40.0
"""Kept for the last checkpoint and the files."""
REHEARSAL_SECONDS = 30.0
"""Of training, where the CPU stands in."""


def main() -> int:
    """Run the stages; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="for large files (OUT/../gpu-kit-work)")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--test-minutes", type=float, default=3.0, help="at most, for the tests")
    parser.add_argument("--checkpoint", type=Path, help="folder of parts to go on from")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=16, help="episodes a step")
    parser.add_argument("--scale", type=float, default=1.0, help="of minutes, batch and sizes")
    parser.add_argument("--skip", nargs="*", default=(), choices=("tests", "speed", "train"))
    args = parser.parse_args()
    kit = Kit(args)
    summary: dict[str, Any] = {"device": args.device, "scale": args.scale}
    for name, stage in (("tests", kit.tests), ("speed", kit.speed), ("train", kit.train)):
        if name in args.skip:
            continue
        begun = time.monotonic()
        try:
            summary[name] = stage()
        except Exception as error:  # reported below, and the next stage is worth its minutes
            summary[name] = {"failed": f"{type(error).__name__}: {error}"}
        summary[name]["seconds"] = round(time.monotonic() - begun, 1)
        print(name, json.dumps(summary[name]), flush=True)
        (args.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return int(any("failed" in part for part in summary.values() if isinstance(part, dict)))


class Kit:
    """The stages; each returns what the summary says of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.start = args, time.monotonic()
        self.work = args.work or args.out.parent / "gpu-kit-work"
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "FEWSHOTSEG_HOME": str(self.work / "home"),
            "PYTHONUNBUFFERED": "1",
        }
        for folder in (args.out, self.work):
            folder.mkdir(parents=True, exist_ok=True)

    def left(self) -> float:
        """Seconds."""
        return 60 * self.args.minutes - (time.monotonic() - self.start)

    def tests(self) -> dict[str, Any]:
        """The tests that need a GPU."""
        environment = dict(self.environment)
        if not self.args.device.startswith("cuda"):
            environment["FEWSHOTSEG_TEST_DEVICE"] = self.args.device
        command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
        # Not stopped at the first failure: each tells something of the machine.
        limit = 60 * self.args.test_minutes
        done = run(
            [*command, "Testing/engine/test_gpu.py"],
            environment,
            limit,
            self.args.out / "tests.txt",
        )
        last = (self.args.out / "tests.txt").read_text().strip().splitlines()[-1:]
        return {"last": last, **({} if done == 0 else {"failed": f"exit status {done}"})}

    def speed(self) -> dict[str, Any]:
        """Windows, and episodes of training, a second."""
        command = [sys.executable, str(Path(__file__).with_name("speed.py"))]
        command += ["--recipe", str(self.args.recipe), "--pack", str(self.args.pack)]
        command += ["--device", self.args.device, "--out", str(self.args.out / "speed.json")]
        command += ["--scale", str(self.args.scale)]
        done = run(command, self.environment, 90, self.work / "speed.log")
        if done:
            return {"failed": (self.work / "speed.log").read_text()[-500:]}
        return json.loads((self.args.out / "speed.json").read_text())

    def train(self) -> dict[str, Any]:
        """Pre-train for the minutes that are left, and make parts of the checkpoint."""
        run_folder = self.work / "run"
        module = [sys.executable, "-m", "FewShotSegLib.pretraining.packed"]
        log = self.args.out / "train.log"
        log.write_text("")
        if self.args.checkpoint:
            grown = run([*module, "grow", str(self.args.checkpoint), str(run_folder)],
                        self.environment, 60, log)  # fmt: skip
            if grown:
                return {"failed": log.read_text()[-500:]}
        seconds = self.left() - FINISH_SECONDS
        if self.args.scale < 1:
            seconds = REHEARSAL_SECONDS  # however long the stages before took without a GPU
        if seconds <= 0:
            return {"failed": "no minutes were left"}
        batch = max(1, round(self.args.batch * self.args.scale))
        command = [*module, "train", str(self.args.recipe), "--pack", str(self.args.pack)]
        command += ["--out", str(run_folder), "--resume", "--device", self.args.device]
        command += ["--batch", str(batch), "--minutes", f"{seconds / 60:.3f}"]
        done = run(command, self.environment, seconds + 60, log)
        shrunk = run([*module, "shrink", str(run_folder), str(self.args.out)],
                     self.environment, 60, log)  # fmt: skip
        if done or shrunk:
            return {"failed": log.read_text()[-500:]}
        record = json.loads((run_folder / "pretraining.json").read_text())
        return {"episodes": record["episodes"], "last": record["history"][-1:], "batch": batch}


def run(command: list[str], environment: dict[str, str], limit: float, log: Path) -> int:
    """A command's exit status, its output added to a file; 124 where the limit stopped it."""
    with log.open("a") as stream:
        try:
            return subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return 124


if __name__ == "__main__":
    sys.exit(main())
