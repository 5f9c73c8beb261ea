"""Which segments are one class across the supports: by terminology, by name, or by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from slicer.i18n import tr as _

from FewShotSegLib.core.annotation import class_key
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.size_prior import PriorChange, SizePrior, prior_from_sizes

from ..interface.rows import PriorRow, SegmentLink, StructureRow
from .segments import SegmentInfo, has_voxels, list_segments, terminology_key
from .state import SEGMENTATION, VOLUME, SceneState, new_id

Sizes = Callable[[Any, str], float | None]
COLORS = ((0.90, 0.62, 0.0), (0.34, 0.71, 0.91), (0.0, 0.62, 0.45), (0.94, 0.89, 0.26))
NO_PRIOR = {"mean_ml": None, "sd_ml": None, "gamma": None, "enabled": None}


def match(state: SceneState) -> tuple[dict[str, Any], dict[str, list[tuple[dict, SegmentInfo]]]]:
    """The rows' data, and by class the segments (with their support) that are of it.

    A class that nobody made or edited and that has no segments any more is left out; one that is
    new has the same identity each time. The state stays as it is, see :func:`adopt`.
    """
    data = state.read()
    classes: list[dict[str, Any]] = data["structures"]
    taken = {c["id"] for c in classes} | set(data["assigned"].values())
    members: dict[str, list[tuple[dict, SegmentInfo]]] = {c["id"]: [] for c in classes}
    for support in data["supports"]:
        segmentation = state.node_of(SEGMENTATION, support["id"])
        for segment in list_segments(segmentation) if segmentation is not None else ():
            by_hand = data["assigned"].get(f"{support['id']}/{segment.id}")
            row = _find(classes, segment, by_hand)
            if row is None:
                row = new_row(segment.name, segment.color, segment.terminology, own=False)
                row["id"] = _identity(f"{support['id']}/{segment.id}", taken)
                taken.add(row["id"])
                classes.append(row)
                members[row["id"]] = []
            members[row["id"]].append((support, segment))
            if segment.terminology and not row["terminology"] and by_hand is None:
                row["terminology"] = segment.terminology
    kept = [c for c in classes if c["own"] or members[c["id"]]]
    data["structures"] = kept
    return data, {c["id"]: members[c["id"]] for c in kept}


def adopt(
    state: SceneState,
) -> tuple[dict[str, Any], dict[str, list[tuple[dict, SegmentInfo]]]]:
    """:func:`match`, and keep what it found: the classes' order, names and colours stay then."""
    data, members = match(state)
    state.write(data)
    return data, members


def drawn_classes(state: SceneState) -> list[dict[str, Any]]:
    """The ticked classes that are drawn in a ticked support."""
    data, members = match(state)
    ticked = {row["id"] for row in data["supports"] if row["ticked"]}
    return [
        row
        for row in data["structures"]
        if row["ticked"]
        and any(
            support["id"] in ticked
            and has_voxels(state.node_of(SEGMENTATION, support["id"]), segment.id)
            for support, segment in members[row["id"]]
        )
    ]


def _identity(segment: str, taken: set[str]) -> str:
    """Of a class that the state does not know yet: the same for the same first segment."""
    number = 0
    while True:
        found = hashlib.sha256(f"{segment}/{number}".encode()).hexdigest()[:12]
        if found not in taken:
            return found
        number += 1


def new_row(
    name: str, color: Sequence[float] | None, terminology: str, own: bool = True
) -> dict[str, Any]:
    """A class. ``own``: a user made or edited it, so that it stays without segments too."""
    return {
        "id": new_id(),
        "name": name,
        "color": list(color or COLORS[len(name) % len(COLORS)]),
        "terminology": terminology,
        "ticked": True,
        "own": own,
        "prior": dict(NO_PRIOR),
    }


def _find(classes: list[dict], segment: SegmentInfo, by_hand: str | None) -> dict | None:
    if by_hand is not None:
        for row in classes:
            if row["id"] == by_hand:
                return row
    key = terminology_key(segment.terminology)
    if key:
        for row in classes:
            if terminology_key(row["terminology"]) == key:
                return row
    name = class_key(segment.name) or (segment.name,)
    for row in classes:
        same = (class_key(row["name"]) or (row["name"],)) == name
        # One name under two terminologies is two things until a user says otherwise.
        if same and not (key and terminology_key(row["terminology"])):
            return row
    return None


