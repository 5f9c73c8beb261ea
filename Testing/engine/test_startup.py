"""Every job loads what it needs and no more. Times are for ``benchmarks/startup.py``: a test that
hangs on the clock would fail on a busy machine, and these show the reason, not the symptom."""

from __future__ import annotations

import shutil
import unittest

from job_case import put, put_support
from startup import COMMAND, FIRST_EVENT, heavy, loaded_after
from tiny_model import STRUCTURES, TrainedWorld

from FewShotSegLib.core.annotation import parse_structures
from FewShotSegLib.core.architecture_catalog import ARCHITECTURES
from FewShotSegLib.core.job_protocol import (
    DevicesJob,
    Job,
    PhantomsJob,
    SegmentJob,
    TrainJob,
    write_job,
)
from FewShotSegLib.core.method_catalog import METHODS
from FewShotSegLib.io.volumes import read_image

JOB = """
from pathlib import Path
from FewShotSegLib.core.job_protocol import read_job
from FewShotSegLib.worker.jobs import run_job
run_job(read_job(Path(FOLDER))[0], Path(FOLDER), lambda event: None, lambda: False)
"""


class LibraryTest(unittest.TestCase):
    """The package itself, and its registers."""

    def test_the_package_alone(self) -> None:
        modules = loaded_after("import FewShotSegLib")
        self.assertEqual(heavy(modules), [])
        own = {name for name in modules if name.startswith("FewShotSegLib")}
        self.assertEqual(own, {"FewShotSegLib"})

    def test_scores_are_named_without_what_measures_them(self) -> None:
        program = "from FewShotSegLib.evaluation.metrics import evaluate, Scores"
        self.assertEqual(heavy(loaded_after(program)), ["numpy", "SimpleITK"])

    def test_models_are_listed_without_torch(self) -> None:
        program = "from FewShotSegLib.models.registry import list_entries; assert list_entries()"
        self.assertEqual(heavy(loaded_after(program)), ["numpy"])

    def test_one_architecture_loads_no_other(self) -> None:
        own = {record.implementation.partition(":")[0] for record in ARCHITECTURES.own.values()}
        self.assertGreaterEqual(len(own), 5)
        program = "from FewShotSegLib.models.backbones import BACKBONES\nBACKBONES[NAME]"
        # Two that need no MONAI, and one that does.
        for name, monai in (("ObeliskUNet", False), ("GenesisUNet", False), ("DynamicUNet", True)):
            with self.subTest(name):
                modules = loaded_after(program, NAME=name)
                module = ARCHITECTURES[name].implementation.partition(":")[0]
                self.assertEqual(modules & own, {module})
                self.assertEqual("monai" in modules, monai)

    def test_one_method_loads_no_other(self) -> None:
        own = {record.implementation.partition(":")[0] for record in METHODS.own.values()}
        program = "from FewShotSegLib.methods.tunings import TUNINGS\nTUNINGS['lora']"
        self.assertEqual(
            loaded_after(program) & own, {METHODS["lora"].implementation.partition(":")[0]}
        )


class CommandTest(TrainedWorld):
    """``fewshotseg`` answers immediately where nothing is computed."""

    def heavy_after(self, *arguments: str, status: int = 0) -> list[str]:
        modules = loaded_after(COMMAND, ARGUMENTS=list(arguments), STATUS=status)
        return [name for name in heavy(modules) if name != "numpy"]

    def test_without_torch(self) -> None:
        for arguments in (
            ["--help"],
            ["adapt", "--help"],
            ["models"],
            ["models", "embedded", "--events"],
            ["inspect", str(self.adapter)],
        ):
            with self.subTest(arguments[0]):
                self.assertEqual(self.heavy_after(*arguments), [])

    def test_what_is_wrong_is_said_without_torch(self) -> None:
        self.assertEqual(self.heavy_after("segment", "--sead", "1", status=2), [])
        self.assertEqual(self.heavy_after("inspect", "absent.fseft", status=2), [])


class WorkerTest(TrainedWorld):
    """The process of a job."""

    def loaded(self, job: Job, program: str = JOB) -> set[str]:
        write_job(self.folder, job)
        return loaded_after(program, FOLDER=str(self.folder))

    def test_the_first_event_comes_before_anything_heavy(self) -> None:
        modules = self.loaded(PhantomsJob(str(self.folder / "out"), 1), FIRST_EVENT)
        self.assertEqual(heavy(modules), ["numpy"])
        self.assertNotIn("FewShotSegLib.worker.jobs", modules)

    def test_sample_data_are_made_without_torch(self) -> None:
        modules = self.loaded(PhantomsJob(str(self.folder / "out"), 1))
        self.assertEqual(heavy(modules), ["numpy", "scipy", "SimpleITK"])

    def test_devices_are_listed_by_torch_alone(self) -> None:
        modules = self.loaded(DevicesJob())
        self.assertEqual(heavy(modules), ["numpy", "torch"])

    def test_cached_features_need_no_network(self) -> None:
        """A result with its report, from features that are there: neither MONAI nor a backbone."""
        volume = read_image(self.query.image)
        shutil.copy(self.adapter, self.folder / "a.fseft")
        job = SegmentJob(
            put(self.folder, "query.npy", volume.array, volume.grid.affine),
            adapter="a.fseft",
            model=str(self.model),
            device="cpu",
            cache=str(self.world / "cache"),
        )
        first, second = self.loaded(job), self.loaded(job)
        own = {record.implementation.partition(":")[0] for record in ARCHITECTURES.own.values()}
        self.assertEqual(first & own, {ARCHITECTURES["DynamicUNet"].implementation.split(":")[0]})
        self.assertEqual(second & own, set())
        self.assertEqual(heavy(second), ["numpy", "scipy", "SimpleITK", "torch"])

    def test_a_training_loads_its_own_method_and_network(self) -> None:
        job = TrainJob(
            [put_support(self.folder, patient, n) for n, patient in enumerate(self.supports)],
            parse_structures(STRUCTURES),
            str(self.model),
            settings={"epochs": 1, "steps_per_epoch": 1},
            device="cpu",
            cache=str(self.world / "cache"),
        )
        modules = self.loaded(job)
        own = {record.implementation.partition(":")[0] for record in METHODS.own.values()}
        # The linear probe is the decoder of the white-box methods, and known to all of them.
        spatial = METHODS["adapter"].implementation.partition(":")[0]
        probe = METHODS["linear-probe"].implementation.partition(":")[0]
        self.assertEqual(modules & own, {spatial, probe})
        elsewhere = {
            f"FewShotSegLib.{name}" for name in ("cli", "evaluation", "overlay", "phantoms")
        }
        self.assertEqual(modules & elsewhere, set())


if __name__ == "__main__":
    unittest.main()
