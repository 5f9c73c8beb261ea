"""Whether it pays to choose what to annotate next, over many draws: with a probe in closed form.

    python Testing/benchmarks/suggest_probe.py --data hippocampus=HIPPOCAMPUS \
        --structures 1=anterior,2=posterior --model embedded --pool 20 --draws 200 --cache FOLDER

As ``suggest.py``, for which the training of the adapters takes too long for many draws. Here a
ridge regression of each structure on the frozen features takes their place, of voxels drawn in each
volume: its sums of several volumes are those of each, so that any choice is trained in a moment.
The threshold is the one of the best Dice on the annotated voxels. Unseen are all volumes that are
not in the pool. Printed are the mean Dice over the draws, its standard deviation, and by how much
it is above that of a random choice from the same pools, with the standard error.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from suggest import representative_order

from FewShotSegLib.core.annotation import parse_structures
from FewShotSegLib.core.geometry import along_axes
from FewShotSegLib.core.tables import text_table
from FewShotSegLib.features.store import VolumeFeatures
from FewShotSegLib.inference.choosing import distances, farthest_order, usual_scale
from FewShotSegLib.inference.evidence import Description, describe
from FewShotSegLib.io.pairs import find_pairs
from FewShotSegLib.models.registry import find_model
from FewShotSegLib.pipeline import Runtime, read_support
from FewShotSegLib.training.support_set import prepare_support

SHOTS = (1, 2, 3, 5)
INSIDE, OUTSIDE = 1500, 6000
"""Most voxels that are drawn within each structure, and outside all."""
RIDGE = 1e-3
ORDERS = {"representative": representative_order, "farthest": farthest_order}


class Sample:
    """One volume: voxels drawn in it, and what a regression needs of them.

    Attributes:
        x: (n, C + 1) features, a one last. y: (n, K) whether inside. weights: (n,) voxels that
            each stands for.
    """

    def __init__(self, features: VolumeFeatures, targets: np.ndarray, seed: int) -> None:
        rng = np.random.default_rng(seed)
        chosen, weights = [], []
        for mask in (*targets, ~targets.any(0)):
            found = np.argwhere(mask)
            most = OUTSIDE if len(chosen) == len(targets) else INSIDE
            kept = found[rng.permutation(len(found))[:most]]
            chosen.append(kept)
            weights.append(np.full(len(kept), len(found) / max(1, len(kept))))
        places = np.concatenate(chosen)
        self.weights = np.concatenate(weights)
        parts = []
        for level, scale, stride in zip(
            features.levels, features.scales, features.strides, strict=True
        ):
            cells = tuple((places // np.array(along_axes(stride))).T)
            parts.append(np.asarray(level)[(slice(None), *cells)].T.astype(np.float32) * scale)
        self.x = np.concatenate([*parts, np.ones((len(places), 1), np.float32)], 1)
        self.y = targets[(slice(None), *places.T)].T
        weighted = self.x * self.weights[:, None] / self.weights.sum()
        self.gram, self.moment = weighted.T @ self.x, weighted.T @ self.y


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--structures", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pool", type=int, default=20)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--cache", type=Path)
    args = parser.parse_args()
    name, _, folder = args.data.partition("=")
    samples, profiles = read(args, Path(folder))
    values: dict[str, list[list[float]]] = {}
    for number in range(args.draws):
        pool = random.Random(100 + number).sample(range(len(samples)), args.pool)
        unseen = [sample for n, sample in enumerate(samples) if n not in pool]
        own = [profiles[n] for n in pool]
        between = distances(own, own, usual_scale(own))
        nothing = np.zeros((len(pool), 0))
        orders = {
            rule: [one.number for one in order(between, nothing)] for rule, order in ORDERS.items()
        }
        orders = {"random": random.Random(number).sample(range(len(pool)), len(pool)), **orders}
        for rule, order in orders.items():
            rows = [dice([samples[pool[n]] for n in order[:shots]], unseen) for shots in SHOTS]
            values.setdefault(rule, []).append(rows)
    print(f"{name}, {args.draws} draws")
    print(table(values))


def read(args: argparse.Namespace, folder: Path) -> tuple[list[Sample], list[Description]]:
    """All volumes."""
    structures, runtime = parse_structures(args.structures), Runtime("cpu", args.cache)
    supports = [read_support(p.image, p.segmentation, structures) for p in find_pairs(folder)]
    model = find_model(args.model)
    (fitted,) = model.entry.preprocessing.values()
    source = runtime.source(model, fitted.fitted([s.volume.grid for s in supports]))
    samples, profiles = [], []
    for number, support in enumerate(supports):
        prepared = prepare_support(support, structures, source)
        targets = prepared.targets.numpy() > 0.5
        samples.append(Sample(prepared.features, targets, number))
        levels = range(len(prepared.features.levels))
        profiles.append(describe(prepared.features, levels, ()))
    return samples, profiles


def dice(supports: Sequence[Sample], unseen: Sequence[Sample]) -> float:
    """Mean over structures and unseen volumes of a probe of these supports."""
    gram = sum(s.gram for s in supports) / len(supports)
    moment = sum(s.moment for s in supports) / len(supports)
    ridge = RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    probe = np.linalg.solve(gram + ridge, moment)
    x = np.concatenate([s.x for s in supports]) @ probe
    y = np.concatenate([s.y for s in supports])
    w = np.concatenate([s.weights for s in supports])
    limits = [best_limit(x[:, k], y[:, k], w) for k in range(y.shape[1])]
    values = []
    for sample in unseen:
        found = sample.x @ probe > limits
        both = (sample.weights[:, None] * (found & sample.y)).sum(0)
        sizes = (sample.weights[:, None] * (found.astype(float) + sample.y)).sum(0)
        there = sample.y.any(0)
        values += list((2 * both / sizes)[there])
    return float(np.mean(values))


def best_limit(scores: np.ndarray, inside: np.ndarray, weights: np.ndarray) -> float:
    """The threshold of the best Dice."""
    order = np.argsort(-scores)
    found, right = np.cumsum(weights[order]), np.cumsum((weights * inside)[order])
    values = 2 * right / (found + right[-1])
    return float(scores[order][int(np.argmax(values))]) - 1e-7


def table(values: dict[str, list[list[float]]]) -> str:
    """A row a rule."""
    base, lines = np.array(values["random"]), []
    for rule, found in values.items():
        own, cells = np.array(found), [rule]
        for k in range(len(SHOTS)):
            text = f"{own[:, k].mean():.3f} ± {own[:, k].std(ddof=1):.3f}"
            if rule != "random":
                above = own[:, k] - base[:, k]
                error = above.std(ddof=1) / np.sqrt(len(above))
                text += f" ({above.mean():+.3f} ± {error:.3f})"
            cells.append(text)
        lines.append(cells)
    return text_table(["rule", *(f"{n} annotated" for n in SHOTS)], lines, "<" + ">" * len(SHOTS))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
