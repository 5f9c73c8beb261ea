"""Files that FewShotSeg 0.1.0 wrote before there were schemas and seals: all are read as then."""

from __future__ import annotations

import json
import shutil
import tempfile
import unittest
from pathlib import Path

from old_files import OLD

from FewShotSegLib.core.adapter_header import read_header
from FewShotSegLib.core.annotation import Structure
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import (
    DevicesJob,
    DownloadJob,
    ImportJob,
    PhantomsJob,
    SegmentJob,
    TrainJob,
    read_job,
)
from FewShotSegLib.core.size_prior import PriorChange
from FewShotSegLib.evaluation.benchmark.plan import read_plan
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter, read_metadata

HERE = Path(__file__).parents[1]
CONTENT = {
    "linear-probe": "82d791e389cd1fc923297f2a7a808604ee933003306f31815d4e940c51769a24",
    "adapter": "952f8c880a31a23913186cef6a671d913a42e582d9bb9af116a683ca09d96a52",
    "bias": "ccf13762d4574398cba59fe035e0493a343b4fe6799cd8d9af07152c9b25f418",
}
"""``content_sha256`` as the code that wrote each file gave it."""


class OldFilesTest(unittest.TestCase):
    def test_adapters(self) -> None:
        for name, digest in CONTENT.items():
            with self.subTest(name):
                path = OLD / f"{name}.fseft"
                trained = TrainedAdapter.load(path)
                self.assertEqual(trained.content_sha256(), digest)
                self.assertEqual(trained.method, name)
                wanted = [Structure("bean", 4), Structure("pea", 5)]
                self.assertEqual(trained.structures, wanted)
                self.assertEqual(trained.metadata(), read_metadata(path))
                self.assertEqual(read_header(path.read_bytes(), "x"), read_metadata(path))

    def job(self, kind: str, change: dict[str, object] | None = None) -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "job.json"
            shutil.copy(OLD / f"{kind}.job.json", path)
            if change is not None:
                path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
            job, caller = read_job(Path(folder))
        self.assertGreater(caller, 0)
        return job

    def test_jobs(self) -> None:
        train = self.job("train")
        self.assertIsInstance(train, TrainJob)
        self.assertEqual(train.settings, {"epochs": 3, "learning_rate": 0.02})
        self.assertEqual(train.structures[0], Structure("bean", 1, (1.0, 0.5, 0.25), "a~b~c"))
        self.assertEqual(train.priors["pea"], PriorChange(enabled=False, gamma=0.4))
        self.assertEqual(train.supports[0].masks[1].value, 5)
        self.assertEqual(train.supports[0].volume.affine[2], [0, 0, 3.4, 100.1])
        segment = self.job("segment")
        self.assertIsInstance(segment, SegmentJob)
        self.assertEqual(segment.priors, {"bean": PriorChange(deviation_ml=1)})
        self.assertEqual(self.job("devices"), DevicesJob())
        self.assertEqual(self.job("phantoms"), PhantomsJob("a folder"))
        self.assertEqual(self.job("download"), DownloadJob("tiny"))
        self.assertEqual(self.job("import"), ImportJob("tiny", "/x/w.pt"))

    def test_what_a_job_cannot_say(self) -> None:
        array = json.loads((OLD / "segment.job.json").read_text())["query"]
        for kind, change, telling in (
            ("train", {"seed": -1}, "'seed' is a number from 0"),
            ("train", {"seed": True}, "'seed' is a whole number"),
            ("train", {"features": "some"}, "'features' is"),
            ("train", {"settings": {"epochs": [1]}}, "'epochs' of 'settings' is"),
            ("train", {"structures": [{"name": "a"}]}, "lacks the field 'value'"),
            ("train", {"supports": [{"volume": {}, "masks": []}]}, "lacks the field 'file'"),
            ("segment", {"query": {**array, "file": "../x.npy"}}, "name of a file in the job's"),
            ("segment", {"adapter": "/etc/passwd"}, "'adapter' is the name of a file"),
            ("segment", {"query": {**array, "affine": [[1, 0], [0, 1]]}}, "is a 4x4 matrix"),
            ("segment", {"query": {**array, "affine": [["1"] * 4] * 4}}, "is a number, not '1'"),
            ("segment", {"priors": {"a": {"mean_ml": "1"}}}, "'mean_ml' of 'a' of 'priors' is"),
            ("segment", {"more": 1}, "unknown field 'more'"),
            ("phantoms", {"count": 10**9}, "'count' is a number from 1 to 1000"),
            ("devices", {"kind": "shell"}, "'kind' is"),
            ("devices", {"caller": "1"}, "'caller' is a whole number"),
            ("devices", {"format": 1.0}, "'format' is a whole number"),
        ):
            with self.subTest(telling):
                with self.assertRaisesRegex(InputError, f"{telling}.*different versions"):
                    self.job(kind, change)

    def test_every_plan_of_the_benchmarks(self) -> None:
        plans = sorted((HERE / "benchmarks" / "plans").glob("*.json"))
        self.assertGreaterEqual(len(plans), 2)
        for path in plans:
            data = json.loads(path.read_text(encoding="utf-8"))
            plan = read_plan(path)
            self.assertEqual(len(plan.methods), len(data["methods"]))
            self.assertEqual(plan.tasks[0].draws[0].seed, data["tasks"][0]["draws"][0]["seed"])


if __name__ == "__main__":
    unittest.main()
