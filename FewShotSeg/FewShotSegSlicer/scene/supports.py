"""The support set over MRML nodes: rows, what is missing in each, and what is on screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.ct_offset import is_offset_ct
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.modality import MODALITIES, modality_of

from ..interface.rows import AnnotationChoice, SupportRow
from .annotations import (
    as_segmentation,
    is_dispensable,
    is_label_map,
    mark_made,
    refer_to_volume,
    remove_node,
)
from .geometry import parent_matrix, volume_affine, volume_array
from .pairing import Sources, annotation_of, choices_for, find_pairs, result_nodes
from .segments import has_voxels, list_segments
from .state import SEGMENTATION, VOLUME, SceneState, new_id
from .structures import match

MOST_KNOWN = 100
"""Volumes whose kind is remembered."""


def add_support(state: SceneState, volume: Any, annotation: Any = None) -> str:
    """Add a row; the id of the one that is there already, if it is.

    Args:
        annotation: a segmentation, a label map or a surface model; where it is None, the one that
            was drawn on the volume, else a new empty segmentation. Where several could be the
            volume's, the row waits for a choice.

    Raises:
        InputError: the nodes are not a volume and its annotation.
    """
    if volume is None or not volume.IsA("vtkMRMLScalarVolumeNode"):
        raise InputError(_("Choose a volume to add as a support."))
    if is_label_map(volume) and not volume.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(
            _("«{name}» holds labels, not an image. Choose the image.").format(
                name=volume.GetName()
            )
        )
    volume_array(volume)
    if annotation is not None and not _is_annotation(annotation):
        raise InputError(_("Choose a segmentation for the support."))
    sources = (annotation,) if annotation is not None else annotation_of(state, volume)
    if not sources:
        return _add_unannotated(state, volume)
    return _add_row(state, volume, as_segmentation(sources, volume))


def _is_annotation(node: Any) -> bool:
    if node.IsA("vtkMRMLScalarVolumeNode"):
        return is_label_map(node)
    return node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLModelNode")


def _add_unannotated(state: SceneState, volume: Any) -> str:
    """A row of a volume of which no annotation is known: one to choose, or one to draw."""
    for row in state.read()["supports"]:
        if state.node_of(VOLUME, row["id"]) is volume:
            if state.node_of(SEGMENTATION, row["id"]) is None and not row.get("choose"):
                state.refer(SEGMENTATION, row["id"], new_segmentation(volume))
            return row["id"]
    if choices_for(state, volume):
        return _add_row(state, volume, None)
    return _add_row(state, volume, new_segmentation(volume))


def _add_row(state: SceneState, volume: Any, segmentation: Any) -> str:
    """A row of these nodes; without a segmentation it waits for a choice, and is not used."""
    data = state.read()
    for row in data["supports"]:
        same = state.node_of(VOLUME, row["id"]) is volume
        if same and state.node_of(SEGMENTATION, row["id"]) in (segmentation, None):
            if segmentation is not None:
                state.refer(SEGMENTATION, row["id"], segmentation)
                refer_to_volume(segmentation, volume)
                row["ticked"] = row["ticked"] or bool(row.pop("choose", False))
                state.write(data)
            return row["id"]
    row = {"id": new_id(), "ticked": segmentation is not None}
    if segmentation is None:
        row["choose"] = True
    else:
        refer_to_volume(segmentation, volume)
    state.refer(VOLUME, row["id"], volume)
    state.refer(SEGMENTATION, row["id"], segmentation)
    data["supports"].append(row)
    state.write(data)
    return row["id"]


def choose_annotation(state: SceneState, row_id: str, choice_id: str) -> None:
    """Give a row that waits for it one of its choices; an empty id is a new, empty segmentation.

    Other rows that waited for the same annotation and have no choice left are taken out.

    Raises:
        InputError: there is no such row, or no such choice.
    """
    volume = state.node_of(VOLUME, row_id)
    if volume is None:
        raise InputError(_("There is no such support."))
    if not choice_id:
        segmentation = new_segmentation(volume)
    else:
        found = [s for s in choices_for(state, volume) if _choice_id(s) == choice_id]
        if not found:
            raise InputError(_("That annotation is not in the scene any more, or used already."))
        segmentation = as_segmentation(found[0], volume)
    _add_row(state, volume, segmentation)
    for row in state.read()["supports"]:
        other = state.node_of(VOLUME, row["id"])
        if row.get("choose") and (other is None or not choices_for(state, other)):
            remove_support(state, row["id"])


def _choice_id(sources: Sources) -> str:
    return ",".join(node.GetID() for node in sources)


def _choices(state: SceneState, volume: Any) -> tuple[AnnotationChoice, ...]:
    return tuple(
        AnnotationChoice(_choice_id(sources), ", ".join(node.GetName() for node in sources))
        for sources in choices_for(state, volume)
    )


def new_segmentation(volume: Any) -> Any:
    """An empty segmentation in a volume's place and geometry."""
    name = slicer.mrmlScene.GenerateUniqueName(f"{volume.GetName()} segmentation")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    mark_made(node)
    place_on(node, volume)
    return node


