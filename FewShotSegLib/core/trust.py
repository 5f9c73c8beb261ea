"""Whether a result can be used: a verdict on each structure, with its reasons in words.

The numbers of the model are in ``Resources/trust.json``, with the command that fitted them;
``Documentation/explanation/trust.md`` says how well they do. Neither torch nor scipy is needed,
because the Slicer side shows verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from .json_fields import load_json
from .json_schema import from_json
from .quantities import ml_text

FILE = Path(__file__).resolve().parents[1] / "Resources" / "trust.json"
FINE, LOOK, UNUSABLE, UNKNOWN = "fine", "look at this", "do not use", "not known"
VERDICTS = (UNUSABLE, LOOK, UNKNOWN, FINE)
"""Worst first."""
GOOD = 0.6
"""The Dice below which a result is one to be caught."""
NOT_KNOWN = (
    "the adapter's file keeps nothing to judge by: it was written before that, or by a method that "
    "trains the backbone"
)
FOREIGN = "the image is unlike the supports: another body region, modality, or way of imaging"
"""The reason where an image is of something else."""
LEARNED = "this volume is one of those learned from, so its result says little"
"""The reason where a query is one of the supports."""
_QUANTILE = 1.2815515655446004
"""Of the normal distribution at 0.9: 80 % are within it on both sides."""
NOTABLE = 0.02
"""How much lower a signal must make the expected Dice to be a reason."""
MOST_REASONS = 3


@dataclass(frozen=True)
class Signals:
    """What is known of one structure of a result without a reference; None where it is not.

    Attributes:
        supports: how many annotated volumes the adapter was trained on.
        held_out: mean Dice of the supports that were held out.
        agreement: mean Dice of the result without transduction with those of adapters that each
            lacked a support. mutual: of these with each other.
        confidence: the Dice that the probabilities expect, if they were right.
        region: how far the features within the structure are from the nearest support's, in
            deviations; usual_region: how far supports are from each other.
        volume, usual_volume: the same of the whole volume.
        size: natural logarithm of the volume over the expected one; None where it is cut off.
        largest: the part of its volume in as many of the largest pieces as the supports show.
        apart: mm from the largest piece to the farthest.
        moved: Dice of the result with that without transduction.
        far: mm from the largest piece to the farthest, where that is farther off than a piece of
            it may be; far_ml: how large that is. No part of the fitted model.
    """

    supports: int = 0
    held_out: float | None = None
    agreement: float | None = None
    mutual: float | None = None
    confidence: float | None = None
    region: float | None = None
    usual_region: float | None = None
    volume: float | None = None
    usual_volume: float | None = None
    size: float | None = None
    largest: float | None = None
    apart: float | None = None
    moved: float | None = None
    far: float | None = None
    far_ml: float | None = None

    def with_result(
        self,
        volume_ml: float,
        mean_ml: float,
        whole: bool,
        pieces_ml: Sequence[float],
        distances_mm: Sequence[float],
        expected_pieces: int,
        unmoved: float | None,
    ) -> Signals:
        """With what the result itself shows."""
        total = sum(pieces_ml)
        return replace(
            self,
            size=math.log(volume_ml / mean_ml) if whole and volume_ml > 0 and mean_ml > 0 else None,
            largest=sum(pieces_ml[:expected_pieces]) / total if total else None,
            apart=max(distances_mm, default=0.0) if total else None,
            moved=unmoved,
        )

    @property
    def empty(self) -> bool:
        """Whether nothing was found."""
        return self.largest is None

    def doubts(self) -> dict[str, float | None]:
        """The signals turned so that more is worse, by name: what the model weighs."""

        def lack(value: float | None) -> float | None:
            return None if value is None else 1 - value

        def times(value: float | None, usual: float | None) -> float | None:
            if not value or not usual:
                return None
            return math.log(value / usual)

        return {
            "held_out": lack(self.held_out),
            "agreement": lack(self.agreement),
            "mutual": lack(self.mutual),
            "confidence": lack(self.confidence),
            "region": None if not self.region else math.log(self.region),
            "region_times": times(self.region, self.usual_region),
            "volume": None if not self.volume else math.log(self.volume),
            "volume_times": times(self.volume, self.usual_volume),
            "size": None if self.size is None else abs(self.size),
            "pieces": lack(self.largest),
            "apart": None if self.apart is None else math.log1p(self.apart / 10),
            "moved": lack(self.moved),
        }

    def to_json(self) -> dict[str, Any]:
        """For a report: rounded."""
        return {k: v if v is None else round(v, 4) for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Weights:
    """A sum of weighted doubts: constant + sum of weight x doubt.

    Attributes:
        usual: what stands for a doubt that is not known.
    """

    constant: float
    weights: dict[str, float]
    usual: dict[str, float]

    def parts(self, doubts: Mapping[str, float | None]) -> dict[str, float]:
        """What each doubt adds, beyond what is usual."""
        return {
            name: 0.0 if (doubt := doubts[name]) is None else weight * (doubt - self.usual[name])
            for name, weight in self.weights.items()
        }

    def total(self, doubts: Mapping[str, float | None]) -> float:
        """The sum."""
        return self.constant + sum(self.parts(doubts).values())


@dataclass(frozen=True)
class TrustModel:
    """How verdicts follow from signals: fitted by ``Testing/benchmarks/trust.py``.

    Attributes:
        loss: what doubts take from a Dice of 1. deviation, widening: the standard deviation of the
            true Dice is the first plus the second times the expected loss.
        foreign: above 0 on average over the structures, an image is unlike the supports.
        look, unusable: probabilities of a Dice below :data:`GOOD` from which on a result is to be
            looked at, or not to be used.
        command, data: how and on what it was fitted. measured: how well it did.
    """

    OTHERS: ClassVar[bool] = True
    loss: Weights
    deviation: float
    widening: float
    foreign: Weights
    look: float
    unusable: float
    command: str = ""
    data: str = ""
    measured: dict[str, Any] = field(default_factory=dict)

    def expected(self, signals: Signals) -> tuple[float, float]:
        """The expected Dice of a result, and the standard deviation of the true one about it."""
        dice = min(1.0, max(0.0, 1 - self.loss.total(signals.doubts())))
        return dice, self.deviation + self.widening * (1 - dice)

    def risk(self, signals: Signals) -> float:
        """The probability of a Dice below :data:`GOOD`."""
        dice, deviation = self.expected(signals)
        return 0.5 * (1 + math.erf((GOOD - dice) / deviation / math.sqrt(2)))

    def is_foreign(self, structures: Iterable[Signals]) -> bool:
        """Whether an image is unlike the supports, by the mean over what was found in it; by all
        structures where nothing was."""
        known = list(structures)
        found = [signals for signals in known if not signals.empty] or known
        totals = [self.foreign.total(signals.doubts()) for signals in found]
        return bool(totals) and sum(totals) / len(totals) > 0


@dataclass(frozen=True)
class Judgement:
    """What is to be thought of one structure of a result.

    Attributes:
        verdict: one of :data:`VERDICTS`. reasons: why, in words; empty where it is fine.
        dice: the expected one; None where it is not known, or the image is unlike the supports.
        lower, upper: where the true one is, 4 times in 5.
    """

    verdict: str
    reasons: tuple[str, ...] = ()
    dice: float | None = None
    lower: float | None = None
    upper: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For a report."""
        numbers = {"dice": self.dice, "lower": self.lower, "upper": self.upper}
        rounded = {k: v if v is None else round(v, 3) for k, v in numbers.items()}
        return {"verdict": self.verdict, "reasons": list(self.reasons), **rounded}


