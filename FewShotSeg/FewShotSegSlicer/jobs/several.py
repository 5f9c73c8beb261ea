"""Several volumes segmented one after the other, with one press of a button."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import FewShotSegError, InputError

from ..interface.rows import Changed, End, QueryRow, QueryState
from ..scene.pairing import image_volumes
from ..scene.session import Session
from ..scene.state import QUERY, VOLUME
from . import segment


class SegmentSeveral:
    """Part of the logic. Each volume is segmented as if it were chosen and Segment pressed; one
    that can't be is passed over, and its row says why. Cancel stops those that wait, too."""

    session: Session
    startSegmentation: Callable[[], None]
    running: Callable[[], Any]
    _closed: bool
    _pending: list[str]
    _outcomes: dict[str, tuple[QueryState, str]]
    _current: str

    def _init_several(self) -> None:
        self._pending, self._outcomes, self._current = [], {}, ""

    def queries(self) -> list[QueryRow]:
        state = self.session.state
        data = state.read()
        supports = [state.node_of(VOLUME, row["id"]) for row in data["supports"]]
        segmented = [state.node_of(QUERY, row["id"]) for row in data["results"]]
        return [
            QueryRow(volume.GetID(), volume, volume.GetName(), *self._state_of(volume, segmented))
            for volume in image_volumes(state)
            if volume not in supports
        ]

    def startSeveral(self, volume_ids: Sequence[str]) -> None:
        if self.running() not in (None, "devices") or self._pending:
            raise InputError(_("Wait until the running task has ended, or cancel it."))
        if not volume_ids:
            raise InputError(_("Tick the volumes to segment."))
        obstacles = segment.adapter_blockers(self.session)
        if obstacles:
            raise InputError(obstacles[0])
        self._pending, self._outcomes = list(dict.fromkeys(volume_ids)), {}
        self._start_next()

    def _state_of(self, volume: Any, segmented: Sequence[Any]) -> tuple[QueryState, str]:
        found = volume.GetID()
        if found == self._current:
            return "running", ""
        if found in self._pending:
            return "waiting", ""
        if found in self._outcomes:
            return self._outcomes[found]
        return ("done" if volume in segmented else "open"), ""

    def _start_next(self) -> None:
        """The next volume that can be segmented, if nothing else runs."""
        while self._pending and not self._closed and self.running() in (None, "devices"):
            volume_id = self._pending.pop(0)
            volume = slicer.mrmlScene.GetNodeByID(volume_id)
            if volume is None:  # it was removed meanwhile
                continue
            self.session.parameters.queryVolume = volume
            self._current = volume_id
            try:
                self.startSegmentation()
            except FewShotSegError as error:
                self._current = ""
                self._outcomes[volume_id] = ("failed", str(error))
        self.session.tell(Changed("results"))

    def _several_ended(self, end: End) -> None:
        """A task ended: of this row, or one that was in the way."""
        current, self._current = self._current, ""
        if current:
            if end.state == "finished":
                self._outcomes[current] = ("done", end.message)
            elif end.state == "cancelled":
                self._outcomes[current] = ("stopped", end.message)
            else:
                self._outcomes[current] = ("failed", end.message)
            if end.state in ("cancelled", "not started"):
                self._drop_pending()
        if self._pending:
            qt.QTimer.singleShot(0, self._start_next)

    def _drop_pending(self) -> None:
        for volume_id in self._pending:
            self._outcomes[volume_id] = ("stopped", _("Not begun."))
        self._pending = []

    def _forget_several(self) -> None:
        """Another scene has other volumes."""
        self._init_several()
