"""Structures, and which voxels of a volume belong to each."""

from __future__ import annotations

import math
import operator
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import InputError
from .geometry import size_text

MAX_VALUE = 65535
"""The largest label value: that of a 16-bit label map."""
_FORBIDDEN_IN_NAMES = frozenset('/\\:*?"<>|=')
_EXAMPLE = "write it like 4=parotid_right,5=parotid_left"


@dataclass(frozen=True)
class Structure:
    """One anatomical class.

    Attributes:
        name: unique among the structures of an adapter; compared ignoring case.
        value: its label value in a label map, 1 to 65535.
        color: red, green, blue in 0..1, or None for the default of its value.
        terminology: Slicer's terminology string (``category~type~modifier...``), or None.
    """

    name: str
    value: int
    color: tuple[float, float, float] | None = None
    terminology: str | None = None


def name_key(name: str) -> str:
    """Names with one key are one name: case, spaces around it and how accents are composed (file
    names come decomposed from some systems) make no difference."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())


def require_structures(structures: Sequence[Structure], what: str) -> None:
    """Structures that a label map can hold and that can be distinguished.

    Args:
        what: how messages begin, such as ``Structures '4=liver'``.

    Raises:
        InputError: a value is not 1 to 65535, a name is empty or has a NUL, or a value or a name
            comes twice. Any of these would lose a structure without a word.
    """
    values: set[int] = set()
    names: set[str] = set()
    for structure in structures:
        if not isinstance(structure, Structure):
            raise InputError(f"{what}: {ascii(structure)[:60]} is no Structure(name, value).")
        value, name = structure.value, structure.name
        try:
            fits = not isinstance(value, bool) and 1 <= operator.index(value) <= MAX_VALUE
        except TypeError:
            fits = False
        if not fits:
            raise InputError(f"{what}: the value {value} is not within 1 to {MAX_VALUE}.")
        if not isinstance(name, str) or not name_key(name) or "\0" in name:
            raise InputError(f"{what}: the structure with the value {value} has no usable name.")
        if value in values:
            raise InputError(f"{what}: the value {value} comes twice.")
        if name_key(name) in names:
            raise InputError(f"{what}: the name {name} comes twice.")
        values.add(value)
        names.add(name_key(name))


def parse_structures(text: str) -> list[Structure]:
    """Read ``4=parotid_right,5=parotid_left`` as structures, in that order.

    Raises:
        InputError: it is malformed, a value is not 1 to 65535, a value or a name (ignoring case)
            comes twice, or a name could not be part of a file's name.
    """
    structures: list[Structure] = []
    for item in text.split(","):
        number, equals, name = (part.strip() for part in item.partition("="))
        if not equals or not name or not (number.isascii() and number.isdigit()):
            raise InputError(f"Structures '{text}': '{item.strip()}' is no value=name; {_EXAMPLE}.")
        bad = sorted(c for c in set(name) if c in _FORBIDDEN_IN_NAMES or not c.isprintable())
        if bad or name.startswith(".") or name.endswith("."):
            raise InputError(
                f"Structures '{text}': the name {name!r} can't be part of a file's name"
                f" ({' '.join(map(repr, bad)) or 'a dot at an end'}); {_EXAMPLE}."
            )
        # Python refuses numbers of thousands of digits, and nine are too large already.
        structures.append(Structure(name, int((number.lstrip("0") or "0")[:9])))
    try:
        require_structures(structures, f"Structures '{text}'")
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}; {_EXAMPLE}.") from None
    return structures


def as_structures(structures: str | Sequence[Structure] | None) -> list[Structure] | None:
    """Structures, read where they are a text such as ``"4=parotid_right,5=parotid_left"``.

    Raises:
        InputError: they are something else, or can't be determined apart.
    """
    if structures is None:
        return None
    if isinstance(structures, str):
        return parse_structures(structures)
    if not isinstance(structures, Iterable) or isinstance(structures, (bytes, Mapping)):
        raise InputError(_STRUCTURES)
    chosen = list(structures)
    if not chosen:
        raise InputError(_STRUCTURES)
    require_structures(chosen, "The structures")
    return chosen


_STRUCTURES = (
    'Structures are a text such as "4=parotid_right,5=parotid_left", or one or more Structure(name,'
    " value)."
)


def class_key(name: str) -> tuple[str, ...]:
    """What a class's name means, whatever its order and punctuation: "Left kidney", "kidney_left"
    and "kidney-left" are one. Empty where the name has no word."""
    return tuple(sorted(re.findall(r"[^\W_]+", name.casefold())))


@dataclass
class Annotation:
    """What a user drew on one volume.

    A structure without a mask was not annotated here: it is *unknown*, never background (the
    task mask w of eq. 1).

    Attributes:
        masks: by structure name, a boolean array (i, j, k) on the volume's grid. Masks may overlap.
        structures: the structures found in the file, in its order.
        known: (i, j, k) bool, where anything is known of the structures that have a mask, such as
            the slices that were drawn on; None where that is everywhere. What a mask has elsewhere
            counts for nothing.
    """

    masks: dict[str, np.ndarray]
    structures: list[Structure] = field(default_factory=list)
    known: np.ndarray | None = None

    @property
    def annotated(self) -> frozenset[str]:
        """Names of the structures that were annotated."""
        return frozenset(self.masks)

    def mask(self, name: str) -> np.ndarray | None:
        """A structure's mask, its name compared ignoring case; None where it was not annotated."""
        key = name_key(name)
        return next((mask for own, mask in self.masks.items() if name_key(own) == key), None)


def require_mask(mask: Any, shape: Sequence[int], what: str) -> np.ndarray:
    """A mask as a boolean array on the grid of its volume.

    Args:
        mask: an array of 0 and 1 (or of false and true). shape: of the grid.
        what: how messages begin, such as ``The mask of liver in support 2``.

    Raises:
        InputError: it has another shape, or other values: a probability, a distance or a label map
            says nothing about where the structure ends.
    """
    try:
        array = np.asarray(mask)
    except (TypeError, ValueError):  # lists of several lengths
        array = np.array(None)
    if array.shape != tuple(shape):
        raise InputError(
            f"{what} has {size_text(array.shape) or 'no'} voxels, its volume {size_text(shape)}. "
            "Give masks on the volume's own grid."
        )
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "uif" or not np.isin(array, (0, 1)).all():
        raise InputError(
            f"{what} is no mask: it has other values than 0 and 1. Give one mask a structure."
        )
    return array.astype(bool)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two boolean arrays of one shape; NaN where both are empty."""
    size = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(np.logical_and(a, b)) / size if size else math.nan
