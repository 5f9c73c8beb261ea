"""What a person changes about the classes: names, colours, merging, priors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError

from ..interface.rows import Changed, PriorEdit
from .pairing import reference_of
from .segments import TERMINOLOGY_TAG
from .session import Session
from .state import SEGMENTATION, VOLUME, new_id
from .structures import NO_PRIOR, adopt, change_of, match, new_row
from .supports import new_segmentation, place_on

if TYPE_CHECKING:
    from typing import Unpack


class StructureEdits:
    """Part of the logic."""

    session: Session

    def addStructure(
        self, name: str, color: tuple[float, float, float] | None = None, terminology: str = ""
    ) -> str:
        """A class that nothing is drawn for yet; its id."""
        row = new_row(_named(name), color, terminology)
        self._edit(lambda data: data["structures"].append(row))
        return row["id"]

    def renameStructure(self, structure_id: str, name: str) -> None:
        """Another name for the class; the segments keep theirs, and stay with it."""
        state = self.session.state
        data, members = match(state)
        row = _row(data, structure_id)
        row["name"], row["own"] = _named(name), True
        for support, segment in members[structure_id]:
            data["assigned"][f"{support['id']}/{segment.id}"] = structure_id
        state.write(data)
        self.session.tell(Changed("structures"))

    def colorStructure(self, structure_id: str, color: tuple[float, float, float]) -> None:
        """The colour of the result's segment."""
        self._change(structure_id, color=[float(c) for c in color])

    def tickStructure(self, structure_id: str, ticked: bool) -> None:
        """Learn it, or don't."""
        self._change(structure_id, ticked=bool(ticked))

    def mergeStructures(self, structure_ids: list[str]) -> str:
        """Make several classes one; the first one's name stays. Its id."""
        if len(structure_ids) < 2:
            raise InputError(_("Choose two or more classes to merge."))
        state = self.session.state
        data, members = match(state)
        first, *rest = [_row(data, structure_id) for structure_id in structure_ids]
        for row in (first, *rest):
            for support, segment in members[row["id"]]:
                data["assigned"][f"{support['id']}/{segment.id}"] = first["id"]
        first["own"] = True
        data["structures"] = [row for row in data["structures"] if row not in rest]
        state.write(data)
        self.session.tell(Changed("structures"))
        return first["id"]

    def splitStructure(self, structure_id: str) -> list[str]:
        """Undo what was merged by hand; the ids of the classes that come of it."""
        state = self.session.state
        data, members = match(state)
        mine = {f"{s['id']}/{g.id}" for s, g in members[_row(data, structure_id)["id"]]}
        data["assigned"] = {k: v for k, v in data["assigned"].items() if v != structure_id}
        state.write(data)
        _data, members = adopt(state)
        self.session.tell(Changed("structures"))
        return [
            row_id
            for row_id, found in members.items()
            if any(f"{s['id']}/{g.id}" in mine for s, g in found)
        ]

    def setPrior(self, structure_id: str, **edit: Unpack[PriorEdit]) -> None:
        """Edit what is given; the rest stays.

        Raises:
            InputError: a value is out of range.
        """
        unknown = set(edit) - set(NO_PRIOR)
        if unknown:
            raise TypeError(f"a prior has no {', '.join(sorted(unknown))}")
        state = self.session.state
        data, _members = match(state)
        row = _row(data, structure_id)
        edits = {**row["prior"], **{k: v for k, v in edit.items() if v is not None}}
        _check(edits)
        row["prior"] = edits
        state.write(data)
        self.session.tell(Changed("structures"))

    def resetPrior(self, structure_id: str) -> None:
        """Back to what the supports say."""
        self._change(structure_id, prior=dict(NO_PRIOR))

    def prepareEditing(self, support_id: str) -> tuple[Any, Any]:
        """A row's volume and segmentation, with one segment for each class."""
        return prepare_editing(self.session, support_id)

    def _change(self, structure_id: str, **values: Any) -> None:
        def change(data: dict[str, Any]) -> None:
            _row(data, structure_id).update(values, own=True)

        self._edit(change)

    def _edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        state = self.session.state
        data, _members = match(state)
        change(data)
        state.write(data)
        self.session.tell(Changed("structures"))


def prepare_editing(session: Session, support_id: str) -> tuple[Any, Any]:
    """A row's volume and segmentation, with one segment for each class."""
    state = session.state
    data, members = match(state)
    support = next((row for row in data["supports"] if row["id"] == support_id), None)
    if support is None:
        raise InputError(_("There is no such support."))
    if support.get("choose"):
        raise InputError(_("Choose the annotation of this volume first, below the table."))
    volume = state.node_of(VOLUME, support_id)
    if volume is None:
        raise InputError(_("The volume of this row was deleted. Remove the row."))
    segmentation = state.node_of(SEGMENTATION, support_id)
    if segmentation is None:
        segmentation = new_segmentation(volume)
        state.refer(SEGMENTATION, support_id, segmentation)
    elif reference_of(segmentation) is None:
        place_on(segmentation, volume)
    for row in data["structures"]:
        here = any(s["id"] == support_id for s, _g in members[row["id"]])
        if here or not row["ticked"]:
            continue
        segment_id = segmentation.GetSegmentation().AddEmptySegment(
            f"FewShotSeg_{new_id()}", row["name"], row["color"]
        )
        segment = segmentation.GetSegmentation().GetSegment(segment_id)
        if row["terminology"]:
            segment.SetTag(TERMINOLOGY_TAG, row["terminology"])
        data["assigned"][f"{support_id}/{segment_id}"] = row["id"]
    state.write(data)
    session.tell(Changed("supports"))
    return volume, segmentation


def _row(data: dict[str, Any], structure_id: str) -> dict[str, Any]:
    for row in data["structures"]:
        if row["id"] == structure_id:
            return row
    raise InputError(_("There is no such class."))


def _named(name: str) -> str:
    if not name.strip():
        raise InputError(_("Give the class a name."))
    return name.strip()


def _check(edits: dict[str, Any]) -> None:
    """Refuse what the engine would refuse, while it is typed."""
    from FewShotSegLib.core.size_prior import SizePrior

    change_of(edits).apply(SizePrior(1000.0))
