"""Whether it pays to choose what to annotate next: Dice on unseen volumes, by rule of choosing.

    python Testing/benchmarks/suggest.py collect ROWS.jsonl --data hippocampus=HIPPOCAMPUS \
        --structures 1=anterior,2=posterior --pool 20 --queries 8 --draws 10 --cache FOLDER
    python Testing/benchmarks/suggest.py table ROWS.jsonl

Each draw takes a pool and unseen volumes at random from a folder of annotated ones. Every rule
chooses from the pool what is annotated first, second, and so on, without looking at annotations of
what it has not chosen; the reference stands for the annotating. After 1, 2, 3 and 5 volumes an
adapter is trained on them, for few epochs, and segments the unseen ones, without transduction.
Beside ``random``, and ``random again``, there are rules that all begin with the same volume:

- ``farthest``: what is farthest from all annotated ones (k-centre); what ``suggest`` does.
- ``representative``: what brings all volumes nearest to an annotated one.
- ``needed``: as ``representative``, each volume counted by what the last adapter lacks of a Dice
  of 1 on it, as the trust model expects (by all but adapters that were held out: none are trained).
- ``uncertain``: what the last adapter is expected to do worst.

A row a training is kept; it goes on where it was stopped. ``table`` prints, for each rule and
number of volumes, the mean Dice and its standard deviation over the draws, and by how much it is
above ``random`` of the same draws, with the standard error of that.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from FewShotSegLib.core.annotation import dice
from FewShotSegLib.core.options import AdaptOptions
from FewShotSegLib.core.tables import text_table
from FewShotSegLib.inference.choosing import (
    Choice,
    choice_of,
    distances,
    farthest_order,
    usual_scale,
)
from FewShotSegLib.inference.evidence import describe
from FewShotSegLib.io.pairs import Pair, find_pairs
from FewShotSegLib.io.volumes import read_image
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline import Runtime, adapt, read_support, segment
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter

SHOTS = (1, 2, 3, 5)
RULES = ("random", "random again", "representative", "farthest", "needed", "uncertain")
BY_ADAPTER = ("needed", "uncertain")
"""Rules that look at what the last adapter makes of the pool."""


def main() -> None:
    """Collect or print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    sub = commands.add_parser("collect")
    sub.add_argument("rows", type=Path)
    sub.add_argument("--data", required=True, metavar="NAME=FOLDER")
    sub.add_argument("--structures", required=True)
    sub.add_argument("--model", required=True)
    sub.add_argument("--pool", type=int, default=20)
    sub.add_argument("--queries", type=int, default=8)
    sub.add_argument("--draws", type=int, default=10)
    sub.add_argument("--epochs", type=int, default=12)
    sub.add_argument("--rules", nargs="+", choices=RULES, default=RULES)
    sub.add_argument("--minutes", type=float, default=float("inf"), help="begin no draw later")
    sub.add_argument("--cache", type=Path)
    sub.set_defaults(run=collect)
    sub = commands.add_parser("table")
    sub.add_argument("rows", type=Path)
    sub.set_defaults(run=lambda args: print(table(args.rows)))
    args = parser.parse_args()
    args.run(args)


def collect(args: argparse.Namespace) -> None:
    """Run what is not in the file yet."""
    end = time.process_time() + 60 * args.minutes
    name, _, folder = args.data.partition("=")
    pairs, done = find_pairs(Path(folder)), set()
    if args.rows.exists():
        rows = [json.loads(line) for line in args.rows.read_text(encoding="utf-8").splitlines()]
        done = {(row["data"], row["draw"]) for row in rows}
    profiles = _profiles(args, pairs)
    for number in range(args.draws):
        if (name, number) in done or time.process_time() > end:
            continue
        start = time.process_time()
        rows = Draw(args, pairs, profiles, number).rows()
        with args.rows.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"data": name, **row}) + "\n" for row in rows)
        print(name, number, f"{time.process_time() - start:.0f} s CPU", flush=True)


