"""Dice against the number of supports, on a folder of images and segmentations.

    python Testing/benchmarks/few_shot.py DATA --structures 4=parotid_right,5=parotid_left

For each draw the cases are shuffled; the first K are the supports (so that those of 5 shots are
among those of 10) and the queries are the cases after the largest K: no query is ever a support.
Labels of a query are read by the evaluation alone, after its result is final. Adapter + TI is what
`fewshotseg segment` does by default: a copy of the trained adapter is refined for each query by the
size prior of its supports alone.

One JSON line a result is appended to OUT/results.jsonl; what is there is not run again. The table
shows the mean over structures, queries and draws, and the standard deviation over the draws of the
draw's mean. A cell with results missing says so.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch
from safetensors.torch import save_model

from FewShotSegLib.annotation_files import parse_structures
from FewShotSegLib.backbones import ARCHITECTURES
from FewShotSegLib.evaluation import dice
from FewShotSegLib.model_files import DEFAULT_MODEL
from FewShotSegLib.model_registry import find_model
from FewShotSegLib.pairs import Pair, find_pairs, read_names
from FewShotSegLib.pipeline import Runtime, adapt, read_support, segment
from FewShotSegLib.training import TrainingSettings

METHODS = {"linear-probe": "Linear Probe", "adapter-1x1": "Adapter 1x1x1", "adapter": "Adapter"}
WITH_TI = "Adapter + TI"


def main() -> None:
    """Run what is missing, then print the table."""
    args = _arguments()
    pairs = find_pairs(args.data)
    names = args.structures or read_names(args.data)
    structures = parse_structures(names) if names else None
    largest = max(args.shots)
    if len(pairs) < largest + args.queries:
        raise SystemExit(f"{len(pairs)} cases are too few for {largest} shots and the queries.")
    if args.random_weights:
        args.model = _untrained(args.model, args.out)
    results = Results(args.out / "results.jsonl")
    runtime = Runtime(cache=args.cache)
    supports_of = {}
    for draw in range(args.draws):
        order = np.random.default_rng([2024, draw]).permutation(len(pairs))
        chosen = [pairs[index] for index in order]
        queries = chosen[largest : largest + args.queries]
        for shots in args.shots:
            for method in args.methods:
                setting = {
                    "model": args.model,
                    "features": args.features,
                    "method": method,
                    "shots": shots,
                    "draw": draw,
                }
                todo = [query for query in queries if not results.has(setting, query.name)]
                if not todo:
                    continue
                for pair in chosen[:shots]:
                    if pair.name not in supports_of:
                        support = read_support(pair.image, pair.segmentation, structures)
                        supports_of[pair.name] = replace(support, subject=pair.name)
                supports = [supports_of[pair.name] for pair in chosen[:shots]]
                start = time.perf_counter()
                trained = adapt(
                    supports,
                    structures=structures,
                    model=args.model,
                    method=method,
                    features=args.features,
                    seed=draw,
                    settings=TrainingSettings(),
                    runtime=runtime,
                )
                seconds = time.perf_counter() - start
                print(f"{setting} trained in {seconds:.0f} s", flush=True)
                for query in todo:
                    results.add(
                        setting, _run(query, trained, method, structures, args.model, runtime)
                    )
    print(results.table(args))


def _untrained(model: str, folder: Path) -> str:
    """The path of an entry like ``model``'s, with random weights and no classes."""
    entry = find_model(model).entry.to_json()
    torch.manual_seed(0)
    options = {k: v for k, v in entry["architecture"].items() if k != "name"}
    network = ARCHITECTURES[entry["architecture"]["name"]](**options)
    name = f"random-{Path(model).stem}"
    folder.mkdir(parents=True, exist_ok=True)
    save_model(network, folder / f"{name}.safetensors")
    fields = {"id": name, "title": f"{entry['title']}, untrained", "classes": {}}
    fields |= {"weights": f"{name}.safetensors", "sha256": None, "size": None}
    del entry["installed"]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**entry, **fields}), encoding="utf-8")
    return str(path)


def _run(query: Pair, trained, method: str, structures, model: str, runtime: Runtime) -> dict:
    """Segment one query, then compare with its labels."""
    start = time.perf_counter()
    result = segment(
        trained,
        query.image,
        transductive=method == "adapter",
        model=model,
        runtime=runtime,
    )
    seconds = time.perf_counter() - start
    truth = read_support(query.image, query.segmentation, structures).annotation.masks
    scores = {
        name: {
            "dice": dice(truth[name], result.unrefined[name]),
            "dice_ti": dice(truth[name], result.masks[name]),
        }
        for name in truth
    }
    refined = result.report["refined_epochs"]
    return {"query": query.name, "scores": scores, "seconds": seconds, "refined_epochs": refined}


class Results:
    """The rows of a benchmark, kept as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = [json.loads(line) for line in lines]

    def has(self, setting: dict, query: str) -> bool:
        """Whether this was run before."""
        wanted = {**setting, "query": query}
        return any(all(row[k] == v for k, v in wanted.items()) for row in self.rows)

    def add(self, setting: dict, row: dict) -> None:
        """Keep one result."""
        self.rows.append({**setting, **row})
        with self.path.open("a") as stream:
            stream.write(json.dumps(self.rows[-1]) + "\n")

    def table(self, args: argparse.Namespace) -> str:
        """The means as a Markdown table."""
        cells = defaultdict(lambda: defaultdict(list))
        for row in self.rows:
            if (row["model"], row["features"]) != (args.model, args.features):
                continue
            for score in row["scores"].values():
                cells[METHODS[row["method"]], row["shots"]][row["draw"]].append(score["dice"])
                if row["method"] == "adapter":
                    cells[WITH_TI, row["shots"]][row["draw"]].append(score["dice_ti"])
        names = [METHODS[method] for method in args.methods]
        names += [WITH_TI] if "adapter" in args.methods else []
        lines = [
            "| mean Dice ± sd | " + " | ".join(f"K = {k}" for k in args.shots) + " |",
            "|---|" + "---|" * len(args.shots),
        ]
        for name in names:
            texts = [_cell(cells[name, k], args) for k in args.shots]
            lines.append(f"| {name} | " + " | ".join(texts) + " |")
        return "\n".join(lines)


def _cell(draws: dict[int, list[float]], args: argparse.Namespace) -> str:
    means = [mean(0.0 if math.isnan(x) else x for x in values) for values in draws.values()]
    if not means:
        return "not run"
    spread = f" ± {stdev(means):.3f}" if len(means) > 1 else ""
    part = "" if len(means) == args.draws else f" ({len(means)} of {args.draws} draws)"
    return f"{mean(means):.3f}{spread}{part}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a folder of images and segmentations")
    parser.add_argument("--structures", help="VALUE=NAME,... (default: all, or labels.json)")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument(
        "--methods", nargs="+", default=["linear-probe", "adapter"], choices=list(METHODS)
    )
    parser.add_argument("--features", choices=("multi", "last"), default="multi")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="the same network and preprocessing, untrained: what the pre-training is worth",
    )
    parser.add_argument("--cache", type=Path, help="feature cache (default: the user's)")
    parser.add_argument("--out", type=Path, default=Path("build/few-shot"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
