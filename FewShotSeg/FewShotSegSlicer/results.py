"""Results in the scene as rows, and what of them is on screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import slicer

from .logic_protocol import PriorRow, Result, ResultRow
from .scene_state import QUERY, REFINED, UNCERTAINTY, UNREFINED, SceneState


def result_of(state: SceneState, row: Mapping[str, Any]) -> Result:
    """One row of the state as the panel sees it."""
    return Result(
        state.node_of(QUERY, row["id"]),
        state.node_of(REFINED, row["id"]),
        state.node_of(UNREFINED, row["id"]),
        state.node_of(UNCERTAINTY, row["id"]),
        tuple(
            ResultRow(
                line["name"],
                tuple(line["color"]),
                line["volume_ml"],
                line["unrefined_ml"],
                _prior(line["prior"]),
                line["within"],
                line["note"],
            )
            for line in row["table"]
        ),
        tuple(row["warnings"]),
        row["seconds"],
        row["adapter"],
    )


def list_results(state: SceneState) -> list[Result]:
    """The newest result of each query, newest first; those whose nodes are gone are left out."""
    found: list[Result] = []
    for row in state.read()["results"]:
        result = result_of(state, row)
        known = any(result.query is other.query for other in found)
        if result.segmentation is not None and not known:
            found.append(result)
    return found


def _prior(report: Mapping[str, Any]) -> PriorRow:
    """A prior as the engine reports it."""
    low = report["lower_ml"] if report["lower_bound_trusted"] else None
    return PriorRow(
        report["mean_ml"],
        report["sd_ml"],
        report["supports"],
        report["supports"] == 0,
        report["gamma"],
        False,
        low if report["enabled"] else None,
        report["upper_ml"] if report["enabled"] else None,
        report["enabled"],
    )


def show_result(result: Result, what: str) -> None:
    """Show the refined or the unrefined segmentation, and hide the other."""
    for node, name in ((result.segmentation, "refined"), (result.unrefined, "unrefined")):
        if node is not None and node.GetDisplayNode() is not None:
            same = result.unrefined is None and name == "refined"
            node.GetDisplayNode().SetVisibility(name == what or same)


def show_uncertainty(result: Result, visible: bool) -> None:
    """Put the uncertainty map over the query in the slice views, or take it away."""
    if result.uncertainty is None:
        return
    own = result.uncertainty.GetID()
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if visible:
            composite.SetBackgroundVolumeID(result.query.GetID())
            composite.SetForegroundVolumeID(own)
            composite.SetForegroundOpacity(0.5)
        elif composite.GetForegroundVolumeID() == own:
            composite.SetForegroundVolumeID(None)
            composite.SetForegroundOpacity(0.0)


def show_3d(result: Result, visible: bool) -> None:
    """Show the refined segments in the 3D views; their surfaces are made when first wanted."""
    node = result.segmentation
    if node is None:
        return
    if visible:
        node.CreateClosedSurfaceRepresentation()
    node.GetDisplayNode().SetVisibility3D(bool(visible))
