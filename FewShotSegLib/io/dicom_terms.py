"""Structures as codes: what DICOM wants to know of a segment beside its name.

Codes come from what a structure brings along (Slicer's terminology), else from DICOM's own lists of
anatomy, which pydicom has, by the structure's name; no list is kept here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..core.annotation import Structure

MOST_MEANING, MOST_VALUE = 64, 16
"""Characters of a code's meaning and of its value."""
_SIDES = {
    **dict.fromkeys(("left", "lt", "l"), "Left"),
    **dict.fromkeys(("right", "rt", "r"), "Right"),
}
_FILLERS = frozenset(("of", "the", "structure"))
_LISTS = (
    # Which of DICOM's context groups, and the category that its members are of.
    ("CID7192", "AnatomicalStructure"),
    ("CID4", "AnatomicalStructure"),
    ("CID7166", "Tissue"),
    ("CID7159", "MorphologicallyAbnormalStructure"),
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]+|[a-z]+|\d+")


@dataclass(frozen=True)
class Term:
    """A coded concept: its value, its scheme (``SCT``: SNOMED CT) and its meaning in English."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Terms:
    """What a segment is.

    Attributes:
        category: such as Anatomical Structure. type: such as Parotid gland.
        modifier: Left or Right, or what the structure brings along.
        region, region_modifier: where it is, if that is said.
    """

    category: Term
    type: Term
    modifier: Term | None = None
    region: Term | None = None
    region_modifier: Term | None = None


def terms_of(structure: Structure) -> Terms:
    """The codes of a structure: its own, those of its name, or else "Tissue" of no kind."""
    return _own(structure.terminology or "") or _named(structure.name) or _unspecific()


def _own(terminology: str) -> Terms | None:
    """Of Slicer's terminology string; None where it doesn't say what the structure is."""
    parts = [_term(part) for part in (terminology.split("~") + [""] * 7)[:7]]
    category, kind, modifier, _, region, region_modifier = parts[1:]
    if category is None or kind is None:
        return None
    return Terms(category, kind, modifier, region, region_modifier if region else None)


def _term(part: str) -> Term | None:
    """``SCT^85756007^Tissue``; None where it is empty or nothing that DICOM could hold."""
    scheme, value, meaning = (text.strip() for text in (part.split("^") + ["", ""])[:3])
    fits = scheme and value and meaning and "\\" not in part and part.isprintable()
    if not fits or max(len(scheme), len(value)) > MOST_VALUE:
        return None
    return Term(value, scheme, meaning[:MOST_MEANING])


def _named(name: str) -> Terms | None:
    words = _words(name)
    sides = {_SIDES[word] for word in words if word in _SIDES}
    rest = [word for word in words if word not in _SIDES]
    if not rest or len(sides) > 1:
        return None
    known = _known()
    keys = (*_keys(rest), *_keys([*rest, "gland"]))
    found = next((known[key] for key in keys if key in known), None)
    if found is None:
        return None
    category, kind = found
    return Terms(category, kind, _snomed(sides.pop()) if sides else None)


def _words(name: str) -> list[str]:
    return [word.casefold() for word in _WORDS.findall(name)]


def _keys(words: Sequence[str]) -> tuple[str, str]:
    """Words put together as they come and by the alphabet: ``brain stem`` and ``brainstem`` are
    one, and so are ``upper lobe of lung`` and ``lung, upper lobe``."""
    kept = [word for word in words if word not in _FILLERS]
    return "".join(kept), " ".join(sorted(kept))


@cache
def _known() -> dict[str, tuple[Term, Term]]:
    """Category and type by the key of their name."""
    found: dict[str, tuple[Term, Term]] = {}
    for keys, category, kind in _listed():
        for key in keys:
            found.setdefault(key, (category, kind))
    return found


def _listed() -> Iterator[tuple[tuple[str, str], Term, Term]]:
    from pydicom.sr.codedict import codes

    for group, category in _LISTS:
        members = getattr(codes, group)
        for name in members.dir():
            kind = _term_of(getattr(members, name))
            yield _keys(_words(name)), _snomed(category), kind


def _snomed(name: str) -> Term:
    from pydicom.sr.codedict import codes

    return _term_of(getattr(codes.SCT, name))


def _term_of(code: Any) -> Term:
    """A code of pydicom's."""
    return Term(code.value, code.scheme_designator, code.meaning[:MOST_MEANING])


def _unspecific() -> Terms:
    """What 3D Slicer calls a segment of which no one has said what it is."""
    return Terms(_snomed("AnatomicalStructure"), _snomed("Tissue"))
