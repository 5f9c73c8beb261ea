"""Structures, and which voxels of a volume belong to each."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np


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


def class_key(name: str) -> tuple[str, ...]:
    """What a class's name means, whatever its order and punctuation: "Left kidney", "kidney_left"
    and "kidney-left" are one. Empty where the name has no word."""
    return tuple(sorted(re.findall(r"[^\W_]+", name.casefold())))


@dataclass
class Annotation:
    """What somebody drew on one volume.

    A structure without a mask was not annotated here: it is *unknown*, never background (the
    task mask w of eq. 1).

    Attributes:
        masks: by structure name, a boolean array (i, j, k) on the volume's grid. Masks may overlap.
        structures: the structures found in the file, in its order.
    """

    masks: dict[str, np.ndarray]
    structures: list[Structure] = field(default_factory=list)

    @property
    def annotated(self) -> frozenset[str]:
        """Names of the structures that were annotated."""
        return frozenset(self.masks)

    def mask(self, name: str) -> np.ndarray | None:
        """A structure's mask, its name compared ignoring case; None where it was not annotated."""
        key = name.casefold()
        return next((mask for own, mask in self.masks.items() if own.casefold() == key), None)
