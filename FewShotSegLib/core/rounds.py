"""The rounds of an adapter that was trained on with more and more annotated volumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar

from .expected import Dice, Expected
from .json_schema import Check, from_json
from .tables import text_table

_Count = Annotated[int, Check("a number, 0 or more", lambda n: n >= 0)]
_Seconds = Annotated[float, Check("a number of seconds", lambda x: x >= 0)]


@dataclass(frozen=True)
class Round:
    """One training.

    Attributes:
        supports: how many annotated volumes. added: how many of them were not in the round before.
        epochs: of it. seconds: it took, without features and measuring.
        expected: the Dice to expect after it, by structure; empty where not measured.
    """

    OTHERS: ClassVar[bool] = True
    supports: _Count
    added: _Count
    epochs: _Count
    seconds: _Seconds
    expected: dict[str, Dice] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The form kept in an adapter file."""
        return asdict(self)


def round_of(
    supports: Sequence[str], before: Sequence[str], training: Mapping[str, Any], expected: Any
) -> Round:
    """A training as a round.

    Args:
        supports, before: the hashes of its annotated volumes, and of those of the round before.
        training: as an adapter's header has it. expected: an :class:`Expected`, or None.
    """
    known = list(before)
    added = [content for content in supports if content not in known]
    means: dict[str, float] = {}
    if isinstance(expected, Expected):
        found = {k: v.expected for k, v in expected.structures.items()}
        means = {k: round(v, 4) for k, v in found.items() if v is not None}
    seconds = float(training.get("seconds", {}).get("train", 0.0))
    return Round(len(supports), len(added), int(training.get("epochs", 0)), seconds, means)


def dice_by_supports(
    headers: Iterable[Mapping[str, Any]],
) -> dict[str, list[tuple[int, float]]]:
    """The Dice to expect against the number of annotated volumes, by structure.

    Args:
        headers: of adapters, the oldest first: of trainings on as many volumes the last counts.
            What of one was not measured is left out.

    Returns:
        (supports, Dice) by rising supports; structures without any are left out.
    """
    found: dict[str, dict[int, float]] = {}
    for header in headers:
        rounds = [from_json(Round, data, "'rounds'") for data in header.get("rounds", ())]
        data = header.get("expected")
        if not rounds and data is not None:
            known = from_json(Expected, data, "'expected'")
            supports = [record.get("content", "") for record in header.get("supports", ())]
            rounds = [round_of(supports, (), header.get("training", {}), known)]
        for one in rounds:
            for name, dice in one.expected.items():
                found.setdefault(name, {})[one.supports] = dice
    return {name: sorted(points.items()) for name, points in found.items()}


def changes_text(points: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """How the Dice to expect changed from the fewest to the most annotated volumes, a sentence a
    structure; empty where it is known for one number of them alone.

    Args:
        points: as of :func:`dice_by_supports`.
    """
    lines = []
    for name, curve in points.items():
        if len(curve) > 1:
            (few, first), (many, last) = curve[0], curve[-1]
            lines.append(
                f"{name}: the Dice to expect went from {first:.2f} with {few} to {last:.2f} with "
                f"{many} annotated volumes."
            )
    return "\n".join(lines)


def rounds_text(metadata: Mapping[str, Any]) -> str:
    """The rounds of an adapter's header as a table; empty where there was one alone."""
    rounds = [from_json(Round, data, "'rounds'") for data in metadata.get("rounds", ())]
    if len(rounds) < 2:
        return ""
    names = [structure["name"] for structure in metadata["structures"]]
    rows = [
        [
            str(number),
            str(one.supports),
            str(one.added),
            str(one.epochs),
            f"{one.seconds:.0f}",
            *(f"{one.expected[n]:.2f}" if n in one.expected else "-" for n in names),
        ]
        for number, one in enumerate(rounds, 1)
    ]
    header = ["round", "supports", "new", "epochs", "seconds", *names]
    return text_table(header, rows, ">>>>>" + ">" * len(names))