def place_on(segmentation: Any, volume: Any) -> None:
    """Put a segmentation under a volume's transform, with its reference geometry."""
    # In this order: the other way round the transform would be applied twice.
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)


def add_scene_supports(state: SceneState) -> int:
    """Add every volume of the scene that has an annotation; how many.

    Rows that wait for a choice are added too, and not counted; see :func:`choose_annotation`.
    """
    found, count = find_pairs(state), 0
    for volume, sources in found.pairs:
        before = len(_complete(state))
        try:
            _add_row(state, volume, as_segmentation(sources, volume))
        except InputError:  # an empty label map
            continue
        count += len(_complete(state)) - before
    for volume in found.open:
        _add_row(state, volume, None)
    return count


def _complete(state: SceneState) -> list[dict[str, Any]]:
    return [row for row in state.read()["supports"] if not row.get("choose")]


def add_folder(state: SceneState, folder: str) -> int:
    """Load the image and segmentation pairs of a folder, and add them.

    Raises:
        InputError: there is no such folder, no pair in it, or a file can't be read.
    """
    from FewShotSegLib.core.annotation import parse_structures
    from FewShotSegLib.io.pairs import find_pairs, read_names

    pairs, text = find_pairs(folder), read_names(folder)
    names = {s.value: s.name for s in parse_structures(text)} if text else {}
    for pair in pairs:
        if Path(pair.segmentation).is_dir():
            raise InputError(
                _("{path} is a folder of masks. Load them in Slicer, and add the volume.").format(
                    path=pair.segmentation
                )
            )
        try:
            volume = slicer.util.loadVolume(str(pair.image), {"name": pair.name})
            segmentation = slicer.util.loadSegmentation(
                str(pair.segmentation), {"name": f"{pair.name} segmentation"}
            )
        except RuntimeError as error:
            raise InputError(
                _("{image} and its segmentation can't be read.").format(image=pair.image)
            ) from error
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segments = segmentation.GetSegmentation()
        for number in range(segments.GetNumberOfSegments()):
            segment = segments.GetNthSegment(number)
            if segment.GetLabelValue() in names:
                segment.SetName(names[segment.GetLabelValue()])
        _add_row(state, volume, segmentation)
    return len(pairs)


def remove_support(state: SceneState, row_id: str) -> None:
    """Take a row out. What a person loaded or drew stays in the scene; a segmentation that was made
    here for the row and holds nothing of a person's goes with it."""
    data, segmentation = state.read(), state.node_of(SEGMENTATION, row_id)
    data["supports"] = [row for row in data["supports"] if row["id"] != row_id]
    data["assigned"] = {k: v for k, v in data["assigned"].items() if k.split("/")[0] != row_id}
    for role in (VOLUME, SEGMENTATION):
        state.refer(role, row_id, None)
    state.write(data)
    others = [state.node_of(SEGMENTATION, row["id"]) for row in data["supports"]]
    if segmentation is None or segmentation in others or segmentation in result_nodes(state):
        return
    if is_dispensable(segmentation):
        remove_node(segmentation)


def tick_support(state: SceneState, row_id: str, ticked: bool) -> None:
    """Use a row in the next training, or don't."""
    data = state.read()
    for row in data["supports"]:
        if row["id"] == row_id:
            row["ticked"] = bool(ticked)
    state.write(data)


