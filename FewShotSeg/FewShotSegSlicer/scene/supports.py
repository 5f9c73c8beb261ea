"""The support set over MRML nodes: rows, what is missing in each, and what is on screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.ct_offset import is_offset_ct
from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.modality import MODALITIES, modality_of

from ..interface.rows import SupportRow
from .geometry import parent_matrix, volume_affine, volume_array
from .segments import has_voxels, list_segments
from .state import REFINED, SEGMENTATION, UNREFINED, VOLUME, SceneState, new_id
from .structures import match

MOST_KNOWN = 100
"""Volumes whose kind is remembered."""


def add_support(state: SceneState, volume: Any, segmentation: Any = None) -> str:
    """Add a row; the id of the one that is there already, if it is.

    Raises:
        InputError: the nodes are not a volume and a segmentation.
    """
    if volume is None or not volume.IsA("vtkMRMLScalarVolumeNode"):
        raise InputError(_("Choose a volume to add as a support."))
    volume_array(volume)
    if segmentation is not None and not segmentation.IsA("vtkMRMLSegmentationNode"):
        raise InputError(_("Choose a segmentation for the support."))
    segmentation = segmentation or segmentation_of(volume, state)
    data = state.read()
    for row in data["supports"]:
        same = state.node_of(VOLUME, row["id"]) is volume
        if same and state.node_of(SEGMENTATION, row["id"]) in (segmentation, None):
            state.refer(SEGMENTATION, row["id"], segmentation)
            return row["id"]
    if segmentation is None:
        segmentation = new_segmentation(volume)
    row_id = new_id()
    state.refer(VOLUME, row_id, volume)
    state.refer(SEGMENTATION, row_id, segmentation)
    data["supports"].append({"id": row_id, "ticked": True})
    state.write(data)
    return row_id


def new_segmentation(volume: Any) -> Any:
    """An empty segmentation in a volume's place and geometry."""
    name = slicer.mrmlScene.GenerateUniqueName(f"{volume.GetName()} segmentation")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    place_on(node, volume)
    return node


def place_on(segmentation: Any, volume: Any) -> None:
    """Put a segmentation under a volume's transform, with its reference geometry."""
    # In this order: the other way round the transform would be applied twice.
    segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)


def segmentation_of(volume: Any, state: SceneState) -> Any:
    """The segmentation that was drawn on a volume, None if there is none."""
    ours = result_nodes(state)
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if reference_of(node) is volume and node not in ours:
            return node
    return None


def reference_of(segmentation: Any) -> Any:
    """The volume that a segmentation was drawn on, or None."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentation.GetNodeReference(role)


def result_nodes(state: SceneState) -> list[Any]:
    """Segmentations that this module made: nobody annotated them."""
    return [
        state.node_of(role, row["id"])
        for row in state.read()["results"]
        for role in (REFINED, UNREFINED)
    ]


def add_scene_supports(state: SceneState) -> int:
    """Add every volume of the scene that has a segmentation with segments."""
    count, before = 0, len(state.read()["supports"])
    ours = result_nodes(state)
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        volume = reference_of(node)
        if volume is None or node in ours or not list_segments(node):
            continue
        try:
            add_support(state, volume, node)
        except InputError:
            continue
    count = len(state.read()["supports"]) - before
    return count


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
        add_support(state, volume, segmentation)
    return len(pairs)


def remove_support(state: SceneState, row_id: str) -> None:
    """Take a row out; its nodes stay in the scene."""
    data = state.read()
    data["supports"] = [row for row in data["supports"] if row["id"] != row_id]
    data["assigned"] = {k: v for k, v in data["assigned"].items() if k.split("/")[0] != row_id}
    for role in (VOLUME, SEGMENTATION):
        state.refer(role, row_id, None)
    state.write(data)


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
            )
        )
    return rows


def likely_modality(state: SceneState) -> str:
    """``CT`` or ``MR``: as a person said, or by the values of the first ticked support; else CT.

    The values are those that the training goes by, too: a CT that was stored 1024 too high is one.
    VTK keeps a volume's range, and what the voxels are like is kept here, so that asking again
    costs nothing.
    """
    if state.parameters.modality in MODALITIES:
        return state.parameters.modality
    for row in state.read()["supports"]:
        volume = state.node_of(VOLUME, row["id"])
        image = volume.GetImageData() if row["ticked"] and volume is not None else None
        if image is not None and image.GetNumberOfPoints():
            kind = modality_of(image.GetScalarRange()[0])
            return "CT" if kind == "MR" and is_offset_volume(volume, image) else kind
    return "CT"


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
