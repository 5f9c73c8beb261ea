"""The background process alone: a job folder in, events and results out, and nothing left over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import unittest
from pathlib import Path
from typing import Any

import numpy as np
from job_case import ROOT, Worker, put_query, put_support
from tiny_model import QUICK, STRUCTURES, TinyWorld, run

from FewShotSegLib.core.annotation import parse_structures
from FewShotSegLib.core.job_protocol import (
    CANCEL,
    DevicesJob,
    PhantomsJob,
    TrainJob,
    make_private,
    read_array,
    read_segments,
    write_job,
)
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter


class WorkerTest(TinyWorld):
    """Real processes on a small model."""

    def job(self, epochs: int = 3, **options: Any) -> Path:
        """A folder with a training of the usual supports."""
        folder = make_private(self.folder / "job")
        settings = {**QUICK.to_json(), "epochs": epochs, "learning_rate": 0.02}
        write_job(
            folder,
            TrainJob(
                [put_support(folder, p, n) for n, p in enumerate(self.supports)],
                parse_structures(STRUCTURES),
                str(self.model),
                settings=options.pop("settings", settings),
                device="cpu",
                cache=str(self.world / "cache"),
                **options,
            ),
        )
        return folder

    def test_train_and_segment_are_what_the_command_line_gives(self) -> None:
        folder = self.job(settings={"epochs": 20, "learning_rate": 0.02})
        status, events, errors = Worker(folder).ended()
        self.assertEqual(status, 0, errors)
        kinds = [event["event"] for event in events]
        self.assertEqual((kinds[0], kinds[-1]), ("started", "finished"))
        self.assertEqual(kinds.count("epoch"), 20)
        self.assertIn("heartbeat", kinds)
        out = self.folder / "command.fseft"
        self.assertEqual(run(*self.adapt_arguments(out, epochs=20)).status, 0)
        trained = TrainedAdapter.load(folder / "results" / "adapter.fseft")
        self.assertEqual(trained.content_sha256(), TrainedAdapter.load(out).content_sha256())

        second = put_query(
            self.folder / "second",
            self.query.image,
            out,
            model=str(self.model),
            uncertainty=True,
            device="cpu",
            cache=str(self.world / "cache"),
        )
        status, events, errors = Worker(second).ended()
        self.assertEqual(status, 0, errors)
        result = json.loads((second / "results" / "result.json").read_text(encoding="utf-8"))
        seg = self.folder / "command.nii.gz"
        arguments = self.segment_arguments(out, seg, str(self.query.image))
        self.assertEqual(run(*arguments).status, 0)
        labels = read_image(seg).array
        for segment in read_segments(result["segments"]):
            self.assertIsNotNone(segment.file, "nothing was found, which compares nothing")
            mask = np.zeros(labels.shape, bool)
            part = read_array(second / "results", segment.file)
            box = tuple(slice(a, a + n) for a, n in zip(segment.offset, part.shape, strict=True))
            mask[box] = part
            np.testing.assert_array_equal(mask, labels == segment.structure.value)
        report = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))["results"][
            seg.name
        ]
        self.assertEqual(result["report"]["structures"], report["structures"])
        found = result["uncertainty"]
        self.assertEqual(read_array(second / "results", found["file"]).max(), 100)

    def test_what_libraries_print_is_no_event(self) -> None:
        site = self.folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(
            "import builtins, os\n"
            "real = builtins.__import__\n"
            "def noisy(name, *rest, **more):\n"
            "    if name == 'torch': print('chatter'); os.write(1, b'from C\\n')\n"
            "    return real(name, *rest, **more)\n"
            "builtins.__import__ = noisy\n"
        )
        status, events, errors = Worker(self.job(), PYTHONPATH=str(site)).ended()
        self.assertEqual(status, 0, errors)
        self.assertIn("chatter", errors)
        self.assertIn("from C", errors)
        self.assertEqual(events[-1]["event"], "finished")

    def test_cancelling_by_the_protocol_and_by_a_signal(self) -> None:
        for stop in ("protocol", "signal"):
            with self.subTest(stop):
                worker = Worker(self.job(epochs=5000))
                worker.until("epoch")
                if stop == "protocol":
                    (self.folder / "job" / CANCEL).touch()
                else:
                    worker.process.send_signal(signal.SIGTERM)
                end = worker.until("cancelled")
                self.assertEqual(end["message"], "Stopped.")
                self.assertEqual(worker.ended()[0], 2)
                self.assertFalse((self.folder / "job" / "results" / "result.json").exists())
                shutil.rmtree(self.folder / "job")

    def test_a_folder_that_is_gone_ends_it(self) -> None:
        folder = self.job(epochs=5000)
        worker = Worker(folder)
        worker.until("epoch")
        shutil.rmtree(folder)
        self.assertEqual(worker.ended()[0], 3)
        self.assertFalse(folder.exists())

    def test_ends_in_words(self) -> None:
        folder = self.job(method="no such method")
        status, events, _ = Worker(folder).ended()
        self.assertEqual((status, events[-1]["event"]), (2, "failed"))
        self.assertIn("no method", events[-1]["message"])
        shutil.rmtree(folder)
        folder = self.job()
        site = self.folder / "site"
        site.mkdir()
        for text, kind in (
            ("import sys; sys.modules['torch'] = None", "MissingPackage"),
            (
                "import FewShotSegLib.pipeline as p\n"
                "def adapt(*a, **k): raise RuntimeError('CUDA out of memory. Tried ...')\n"
                "p.adapt = adapt",
                "OutOfMemory",
            ),
            (
                "import FewShotSegLib.pipeline as p\ndef adapt(*a, **k): raise MemoryError\n"
                "p.adapt = adapt",
                "OutOfMemory",
            ),
        ):
            (site / "sitecustomize.py").write_text(text)
            status, events, errors = Worker(folder, PYTHONPATH=f"{site}:{ROOT}").ended()
            self.assertEqual((status, events[-1]["kind"]), (2, kind), errors)
        (folder / "job.json").unlink()
        status, events, _ = Worker(folder).ended()
        self.assertIn("can't be read", events[-1]["message"])

    def test_devices_and_phantoms(self) -> None:
        folder = make_private(self.folder / "job")
        write_job(folder, DevicesJob())
        self.assertEqual(Worker(folder).ended()[0], 0)
        self.assertIn(
            "torch",
            json.loads((folder / "results" / "result.json").read_text(encoding="utf-8"))[
                "versions"
            ],
        )
        write_job(folder, PhantomsJob(str(self.folder / "patients"), 1))
        self.assertEqual(Worker(folder).ended()[0], 0)
        self.assertTrue((self.folder / "patients" / "phantom_01_ct.nii.gz").exists())

    @unittest.skipUnless(os.name == "posix", "process groups")
    def test_a_group_of_its_own(self) -> None:
        worker = Worker(self.job(epochs=5000))
        pid = worker.until("started")["pid"]
        self.assertEqual(os.getpgid(pid), pid)
        os.killpg(pid, signal.SIGKILL)
        self.assertEqual(worker.ended()[0], -signal.SIGKILL)


if __name__ == "__main__":
    unittest.main()
