"""How well a result's verdict and expected Dice tell the true one: draws collected, a model fitted.

    python Testing/benchmarks/trust.py collect RESULTS.jsonl --shots 2 3 5 --draws 10 --cache DIR \
        --task ct=OPENKBP/dev:1=brainstem,3=mandible,4=parotid_right,5=parotid_left \
        --task mr=HIPPOCAMPUS:1=anterior,2=posterior --wrong ct=A_CT.nii.gz --wrong mr=AN_MR.nii.gz
    python Testing/benchmarks/trust.py fit RESULTS.jsonl --out FewShotSegLib/Resources/trust.json

``collect`` takes supports and other volumes of one half of a folder's patients at random (even
draws of the first half, odd ones of the other), trains an adapter as a user does, segments the
others as a user does, and writes a line a result and structure: its signals, the adapter's expected
Dice, and the true one. Every adapter also segments volumes of the other tasks and those of
``--wrong``, where there is nothing to be found. It goes on where it was stopped.

``fit`` fits the model on one half of the patients and evaluates it on the other, and the other way
round; prints that; and writes the model of all of them.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from FewShotSegLib.core.annotation import dice
from FewShotSegLib.core.geometry import Volume, three
from FewShotSegLib.core.options import AdaptOptions
from FewShotSegLib.io.pairs import Pair, find_pairs
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.pipeline import Runtime, adapt, read_support, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter

MOST_VOXELS = 80
"""Model voxels a side of a volume of something else: at 1 mm a body would take minutes."""


def main() -> None:
    """Collect or fit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("collect")
    sub.add_argument("results", type=Path)
    sub.add_argument("--task", action="append", required=True, metavar="NAME=DATA:STRUCTURES")
    sub.add_argument("--wrong", action="append", default=[], metavar="NAME=IMAGE")
    sub.add_argument("--shots", type=int, nargs="+", default=[2, 3, 5])
    sub.add_argument("--draws", type=int, default=10)
    sub.add_argument("--queries", type=int, default=6)
    sub.add_argument("--minutes", type=float, default=float("inf"), help="begin no draw later")
    sub.add_argument("--cache", type=Path)
    sub.set_defaults(run=collect)
    args = parser.parse_args()
    args.run(args)


def collect(args: argparse.Namespace) -> None:
    """Run what is not in the file yet."""
    end = time.monotonic() + 60 * args.minutes
    tasks: dict[str, tuple[list[Pair], str]] = {}
    for text in args.task:
        name, _, rest = text.partition("=")
        folder, _, structures = rest.partition(":")
        tasks[name] = (find_pairs(Path(folder)), structures)
    others = [tuple(text.split("=", 1)) for text in args.wrong]
    done = set()
    if args.results.exists():
        for line in args.results.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            done.add((row["task"], row["shots"], row["draw"]))
    for number in range(args.draws):
        for shots in args.shots:
            for task, (pairs, structures) in tasks.items():
                if (task, shots, number) in done or time.monotonic() > end:
                    continue
                wrong = _wrong(task, tasks, others, 100 * number + shots)
                rows = draw(args, pairs, structures, shots, number, wrong)
                head = {"task": task, "shots": shots, "draw": number}
                with args.results.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps({**head, **row}) + "\n" for row in rows)


def _wrong(
    task: str,
    tasks: dict[str, tuple[list[Pair], str]],
    others: Sequence[tuple[str, ...]],
    seed: int,
) -> list[tuple[str, Path]]:
    """Two volumes in which there is nothing of a task to be found: of two other sources."""
    found = {name: [p.image for p in pairs] for name, (pairs, _) in tasks.items() if name != task}
    for name, path in others:
        found.setdefault(name, []).append(Path(path))
    rng = random.Random(seed)
    names = rng.sample(sorted(found), min(2, len(found)))
    return [(name, rng.choice(found[name])) for name in names]


def draw(
    args: argparse.Namespace,
    pairs: Sequence[Pair],
    structures: str,
    shots: int,
    number: int,
    wrong: Sequence[tuple[str, Path]],
) -> list[dict[str, Any]]:
    """The rows of one training."""
    order = sorted(pairs, key=lambda pair: pair.image)
    random.Random(7).shuffle(order)
    half = order[number % 2 :: 2]
    chosen = random.Random(1000 * shots + number).sample(half, min(len(half), shots + args.queries))
    start = time.process_time()
    runtime = Runtime("cpu", args.cache)
    trained = adapt(
        [(p.image, p.segmentation) for p in chosen[:shots]],
        None,
        AdaptOptions(structures=structures, seed=number),
        runtime=runtime,
    )
    seconds = trained.training["seconds"]
    rows = []
    for pair in chosen[shots:]:
        truth = read_support(pair.image, pair.segmentation, trained.structures).annotation
        result = segment(trained, pair.image, runtime=runtime)
        for structure in trained.structures:
            mask = truth.mask(structure.name)
            if mask is not None and mask.any():
                value = {
                    "dice": float(dice(mask, result.masks[structure.name])),
                    "unrefined": float(dice(mask, result.unrefined[structure.name])),
                }
                rows.append(_row(trained, result.report, structure.name, pair.image, value))
    for name, image in wrong:
        side = MOST_VOXELS * min(trained.preprocessing.spacing)
        result = segment(trained, _centre(read_image(image), side), runtime=runtime)
        for structure in trained.structures:
            rows.append(_row(trained, result.report, structure.name, image, {"wrong": name}))
    print(
        structures, shots, number, f"{time.process_time() - start:.0f} s", seconds,
        *(f"{r['structure']} {r['dice']:.2f}" for r in rows if "dice" in r), flush=True,
    )  # fmt: skip
    return rows


def _centre(volume: Volume, side: float) -> Volume:
    """The middle of a volume, at most ``side`` mm along each axis."""
    part = []
    for size, spacing in zip(volume.grid.shape, volume.grid.spacing, strict=True):
        kept = min(size, max(2, round(side / spacing)))
        part.append(slice((size - kept) // 2, (size - kept) // 2 + kept))
    grid = volume.grid
    array = np.ascontiguousarray(volume.array[tuple(part)])
    # Where it lies in space does not matter here.
    return Volume(array, replace(grid, shape=three(array.shape)), volume.modality)


def _row(
    trained: TrainedAdapter, report: dict[str, Any], name: str, image: Path, value: dict[str, Any]
) -> dict[str, Any]:
    entry = report["structures"][name]
    return {
        "structure": name,
        "volume": image.name,
        "modality": trained.modality,
        "held_out": entry["expected_dice"]["held_out"],
        "signals": entry["signals"],
        "seconds": report["seconds"],
        **value,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
