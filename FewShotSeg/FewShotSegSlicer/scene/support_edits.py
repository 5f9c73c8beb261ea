"""What a person changes about the support set: rows added, ticked, shown and removed."""

from __future__ import annotations

from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError

from ..interface.rows import Changed, SupportRow
from . import proposals, supports, views
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
        row = self._support(row_id)
        if row.segmentation is not None and not row.structures:
            prepare_editing(self.session, row_id)
        self._changed_supports()
        return row_id

    def addSceneSupports(self) -> int:
        count = supports.add_scene_supports(self.session.state)
        self._changed_supports()
        return count

    def chooseAnnotation(self, support_id: str, choice_id: str) -> None:
        supports.choose_annotation(self.session.state, support_id, choice_id)
        self._changed_supports()

    def proposedSupport(self, on_screen: Any = None) -> Any:
        return proposals.proposed_support(self.session.state, on_screen)

    def proposedQuery(self, on_screen: Any = None) -> Any:
        has_adapter = bool(self.session.adapters.nodes())
        return proposals.proposed_query(self.session.state, on_screen, has_adapter)

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
        if row.state in ("missing", "choose"):
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
