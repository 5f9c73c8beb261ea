"""Supports that are annotated in part, as a person says it: on slices, or where a mask is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..compute.known_voxels import (
    alternating,
    axis_of,
    drawn_axis,
    drawn_slices,
    gap_axis,
    is_regular,
    plane_of,
    restricted,
)
from ..core.errors import InputError
from ..core.events import EventSink, make_event
from ..core.limits import require_path
from ..core.options import Sparse
from ..core.sparse import AUTO, PLANES, WHOLE, WORDS
from ..io.annotations import read_annotation
from ..training.support_set import Support, SupportSet
from .adapter_file import content_hash


def sparse_supports(
    supports: Sequence[Support], sparse: Sparse, events: EventSink
) -> list[Support]:
    """Supports of which only a part is known, as it was said of them.

    Args:
        sparse: see :class:`.core.options.AdaptOptions`.
        events: gets a warning of each support that ``auto`` takes for whole, and of structures
            that were drawn in turns or seem to be drawn on slices of another plane.

    Raises:
        InputError: it is said of supports that aren't there; a mask can't be used, or leaves
            nothing; or it is not clear along which axis slices were left out, or another than is
            said.
    """
    if sparse is None:
        return list(supports)
    alone = isinstance(sparse, (str, os.PathLike))
    given = [sparse] * len(supports) if isinstance(sparse, (str, os.PathLike)) else sparse
    if isinstance(sparse, (str, os.PathLike)) and not supports:
        raise InputError(
            f"It is said what is known of supports (--sparse {os.fspath(sparse)}), and there are "
            "none. Give them with --support, or leave out --sparse."
        )
    said = [os.fspath(word) for word in given]
    if len(said) != len(supports):
        raise InputError(
            f"There are {len(supports)} supports, and it is said of {len(said)} what is known of "
            f"them. Say one of {', '.join(WORDS)} for all, or one of these or a mask of each."
        )
    if alone and said[0] not in WORDS and len(supports) > 1:
        raise InputError(
            f"'{said[0]}' is one for all {len(supports)} supports. Say {', '.join(WORDS[:-1])} for "
            "all, or one of these or a mask of each, in their order."
        )
    return [
        _known_part(support, word, f"Support {number}", events)
        for number, (support, word) in enumerate(zip(supports, said, strict=True), 1)
    ]


def require_said(
    supports: Sequence[Support], records: Sequence[Mapping[str, Any]], sparse: Sparse
) -> None:
    """Supports that were annotated in part at a training are not taken for whole without a word.

    Args:
        records: what the adapter's file says of its supports.

    Raises:
        InputError: nothing is said of one of them.
    """
    partly = {record.get("content") for record in records if "known" in record}
    if not partly or sparse is not None:
        return
    for number, support in enumerate(supports, 1):
        if support.annotation.known is None and content_hash(support.volume) in partly:
            raise InputError(
                f"Support {number} was annotated in part when the adapter was trained: say the "
                "same of it now (--sparse), or what is unknown would be taken for background. If "
                "it is drawn in full by now, say --sparse whole."
            )


def _known_part(support: Support, said: str, name: str, events: EventSink) -> Support:
    """One of these. What a support in memory says of itself stands, but for a word of its own."""
    annotation = support.annotation
    if said == WHOLE or annotation.known is not None or not annotation.masks:
        return support
    if said != AUTO and said not in PLANES:
        return with_known(support, _read_mask(said, support, name), f"The mask {said} of {name}")
    masks, grid = annotation.masks, support.volume.grid
    axis = drawn_axis(masks.values(), name) if said == AUTO else axis_of(said, grid)
    _require_plane(support, axis, said, name, events)
    if axis is None:
        message = (
            f"{name} is drawn without a gap, and is taken for whole: where nothing is drawn "
            "is background. If it was drawn on some slices only, say which: axial, coronal or "
            "sagittal."
        )
        events(make_event("warning", message=message))
        return support
    turns = alternating(masks, axis)
    if turns:
        message = (
            f"In {name} {_listed(turns)} are missing on slices between their own, on which other "
            "structures are drawn, and that counts as background. If they were drawn in turns, "
            "draw all structures on each slice, or give a mask of the slices on which all are."
        )
        events(make_event("warning", message=message))
    return with_known(support, drawn_slices(masks.values(), axis), name)


def _require_plane(
    support: Support, axis: int | None, said: str, name: str, events: EventSink
) -> None:
    """No structure shows by its gaps that other slices were drawn on than those along an axis.

    Args:
        axis: None where the support is taken for whole. events: gets a warning where that is
            likely and not certain.

    Raises:
        InputError: one has even gaps along another.
    """
    masks = support.annotation.masks
    shown = {structure: gap_axis(mask) for structure, mask in masks.items()}
    regular = {s: a for s, a in shown.items() if a is not None and is_regular(masks[s], a)}
    for structure, other in shown.items():
        if other is None or other == axis:
            continue
        plane = plane_of(other, support.volume.grid)
        if structure in regular and (said == AUTO or len(set(regular.values())) > 1):
            raise InputError(
                f"In {name} '{structure}' is drawn on some {plane} slices, and other structures "
                "are not drawn on the same ones alone. Draw all of them on slices of one kind, or "
                "give a mask of what is known."
            )
        if structure in regular:
            raise InputError(
                f"{name} is said to be drawn on {said} slices, and the gaps of '{structure}' show "
                f"that it was drawn on {plane} ones. Say {plane}, or auto, or give a mask of what "
                "is known."
            )
        if said != AUTO:
            message = (
                f"{name} is said to be drawn on {said} slices, and '{structure}' looks as if it "
                f"was drawn on {plane} ones. If so, say {plane}: what lies between them is "
                "learned as background now."
            )
            events(make_event("warning", message=message))


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _read_mask(path: str, support: Support, name: str) -> np.ndarray:
    """The voxels (i, j, k) that a file says are known: all that it labels.

    Raises:
        InputError: there is none, it is empty, of another grid, or no mask; or it names no
            background.
    """
    require_path(path)
    if not os.path.exists(path):
        raise InputError(
            f"There is no mask {path}. What is known of a support is one of {', '.join(WORDS)}, or "
            "the path of a mask."
        )
    found = read_annotation(path, support.volume.grid, what="mask").masks
    if len(found) > 1:
        raise InputError(
            f"{path} is no mask: it has {len(found)} labels or segments, and a mask of what is "
            "known has one, 1 where the annotation is known and 0 elsewhere. An image or its "
            "segmentation is none."
        )
    known = next(iter(found.values()))
    drawn = np.any(list(support.annotation.masks.values()), axis=0)
    if (known & drawn).any() and not (known & ~drawn).any():
        raise InputError(
            f"The mask {path} has only what is drawn in {name}, so that nothing is known to be "
            "background. It is 1 on the structures and on what is known around them, such as the "
            "whole of each slice that was drawn on."
        )
    return known


def with_known(support: Support, known: np.ndarray, what: str) -> Support:
    """A support of which only these voxels are known; the same where all are.

    Args:
        known: (i, j, k) bool. what: how messages call it.

    Raises:
        InputError: nothing is annotated there.
    """
    annotation = support.annotation
    if known.all():
        return replace(support, annotation=replace(annotation, known=None))
    masks = restricted(annotation.masks, known)
    if annotation.masks and not masks:
        raise InputError(
            f"{what} hides all that is annotated. It is 1 where the annotation is known, which is "
            "at least some of each structure and of what is around it."
        )
    return replace(support, annotation=replace(annotation, masks=masks, known=known))


def tell_sizes(learned: SupportSet, given: Sequence[str], events: EventSink) -> None:
    """Warn of each structure whose size no annotation tells, so that transduction has no say.

    Args:
        given: names of the structures whose volume is known otherwise.
    """
    for name, prior in learned.priors().items():
        if prior.basis == "part" and name not in given:
            message = (
                f"The size of {name} is not known: no annotation shows all of it, and what was "
                "drawn doesn't tell it (fewer than three slices, not evenly spread, missing "
                "between them, or it goes on beyond them). Results are not adjusted to a size "
                "then. Give its volume if you know it, or draw one volume in full."
            )
            events(make_event("warning", message=message))