def structure_rows(state: SceneState, sizes: Sizes | None) -> list[StructureRow]:
    """All classes with their segments, conflicts and priors.

    Args:
        sizes: gives a segment's volume; None where segments don't show the whole structure.
    """
    data, members = match(state)
    ticked = {s["id"] for s in data["supports"] if s["ticked"]}
    rows = []
    for row in data["structures"]:
        found = members[row["id"]]
        links = tuple(
            SegmentLink(s["id"], _name(state.node_of(VOLUME, s["id"])), g.id, g.name)
            for s, g in found
        )
        used = [(s, g) for s, g in found if s["id"] in ticked]
        rows.append(
            StructureRow(
                row["id"],
                row["name"],
                tuple(row["color"]),
                row["terminology"],
                links,
                row["ticked"],
                _conflict(row, links, data),
                prior_row(measured_ml(state, used, sizes) if sizes else [], row["prior"]),
            )
        )
    return rows


def measured_ml(
    state: SceneState, members: Sequence[tuple[dict, SegmentInfo]], sizes: Sizes
) -> list[float]:
    """Volumes of one class in the supports where it is drawn and already counted, ml."""
    by_support: dict[str, float] = {}
    for support, segment in members:
        try:
            ml = sizes(state.node_of(SEGMENTATION, support["id"]), segment.id)
        except InputError:
            continue  # the support's own row says what is wrong
        if ml:
            by_support[support["id"]] = by_support.get(support["id"], 0.0) + ml
    return list(by_support.values())


def prior_row(sizes_ml: Sequence[float], edits: dict[str, Any]) -> PriorRow:
    """The prior of sizes and a person's edits, by the engine's own rules.

    Where a field of view cuts a structure off is known to the engine alone: it may trust a bound
    less than this says.
    """
    change = change_of(edits)
    edited = edits["mean_ml"] is not None or edits["sd_ml"] is not None
    enabled = edits["enabled"] is not False
    if sizes_ml:
        measured = prior_from_sizes([ml * 1000 for ml in sizes_ml], [False] * len(sizes_ml))
    elif edits["mean_ml"] is not None:
        measured = SizePrior(edits["mean_ml"] * 1000)
    else:
        return PriorRow(
            sd_ml=edits["sd_ml"],
            edited=edited,
            gamma=edits["gamma"],
            gamma_edited=edits["gamma"] is not None,
            enabled=enabled,
        )
    prior = change.apply(measured)
    low, high = prior.bounds()
    return PriorRow(
        prior.mean / 1000,
        prior.deviation / 1000,
        len(sizes_ml),
        edited,
        prior.gamma,
        edits["gamma"] is not None,
        low / 1000 if enabled else None,
        high / 1000 if enabled else None,
        enabled,
    )


def change_of(edits: dict[str, Any]) -> PriorChange:
    """A person's edits as the engine takes them."""
    return PriorChange(edits["mean_ml"], edits["sd_ml"], edits["gamma"], edits["enabled"])


def _conflict(row: dict, links: Sequence[SegmentLink], data: dict[str, Any]) -> str:
    seen: dict[str, SegmentLink] = {}
    for link in links:
        first = seen.setdefault(link.support_id, link)
        by_hand = data["assigned"].get(f"{link.support_id}/{link.segment_id}")
        if first is not link and by_hand is None:
            return _(
                "«{volume}» has two segments of this class, «{first}» and «{second}», which are "
                "taken together. Rename one if they are two structures."
            ).format(volume=link.volume_name, first=first.segment_name, second=link.segment_name)
    for other in data["structures"]:
        if other is row:
            continue
        if class_key(other["name"]) == class_key(row["name"]):
            return _(
                "Another class has the same name and another terminology. Merge both if they are "
                "one structure, or rename one."
            )
    names = sorted({link.segment_name for link in links if class_key(link.segment_name)})
    keys = {class_key(name) for name in names}
    by_hand = row["id"] in data["assigned"].values()
    if len(keys) > 1 and not by_hand:
        return _("One terminology under several names: {names}. Check that they are one.").format(
            names=", ".join(names)
        )
    return ""


def _name(node: Any) -> str:
    return node.GetName() if node is not None else ""
