"""The model of verdicts fitted on collected results, and how well it does on other patients.

    python Testing/benchmarks/trust_fit.py RESULTS.jsonl [MORE.jsonl ...] [--out trust.json]

The files are those that ``trust.py`` collects. The draws of one half of the patients fit the model
that is evaluated on the other half's, and the other way round; what is printed is of both. The
model that is written, ``FewShotSegLib/Resources/trust.json``, is fitted on all.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import lsq_linear, minimize
from scipy.stats import rankdata, spearmanr

from FewShotSegLib.core.atomic import write_json
from FewShotSegLib.core.expected import ExpectedDice
from FewShotSegLib.core.trust import (
    FINE,
    GOOD,
    UNUSABLE,
    Judgement,
    Signals,
    TrustModel,
    Weights,
    judge,
)

LOSS = (
    "held_out", "agreement", "mutual", "confidence", "region", "region_times", "volume_times",
    "size", "pieces", "apart", "moved",
)  # fmt: skip
FOREIGN = (
    "volume", "volume_times", "region_times", "mutual", "confidence", "size", "pieces", "apart",
)  # fmt: skip
RIDGE = 1.0
"""Results that a weight of 0 counts as, for doubts of deviation 1."""
LOOK, NEVER = 0.2, 0.8
"""Probabilities of a bad Dice: not chosen on data, so that they mean what they say."""


@dataclass(frozen=True)
class Result:
    """A structure of a segmented volume.

    Attributes:
        task, shots, draw: which training. dice: the true one; None in a volume of something else.
        held_out: of the adapter's supports. wrong: what else the volume is of, or None.
    """

    task: str
    shots: int
    draw: int
    structure: str
    volume: str
    modality: str
    held_out: tuple[float, ...]
    signals: Signals
    dice: float | None
    wrong: str | None

    @property
    def half(self) -> int:
        """Which half of the patients it is of."""
        return self.draw % 2


def main() -> None:
    """Fit, evaluate, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, help="write the model here")
    parser.add_argument("--plot", type=Path, help="draw expected against true Dice here")
    args = parser.parse_args()
    results = [r for path in args.results for r in read(path)]
    judged: list[tuple[Result, Judgement, float]] = []
    for half in (0, 1):
        model = fit([r for r in results if r.half != half])
        for volume in by_volume([r for r in results if r.half == half]):
            found = judge({r.structure: r.signals for r in volume}, model)
            for result in volume:
                risk = 1.0 if result.signals.empty else model.risk(result.signals)
                judged.append((result, found[result.structure], risk))
    measured = {}
    for name, keep in groups(results).items():
        measured[name] = evaluate([j for j in judged if keep(j[0])])
        print(name, json.dumps(measured[name]), sep="\n  ")
    if args.plot:
        plot(judged, args.plot)
    whole = fit(results)
    print("loss", json.dumps(whole.loss.weights), "foreign", json.dumps(whole.foreign.weights))
    print("deviation", whole.deviation, whole.widening)
    if args.out:
        names = " ".join(path.name for path in args.results)
        trainings = {(r.task, r.shots, r.draw) for r in results}
        text = f"{len(trainings)} trainings, {len(results)} structures of results"
        command = f"python Testing/benchmarks/trust_fit.py {names}"
        fields = asdict(whole) | {"command": command, "data": text, "measured": measured}
        write_json(args.out, fields)


def plot(judged: Sequence[tuple[Result, Judgement, float]], path: Path) -> None:
    """The expected Dice of each adapter and of each result against the true one, and what the
    verdicts caught."""
    figure = Figure(figsize=(13.5, 4.2), dpi=110, layout="constrained")
    first, left, right = figure.subplots(1, 3)
    right_ones = [r for r, _, _ in judged if r.dice is not None]
    for task in sorted({r.task for r in right_ones}):
        rows = by_adapter([r for r in right_ones if r.task == task])
        said = [ExpectedDice(one[0].held_out) for one in rows]
        true = [np.mean([r.dice for r in one]) for one in rows]
        middle = [e.expected or 0.0 for e in said]
        ends = [e.interval() or (0.0, 1.0) for e in said]
        around = np.abs(np.array(ends).T - middle)
        style = {"markersize": 3, "alpha": 0.6, "linewidth": 0.5, "label": task}
        first.errorbar(middle, true, xerr=around, fmt="o", **style)
    first.set(xlabel="expected Dice of the adapter, 80 % interval", ylabel="true mean Dice")
    first.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    first.set(xlim=(0, 1), ylim=(0, 1))
    first.legend(frameon=False)
    for task in sorted({r.task for r, _, _ in judged}):
        rows = [(j.dice, r.dice) for r, j, _ in judged if r.task == task and r.dice is not None]
        points = np.array([(said, true) for said, true in rows if said is not None])
        left.plot(points[:, 0], points[:, 1], "o", markersize=3, alpha=0.6, label=task)
    left.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    left.axhline(GOOD, color="0.6", linewidth=1, linestyle=":")
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="expected Dice of the result", ylabel="true Dice")
    left.legend(frameon=False)
    for modality in sorted({r.modality for r, _, _ in judged}):
        rows = [(risk, r.dice < GOOD) for r, _, risk in judged
                if r.modality == modality and r.dice is not None]  # fmt: skip
        bad = np.array([hit for _, hit in sorted(rows, key=lambda row: -row[0])])
        caught, wrongly = np.cumsum(bad) / bad.sum(), np.cumsum(~bad) / (~bad).sum()
        right.plot([0, *wrongly], [0, *caught], label=f"{modality} ({bad.sum()} of {len(bad)} bad)")
    right.set(xlabel="part of Dice >= 0.6 that is flagged", ylabel="part of Dice < 0.6 caught")
    right.legend(frameon=False)
    figure.savefig(path)


