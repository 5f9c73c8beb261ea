"""What Dice an adapter says is to be expected, against what it comes to on other volumes.

    python Testing/benchmarks/expected.py DATA --structures 4=parotid_right,5=parotid_left \
        --shots 3 5 --draws 4 --queries 4 --cache FOLDER

Each draw takes supports and other volumes at random from a folder of annotated ones, trains an
adapter as a user does, and compares what its file says of each structure with the Dice of the
others, segmented as a user does. Printed are both of each draw and structure, and over all of them:
the mean difference (bias), the rank correlation, how often a volume's Dice was within its interval
(80 % are promised), and what the measuring took beside the training.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from FewShotSegLib.core.annotation import dice
from FewShotSegLib.core.options import AdaptOptions
from FewShotSegLib.core.tables import text_table
from FewShotSegLib.io.pairs import Pair, find_pairs
from FewShotSegLib.pipeline import Runtime, adapt, read_support, segment


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--structures", required=True)
    parser.add_argument("--model")
    parser.add_argument("--method", default="adapter")
    parser.add_argument("--shots", type=int, nargs="+", default=[3])
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no draw later")
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    end = time.monotonic() + 60 * args.minutes
    pairs, rows = find_pairs(args.data), []
    for number in range(args.draws):
        for shots in args.shots:
            if time.monotonic() < end:
                chosen = random.Random(1000 * shots + number).sample(pairs, shots + args.queries)
                rows += draw(args, number, chosen[:shots], chosen[shots:])
    header = ["shots", "draw", "structure", "expected", "interval", "true", "within"]
    print(text_table(header, [row[:7] for row in rows], ">> > >"))
    summarise(rows)


def draw(
    args: argparse.Namespace, number: int, supports: Sequence[Pair], queries: Sequence[Pair]
) -> list[tuple]:
    """The rows of one training, and below them its numbers."""
    times: dict[str, float] = {}
    phase = ["", 0.0]

    def listen(event: dict) -> None:
        if event["event"] in ("phase", "result"):
            now = time.process_time()
            times[phase[0]] = times.get(phase[0], 0.0) + now - phase[1]
            phase[:] = [event.get("phase", ""), now]

    runtime = Runtime("cpu", args.cache, events=listen)
    options = AdaptOptions(
        structures=args.structures, model=args.model, method=args.method, seed=number
    )
    trained = adapt([(p.image, p.segmentation) for p in supports], None, options, runtime=runtime)
    listen({"event": "result"})
    found: dict[str, list[float]] = {s.name: [] for s in trained.structures}
    for pair in queries:
        truth = read_support(pair.image, pair.segmentation, trained.structures).annotation
        masks = segment(trained, pair.image, model=args.model, runtime=runtime).masks
        for name, values in found.items():
            mask = truth.mask(name)
            if mask is not None and mask.any():
                values.append(dice(mask, masks[name]))
    rows = []
    for name, values in found.items():
        said = trained.expected.structures[name]
        low, high = said.interval()
        within = [low <= value <= high for value in values]
        shown = (f"{said.expected:.3f}", f"{low:.2f} to {high:.2f}", f"{np.mean(values):.3f}")
        row = (str(len(supports)), str(number), name, *shown, f"{sum(within)} of {len(within)}")
        rows.append((*row, said.expected, float(np.mean(values)), within, times))
        print(*row, *(f"{k} {times[k]:.1f} s" for k in ("train", "validate")), flush=True)
    return rows


def summarise(rows: Sequence[tuple]) -> None:
    """The numbers over all draws and structures, by shots and of all."""
    groups = {shots: [r for r in rows if r[0] == shots] for shots in sorted({r[0] for r in rows})}
    for name, group in [*groups.items(), ("all", list(rows))]:
        said, true = (np.array([row[n] for row in group]) for n in (7, 8))
        within = [hit for row in group for hit in row[9]]
        ratio = sum(r[10]["validate"] for r in group) / sum(r[10]["train"] for r in group)
        print(
            f"{name} shots: {len(group)} draws and structures, bias {np.mean(said - true):+.3f}, "
            f"mean absolute difference {np.mean(abs(said - true)):.3f}, rank correlation "
            f"{spearmanr(said, true).statistic:.2f}, {np.mean(within):.0%} of {len(within)} "
            f"within the 80 % interval, measuring took {ratio:.2f} of the training (CPU seconds)"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