def representative_order(
    between: np.ndarray, known: np.ndarray, weights: np.ndarray | None = None
) -> list[Choice]:
    """All volumes, each next one that which brings all volumes nearest to an annotated one.

    The first of all is the most typical one (the medoid). An odd one, which stands for itself
    alone, comes when it is farther off than all that is left of the others together.

    Args:
        between: (n, n) distances of the volumes. known: (n, m) those from annotated ones.
        weights: (n,) how much it matters that a volume comes near; equal where not given.
    """
    count = len(between)
    weights = np.ones(count) if weights is None else weights
    nearest = known.min(1) if known.shape[1] else np.full(count, np.inf)
    left, order = list(range(count)), []
    while left:
        costs = [float(weights @ np.minimum(nearest, between[:, j])) for j in left]
        chosen = left.pop(int(np.argmin(costs)))
        order.append(choice_of(chosen, nearest, between))
        nearest = np.minimum(nearest, between[:, chosen])
    return order


def _profiles(args: argparse.Namespace, pairs: Sequence[Pair]) -> list[Any]:
    """Every volume in a few numbers, as ``fewshotseg suggest`` has them."""
    model = find_model(args.model)
    volumes = [read_image(pair.image) for pair in pairs]
    (fitted,) = model.entry.preprocessing.values()
    fitted = fitted.fitted([volume.grid for volume in volumes])
    source = Runtime("cpu", args.cache).source(model, fitted)
    found = [source(volume) for volume in volumes]
    return [describe(features, range(len(features.levels)), ()) for features in found]


class Draw:
    """One pool with its unseen volumes, and all rules on it."""

    def __init__(
        self, args: argparse.Namespace, pairs: Sequence[Pair], profiles: Sequence[Any], number: int
    ) -> None:
        self.args, self.number = args, number
        chosen = random.Random(100 + number).sample(range(len(pairs)), args.pool + args.queries)
        self.pool = [pairs[n] for n in chosen[: args.pool]]
        self.unseen = [pairs[n] for n in chosen[args.pool :]]
        own = [profiles[n] for n in chosen[: args.pool]]
        self.between = distances(own, own, usual_scale(own))
        self.runtime = Runtime("cpu", args.cache)
        self._trained: dict[tuple[int, ...], tuple[TrainedAdapter, dict[str, Any]]] = {}

    def rows(self) -> list[dict[str, Any]]:
        """A row a rule and number of volumes."""
        rows = []
        for rule in self.args.rules:
            chosen: list[int] = []
            for shots in SHOTS:
                chosen = self.choose(rule, chosen, shots)
                _, row = self.train(tuple(chosen))
                names = [self.pool[n].image.name for n in chosen]
                head = {"draw": self.number, "rule": rule, "shots": shots}
                rows.append({**head, "epochs": self.args.epochs, **row, "chosen": names})
        return rows

    def choose(self, rule: str, chosen: list[int], shots: int) -> list[int]:
        """As many volumes as that, those chosen before first."""
        count = len(self.pool)
        if rule.startswith("random"):
            return random.Random(f"{rule}{self.number}").sample(range(count), shots)
        left = [n for n in range(count) if n not in chosen]
        between, known = self.between[np.ix_(left, left)], self.between[np.ix_(left, chosen)]
        needed = shots - len(chosen)
        if rule in BY_ADAPTER and chosen:
            adapter, _ = self.train(tuple(chosen))
            lacking = np.array([1 - self.expected(adapter, n) for n in left])
            if rule == "uncertain":
                return chosen + [left[n] for n in np.argsort(-lacking, kind="stable")[:needed]]
            order = representative_order(between, known, lacking)
        elif rule == "farthest":
            order = farthest_order(between, known)
        else:
            order = representative_order(between, known)
        return chosen + [left[one.number] for one in order[:needed]]

    def expected(self, adapter: TrainedAdapter, number: int) -> float:
        """The Dice that an adapter is expected to reach on a volume of the pool."""
        image = self.pool[number].image
        result = segment(adapter, image, transductive=False, runtime=self.runtime)
        found = [entry["trust"]["dice"] or 0.0 for entry in result.report["structures"].values()]
        return float(np.mean(found))

    def train(self, chosen: tuple[int, ...]) -> tuple[TrainedAdapter, dict[str, Any]]:
        """An adapter of these volumes, and what it comes to on the unseen ones."""
        if chosen in self._trained:
            return self._trained[chosen]
        options = AdaptOptions(
            structures=self.args.structures, model=self.args.model, validate=False
        )
        supports = [(self.pool[n].image, self.pool[n].segmentation) for n in chosen]
        adapter = adapt(supports, None, options, epochs=self.args.epochs, runtime=self.runtime)
        values: dict[str, list[float]] = {}
        for pair in self.unseen:
            truth = read_support(pair.image, pair.segmentation, adapter.structures).annotation
            masks = segment(adapter, pair.image, transductive=False, runtime=self.runtime).masks
            for structure in adapter.structures:
                mask = truth.mask(structure.name)
                if mask is not None and mask.any():
                    value = float(dice(mask, masks[structure.name]))
                    values.setdefault(structure.name, []).append(value)
        row = {"dice": {k: round(float(np.mean(v)), 4) for k, v in values.items()}}
        self._trained[chosen] = adapter, row
        return adapter, row


