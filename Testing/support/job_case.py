"""Jobs as the module hands them over, and the process that works on them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import prepared_python
from tiny_model import STRUCTURES, Patient

from FewShotSegLib.core.annotation import parse_structures
from FewShotSegLib.core.job_folders import DESK, make_job_folder
from FewShotSegLib.core.job_protocol import (
    STAY,
    ArrayFile,
    MaskFile,
    SegmentJob,
    SupportFiles,
    array_steps,
    hand_next,
    make_private,
    write_job,
)
from FewShotSegLib.io.volumes import read_image

ROOT = Path(__file__).resolve().parents[2]


def put(folder: Path, name: str, array: np.ndarray, affine: np.ndarray) -> ArrayFile:
    """An array of a job."""
    for _ in array_steps(folder / name, array):
        pass
    return ArrayFile(name, np.asarray(affine).tolist())


def put_support(folder: Path, patient: Patient, number: int) -> SupportFiles:
    """A patient's files as the module would hand them over."""
    volume = read_image(patient.image)
    labels = read_image(patient.segmentation)
    affine = volume.grid.affine
    layer = put(folder, f"layer{number}.npy", labels.array, affine)
    return SupportFiles(
        put(folder, f"volume{number}.npy", volume.array, affine),
        [MaskFile(s.name, layer, s.value) for s in parse_structures(STRUCTURES)],
    )


def put_query(folder: Path, image: Path, adapter: Path, **fields: Any) -> Path:
    """A job that segments an image with an adapter; ``fields`` of the job. Gives its folder."""
    query = read_image(image)
    make_private(folder)
    (folder / "adapter.fseft").write_bytes(adapter.read_bytes())
    array = put(folder, "query.npy", query.array, query.grid.affine)
    write_job(folder, SegmentJob(array, **fields))
    return folder


class StayingWorker:
    """A process that does one job after another; ``desk`` is where it takes them from."""

    def __init__(self, parent: Path, seconds: float = 600.0, **environment: str) -> None:
        self.desk = make_job_folder(parent, label=DESK)
        self.process = subprocess.Popen(
            [
                *(prepared_python.program(), "-u", "-m", "FewShotSegLib.worker"),
                *(STAY, str(self.desk), str(seconds)),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )

    def do(self, folder: Path) -> list[dict[str, Any]]:
        """The events of a job, up to its end; none where the process has ended."""
        hand_next(self.desk, folder)
        return self.events()

    def events(self) -> list[dict[str, Any]]:
        """What it says until a job ends, or the process does."""
        events: list[dict[str, Any]] = []
        for line in self.process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] in ("finished", "failed", "cancelled"):
                break
        return events

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(600)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(600)
        self.process.stdout.close()
        self.process.stderr.close()


class Worker:
    """The process of a job, as the module starts it.

    With a ``PYTHONPATH`` of a test's own a new interpreter is started, else one that is prepared.
    """

    def __init__(self, folder: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [prepared_python.program(), "-u", "-m", "FewShotSegLib.worker", str(folder)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )

    def until(self, kind: str) -> dict[str, Any]:
        """The first event of a kind."""
        for line in self.process.stdout:
            event = json.loads(line)
            if event["event"] == kind:
                return event
        raise AssertionError(f"no {kind}: {self.process.stderr.read().decode()}")

    def ended(self) -> tuple[int, list[dict[str, Any]], str]:
        """Status, all further events, standard error."""
        out, err = self.process.stdout.read(), self.process.stderr.read()
        status = self.process.wait(600)
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
        return status, [json.loads(line) for line in out.splitlines()], err.decode()
