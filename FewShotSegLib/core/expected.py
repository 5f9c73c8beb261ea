"""How good an adapter's results on new volumes can be expected to be: what its file says of that.

The numbers are the Dice of each support when an adapter trained without it segmented it. From them
come a mean, and an interval for one new volume that is right four times in five, by the formula of
:meth:`ExpectedDice.interval`; ``Documentation/explanation/expected-accuracy.md`` says what it rests
on. Neither torch nor scipy is needed, because the Slicer side shows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

from .json_schema import Check, from_json
from .model_entry import Line

COVERAGE = 0.8
"""How often the interval is right, if new volumes are like the supports."""
_QUANTILE = 1.2815515655446004
"""Of the normal distribution at 0.9: 80 % are within it on both sides."""
TYPICAL_DEVIATION, TYPICAL_COUNT = 0.06, 2
"""How much the Dice of volumes like each other usually varies (the median over the structures,
draws and adapters of the published benchmarks), and how many degrees of freedom that counts as: two
or three values alone say next to nothing of their spread."""

LACKING = 0.9
"""What an adapter lacks of a Dice of 1, over what those that were measured lack: they saw fewer
annotated volumes, for fewer epochs. Fitted once on ``Testing/benchmarks/trust.py``'s draws."""

GROWTH, MOST_GROWN = 0.1, 5
"""What lacks of a Dice of 1 is proportional to the number of annotated volumes to the power of
minus this, on average over random choices of two to so many (``Testing/benchmarks/suggest.py``)."""
LEAST_GAIN = 0.005
"""A smaller one is not worth a word: two digits would show it as nothing."""

Dice = Annotated[float, Check("a Dice from 0 to 1", lambda x: 0 <= x <= 1)]
Folds = Annotated[int, Check("a number, 0 or more", lambda n: n >= 0)]
_REASONS = {
    "one support": "not known: one annotated volume can't tell. Annotate a second one.",
    "backbone": "not measured: the backbone was trained too, and measuring would take as long as "
    "the training for every annotated volume again.",
    "skipped": "not measured: it was left out.",
    "unfinished": "not measured: the measuring after the training was stopped.",
}
_PART = (
    " Of volumes that were annotated in part it was measured there alone; what is found elsewhere "
    "in them by mistake does not count, so that it may be less on a whole volume."
)
UNKNOWN = "not measured: the file was written before this was measured."


@dataclass(frozen=True)
class ExpectedDice:
    """What is expected of one structure.

    Attributes:
        dice: of each support that was held out and annotates it, in the supports' order.
    """

    OTHERS: ClassVar[bool] = True
    dice: tuple[Dice, ...] = ()

    @property
    def mean(self) -> float | None:
        """Of the held-out supports; None where none could be held out."""
        return sum(self.dice) / len(self.dice) if self.dice else None

    @property
    def expected(self) -> float | None:
        """The Dice to expect: above :attr:`mean`, by :data:`LACKING`; None likewise."""
        return None if self.mean is None else 1 - LACKING * (1 - self.mean)

    @property
    def one_more(self) -> float | None:
        """What one more annotated volume would add to :attr:`expected`, on average; None where
        that is outside of what was measured (:data:`GROWTH`).

        Which volume it is changes more than that: it tells when to stop, and not what will come.
        """
        count = len(self.dice)
        if self.expected is None or not 2 <= count <= MOST_GROWN:
            return None
        return (1 - self.expected) * (1 - (count / (count + 1)) ** GROWTH)

    def interval(self) -> tuple[float, float] | None:
        """Where the Dice of one new volume is to be expected, :data:`COVERAGE` of the time.

        With n values of deviation s about the expected Dice e it is the prediction interval
        e +- t s' sqrt(1 + 1/n), cut to [0, 1], where s'^2 = (a s0^2 + (n - 1) s^2) / (a + n - 1)
        draws s towards the usual deviation s0 as if that had been seen with a degrees of freedom
        (:data:`TYPICAL_DEVIATION`, :data:`TYPICAL_COUNT`), and t is the 0.9 quantile of Student's
        distribution with a + n - 1 degrees of freedom.

        Returns:
            its ends; None where fewer than two supports could be held out.
        """
        n, mean, expected = len(self.dice), self.mean, self.expected
        if mean is None or expected is None or n < 2:
            return None
        freedom = TYPICAL_COUNT + n - 1
        squares = sum((value - mean) ** 2 for value in self.dice)
        deviation = math.sqrt((TYPICAL_COUNT * TYPICAL_DEVIATION**2 + squares) / freedom)
        reach = student_quantile(freedom) * deviation * math.sqrt(1 + 1 / n)
        return max(0.0, expected - reach), min(1.0, expected + reach)

    def sentence(self) -> str:
        """What is to be expected, for a person."""
        ends = self.interval()
        if not self.dice:
            return (
                "not known: only one annotated volume shows it, or it is empty in the others. "
                "Annotate it in a second one."
            )
        if ends is None:
            return (
                f"a Dice of about {self.expected:.2f} on a new volume like these, by a single one "
                "that was held out: it may well be far from that."
            )
        gain = self.one_more or 0.0
        more = f" One more would add about {gain:.2f}, on average." if gain >= LEAST_GAIN else ""
        few = " Two volumes tell little: take it as a hint." if len(self.dice) == 2 else ""
        return (
            f"expect a Dice of about {self.expected:.2f} on a new volume like these, 4 times in 5 "
            f"between {ends[0]:.2f} and {ends[1]:.2f}; {min(self.dice):.2f} to "
            f"{max(self.dice):.2f} on these {len(self.dice)}, each held out once.{few}{more}"
        )