def judge(
    signals: Mapping[str, Signals | None], model: TrustModel | None = None
) -> dict[str, Judgement]:
    """The verdict on each structure of a result.

    Args:
        signals: by structure; None where the adapter's file keeps nothing to judge by.
        model: the shipped one where not given.
    """
    model = model or shipped_model()
    foreign = model.is_foreign(one for one in signals.values() if one is not None)
    return {
        name: Judgement(UNKNOWN, (NOT_KNOWN,)) if one is None else _judge(one, foreign, model)
        for name, one in signals.items()
    }


def _judge(signals: Signals, foreign: bool, model: TrustModel) -> Judgement:
    if signals.empty:
        return Judgement(UNUSABLE, ("nothing was found", *([FOREIGN] if foreign else [])))
    if foreign:
        return Judgement(UNUSABLE, (FOREIGN, *_reasons(signals, model)))
    dice, deviation = model.expected(signals)
    risk, reach = model.risk(signals), _QUANTILE * deviation
    verdict = UNUSABLE if risk >= model.unusable else LOOK if risk >= model.look else FINE
    reasons = () if verdict == FINE else _reasons(signals, model)
    if signals.far is not None:
        # Whatever the Dice is: a piece far away is seen in a second, and is nearly never right.
        verdict = LOOK if verdict == FINE else verdict
        reasons = tuple(dict.fromkeys([*reasons, _pieces(signals)]))
    return Judgement(verdict, reasons, dice, max(0.0, dice - reach), min(1.0, dice + reach))


