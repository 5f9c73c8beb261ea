"""A simulated clinician: one annotated volume, then the result on a next one corrected, and so on.

    python Testing/benchmarks/loop.py OPENKBP/dev --structures 4=parotid_right,5=parotid_left \
        --rounds 5 --queries 6 --cache FOLDER

The reference stands for the correction. Each round adds a volume, goes on from the adapter of the
round before (``adapt --continue``), and segments the same unseen patients. Printed are the CPU
seconds to the adapter (reading, features, training) and to its result on the next volume, and the
Dice on the unseen patients; below, of an adapter trained anew on the last round's supports. On two
cores one waits about half of these seconds. The next volume's features count in its result.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from FewShotSegLib.core.annotation import dice
from FewShotSegLib.core.options import AdaptOptions
from FewShotSegLib.core.tables import text_table
from FewShotSegLib.io.pairs import Pair, find_pairs
from FewShotSegLib.pipeline import Runtime, adapt, read_support, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter


def main() -> None:
    """Run the rounds and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--structures", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pairs = find_pairs(args.data)
    chosen = random.Random(args.seed).sample(pairs, args.rounds + 1 + args.queries)
    supports, unseen = chosen[: args.rounds + 1], chosen[args.rounds + 1 :]
    runtime, current = Runtime("cpu", args.cache), None
    rows: list[tuple[str, ...]] = []

    def tell(name: str, to_adapter: float, to_result: float, adapter: TrainedAdapter) -> None:
        value = _mean_dice(adapter, unseen, runtime)
        rows.append((name, f"{to_adapter:.0f}", f"{to_result:.0f}", f"{value:.3f}"))
        print(*rows[-1], flush=True)

    for number in range(1, args.rounds + 1):
        given = [(p.image, p.segmentation) for p in supports[:number]]
        options = AdaptOptions(structures=args.structures, seed=args.seed, validate=False)
        start = time.process_time()
        current = adapt(given, None, options, continue_from=current, runtime=runtime)
        waited = time.process_time() - start
        segment(current, supports[number].image, runtime=runtime)
        corrected = time.process_time() - start - waited
        tell(str(number), waited, corrected, current)
    start = time.process_time()
    fresh = adapt(given, None, options, runtime=runtime)
    tell("anew", time.process_time() - start, 0.0, fresh)
    header = ["round", "CPU s to the adapter", "CPU s to its result", "Dice"]
    print(text_table(header, rows, ">>>>"))


def _mean_dice(adapter: TrainedAdapter, unseen: Sequence[Pair], runtime: Runtime) -> float:
    """Over unseen patients and structures that they show."""
    values = []
    for pair in unseen:
        truth = read_support(pair.image, pair.segmentation, adapter.structures).annotation
        masks = segment(adapter, pair.image, runtime=runtime).masks
        for structure in adapter.structures:
            mask = truth.mask(structure.name)
            if mask is not None and mask.any():
                values.append(dice(mask, masks[structure.name]))
    return float(np.mean(values))


if __name__ == "__main__":
    main()