@dataclass(frozen=True)
class Expected:
    """What is expected of an adapter.

    Attributes:
        status: ``measured``, or why it was not: there is ``one support``; the ``backbone`` was
            trained too; it was ``skipped`` on request; it was stopped (``unfinished``).
        folds: how many adapters were trained, each without some of the supports.
        epochs: of each of these trainings, with the schedule of the adapter's own.
        transductive: whether the supports were segmented with transduction.
        structures: by name, in the adapter's order; empty where nothing was measured.
        sparse: how many of the supports were annotated in part, so that their Dice is of that part.

    A later FewShotSeg may know more, and other reasons: an adapter is good whatever is said here.
    """

    OTHERS: ClassVar[bool] = True
    status: Line
    folds: Folds = 0
    epochs: Folds = 0
    transductive: bool = False
    structures: dict[str, ExpectedDice] = field(default_factory=dict)
    sparse: Folds = 0

    def to_json(self) -> dict[str, Any]:
        """The form kept in an adapter file."""
        lists = {name: {"dice": list(found.dice)} for name, found in self.structures.items()}
        own = (
            asdict(self)
            if self.sparse
            else {k: v for k, v in asdict(self).items() if k != "sparse"}
        )
        return {**own, "structures": lists}

    def sentences(self) -> dict[str, str]:
        """What to expect, by structure name; of all alike (by an empty name) where not measured."""
        if self.status != "measured":
            return {"": _REASONS.get(self.status, f"not measured ({self.status}).")}
        return {name: self._sentence(found) for name, found in self.structures.items()}

    def _sentence(self, found: ExpectedDice) -> str:
        """With what it was measured on, where that is not whole volumes."""
        return found.sentence() + (_PART if self.sparse and found.dice else "")

    def summary(self, name: str) -> dict[str, Any]:
        """What a result's report says of one structure, JSON-ready."""
        found = self.structures.get(name, ExpectedDice())
        ends = found.interval()
        return {
            "dice": None if found.expected is None else round(found.expected, 4),
            "lower": None if ends is None else round(ends[0], 4),
            "upper": None if ends is None else round(ends[1], 4),
            "one_more": None if found.one_more is None else round(found.one_more, 4),
            "held_out": list(found.dice),
            "sentence": self._sentence(found)
            if self.status == "measured"
            else self.sentences()[""],
        }

    def __str__(self) -> str:
        """All of it, a line a structure."""
        return "\n".join(f"{k}: {v}" if k else v for k, v in self.sentences().items())


def student_quantile(freedom: int) -> float:
    """The 0.9 quantile of Student's t for 3 degrees of freedom or more, to 0.001.

    By the expansion of Cornish and Fisher about the normal quantile (Abramowitz and Stegun,
    26.7.5): scipy, which has it exactly, is not needed by the Slicer side.
    """
    z, n = _QUANTILE, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )


def expected_cells(metadata: Mapping[str, Any]) -> list[str]:
    """``NAME 0.67`` of each structure of an adapter's header; empty where nothing was measured."""
    found = _of(metadata)
    if found is None or found.status != "measured":
        return []
    dice = {name: structure.expected for name, structure in found.structures.items()}
    return [f"{name} {'?' if value is None else f'{value:.2f}'}" for name, value in dice.items()]


def expected_sentences(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What an adapter's header says of its expected accuracy: see :meth:`Expected.sentences`."""
    found = _of(metadata)
    return {"": UNKNOWN} if found is None else found.sentences()


def _of(metadata: Mapping[str, Any]) -> Expected | None:
    data = metadata.get("expected")
    return None if data is None else from_json(Expected, data, "'expected'")
