"""Pre-training: a run that resumes to the bit, several processes as one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from pretraining_world import CROP, ROOT, World, description
from safetensors.torch import load_file, safe_open
from tiny_model import run
from torch import Tensor

from FewShotSegLib.core.errors import Cancelled, InputError
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.models.seen import seen_by
from FewShotSegLib.pipeline.adapter_file import content_hash
from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.pretraining.assembly import read_assembly
from FewShotSegLib.pretraining.ddp import Ranks
from FewShotSegLib.pretraining.network import build_network
from FewShotSegLib.pretraining.run import Pretrained, pretrain
from FewShotSegLib.pretraining.state import own_tensors
from FewShotSegLib.pretraining.trainer import Trainer


class WholeRun(World):
    """From the description to a model that runs."""

    def test_resumed_equals_uninterrupted_and_the_export_runs(self) -> None:
        events: list[dict[str, Any]] = []
        whole = self.trained("whole", runtime=Runtime("cpu", events=events.append))
        asked = 0

        def cancel() -> bool:
            nonlocal asked
            asked += 1
            return asked > self.stop_at

        for self.stop_at in (10, 100, 100):  # in the preparation, and within steps
            asked = 0
            with self.assertRaises(Cancelled):
                self.trained("parts", resume=True, runtime=Runtime("cpu", cancel=cancel))
        with safe_open(self.folder / "parts" / "checkpoint.safetensors", "pt") as file:
            self.assertTrue(0 < int(file.metadata()["step"]) < 6, file.metadata()["step"])
        parts = self.trained("parts", resume=True)
        for one, other in (
            (whole.trainer.network, parts.trainer.network),
            (whole.network, parts.network),
        ):
            for (name, a), (_, b) in zip(own_tensors(one), own_tensors(other), strict=True):
                self.assertTrue(torch.equal(a, b), name)
        self.assertEqual(whole.history, parts.history)
        self.check_events(events)
        self.check_export(whole)

    def check_events(self, events: list[dict[str, Any]]) -> None:
        phases = [e["phase"] for e in events if e["event"] == "phase"]
        self.assertEqual(phases, ["prepare", "pretrain"])
        epochs = [e for e in events if e["event"] == "epoch"]
        self.assertEqual([(e["epoch"], e["epochs"], e["step"]) for e in epochs][-1], (3, 3, 6))
        for event in epochs:
            for term in ("loss", "dice_loss", "cross_entropy"):
                self.assertTrue(math.isfinite(event[term]))
        self.assertNotIn("dice", epochs[0])
        for event in epochs[1:]:
            self.assertEqual(set(event["dice"]), {"bean", "pea"})
        results = {e["kind"]: e["path"] for e in events if e["event"] == "result"}
        self.assertEqual(set(results), {"model", "curve", "report"})
        self.assertEqual(Path(results["curve"]).read_bytes()[:4], b"\x89PNG")

    def check_export(self, result: Pretrained) -> None:
        model = find_model(str(result.entry))
        entry = model.entry
        self.assertEqual(entry.classes, {"bean": 0, "pea": 1, "pod": 2})
        self.assertEqual(entry.size, entry.weights.stat().st_size)
        self.assertEqual(entry.sha256, model.weights_sha256)
        image = torch.rand(1, 1, *CROP)
        with torch.no_grad():
            levels = model.backbone.features(image)
            weight, bias = model.class_head("Pea")
            score = torch.einsum("c,bcijk->bijk", weight, levels[0]) + bias
            wanted = result.network(image)[0][:, 1]
            other = result.network(image)[0][:, 0]
            last = result.trainer.network.eval()(image)[0][:, 1]
        torch.testing.assert_close(score, wanted, atol=0.01, rtol=0)
        # As close as half precision is, which another row or the last weights are not.
        for wrong in (other, last):
            self.assertGreater(float((wrong - wanted).abs().max()), 0.02)
        with safe_open(entry.weights, "pt") as file:
            recipe = json.loads(file.metadata()["pretraining"])
        self.assertEqual(recipe["steps"], 6)
        self.assertEqual(recipe["assembly"]["data"][0]["annotated"], {"4": 3, "5": 2})
        seen = frozenset(recipe.pop("seen"))  # hexadecimal digits: they say nothing
        self.assertEqual(seen, seen_by(str(result.entry)))
        images = (self.world / "beans" / "images").iterdir()
        self.assertEqual(seen, {content_hash(read_image(path)) for path in images})
        for private in (str(self.world), "b0", "m0"):
            self.assertNotIn(private, json.dumps(recipe))
        kinds = {torch.float32: set(), torch.float16: set()}
        for name, tensor in load_file(entry.weights).items():
            kinds[tensor.dtype].add("running_" in name)
        self.assertEqual(kinds, {torch.float32: {True}, torch.float16: {False}})

    def test_a_stop_within_a_step_leaves_the_last_whole_step(self) -> None:
        assembly = read_assembly(self.path)
        cases = self.cases(assembly)
        stop = False
        trainer = Trainer(assembly, cases, Ranks(torch.device("cpu")), 0, lambda: stop)
        samples = trainer.sampler.draw(0, 0)
        trainer.step(0, samples)
        before = [tensor.clone() for _, tensor in own_tensors(trainer.network)]
        loss = trainer.network.heads[0].register_forward_hook(lambda *_: self.fail_later())
        self.asked = False
        trainer.cancelled = lambda: self.asked
        with self.assertRaises(Cancelled):
            trainer.step(1, samples)
        loss.remove()
        for tensor, (name, now) in zip(before, own_tensors(trainer.network), strict=True):
            self.assertTrue(torch.equal(tensor, now), name)

    def fail_later(self) -> None:
        self.asked = True

    def test_it_learns(self) -> None:
        data = description(targets={}, augmentation={})
        data["data"] = [dict(data["data"][0], annotated="all")]
        data["classes"] = ["bean", "pea"]
        del data["preprocessing"]["MR"]
        data["training"] |= {"steps": 100, "epoch_steps": 50, "validate_every": 9}
        path = self.write(data, "learn.json")
        result = pretrain(path, self.folder, runtime=Runtime("cpu"))
        self.assertNotIn("dice", result.history[0])
        self.assertGreater(result.history[-1]["dice"]["pea"], 0.4)  # the brighter one

    def test_it_keeps_away_from_data_and_from_another_run(self) -> None:
        for folder in (self.world / "beans", self.world):
            with self.assertRaisesRegex(InputError, "holds the data set 'beans'; choose another"):
                pretrain(self.path, folder, steps=1, runtime=Runtime("cpu"))
            self.assertFalse((folder / "cases").exists())
        self.folder.mkdir()
        with FileLock(self.folder / "checkpoint.safetensors.lock"):
            with self.assertRaisesRegex(InputError, "Another pre-training is running"):
                pretrain(self.path, self.folder, steps=1, runtime=Runtime("cpu"))

    def test_it_never_replaces_what_it_reads(self) -> None:
        started = self.trained("first", steps=1).entry
        (started.parent / "checkpoint.safetensors").unlink()
        again = self.write(description(start_from=str(started)), "again.json")
        own = self.folder / "own" / "tiny-pretrained.json"
        own.parent.mkdir()
        own.write_text(json.dumps(description()))
        for path in (own, again):
            out = (own if path == own else started).parent
            before = {file: file.read_bytes() for file in out.glob("tiny*")}
            with self.subTest(path), self.assertRaisesRegex(InputError, "would be replaced"):
                pretrain(path, out, data=self.world, steps=1, runtime=Runtime("cpu"))
            self.assertEqual({file: file.read_bytes() for file in out.glob("tiny*")}, before)

    def test_a_class_that_no_case_shows_is_reported(self) -> None:
        data = description()
        data["data"][0] |= {"labels": {"4": "bean", "9": "pea"}, "annotated": "all"}
        path = self.write(data, "unseen.json")
        with self.assertRaisesRegex(InputError, "has voxels of the class 'pea'"):
            pretrain(path, self.folder, steps=1, runtime=Runtime("cpu"))

    def test_an_unfinished_run_is_neither_overwritten_nor_mixed_up(self) -> None:
        self.trained(steps=1)
        with self.assertRaisesRegex(InputError, "--resume"):
            self.trained(steps=1)
        for other in ({"steps": 2}, {"steps": 1, "seed": 1}):
            with self.assertRaisesRegex(InputError, "another assembly, seed"):
                self.trained(resume=True, **other)
        (self.folder / "run" / "checkpoint.safetensors").write_bytes(b"no such file")
        with self.assertRaisesRegex(InputError, "damaged"):
            self.trained(steps=1, resume=True)

    def test_it_can_start_from_another_model(self) -> None:
        first = self.trained("first", steps=1)
        data = description(start_from=str(first.entry))
        network = build_network(read_assembly(self.write(data, "second.json")), seed=5)
        wanted = dict(own_tensors(first.network))
        for name, tensor in own_tensors(network):
            if name.startswith("backbone") and not name.endswith("tracked"):
                if "output_block" not in name:
                    torch.testing.assert_close(tensor, wanted[name], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(
            network.heads[0].weight[:3], wanted["heads.0.weight"][:3], atol=1e-3, rtol=1e-3
        )
        data["architecture"]["filters"] = [4, 6, 10]
        with self.assertRaisesRegex(InputError, "another architecture"):
            build_network(read_assembly(self.write(data, "second.json")), seed=5)

    def test_a_class_that_the_model_to_start_from_lacks_starts_at_its_frequency(self) -> None:
        first = self.trained("first", steps=1)
        data = description(start_from=str(first.entry))
        data = json.loads(json.dumps(data).replace('"pod"', '"new"'))
        assembly = read_assembly(self.write(data, "second.json"))
        network = build_network(assembly, seed=5)
        taken, random = (network.heads[n].bias.detach().clone() for n in (0, 1))
        parts = torch.tensor([0.2, 0.3, 0.4])
        network.start_at(parts)
        row = data["classes"].index("new")
        for number, (head, before) in enumerate(zip(network.heads, (taken, random), strict=False)):
            for n in range(3):
                expected = torch.logit(parts[n]) if number or n == row else before[n]
                self.assertAlmostEqual(float(head.bias.detach()[n]), float(expected), places=5)

    def test_the_command(self) -> None:
        out = self.folder / "command"
        ran = run("pretrain", str(self.path), "--out", str(out), "--steps", "1", "--device", "cpu")
        self.assertEqual(
            (ran.status, ran.out.splitlines()[-1]), (0, str(out / "tiny-pretrained.json"))
        )
        self.assertIn("preparing volumes\npre-training\n", ran.err)
        ran = run("pretrain", str(self.path), "--out", str(out), "--device", "cpu", "--events")
        self.assertEqual(ran.status, 2)
        self.assertEqual([e["event"] for e in ran.events], ["started", "failed"])


SCRIPT = """
import sys, os, torch
from safetensors.torch import save_file
from FewShotSegLib.pipeline.runtime import Runtime
from FewShotSegLib.pretraining.network import build_network
from FewShotSegLib.pretraining.run import pretrain
from FewShotSegLib.pretraining.state import own_tensors
torch.set_num_threads(1)
result = pretrain(sys.argv[1], sys.argv[2], runtime=Runtime("cpu"))
tensors = {k: v.detach().contiguous().clone() for k, v in own_tensors(result.trainer.network)}
save_file(tensors, sys.argv[2] + f"/rank{os.environ['RANK']}.safetensors")
"""


class SeveralProcesses(World):
    """Two processes under torchrun are one training over the crops of both."""

    def test_both_have_the_weights_of_one_process_with_the_mean_gradient(self) -> None:
        self.folder.mkdir()
        script = self.folder / "script.py"
        script.write_text(SCRIPT)
        # It looks for a free port itself, and keeps it: nothing can take it in between.
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        command += ["--standalone", "--local-addr", "127.0.0.1"]
        done = subprocess.run(
            [*command, str(script), str(self.path), str(self.folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=900,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        ranks = [load_file(self.folder / f"rank{n}.safetensors") for n in range(2)]
        alone = self.in_one_process()
        for name, tensor in ranks[0].items():
            self.assertTrue(torch.equal(tensor, ranks[1][name]), name)
            torch.testing.assert_close(tensor, alone[name], atol=1e-5, rtol=1e-4, msg=name)
        find_model(str(self.folder / "tiny-pretrained.json")).backbone  # noqa: B018

    def in_one_process(self) -> dict[str, Tensor]:
        """The same training, one rank's crops after the other."""
        assembly = read_assembly(self.path)
        trainer = Trainer(assembly, self.cases(assembly), Ranks(torch.device("cpu")), 0)
        trainer.sampler.world = 2
        for step in range(assembly.training.steps):
            start = [buffer.clone() for buffer in trainer.network.buffers()]
            parts = []
            for rank in range(2):
                with torch.no_grad():
                    for buffer, value in zip(trainer.network.buffers(), start, strict=True):
                        buffer.copy_(value)
                trainer.gradients(step, trainer.sampler.draw(step, rank))
                parts.append([tensor.clone() for tensor in trainer.shared()])
            with torch.no_grad():
                for tensor, one, other in zip(trainer.shared(), *parts, strict=True):
                    tensor.copy_((one + other) / 2)
            trainer.update(step)
        return dict(own_tensors(trainer.network))


if __name__ == "__main__":
    unittest.main()
