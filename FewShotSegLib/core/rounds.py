"""The rounds of an adapter that was trained on with more and more annotated volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
