"""Whether the names of a volume and of an annotation say that they are of one case."""

from __future__ import annotations

import re

KINDS = frozenset(
    "seg segs segmentation segmentations label labels labelmap mask masks annotation annotations "
    "model models surface gt truth reference ct mr mri pet image images img volume vol scan".split()
)
"""What a name says of a node beside which case it is of, in small letters."""
ANNOTATION_KINDS = frozenset(
    "seg segs segmentation segmentations label labels labelmap mask masks".split()
)
ENDINGS = re.compile(r"(\.seg)?\.(nii|nii\.gz|nrrd|nhdr|mha|mhd|stl|vtk|vtp|obj|ply)$", re.I)
SAME, WITHIN, UNKNOWN, ANOTHER = 2, 1, 0, -1
"""What names say: one case; the annotation's begins with the volume's; nothing; two cases."""


def name_fit(volume: str, annotation: str) -> int:
    """How well two nodes' names go together: ``SAME``, ``WITHIN``, ``UNKNOWN`` or ``ANOTHER``.

    ``case01_image`` and ``case01_seg`` are of one case, and so are ``ct_3`` and ``ct_3_label``;
    ``case01_liver`` lies within ``case01_ct``; ``case01_ct`` and ``case02_seg`` are of two cases.
    """
    first, second = _case(volume), _case(annotation)
    if not first or not second:
        return UNKNOWN
    if first == second:
        return SAME
    if second[: len(first)] == first:
        return WITHIN
    return ANOTHER if _pattern(first) == _pattern(second) else UNKNOWN


def is_annotation_name(name: str) -> bool:
    """Whether a name ends as those of label maps do, such as ``case01_seg`` or ``ct-label``."""
    words = _words(name)
    return bool(words) and words[-1] in ANNOTATION_KINDS


def _case(name: str) -> tuple[str, ...]:
    """The words of a name that tell which case it is of."""
    return tuple(word for word in _words(name) if word not in KINDS)


def _words(name: str) -> list[str]:
    stem = ENDINGS.sub("", name.strip())
    stem = re.sub(r"_0000$", "", stem)  # the channel in names of nnU-Net
    return [word for word in re.split(r"[^0-9a-z\u0080-\uffff]+", stem.casefold()) if word]


def _pattern(case: tuple[str, ...]) -> str:
    """The same for names that differ in their numbers alone."""
    return re.sub(r"\d+", "#", " ".join(case))
