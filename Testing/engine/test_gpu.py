"""What a GPU must get right. ``FEWSHOTSEG_TEST_DEVICE=cpu`` lets the CPU stand in, to rehearse.

Without a GPU and without that, only what needs none is tested.
"""

from __future__ import annotations

import os
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from job_case import Worker, put_query, put_support
from tiny import make_model, make_volume
from tiny_model import QUICK, STRUCTURES, TinyWorld

from FewShotSegLib.core.annotation import parse_structures
from FewShotSegLib.core.job_protocol import TrainJob, make_private, write_job
from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.features.extraction import FeatureSource, stream_features
from FewShotSegLib.features.store import FeatureStore
from FewShotSegLib.phantoms.patients import make_phantom
from FewShotSegLib.pipeline import Runtime, adapt, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter
from FewShotSegLib.pretraining.packed.trainer import EpisodeTrainer
from FewShotSegLib.training.loop import TrainingSettings
from FewShotSegLib.training.support_set import Support

STAND_IN = os.environ.get("FEWSHOTSEG_TEST_DEVICE", "")
DEVICE = STAND_IN or ("cuda" if torch.cuda.is_available() else "")
ON_DEVICE = unittest.skipUnless(DEVICE, "no GPU here (FEWSHOTSEG_TEST_DEVICE=cpu stands in)")
CLOSE = 0.005
"""How far a structure's Dice on the GPU may be from that on the CPU, with one adapter."""


