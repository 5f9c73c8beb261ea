"""What a person changes about the support set: rows added, ticked, shown and removed."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError

from ..interface.rows import Changed, SupportRow
from . import supports, views
from .session import Session
from .structure_edits import prepare_editing
from .structures import adopt


class SupportEdits:
    """Part of the logic."""

    session: Session

    def supports(self) -> list[SupportRow]:
        return supports.support_rows(self.session.state)

    def addSupport(self, volume: Any, segmentation: Any = None) -> str:
        row_id = supports.add_support(
            self.session.state,
            _node(volume),
            _node(segmentation) if segmentation is not None else None,
        )
        if not self._support(row_id).structures:
            prepare_editing(self.session, row_id)
        self._changed_supports()
        return row_id

    def addSceneSupports(self) -> int:
        count = supports.add_scene_supports(self.session.state)
        self._changed_supports()
        return count

    def addFolder(self, folder: str) -> int:
        count = supports.add_folder(self.session.state, folder)
        self._changed_supports()
        return count

    def removeSupport(self, support_id: str) -> None:
        adopt(self.session.state)  # first: classes that it shares with others stay what they are
        supports.remove_support(self.session.state, support_id)
        self._changed_supports()

    def tickSupport(self, support_id: str, ticked: bool) -> None:
        supports.tick_support(self.session.state, support_id, ticked)
        self._changed_supports()

    def showSupport(self, support_id: str) -> None:
        row = self._support(support_id)
        if row.state == "missing":
            raise InputError(row.problem)
        views.show_support(row)

    def _support(self, support_id: str) -> SupportRow:
        for row in self.supports():
            if row.id == support_id:
                return row
        raise InputError(_("There is no such support."))

    def _changed_supports(self) -> None:
        adopt(self.session.state)
        self.session.tell(Changed("supports"))
        self.session.tell(Changed("structures"))


def _node(node: Any) -> Any:
    """A node, or the node of a name or an id."""
    return slicer.util.getNode(node) if isinstance(node, str) else node
