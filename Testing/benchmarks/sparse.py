"""The same number of drawn slices in one volume or in several: what each brings on new volumes.

    python Testing/benchmarks/sparse.py DATA --structures 4=parotid_right,5=parotid_left \
        --slices 10 --shots 5 --draws 3 --queries 4 --json RESULTS.json --cache FOLDER

Each draw takes supports and other volumes at random from a folder of whole annotations. Of these a
part is kept, on slices that are evenly spread over the structures from a random start. On that an
adapter is trained, as ``fewshotseg adapt --sparse`` does:

- ``one volume``: all slices in the first support;
- ``spread``: the same number in all over all supports;
- ``spread and empty``: as ``spread``, and known to be empty on as many slices elsewhere;
- ``taken for whole``: as ``spread``, but as if everything else were background;
- ``one whole``, ``all whole``: the whole annotation of the first support, and of all.

The others are segmented as a user does. Printed is the mean Dice on them over structures and
volumes, its standard deviation over the draws, and the Dice without transduction.

With ``--sizes`` nothing is trained: printed is how near the sizes are that slices show, from
three random starts in each volume and for each structure by itself.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from FewShotSegLib.compute.known_voxels import axis_of, estimate_size, known_slices
from FewShotSegLib.core.annotation import dice
from FewShotSegLib.core.atomic import write_json
from FewShotSegLib.core.options import AdaptOptions
from FewShotSegLib.core.tables import text_table
from FewShotSegLib.io.pairs import Pair, find_pairs
from FewShotSegLib.pipeline import Runtime, adapt, read_support, segment
from FewShotSegLib.training.support_set import Support

WAYS = (*("one volume", "spread", "spread and empty", "taken for whole", "one whole", "all whole"),)
BEYOND = 0.5
"""How far from the structures the empty slices lie at most, as a part of their extent."""


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--structures", required=True)
    parser.add_argument("--model")
    parser.add_argument("--plane", default="axial")
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first draw's number")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, metavar="WAY")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--sizes", action="store_true", help="estimate sizes, and train nothing")
    args = parser.parse_args()
    pairs, rows = find_pairs(args.data), []
    if args.sizes:
        print(sizes(args, pairs))
        return
    for number in range(args.first, args.first + args.draws):
        chosen = random.Random(number).sample(pairs, args.shots + args.queries)
        rows += draw(args, number, chosen[: args.shots], chosen[args.shots :])
        if args.json:
            write_json(args.json, {"arguments": arguments(args), "rows": rows})
    print(summary(rows))


def arguments(args: argparse.Namespace) -> dict:
    """What was asked for, without paths of this machine."""
    kept = ("structures", "model", "plane", "slices", "shots", "draws", "first", "ways", "queries")
    return {name: getattr(args, name) for name in kept} | {"data": args.data.name}


def draw(
    args: argparse.Namespace, number: int, supports: Sequence[Pair], queries: Sequence[Pair]
) -> list[dict]:
    """The rows of one draw: one for each way to annotate."""
    rng = np.random.default_rng(number)
    read = [read_support(p.image, p.segmentation, args.structures) for p in supports]
    each = args.slices // len(read)
    few = [on_slices(support, args.plane, each, rng) for support in read]
    ways = {
        "one volume": [on_slices(read[0], args.plane, args.slices, rng)],
        "spread": few,
        "spread and empty": [
            with_empty(s, w, args.plane, each, rng) for s, w in zip(few, read, strict=True)
        ],
        "taken for whole": [replace(s, annotation=replace(s.annotation, known=None)) for s in few],
        "one whole": read[:1],
        "all whole": read,
    }
    ways = {way: ways[way] for way in args.ways}
    runtime = Runtime("cpu", args.cache)
    options = AdaptOptions(
        structures=args.structures, model=args.model, seed=number, effort="quick"
    )
    rows = []
    for way, given in ways.items():
        trained = adapt(given, None, options, runtime=runtime)
        scores: dict[str, list[float]] = {"dice": [], "unrefined": []}
        for pair in queries:
            truth = read_support(pair.image, pair.segmentation, trained.structures).annotation
            result = segment(trained, pair.image, model=args.model, runtime=runtime)
            for structure in trained.structures:
                mask = truth.mask(structure.name)
                if mask is not None:
                    scores["dice"].append(dice(mask, result.masks[structure.name]))
                    scores["unrefined"].append(dice(mask, result.unrefined[structure.name]))
        drawn = sum(slices_of(support, args.plane) for support in given)
        row = {
            "draw": number,
            "way": way,
            "volumes": len(given),
            "slices": drawn,
            **{name: round(float(np.mean(values)), 4) for name, values in scores.items()},
            "each": [round(value, 4) for value in scores["dice"]],
            "sizes": [trained.priors[s.name].basis or "whole" for s in trained.structures],
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def sizes(args: argparse.Namespace, pairs: Sequence[Pair]) -> str:
    """A table of sizes that were estimated from some slices, against the whole annotation's."""
    counts, rng = (3, 4, 5, 7, 10), np.random.default_rng(0)
    found: dict[int, list[tuple[float, float] | None]] = {count: [] for count in counts}
    for pair in pairs:
        support = read_support(pair.image, pair.segmentation, args.structures)
        grid = support.volume.grid
        for name, mask in support.annotation.masks.items():
            alone = replace(support, annotation=replace(support.annotation, masks={name: mask}))
            true = float(np.count_nonzero(mask)) * grid.voxel_volume
            for count in [n for n in counts for _ in range(3)]:
                annotation = on_slices(alone, args.plane, count, rng).annotation
                estimate = estimate_size(
                    mask & annotation.known, known_slices(annotation.known), grid
                )
                known = estimate and (estimate.size / true - 1, estimate.uncertainty / true)
                found[count].append(known)
    lines = []
    for count, rows in found.items():
        known = [row for row in rows if row is not None]
        error, uncertainty = np.array(known).T
        lines.append(
            [
                str(count),
                f"{len(known)} of {len(rows)}",
                f"{error.mean():+.1%}",
                f"{error.std():.1%}",
                f"{uncertainty.mean():.1%}",
                f"{np.mean(abs(error) <= 2 * uncertainty):.0%}",
            ]
        )
    header = ["slices", "estimated", "bias", "sd of error", "its own sd", "within twice that"]
    return text_table(header, lines, ">>>>>>")


