"""What a person changes about the support set: rows added, ticked, shown and removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError

from ..interface.rows import Changed, SupportRow
from . import supports as rows_of_supports
from .structures import match


class SupportEdits:
    """Part of the logic; ``_state``, ``_tell`` and ``prepareEditing`` are the logic's."""

    _state: Callable[[], Any]
    _tell: Callable[[Any], None]
    prepareEditing: Callable[[str], Any]

    def supports(self) -> list[SupportRow]:
        state = self._state()
        data, members = match(state)
        names = {row["id"]: row["name"] for row in data["structures"]}
        drawn: dict[str, list[str]] = {}
        for row_id, found in members.items():
            for support, segment in found:
                node = state.node_of(rows_of_supports.SEGMENTATION, support["id"])
                known = drawn.setdefault(support["id"], [])
                if rows_of_supports.has_voxels(node, segment.id) and names[row_id] not in known:
                    known.append(names[row_id])
        return rows_of_supports.support_rows(state, {k: tuple(v) for k, v in drawn.items()})

    def addSupport(self, volume: Any, segmentation: Any = None) -> str:
        row_id = rows_of_supports.add_support(
            self._state(), _node(volume), _node(segmentation) if segmentation is not None else None
        )
        if not self._support(row_id).structures:
            self.prepareEditing(row_id)
        self._changed_supports()
        return row_id

    def addSceneSupports(self) -> int:
        count = rows_of_supports.add_scene_supports(self._state())
        self._changed_supports()
        return count

    def addFolder(self, folder: str) -> int:
        count = rows_of_supports.add_folder(self._state(), folder)
        self._changed_supports()
        return count

    def removeSupport(self, support_id: str) -> None:
        rows_of_supports.remove_support(self._state(), support_id)
        self._changed_supports()

    def tickSupport(self, support_id: str, ticked: bool) -> None:
        rows_of_supports.tick_support(self._state(), support_id, ticked)
        self._changed_supports()

    def showSupport(self, support_id: str) -> None:
        row = self._support(support_id)
        if row.state == "missing":
            raise InputError(row.problem)
        rows_of_supports.show_support(row, self.supports())

    def _support(self, support_id: str) -> SupportRow:
        for row in self.supports():
            if row.id == support_id:
                return row
        raise InputError(_("There is no such support."))

    def _changed_supports(self) -> None:
        self._tell(Changed("supports"))
        self._tell(Changed("structures"))


def _node(node: Any) -> Any:
    """A node, or the node of a name or an id."""
    return slicer.util.getNode(node) if isinstance(node, str) else node