def by_volume(results: Sequence[Result]) -> list[list[Result]]:
    """The results of each segmented volume."""
    found: dict[tuple, list[Result]] = {}
    for r in results:
        found.setdefault((r.task, r.shots, r.draw, r.wrong, r.volume), []).append(r)
    return list(found.values())


def groups(results: Sequence[Result]) -> dict[str, Callable[[Result], bool]]:
    """What is reported of: each task, each modality, and all."""
    found: dict[str, Callable[[Result], bool]] = {}
    for task in sorted({r.task for r in results}):
        found[task] = lambda r, task=task: r.task == task
    for modality in sorted({r.modality for r in results}):
        found[modality] = lambda r, modality=modality: r.modality == modality
    return {**found, "all": lambda r: True}


def read(path: Path) -> list[Result]:
    """The results in a file of ``trust.py``."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.append(
            Result(
                *(row[k] for k in ("task", "shots", "draw", "structure", "volume", "modality")),
                tuple(row["held_out"]),
                Signals(**row["signals"]),
                row.get("dice"),
                row.get("wrong"),
            )
        )
    return found


def fit(results: Sequence[Result]) -> TrustModel:
    """The model of these results; tasks count alike, however many results they have."""
    right = [r for r in results if r.dice is not None and not r.signals.empty]
    loss = _fit_loss(right)
    # How far off it is on results that it was not fitted on: other numbers of supports.
    pairs = []
    for shots in {r.shots for r in right}:
        rest = _fit_loss([r for r in right if r.shots != shots])
        for r in (r for r in right if r.shots == shots):
            said = min(1.0, max(0.0, rest.total(r.signals.doubts())))
            pairs.append((said, abs(1 - (r.dice or 0) - said), r.task))
    expected, distance, tasks = (np.array(part) for part in zip(*pairs, strict=True))
    root = np.sqrt(_balanced(list(tasks)))
    spread = root[:, None] * np.column_stack([np.ones(len(pairs)), expected])
    # The mean distance from the mean is 0.8 of a normal distribution's deviation.
    distance = root * distance * np.sqrt(np.pi / 2)
    deviation, widening = lsq_linear(spread, distance, (np.zeros(2), np.full(2, np.inf))).x
    numbers = (round(float(deviation), 4), round(float(widening), 4))
    return TrustModel(loss, *numbers, _fit_foreign(results), LOOK, NEVER)


def _fit_loss(right: Sequence[Result]) -> Weights:
    """Least squares of what is lacking of a Dice of 1, by doubts that count for it."""
    root = np.sqrt(_balanced([r.task for r in right]))[:, None]
    losses = np.array([1 - r.dice for r in right if r.dice is not None])
    doubts, usual, scale = _doubts(right, LOSS)
    design = np.column_stack([np.ones(len(right)), doubts / scale])
    ridge = np.sqrt(RIDGE) * np.eye(design.shape[1])[1:]
    found = lsq_linear(
        np.vstack([root * design, ridge]),
        np.concatenate([root[:, 0] * losses, np.zeros(len(ridge))]),
        (np.array([-np.inf] + [0.0] * len(LOSS)), np.full(len(LOSS) + 1, np.inf)),
    ).x
    return Weights(*_rounded(found[0], found[1:] / scale, usual, LOSS))


def _fit_foreign(results: Sequence[Result]) -> Weights:
    """Logistic regression of whether a volume is of something else, by doubts that count for it."""
    known = [r for r in results if not r.signals.empty]
    strange = np.array([r.wrong is not None for r in known])
    doubts, usual, scale = _doubts(known, FOREIGN)
    design = np.column_stack([np.ones(len(known)), doubts / scale])
    weight = _balanced([f"{r.task} {r.wrong is not None}" for r in known])

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        score = design @ x
        chance = 1 / (1 + np.exp(-np.clip(score, -30, 30)))
        value = np.logaddexp(0, np.where(strange, -score, score)) @ weight
        value += 0.5 * RIDGE * (x[1:] ** 2).sum()
        slope = design.T @ (weight * (chance - strange))
        return value, slope + RIDGE * np.concatenate([[0], x[1:]])

    bounds = [(None, None)] + [(0, None)] * len(FOREIGN)
    found = minimize(cost, np.zeros(len(bounds)), jac=True, bounds=bounds).x
    return Weights(*_rounded(found[0], found[1:] / scale, usual, FOREIGN))


def _balanced(groups: Sequence[str]) -> np.ndarray:
    """Weights by which groups count alike; their mean is 1."""
    counts = {group: groups.count(group) for group in set(groups)}
    return np.array([len(groups) / len(counts) / counts[group] for group in groups])


def _doubts(
    results: Sequence[Result], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Doubts beyond the usual (results, doubts), what is usual, and their deviations."""
    rows = [[r.signals.doubts()[name] for name in names] for r in results]
    values = np.array(rows, float)
    known = np.maximum((~np.isnan(values)).sum(0), 1)
    usual = np.round(np.nansum(values, 0) / known, 4)
    centred = np.where(np.isnan(values), 0.0, values - usual)
    return centred, usual, np.maximum(centred.std(0), 1e-3)


