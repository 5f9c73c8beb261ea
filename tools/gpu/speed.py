"""Speeds of a device beside the CPU's: windows of features, and episodes of pre-training, a second.

python tools/gpu/speed.py --recipe recipe.json --pack pack.npz --device cuda --out speed.json
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from FewShotSegLib.compute.precision import at_speed
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pretraining.packed.pack import read_pack
from FewShotSegLib.pretraining.packed.recipe import read_recipe
from FewShotSegLib.pretraining.packed.trainer import EpisodeTrainer

TIMES = 3


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    side = 96 if args.scale == 1 else 32
    recipe, pack = read_recipe(args.recipe), read_pack(args.pack)
    found: dict[str, float] = {}
    for device in dict.fromkeys(("cpu", args.device)):
        where = torch.device(device)
        network = find_model("embedded").backbone
        found[f"{device}: windows of {side} a second"] = windows(network, side, where)
    for batch in (1, 4, 16) if args.scale == 1 else (1,):
        plan = replace(recipe.training, batch=batch)
        trainer = EpisodeTrainer(replace(recipe, training=plan), pack, 0, torch.device(args.device))
        found[f"{args.device}: episodes a second, batch {batch}"] = episodes(trainer)
    args.out.write_text(json.dumps(found, indent=2) + "\n")


@torch.inference_mode()
def windows(network: torch.nn.Module, side: int, device: torch.device) -> float:
    """Passes of a window a second, in the device's fast precision."""
    network = network.to(device, memory_format=torch.channels_last_3d)
    image = torch.rand(1, 1, side, side, side, device=device)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    for number in range(TIMES + 1):
        if number == 1:
            wait(device)
            start = time.perf_counter()
        with at_speed(device):
            network.features(image)
    wait(device)
    return round(TIMES / (time.perf_counter() - start), 3)


def episodes(trainer: EpisodeTrainer) -> float:
    """Episodes a second, after a first step."""
    start, first = 0.0, 0
    for number, _ in enumerate(trainer.run()):
        if number == 0:
            wait(trainer.device)
            start, first = time.perf_counter(), trainer.done
        if number == TIMES:
            break
    wait(trainer.device)
    return round((trainer.done - first) / (time.perf_counter() - start), 3)


def wait(device: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