def of_support(judgement: Judgement) -> Judgement:
    """The judgement where the volume is one of the supports: no better than "look at this"."""
    verdict = min(judgement.verdict, LOOK, key=VERDICTS.index)
    return replace(judgement, verdict=verdict, reasons=(LEARNED, *judgement.reasons))


def worst(judgements: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """A key by which results sort, worst first: the worst verdict, then the lowest Dice.

    Args:
        judgements: of a result's structures, as in its report.
    """
    places = [VERDICTS.index(found["verdict"]) for found in judgements]
    # Nothing found, or in an image of something else: there is no Dice to speak of.
    dice = [
        -1.0 if found["dice"] is None else found["dice"]
        for found in judgements
        if found["dice"] is not None or found["verdict"] == UNUSABLE
    ]
    return min(places, default=len(VERDICTS)), min(dice, default=1.0)


@cache
def shipped_model() -> TrustModel:
    """The model in ``Resources``."""
    return from_json(TrustModel, load_json(FILE, "model of trust"), "")


def _reasons(signals: Signals, model: TrustModel) -> tuple[str, ...]:
    """What makes the expected Dice low, most first; at least one thing."""
    parts = model.loss.parts(signals.doubts())
    found: dict[str, float] = {}
    for name, part in parts.items():
        text = _WORDS[name](signals)
        found[text] = found.get(text, 0.0) + part
    order = sorted(found, key=lambda text: -found[text])
    return tuple(order[:1] + [t for t in order[1:MOST_REASONS] if found[t] >= NOTABLE])


def _agreement(signals: Signals) -> str:
    if signals.agreement is None:
        return "how stable it is could not be measured"
    return (
        "adapters that each lacked some supports find something else (their Dice with it is "
        f"{signals.agreement:.2f})"
    )


def _region(signals: Signals) -> str:
    return "what was found looks unlike the structure in the supports"


def _size(signals: Signals) -> str:
    if signals.size is None:
        return "its size can't be compared: it is cut off, or not known"
    times = math.exp(signals.size)
    return f"its volume is {times:.2g} times the supports'"


def _pieces(signals: Signals) -> str:
    if signals.far is not None:
        volume = ml_text(signals.far_ml or 0.0)
        return f"a piece of {volume} ml lies {signals.far:.0f} mm away from it"
    part, apart = 1 - (signals.largest or 0), signals.apart or 0.0
    return f"{part:.0%} of it is in further pieces, up to {apart:.0f} mm away".replace("%", " %")


_WORDS: Mapping[str, Callable[[Signals], str]] = {
    "held_out": lambda s: (
        f"the adapter reached a Dice of {s.held_out or 0:.2f} on held-out supports"
    ),
    "agreement": _agreement,
    "mutual": _agreement,
    "confidence": lambda s: "its probabilities are undecided",
    "region": _region,
    "region_times": _region,
    "volume": lambda s: "the image differs from the supports'",
    "volume_times": lambda s: "the image differs from the supports'",
    "size": _size,
    "pieces": _pieces,
    "apart": _pieces,
    "moved": lambda s: f"transduction changed it (Dice with the result before: {s.moved or 0:.2f})",
}
