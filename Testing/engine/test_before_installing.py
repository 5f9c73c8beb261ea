"""Sample data are made before anything is installed: by what Slicer brings along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from FewShotSegLib.core.job_folders import make_job_folder
from FewShotSegLib.core.job_protocol import MISSING, DevicesJob, Job, PhantomsJob, write_job

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("torch", "monai", "einops", "psutil", "filelock", "safetensors", "tqdm", "matplotlib")
"""What the engine needs and Slicer does not have."""


class BeforeInstallingTest(unittest.TestCase):
    """The background process in a Python without these."""

    def run_job(self, job: Job) -> dict[str, object]:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        (Path(folder.name) / "sitecustomize.py").write_text(
            f"import sys\nfor name in {ABSENT!r}:\n    sys.modules[name] = None\n"
        )
        job_folder = make_job_folder(Path(folder.name))
        write_job(job_folder, job)
        path = os.pathsep.join((folder.name, str(ROOT)))
        process = subprocess.run(
            [sys.executable, "-u", "-m", "FewShotSegLib.worker", str(job_folder)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            check=False,
        )
        return json.loads(process.stdout.splitlines()[-1])

    def test_sample_data_are_made(self) -> None:
        with tempfile.TemporaryDirectory() as patients:
            end = self.run_job(PhantomsJob(patients, 1))
            self.assertEqual(end["event"], "finished", end)
            self.assertTrue((Path(patients) / "phantom_01_ct.nii.gz").is_file())

    def test_other_work_says_what_is_missing(self) -> None:
        end = self.run_job(DevicesJob())
        self.assertEqual((end["event"], end["kind"]), ("failed", MISSING))
        self.assertEqual(end["package"], "psutil")


if __name__ == "__main__":
    unittest.main()
