"""What about a structure of a result is not as expected beside its size: pieces that the supports
don't show, and a transduction that made something else of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.size_prior import SizePrior

if TYPE_CHECKING:  # the Slicer side shows remarks before scipy is needed
    from ..compute.pieces import Pieces

FAR_MM = 40.0
"""How far from the largest piece another is far; twice the largest one's diameter if that is less,
for small structures."""
LEAST_FAR_MM = 10.0
APART = 1.5
"""How many times as far as in the supports a piece of a structure in several is far."""
NOTABLE_PART = 0.1
"""The part of the largest that a near piece has to have to be named alone."""
MANY = 3
"""So many small near pieces are named as well."""
CHANGE = 2.0
"""How many times larger or smaller transduction may make a structure without a warning."""


@dataclass(frozen=True)
class Remark:
    """Something to look at.

    Attributes:
        brief: a few words, for a table. sentence: all of it, with what to do.
    """

    brief: str
    sentence: str


def piece_remark(name: str, pieces: Pieces, prior: SizePrior) -> Remark | None:
    """Whether a structure is in more pieces, or pieces farther apart, than in the supports.

    What the supports show is not known of adapters before this was written: one piece is expected
    then.
    """
    expected = max(1, prior.pieces or 1)
    count = len(pieces.volumes)
    far = far_from(pieces.volumes[0], prior) if count else FAR_MM
    distant = len(far_pieces(pieces, prior))
    more = pieces.volumes[expected:]
    notable = sum(volume >= NOTABLE_PART * pieces.volumes[0] for volume in more)
    if not distant and not notable and len(more) < MANY:
        return None
    brief = f"{count} pieces"
    if distant:
        them = "the other" if count == 2 else f"{distant} of them"
        brief += f", {them} more than {_cm(far)} away"
    number = brief if expected == 1 else f"{brief} (the supports show {expected})"
    largest = pieces.volumes[0] / sum(pieces.volumes)
    advice = (
        "if it should be one piece, keep the largest alone (--largest-component; Largest piece only"
        " in Slicer)"
        if expected == 1
        else "check whether all of them belong to it"
    )
    return Remark(
        brief,
        f"{name} is in {number}; the largest has {100 * largest:.0f} % of its volume: {advice}.",
    )


def far_pieces(pieces: Pieces, prior: SizePrior) -> list[int]:
    """Which of the pieces lie far from the largest, the farthest first."""
    if not pieces.volumes:
        return []
    far = far_from(pieces.volumes[0], prior)
    found = [n for n, distance in enumerate(pieces.distances) if distance > far]
    return sorted(found, key=lambda n: -pieces.distances[n])


def far_from(volume: float, prior: SizePrior) -> float:
    """mm from a piece of this volume (mm^3) beyond which another is far."""
    diameter = (6 * volume / 3.14159) ** (1 / 3)
    far = min(FAR_MM, max(LEAST_FAR_MM, 2 * diameter))
    return max(far, APART * (prior.apart or 0.0))


def change_remark(name: str, before_ml: float, after_ml: float) -> Remark | None:
    """Whether transduction more than halved or doubled a structure: it is then no correction of
    what was found but something else, and its size says nothing for it."""
    smaller, larger = CHANGE * after_ml < before_ml, after_ml > CHANGE * before_ml
    if not smaller and not larger:
        return None
    what = "more than halved" if smaller else "more than doubled"
    sizes = f"{before_ml:.1f} to {after_ml:.1f} ml"
    if max(before_ml, after_ml) < 1:
        sizes = f"{before_ml:.3f} to {after_ml:.3f} ml"
    return Remark(
        f"transduction {what} it",
        f"Transduction {what} {name}, from {sizes}: its size is then what was expected, not what "
        "was found. Check that it is in this image at all, and look at the result without "
        "transduction.",
    )


def _cm(mm: float) -> str:
    return f"{mm / 10:.1f}".removesuffix(".0") + " cm"