def _rounded(
    constant: float, weights: np.ndarray, usual: np.ndarray, names: Sequence[str]
) -> tuple[float, dict[str, float], dict[str, float]]:
    return (
        round(float(constant), 4),
        {n: round(float(w), 4) for n, w in zip(names, weights, strict=True)},
        {n: float(u) for n, u in zip(names, usual, strict=True)},
    )


def evaluate(judged: Sequence[tuple[Result, Judgement, float]]) -> dict[str, Any]:
    """How well verdicts and expected Dice do."""
    right = [(r, j, risk) for r, j, risk in judged if r.dice is not None]
    true = np.array([r.dice for r, _, _ in right])
    bad = true < GOOD
    risks = np.array([risk for _, _, risk in right])
    verdicts = np.array([j.verdict for _, j, _ in right])
    having = [(r, j) for r, j, _ in right if j.dice is not None]
    said = np.array([j.dice for _, j in having])
    dice = np.array([r.dice for r, _ in having])
    within = [j.lower <= r.dice <= j.upper for r, j in having]
    pairs: dict[tuple, list[bool]] = {}
    for r, j, _ in judged:
        if r.wrong is not None:
            key = (r.task, r.shots, r.draw, r.volume)
            pairs.setdefault(key, []).append(j.verdict == UNUSABLE)
    return {
        "results": len(right),
        "below_0.6": int(bad.sum()),
        "auroc": _auroc(risks, bad),
        "caught": _share(verdicts[bad] != FINE),
        "flagged_wrongly": _share(verdicts[~bad] != FINE),
        "do_not_use_wrongly": _share(verdicts[~bad] == UNUSABLE),
        "rank_correlation": _number(spearmanr(said, dice).statistic) if len(said) > 2 else None,
        "bias": _number(np.mean(said - dice)),
        "mean_absolute_difference": _number(np.mean(np.abs(said - dice))),
        "coverage": _share(np.array(within)),
        "other_anatomy_pairs": len(pairs),
        "other_anatomy_do_not_use": _share(np.array([all(p) for p in pairs.values()])),
        "adapters": _adapters([r for r, _, _ in right]),
    }


def by_adapter(results: Sequence[Result]) -> list[list[Result]]:
    """The results of each structure of each adapter that has a held-out Dice of it."""
    found: dict[tuple, list[Result]] = {}
    for r in results:
        if len(r.held_out) > 1:
            found.setdefault((r.task, r.shots, r.draw, r.structure), []).append(r)
    return list(found.values())


def _adapters(results: Sequence[Result]) -> dict[str, Any]:
    """The expected Dice of adapters against the mean of their results, a structure each."""
    found = by_adapter(results)
    if len(found) < 3:
        return {}
    said = [ExpectedDice(rows[0].held_out) for rows in found]
    means = np.array([e.expected for e in said])
    true = np.array([np.mean([r.dice for r in rows]) for rows in found])
    within = [
        low <= r.dice <= high
        for e, rows in zip(said, found, strict=True)
        for low, high in [e.interval()]
        for r in rows
    ]
    return {
        "draws_and_structures": len(found),
        "bias": _number(np.mean(means - true)),
        "mean_absolute_difference": _number(np.mean(np.abs(means - true))),
        "correlation": _number(np.corrcoef(means, true)[0, 1]),
        "rank_correlation": _number(spearmanr(means, true).statistic),
        "coverage": _share(np.array(within)),
    }


def _auroc(score: np.ndarray, bad: np.ndarray) -> float | None:
    """The probability that a bad result has a higher score than a good one."""
    count = int(bad.sum())
    if not 0 < count < len(bad):
        return None
    ranks = rankdata(score)[bad].sum() - count * (count + 1) / 2
    return _number(ranks / count / (len(bad) - count))


def _share(hits: np.ndarray) -> float | None:
    return _number(np.mean(hits)) if len(hits) else None


def _number(value: Any) -> float | None:
    return None if not np.isfinite(value) else round(float(value), 3)


if __name__ == "__main__":
    main()
