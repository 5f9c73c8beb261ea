"""How long until Python, a command or the worker is there, and what of it is Python's own start.

    python Testing/benchmarks/startup.py

Each is run several times; the median is printed, and what it takes more than a bare Python. Which
modules are loaded by which job is tested in ``Testing/engine/test_startup.py``.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from FewShotSegLib.core.job_protocol import DevicesJob, PhantomsJob, write_job
from FewShotSegLib.core.tables import text_table

ROOT = Path(__file__).resolve().parents[2]
TIMES = 7
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import FewShotSegLib": ["-c", "import FewShotSegLib"],
    "fewshotseg --help": ["-m", "FewShotSegLib", "--help"],
    "fewshotseg models": ["-m", "FewShotSegLib", "models"],
    "import numpy": ["-c", "import numpy"],
    "import torch": ["-c", "import torch"],
    "import monai": ["-c", "import monai"],
    "import FewShotSegLib.pipeline": ["-c", "import FewShotSegLib.pipeline"],
}


def main() -> None:
    """Measure and print."""
    seconds = {name: median(lambda c=call: ended(c)) for name, call in COMMANDS.items()}
    for name, event in (("worker: first event", "started"), ("worker: devices", "finished")):
        seconds[name] = median(lambda e=event: heard(e, DevicesJob()))
    with tempfile.TemporaryDirectory() as folder:
        job = PhantomsJob(str(Path(folder, "patients")), 1)
        seconds["worker: one sample patient"] = median(lambda: heard("finished", job))
    bare = seconds["python -c pass"]
    rows = [
        [name, f"{1000 * value:.0f}", f"{1000 * (value - bare):+.0f}", f"{value / bare:.1f}"]
        for name, value in seconds.items()
    ]
    print(text_table(["start", "ms", "ms over bare Python", "times bare Python"], rows, " >>>"))


def median(run: Callable[[], float]) -> float:
    """The median of several runs, after one that fills the disk's cache."""
    run()
    return statistics.median(run() for _ in range(TIMES))


def ended(arguments: list[str]) -> float:
    """Seconds until a Python with these arguments is over."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment()
    )
    return time.perf_counter() - start


def heard(event: str, job: DevicesJob | PhantomsJob) -> float:
    """Seconds from the start of a job's process to its first event of a kind."""
    with tempfile.TemporaryDirectory() as folder:
        write_job(Path(folder), job)
        start = time.perf_counter()
        worker = subprocess.Popen(
            [sys.executable, "-u", "-m", "FewShotSegLib.worker", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        for line in worker.stdout:
            if json.loads(line)["event"] == event:
                break
        seconds = time.perf_counter() - start
        worker.stdout.read()
        worker.wait()
        return seconds


def environment() -> dict[str, str]:
    """With this checkout's engine, wherever it is run."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    main()