def used_slices(support: Support, axis: int) -> np.ndarray:
    """The numbers of the slices with any structure."""
    across = tuple(a for a in range(3) if a != axis)
    return np.flatnonzero(
        np.any([mask.any(across) for mask in support.annotation.masks.values()], 0)
    )


def slices_of(support: Support, plane: str) -> int:
    """How many slices have been drawn on."""
    return len(used_slices(support, axis_of(plane, support.volume.grid)))


def on_slices(support: Support, plane: str, count: int, rng: np.random.Generator) -> Support:
    """Of a whole annotation what is on so many slices, evenly spread from a random start."""
    axis = axis_of(plane, support.volume.grid)
    used = used_slices(support, axis)
    places = (np.arange(count) + rng.random()) * len(used) / count
    known = np.zeros(support.volume.grid.shape, bool)
    np.moveaxis(known, axis, 0)[used[np.unique(places.astype(int))]] = True
    annotation = support.annotation
    masks = {name: mask & known for name, mask in annotation.masks.items()}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    return replace(support, annotation=replace(annotation, masks=masks, known=known))


def with_empty(
    sparse: Support, whole: Support, plane: str, count: int, rng: np.random.Generator
) -> Support:
    """With slices known to be empty, near the structures or anywhere, half each."""
    axis = axis_of(plane, whole.volume.grid)
    used, total = used_slices(whole, axis), whole.volume.grid.shape[axis]
    empty = np.setdiff1d(np.arange(total), used)
    reach = BEYOND * len(used)
    near = empty[(empty >= used[0] - reach) & (empty <= used[-1] + reach)]
    chosen = [rng.choice(near if n % 2 == 0 and len(near) else empty) for n in range(count)]
    known = sparse.annotation.known.copy()
    np.moveaxis(known, axis, 0)[chosen] = True
    return replace(sparse, annotation=replace(sparse.annotation, known=known))


def summary(rows: Sequence[dict]) -> str:
    """A table with a line a way."""
    header = ["annotated", "volumes", "slices", "Dice", "sd of draws", "unrefined"]
    lines = []
    for way in dict.fromkeys(row["way"] for row in rows):
        own = [row for row in rows if row["way"] == way]
        scores = [row["dice"] for row in own]
        lines.append(
            [
                way,
                str(own[0]["volumes"]),
                f"{np.mean([row['slices'] for row in own]):.0f}",
                f"{np.mean(scores):.3f}",
                f"{np.std(scores, ddof=1):.3f}" if len(scores) > 1 else "-",
                f"{np.mean([row['unrefined'] for row in own]):.3f}",
            ]
        )
    return text_table(header, lines, " >>>>>")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