def _growth(values: dict[tuple[str, int], dict[int, list[float]]]) -> str:
    """How what lacks of a Dice of 1 falls with the number of volumes, of random choices of two and
    more; and what a third one added, draw by draw.

    Args:
        values: Dice by rule and number of volumes, and by draw.
    """
    shots = [n for n in SHOTS if n > 1]
    every = [[v for draw in values["random", n].values() for v in draw] for n in shots]
    lacking = [np.log(1 - np.mean(found)) for found in every]
    power = -np.polyfit(np.log(shots), lacking, 1)[0]
    gains = np.array(every[1]) - np.array(every[0])
    return (
        f"random: what lacks is as the number to the power of {-power:.2f}; a third adds "
        f"{gains.mean():+.3f} ± {gains.std(ddof=1):.3f}"
    )


def table(path: Path) -> str:
    """What was found, in rows."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts = []
    for data in dict.fromkeys(row["data"] for row in rows):
        own = [row for row in rows if row["data"] == data]
        values: dict[tuple[str, int], dict[int, list[float]]] = {}
        for row in own:
            rule = row["rule"].removesuffix(" again")
            found = values.setdefault((rule, row["shots"]), {})
            found.setdefault(row["draw"], []).append(float(np.mean(list(row["dice"].values()))))
        lines = []
        for rule in dict.fromkeys(row["rule"].removesuffix(" again") for row in own):
            cells = [rule]
            for shots in SHOTS:
                mean = {n: np.mean(v) for n, v in values[rule, shots].items()}
                # Of single choices, not of a draw's two.
                every = [v for draw in values[rule, shots].values() for v in draw]
                text = f"{np.mean(every):.3f} ± {np.std(every, ddof=1):.3f}"
                if rule != "random":
                    base = values["random", shots]
                    above = [mean[n] - np.mean(base[n]) for n in mean]
                    error = np.std(above, ddof=1) / np.sqrt(len(above))
                    text += f" ({np.mean(above):+.3f} ± {error:.3f})"
                cells.append(text)
            lines.append(cells)
        draws = len({row["draw"] for row in own})
        texts.append(f"{data}, {draws} draws")
        texts.append(text_table(["rule", *(f"{n} annotated" for n in SHOTS)], lines, "<" + ">" * 4))
        texts.append(_growth(values))
    return "\n".join(texts)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