class OutOfMemoryTest(unittest.TestCase):
    """A GPU that is too small for a window costs time, not the work."""

    def source(self, events: list[dict[str, Any]], device: str = "cuda") -> FeatureSource:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        model = make_model(folder)
        preprocessing = model.entry.preprocessing["MR"]
        store = FeatureStore(folder / "cache")
        return FeatureSource(model, preprocessing, store, torch.device(device), events.append)

    def test_features_are_computed_on_the_cpu_then_and_from_then_on(self) -> None:
        events: list[dict[str, Any]] = []
        source, tried = self.source(events), []

        def small_gpu(backbone: Any, image: Any, windows: Any, device: Any, *rest: Any) -> None:
            tried.append(device.type)
            if device.type == "cuda":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            stream_features(backbone, image, windows, device, *rest)

        with mock.patch("FewShotSegLib.features.extraction.stream_features", small_gpu):
            features = source(make_volume())
            source(make_volume(seed=1))
        self.assertEqual(tried, ["cuda", "cpu", "cpu"])
        warnings = [e["message"] for e in events if e["event"] == "warning"]
        self.assertEqual(len(warnings), 1)
        self.assertIn("computed on the CPU", warnings[0])
        expected = self.source([], "cpu")(make_volume())
        for a, b in zip(features.levels, expected.levels, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_another_error_of_the_gpu_is_not_hidden(self) -> None:
        source = self.source([])
        error = RuntimeError("CUDA error: an illegal memory access was encountered")
        with mock.patch("FewShotSegLib.features.extraction.stream_features", side_effect=error):
            with self.assertRaisesRegex(RuntimeError, "illegal"):
                source(make_volume())

    def test_the_cpu_itself_has_nothing_to_fall_back_to(self) -> None:
        source = self.source([], "cpu")
        error = RuntimeError("DefaultCPUAllocator: can't allocate memory")
        with mock.patch(
            "FewShotSegLib.features.extraction.stream_features", side_effect=error
        ) as tried:
            with self.assertRaisesRegex(RuntimeError, "allocate"):
                source(make_volume())
        self.assertEqual(tried.call_count, 1)

    @unittest.skipUnless(DEVICE == "cuda", "no GPU here")
    def test_a_real_gpu_that_is_full(self) -> None:
        events: list[dict[str, Any]] = []
        source = self.source(events)
        free, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(1e-6)
        try:
            torch.cuda.empty_cache()
            features = source(make_volume(shape=(96, 96, 96)))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        self.assertEqual([e["event"] for e in events].count("warning"), 1, (free, total))
        self.assertTrue(all(np.isfinite(level).all() for level in features.levels))


@ON_DEVICE
class SameAsCpuTest(unittest.TestCase):
    """One adapter, two devices; and a training on each."""

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.runtimes = {
            name: Runtime(name, Path(folder.name) / f"cache-{n}")
            for n, name in enumerate(dict.fromkeys(("cpu", DEVICE)))
        }
        patients = [make_phantom(n, surroundings=True) for n in range(3)]
        wanted = {"liver", "vertebrae", "aorta"}
        cls.supports = []
        for volume, annotation in patients:
            structures = [s for s in annotation.structures if s.name in wanted]
            masks = {s.name: annotation.masks[s.name] for s in structures}
            cls.supports.append(
                Support(volume, replace(annotation, masks=masks, structures=structures))
            )
        cls.settings = TrainingSettings(epochs=20)

    def dices(self, adapter: TrainedAdapter, device: str, refine: bool) -> dict[str, float]:
        query = self.supports[2]
        found = segment(adapter, query.volume, transductive=refine, runtime=self.runtimes[device])
        return {
            name: float(dice(mask, found.masks[name]))
            for name, mask in query.annotation.masks.items()
        }

    def trained(self, device: str) -> TrainedAdapter:
        return adapt(
            self.supports[:2],
            model="embedded",
            settings=self.settings,
            runtime=self.runtimes[device],
        )

    def test_an_adapter_gives_the_same_dice(self) -> None:
        adapter = self.trained("cpu")
        for refine in (False, True):
            cpu, gpu = (self.dices(adapter, device, refine) for device in ("cpu", DEVICE))
            print(f"cpu {cpu}, {DEVICE} {gpu}, transduction {refine}")
            self.assertGreater(np.mean(list(cpu.values())), 0.5, "nothing to compare")
            for name in cpu:
                self.assertAlmostEqual(cpu[name], gpu[name], delta=CLOSE, msg=name)

    def test_a_training_there_is_worth_the_same(self) -> None:
        cpu, gpu = (
            np.mean(list(self.dices(self.trained(device), device, False).values()))
            for device in ("cpu", DEVICE)
        )
        print(f"trained on cpu {cpu:.4f}, on {DEVICE} {gpu:.4f}")
        # Rounding in another order sends a training elsewhere, but nowhere worse.
        self.assertAlmostEqual(cpu, gpu, delta=0.02)


@ON_DEVICE
class WorkerOnDeviceTest(TinyWorld):
    """The background process, as the module starts it."""

    def test_a_job_trains_and_segments(self) -> None:
        folder = make_private(self.folder / "job")
        write_job(
            folder,
            TrainJob(
                [put_support(folder, p, n) for n, p in enumerate(self.supports)],
                parse_structures(STRUCTURES),
                str(self.model),
                settings=QUICK.to_json(),
                device=DEVICE,
                cache=str(self.world / "cache-device"),
            ),
        )
        status, events, errors = Worker(folder).ended()
        self.assertEqual(status, 0, errors)
        adapter = folder / "results" / "adapter.fseft"
        trained = TrainedAdapter.load(adapter)
        self.assertEqual(trained.training["device"].split(":")[0], DEVICE.split(":")[0])
        second = put_query(
            self.folder / "second",
            self.query.image,
            adapter,
            model=str(self.model),
            device=DEVICE,
            cache=str(self.world / "cache-device"),
        )
        status, events, errors = Worker(second).ended()
        self.assertEqual(status, 0, errors)
        self.assertEqual(events[-1]["event"], "finished")


@ON_DEVICE
class PretrainingOnDeviceTest(unittest.TestCase):
    """Episodes are the same everywhere, and so is what a step learns, to rounding."""

    def test_first_steps_have_the_losses_of_the_cpu(self) -> None:
        from pack_case import make_pack, make_recipe

        recipe = make_recipe(episode=1.0, template=0.3, contrast=0.3)
        found = []
        for name in ("cpu", DEVICE):
            trainer = EpisodeTrainer(recipe, make_pack(), 0, torch.device(name))
            losses = []
            for _ in trainer.run():
                losses.append(trainer.reset_running()["loss"])
            found.append(losses)
        np.testing.assert_allclose(found[0][:2], found[1][:2], rtol=0.03)
        self.assertTrue(np.isfinite(found[1]).all())


if __name__ == "__main__":
    unittest.main()
