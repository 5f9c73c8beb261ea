"""What a job gains when the background process stays: a new process for each, against one for all.

    python Testing/benchmarks/warm_worker.py

The same job runs in both ways, several times in turn: the segmentation of a small synthetic patient
with an adapter that was trained on others. Its features are in the cache, as for a query that is
segmented again; so the time is that of starting, loading and writing. The medians and their ratio
are printed, and how busy the computer was.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "Testing" / "support")]
os.environ["PYTHONPATH"] = str(ROOT)

import prepared_python  # noqa: E402

prepared_python.program = lambda: sys.executable  # a new interpreter, as in Slicer

from job_case import StayingWorker, Worker, put_query, put_support  # noqa: E402
from tiny_model import STRUCTURES, write_model, write_patient  # noqa: E402

from FewShotSegLib.core.annotation import parse_structures  # noqa: E402
from FewShotSegLib.core.job_protocol import TrainJob, make_private, write_job  # noqa: E402
from FewShotSegLib.core.tables import text_table  # noqa: E402

TIMES = 5


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        world = Path(name)
        os.environ["FEWSHOTSEG_HOME"] = str(world / "home")
        model = write_model(world / "model")
        support, query = (write_patient(world, f"patient{n}", n) for n in (0, 7))
        train = make_private(world / "train")
        write_job(
            train,
            TrainJob(
                [put_support(train, support, 0)],
                parse_structures(STRUCTURES),
                str(model),
                settings={"epochs": 1},
                device="cpu",
                cache=str(world / "cache"),
                validate=False,
            ),
        )
        status, events, errors = Worker(train).ended()
        assert status == 0, errors
        adapter = train / "results" / "adapter.fseft"

        def job() -> Path:
            folder = world / "job"
            shutil.rmtree(folder, ignore_errors=True)
            return put_query(
                folder, query.image, adapter, model=str(model), cache=str(world / "cache")
            )

        staying = StayingWorker(world)
        try:
            assert staying.do(job())[-1]["event"] == "finished"
            cold, warm = [], []
            for _ in range(TIMES):
                warm.append(seconds_of(lambda: staying.do(job())[-1]["event"] == "finished"))
                cold.append(seconds_of(lambda: Worker(job()).ended()[0] == 0))
        finally:
            staying.close()
    before, after = statistics.median(cold), statistics.median(warm)
    rows = [
        ["a new process for each job", f"{before:.2f}", ""],
        ["one process that stays", f"{after:.2f}", f"{before / after:.1f} times as fast"],
    ]
    print(text_table(["segmentation of a small volume", "s", ""], rows, " >>"))
    print(
        f"saved: {before - after:.2f} s a job; load {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs"
    )


def seconds_of(run: Callable[[], bool]) -> float:
    """Seconds that a job takes, with writing its folder."""
    start = time.perf_counter()
    assert run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