def support_rows(state: SceneState) -> list[SupportRow]:
    """All rows."""
    data, members = match(state)
    drawn: dict[str, dict[str, None]] = {}
    for structure in data["structures"]:
        for support, segment in members[structure["id"]]:
            if has_voxels(state.node_of(SEGMENTATION, support["id"]), segment.id):
                drawn.setdefault(support["id"], {})[structure["name"]] = None
    rows = []
    for row in data["supports"]:
        volume = state.node_of(VOLUME, row["id"])
        segmentation = state.node_of(SEGMENTATION, row["id"])
        choices = _choices(state, volume) if row.get("choose") and volume is not None else ()
        if row.get("choose") and segmentation is None and volume is not None:
            kind, problem = "choose", _choose_text(volume, choices)
        else:
            kind, problem = _state_of(volume, segmentation)
        rows.append(
            SupportRow(
                row["id"],
                volume,
                segmentation,
                volume.GetName() if volume is not None else "",
                segmentation.GetName() if segmentation is not None else "",
                tuple(drawn.get(row["id"], ())),
                row["ticked"],
                kind,
                problem,
                choices,
            )
        )
    return rows


def _choose_text(volume: Any, choices: Sequence[AnnotationChoice]) -> str:
    if not choices:
        return _("No annotation in the scene fits this volume. Remove the row, or load one.")
    if len(choices) == 1:
        return _(
            "«{name}» could be of «{volume}», or of another volume. Choose below the table."
        ).format(volume=volume.GetName(), name=choices[0].title)
    return _(
        "Several annotations could be of «{volume}»: {names}. Choose the right one below the table."
    ).format(volume=volume.GetName(), names=", ".join(choice.title for choice in choices))


def likely_modality(state: SceneState) -> str:
    """``CT`` or ``MR``: as a person said, or by the values of the first ticked support; else CT.

    The values are those that the training goes by, too: a CT that was stored 1024 too high is one.
    VTK keeps a volume's range, and what the voxels are like is kept here, so that asking again
    costs nothing.
    """
    if state.parameters.modality in MODALITIES:
        return state.parameters.modality
    for row in state.read()["supports"]:
        kind = modality_of_volume(state.node_of(VOLUME, row["id"])) if row["ticked"] else ""
        if kind:
            return kind
    return "CT"


def modality_of_volume(volume: Any) -> str:
    """``CT`` or ``MR``, by a volume's values; empty where it has none, or is None."""
    image = volume.GetImageData() if volume is not None else None
    if image is None or not image.GetNumberOfPoints():
        return ""
    kind = modality_of(image.GetScalarRange()[0])
    return "CT" if kind == "MR" and is_offset_volume(volume, image) else kind


_offset_ct: dict[str, tuple[int, bool]] = {}
"""By a volume's ID: the time of its image that was looked at, and what it is."""


def is_offset_volume(volume: Any, image: Any) -> bool:
    """Whether a volume is a CT that was stored 1024 too high."""
    time, known = image.GetMTime(), _offset_ct.get(volume.GetID())
    if known is None or known[0] != time:
        try:
            known = (time, is_offset_ct(volume_array(volume)))
        except InputError:  # no image at all: its row says so
            known = (time, False)
        if len(_offset_ct) >= MOST_KNOWN:
            _offset_ct.clear()
        _offset_ct[volume.GetID()] = known
    return known[1]


def _state_of(volume: Any, segmentation: Any) -> tuple[str, str]:
    if volume is None or segmentation is None:
        return "missing", _("A node of this row was deleted. Remove the row, or load it again.")
    try:
        volume_array(volume)
        volume_affine(volume)
        parent_matrix(segmentation)
    except InputError as error:
        return "unusable", str(error)
    segments = list_segments(segmentation)
    if not segments:
        return "no segments", _("Open it in Segment Editor, and draw the structures.")
    drawn = [s for s in segments if has_voxels(segmentation, s.id)]
    if not drawn:
        return "nothing drawn", _("Its segments are empty. Open it in Segment Editor, and draw.")
    return "ready", ""
