"""Which volume the panel offers for adding, and which for segmenting; read only."""

from __future__ import annotations

from typing import Any

import slicer

from .pairing import find_pairs, image_volumes, reference_of, result_nodes
from .state import QUERY, VOLUME, SceneState


def proposed_support(state: SceneState, on_screen: Any = None) -> Any:
    """The volume to offer for adding: the one on screen, else the first that is left.

    Neither the query, nor a volume that has a row or a result, is ever offered.

    Args:
        on_screen: the volume in the slice views, or None.
    """
    query = state.parameters.queryVolume
    free = [v for v in _without_row(state) if v is not query and v not in _segmented(state)]
    return on_screen if on_screen in free else next(iter(free), None)


def proposed_query(state: SceneState, on_screen: Any, has_adapter: bool) -> Any:
    """The volume to offer for segmenting: one without an annotation, the one on screen first.

    Args:
        on_screen: the volume in the slice views, or None. has_adapter: whether there is one that
            could segment it.

    Returns:
        None where nothing was annotated or trained yet: the open volume is then to be annotated.
    """
    found = find_pairs(state)
    annotated = [volume for volume, _sources in found.pairs] + found.open
    if not (annotated or has_adapter or state.read()["supports"]):
        return None
    drawn_on = [reference_of(node) for node in _annotations(state)]
    free = [v for v in _without_row(state) if v not in annotated and v not in drawn_on]
    return on_screen if on_screen in free else next(iter(free), None)


def _without_row(state: SceneState) -> list[Any]:
    rows = [state.node_of(VOLUME, row["id"]) for row in state.read()["supports"]]
    return [volume for volume in image_volumes(state) if volume not in rows]


def _segmented(state: SceneState) -> list[Any]:
    return [state.node_of(QUERY, row["id"]) for row in state.read()["results"]]


def _annotations(state: SceneState) -> list[Any]:
    ours = result_nodes(state)
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    return [node for node in nodes if node not in ours]
