"""Which volumes of the scene to annotate next, asked of the background process."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import (
    ADAPTER,
    ArrayFile,
    SuggestedVolume,
    SuggestJob,
    read_suggestions,
    write_job,
)
from FewShotSegLib.core.modality import MODALITIES

from ..engine_words import panel_words
from ..interface.rows import Changed, End, SuggestionRow, TaskKind
from ..scene.pairing import image_volumes
from ..scene.session import Session
from ..scene.supports import modality_of_volume, support_rows
from . import segment
from .export_nodes import volume_steps
from .result_loader import read_result
from .task import Run, WholeRun

NUMBERED = re.compile(r"\bVolume (\d+)\b")
"""What the engine calls a volume of a job, of which it knows the number alone."""
Order = list[tuple[str, SuggestedVolume]]
"""IDs of volumes, the first to annotate first, each with what is said of it."""


def annotated(session: Session) -> list[Any]:
    """The volumes that are annotated."""
    return [row.volume for row in support_rows(session.state) if row.state == "ready"]


def candidates(session: Session, done: Collection[Any]) -> list[Any]:
    """The images of the scene that are not annotated, given the volumes that are."""
    return [volume for volume in image_volumes(session.state) if volume not in done]


def blockers(session: Session) -> list[str]:
    """Why nothing can be suggested, one sentence each; empty where it can."""
    found, done = [], annotated(session)
    left = candidates(session, done)
    if len(left) < 2:
        found.append(_("Load two or more volumes that are not annotated yet."))
    elif segment.adapter_blockers(session):  # an adapter would have its own model
        model = session.models.row(_model(session, (*done, *left)))
        if model is None or model.problem:
            found.append(model.problem if model else _("Choose a foundation model."))
    return found


def _model(session: Session, volumes: Iterable[Any]) -> str:
    """The foundation model before anything was trained: for what the volumes look like."""
    wanted = session.parameters.modality
    kinds = [wanted] if wanted in MODALITIES else map(modality_of_volume, volumes)
    return session.models.chosen(next(filter(None, kinds), "CT"))


class SuggestNext:
    """Part of the logic: an order that holds until the scene is another."""

    session: Session
    _start: Callable[[Run], None]
    _require: Callable[[list[str]], None]
    _order: Order

    def _init_suggest(self) -> None:
        self._order = []

    def startSuggesting(self) -> None:
        self._require(blockers(self.session))
        self._start(SuggestRun(self.session, self._keep_order))

    def suggestions(self) -> list[SuggestionRow]:
        if not self._order:
            return []
        rows, done = [], annotated(self.session)
        for volume_id, found in self._order:
            volume = slicer.mrmlScene.GetNodeByID(volume_id)
            if volume is not None and volume not in done:
                reasons = tuple(self._named(text) for text in found.reasons or [found.problem])
                name = volume.GetName()
                rows.append(SuggestionRow(volume_id, volume, name, reasons, bool(found.problem)))
        return rows

    def _named(self, text: str) -> str:
        """An engine's sentence with the names of the scene."""
        names = {one.number: volume_id for volume_id, one in self._order}

        def name(match: re.Match[str]) -> str:
            node = slicer.mrmlScene.GetNodeByID(names.get(int(match[1]), "") or "")
            return node.GetName() if node is not None else match[0]

        return NUMBERED.sub(name, panel_words(text))

    def _keep_order(self, order: Order) -> None:
        self._order = order
        self.session.tell(Changed("supports"))


class SuggestRun(WholeRun):
    """Hand over what is there now.

    Args:
        keep: takes the order.
    """

    kind: TaskKind = "suggest"

    def __init__(self, session: Session, keep: Callable[[Order], None]) -> None:
        self._session, self._keep = session, keep
        self._annotated = annotated(session)
        self._volumes = candidates(session, self._annotated)
        self._adapter = ""
        if not segment.adapter_blockers(session):
            self._adapter = session.parameters.adapterId
        self._model = None
        if not self._adapter:
            self._model = _model(session, (*self._annotated, *self._volumes))
        self._order: Order = []

    def prepare(self, folder: Path) -> Iterator[Any]:
        """Write :class:`FewShotSegLib.core.job_protocol.SuggestJob`."""
        session = self._session
        if self._adapter:
            (folder / ADAPTER).write_bytes(session.adapters.content(self._adapter))
            yield
        files: list[ArrayFile] = []
        for number, volume in enumerate((*self._volumes, *self._annotated)):
            yield from volume_steps(folder, f"volume{number}.npy", volume, files)
        count = len(self._volumes)
        wanted = session.parameters.modality
        job = SuggestJob(
            files[:count],
            files[count:],
            adapter=ADAPTER if self._adapter else None,
            model=self._model,
            modality=wanted if wanted in MODALITIES else "auto",
            device=session.devices.chosen(),
        )
        write_job(folder, job)
        yield

    def load(self, folder: Path) -> Iterator[None]:
        """Take the order."""
        found = read_suggestions(read_result(folder).get("order"))
        if any(one.number > len(self._volumes) for one in found):
            raise InputError(_("The background process left no result that can be read."))
        self._order = [(self._volumes[one.number - 1].GetID() or "", one) for one in found]
        self._keep(self._order)
        yield

    def finish(self, times: Mapping[str, float]) -> End:
        """Which is the first."""
        first = [v for v, one in self._order if not one.problem]
        node = slicer.mrmlScene.GetNodeByID(first[0]) if first else None
        if node is None:
            return End("suggest", "failed", _("None of the volumes can be used."))
        text = _("Annotate «{name}» next. The table has the others, and why.")
        return End("suggest", "finished", text.format(name=node.GetName()))
