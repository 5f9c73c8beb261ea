"""The order in which volumes are to be annotated, as a value that shows itself and is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from ..core.geometry import Volume
from ..core.limits import require_path
from ..core.plain_text import html_table
from ..core.tables import write_csv
from .inputs import PathLike

NAMED = 3
"""Most volumes that are named one after the other."""
COLUMNS = (
    *("place", "volume", "reasons", "stands_for", "distance"),
    *("expected_dice", "structure", "verdict", "path", "left_out"),
)


@dataclass(frozen=True)
class Suggestion:
    """One volume in the order in which volumes are to be annotated.

    Attributes:
        place: 1 for the first. name: what it is called.
        query: as it was given, or found; None where that says nothing.
        reasons: why it is here, in words.
        stands_for: names of the volumes that are nearer to it than to any that is annotated
            before it.
        distance: from the nearest volume that is annotated before it, in standard deviations of
            the features; None where none is.
        dice: what the adapter is expected to reach on it, of the structure where that is least.
            structure: that one. verdict: of the result. None or empty where nothing is known.
    """

    place: int
    name: str
    query: PathLike | Volume | None
    reasons: tuple[str, ...]
    stands_for: tuple[str, ...] = ()
    distance: float | None = None
    dice: float | None = None
    structure: str = ""
    verdict: str = ""

    def __str__(self) -> str:
        return f"{self.place}. {self.name}: {'; '.join(self.reasons)}."


@dataclass(frozen=True)
class LeftOut:
    """A volume that has no place in the order, and why: a sentence. ``failed`` where it could not
    be used, and False where there is nothing to be done about it."""

    name: str
    query: PathLike | Volume | None
    why: str
    failed: bool = False


@dataclass(frozen=True, repr=False)
class Suggestions(Sequence[Suggestion]):
    """Volumes in the order in which to annotate them.

    Attributes:
        suggestions: the first one first.
        left_out: those that are annotated already, and those that could not be used.
    """

    suggestions: tuple[Suggestion, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Suggestion: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Suggestion]: ...
    def __getitem__(self, index: int | slice) -> Suggestion | Sequence[Suggestion]:
        return self.suggestions[index]

    def __len__(self) -> int:
        return len(self.suggestions)

    @property
    def failed(self) -> list[LeftOut]:
        """Those that could not be used."""
        return [one for one in self.left_out if one.failed]

    def __repr__(self) -> str:
        """One line for people."""
        names = [one.name for one in self.suggestions[:NAMED]]
        more = ["..."] if len(self) > NAMED else []
        return f"<{type(self).__name__}: {', '.join([*names, *more]) or 'none'}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = [[str(s.place), s.name, "; ".join(s.reasons)] for s in self.suggestions]
        return html_table(["", "volume", "reason"], rows)

    def write_table(self, path: PathLike) -> None:
        """All of it as a CSV, what was left out at its end.

        Raises:
            StorageError: it can't be written.
        """
        rows: list[dict[str, Any]] = [
            {
                "place": one.place,
                "volume": one.name,
                "reasons": "; ".join(one.reasons),
                "stands_for": "; ".join(one.stands_for),
                "distance": "" if one.distance is None else round(one.distance, 4),
                "expected_dice": one.dice,
                "structure": one.structure,
                "verdict": one.verdict,
                "path": _path_text(one.query),
            }
            for one in self.suggestions
        ]
        rows += [
            {"volume": left.name, "path": _path_text(left.query), "left_out": left.why}
            for left in self.left_out
        ]
        write_csv(require_path(path), COLUMNS, rows)


def _path_text(query: PathLike | Volume | None) -> str:
    return "" if query is None or isinstance(query, Volume) else os.fspath(query)
