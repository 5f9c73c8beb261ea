"""What each phase of a segmentation takes, for volumes of four sizes; and what would be estimated.

    python Testing/benchmarks/times.py [--out Testing/support/recorded_times.json]

Synthetic patients are segmented by the background process, which stays, as the module starts it,
with an adapter that was trained on two of them. The seconds of each phase are printed; ``--out``
keeps them with the shapes and how busy the computer was, for the test of the estimates
(``Testing/module/test_module_times.py``). On Linux ``--first`` gives the process precedence over
others, for a computer that does other things as well; that needs the right to do so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "Testing" / "support")]
os.environ["PYTHONPATH"] = str(ROOT)

import prepared_python  # noqa: E402

prepared_python.program = lambda: sys.executable  # a new interpreter, as in Slicer

from job_case import StayingWorker, put  # noqa: E402

from FewShotSegLib.core.annotation import Structure  # noqa: E402
from FewShotSegLib.core.job_protocol import (  # noqa: E402
    MaskFile,
    SegmentJob,
    SupportFiles,
    TrainJob,
    make_private,
    write_job,
)
from FewShotSegLib.core.size_prior import PriorChange  # noqa: E402
from FewShotSegLib.core.tables import text_table  # noqa: E402
from FewShotSegLib.phantoms.patients import make_phantom  # noqa: E402

SIZES = (
    ((128, 128, 64), (1.6, 1.6, 3.0)),
    ((192, 192, 96), (1.2, 1.2, 2.5)),
    ((256, 256, 128), (1.0, 1.0, 2.0)),
    ((400, 400, 150), (0.9, 0.9, 1.6)),
)
STRUCTURES = 2
EXPECTED_ML = 60.0
MODEL = "embedded"


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--first", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        world = Path(name)
        os.environ["FEWSHOTSEG_HOME"] = str(world / "home")
        train, queries = train_job(world), [segment_job(world, n) for n in range(len(SIZES))]
        worker = StayingWorker(world)
        if arguments.first:
            os.setpriority(os.PRIO_PROCESS, worker.process.pid, -15)
        try:
            training = run(worker, train)
            adapter = (train / "results" / "adapter.fseft").read_bytes()
            for folder in queries:
                (folder / "adapter.fseft").write_bytes(adapter)
            runs = [run(worker, folder) for folder in queries]
        finally:
            worker.close()
    found = {
        "model": MODEL,
        "structures": STRUCTURES,
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "precedence": arguments.first,
        "training": {"shapes": [SIZES[0]] * 2, "epochs": 10, "phases": training},
        "segmentations": [
            {"shape": shape, "spacing": spacing, "phases": phases}
            for (shape, spacing), phases in zip(SIZES, runs, strict=True)
        ],
    }
    names = list(dict.fromkeys(name for phases in runs for name in phases))
    rows = [
        [" x ".join(map(str, shape)), *(f"{phases.get(name, 0):.1f}" for name in names)]
        for (shape, _spacing), phases in zip(SIZES, runs, strict=True)
    ]
    print(text_table(["voxels", *names], rows, " " + ">" * len(names)))
    print(f"load {found['load']}, {found['cpus']} CPUs")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def train_job(world: Path) -> Path:
    """A training on two patients of the smallest size."""
    folder = make_private(world / "train")
    supports = []
    shape, spacing = SIZES[0]
    for seed in (1, 2):
        volume, annotation = make_phantom(seed, spacing, shape)
        names = list(annotation.masks)[:STRUCTURES]
        affine = volume.grid.affine
        masks = [
            MaskFile(
                name,
                put(folder, f"m{seed}{n}.npy", annotation.masks[name].astype("uint8"), affine),
            )
            for n, name in enumerate(names)
        ]
        supports.append(SupportFiles(put(folder, f"v{seed}.npy", volume.array, affine), masks))
    structures = [Structure(name, n) for n, name in enumerate(names, 1)]
    job = TrainJob(supports, structures, MODEL, settings={"epochs": 10}, device="cpu")
    write_job(folder, job)
    return folder


def segment_job(world: Path, number: int) -> Path:
    """A patient of one of the sizes, whose structures are expected to be larger than they are, so
    that transduction has the same to do in each."""
    shape, spacing = SIZES[number]
    volume, annotation = make_phantom(20 + number, spacing, shape)
    larger = PriorChange(mean_ml=EXPECTED_ML, gamma=0.05)
    priors = dict.fromkeys(list(annotation.masks)[:STRUCTURES], larger)
    folder = make_private(world / f"query{number}")
    query = put(folder, "query.npy", volume.array, volume.grid.affine)
    write_job(folder, SegmentJob(query, priors=priors, uncertainty=True, device="cpu"))
    return folder


def run(worker: StayingWorker, folder: Path) -> dict[str, float]:
    """Seconds by phase, from the moment that the job is there to its end."""
    begun = time.time()
    events: list[dict[str, Any]] = worker.do(folder)
    assert events[-1]["event"] == "finished", events[-1]
    times: dict[str, float] = {}
    phase, since = "start", begun
    for event in events:
        if event["event"] in ("phase", "finished"):
            times[phase] = round(times.get(phase, 0.0) + event["time"] - since, 2)
            phase, since = event.get("phase", ""), event["time"]
    return times


if __name__ == "__main__":
    main()
