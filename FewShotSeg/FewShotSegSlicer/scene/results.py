"""Results in the scene as rows, and what of them is on screen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.size_prior import as_expected
from FewShotSegLib.core.trust import VERDICTS

from ..engine_words import panel_words
from ..interface.rows import PriorRow, Result, ResultRow, TrustRow
from . import views
from .segments import BINARY, SURFACE, has_voxels, list_segments
from .state import QUERY, REFINED, SEGMENTATION, UNCERTAINTY, UNREFINED, VOLUME, SceneState
from .supports import add_support, result_nodes


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
                panel_words(line["note"]),
                tuple(line.get("brief", ())),  # of a scene saved earlier there are none
                trust=_trust(line.get("trust")),
            )
            for line in row["table"]
        ),
        tuple(map(panel_words, row["warnings"])),
        row["seconds"],
        row["adapter"],
        row["id"],
        row.get("created", ""),
    )


def list_results(state: SceneState) -> list[Result]:
    """Every result, newest first; those whose segmentation is gone are left out."""
    found = [result_of(state, row) for row in state.read()["results"]]
    return [result for result in found if result.segmentation is not None]


def measured(result: Result, volume_of: Callable[[Any, str], float | None]) -> Result:
    """A result with the volumes that its segments have now.

    Args:
        volume_of: ml of a segmentation's segment; None while it is being counted.
    """
    node = result.segmentation
    if node is None:
        return result
    rows = []
    for row in result.rows:
        segment_id = node.GetSegmentation().GetSegmentIdBySegmentName(row.name)
        now = volume_of(node, segment_id) if segment_id else None
        if now is None or math.isclose(now, row.volume_ml, rel_tol=1e-3, abs_tol=1e-3):
            rows.append(row)
            continue
        low, high = (row.prior.lower_ml, row.prior.upper_ml) if row.prior else (None, None)
        within = as_expected(now, low or 0.0, math.inf if high is None else high)
        rows.append(
            replace(
                row,
                volume_ml=now,
                unrefined_ml=now,
                within=within and now > 0,
                note="",
                brief=(),
                corrected=True,
                trust=TrustRow(),  # what is there now is a person's
            )
        )
    return replace(result, rows=tuple(rows))


def delete_result(state: SceneState, result: Result) -> None:
    """Take a result's nodes out of the scene, and its row.

    Raises:
        InputError: a user put its segmentation into the support set. Nothing was deleted.
    """
    data = state.read()
    nodes = [n for n in (result.segmentation, result.unrefined, result.uncertainty) if n]
    if any(state.node_of(SEGMENTATION, row["id"]) in nodes for row in data["supports"]):
        raise InputError(
            _("This result is one of the annotated volumes. Remove its row from their table first.")
        )
    show_uncertainty(result, False)
    data["results"] = [row for row in data["results"] if row["id"] != result.id]
    state.write(data)
    for node in nodes:
        slicer.mrmlScene.RemoveNode(node)


def accept_result(state: SceneState, result: Result, what: str) -> str:
    """Make a result, as it is now, the annotation of its volume in the support set.

    Args:
        what: ``refined`` or ``unrefined``.

    Returns:
        the id of the volume's row. There is one a volume: it takes the place of an earlier result.

    Raises:
        InputError: nothing is drawn, or the volume is there with an annotation of its own.
    """
    node = result.unrefined if what == "unrefined" and result.unrefined else result.segmentation
    if result.query is None or node is None:
        raise InputError(_("The volume or the segmentation of this result was deleted."))
    if not any(has_voxels(node, segment.id) for segment in list_segments(node)):
        raise InputError(_("Nothing is drawn in this result. Press Correct, and draw it first."))
    made = result_nodes(state)
    data = state.read()
    for row in data["supports"]:
        if state.node_of(VOLUME, row["id"]) is not result.query:
            continue
        known = state.node_of(SEGMENTATION, row["id"])
        if known is not None and known not in made:
            raise InputError(
                _(
                    "«{volume}» is among the annotated volumes already, with the segmentation "
                    "«{segmentation}». Remove that row first to take this result instead."
                ).format(volume=result.query.GetName(), segmentation=known.GetName())
            )
        state.refer(SEGMENTATION, row["id"], node)
        row["ticked"] = True
        state.write(data)
        return row["id"]
    return add_support(state, result.query, node)


def _trust(report: Mapping[str, Any] | None) -> TrustRow:
    """A verdict as the engine reports it; not known in a scene that was saved before there were."""
    if report is None or report["verdict"] not in VERDICTS:
        return TrustRow()
    reasons = tuple(map(panel_words, report["reasons"]))
    place = report.get("place_mm")  # scenes of before have none
    return TrustRow(
        report["verdict"],
        reasons,
        report["dice"],
        report["lower"],
        report["upper"],
        None if place is None else tuple(place),
    )


def _prior(report: Mapping[str, Any]) -> PriorRow:
    """A prior as the engine reports it."""
    low = report["lower_ml"] if report["lower_bound_trusted"] else None
    return PriorRow(
        None if report.get("basis") == "part" else report["mean_ml"],
        report["sd_ml"],
        report["supports"],
        report["supports"] == 0,
        report["gamma"],
        False,
        low if report["enabled"] else None,
        report["upper_ml"] if report["enabled"] else None,
        report["enabled"],
    )


def show_result(result: Result, what: str, others: Sequence[Result] = ()) -> None:
    """Show the refined or the unrefined segmentation, and nothing else over its query.

    Args:
        others: all results; they are hidden, like whatever was drawn on other volumes.
    """
    for other in others:
        if other.segmentation is not result.segmentation:
            hide_result(other)
    own = [n for one in (result, *others) for n in (one.segmentation, one.unrefined) if n]
    views.hide_others(result.query, (result.segmentation, result.unrefined), own)
    for node, name in ((result.segmentation, "refined"), (result.unrefined, "unrefined")):
        if node is not None and node.GetDisplayNode() is not None:
            same = result.unrefined is None and name == "refined"
            node.GetDisplayNode().SetVisibility(name == what or same)
    if not is_in_3d(result):
        views.show_outline(None)


def show_volume(volume: Any, results: Sequence[Result]) -> None:
    """Bring a volume on screen that has no result, or of which none is to be shown.

    Args:
        results: all; they are hidden, like whatever was drawn on other volumes.
    """
    for result in results:
        hide_result(result)
    views.hide_others(volume, (), [one.segmentation for one in results])
    views.show_outline(None)
    views.show_volume(volume)


def go_to(result: Result, structure: str = "", flagged: bool = False) -> None:
    """Bring a result's volume on screen, and a structure into all slice views.

    Args:
        structure: its name; empty for the largest. One that was not found moves nothing.
        flagged: to the place that the structure's verdict is about, where it is about one.
    """
    if result.query is None or result.segmentation is None:
        return
    views.show_volume(result.query)
    found = [row for row in result.rows if row.volume_ml > 0]
    largest = max(found, key=lambda row: row.volume_ml).name if found else ""
    segments = result.segmentation.GetSegmentation()
    about = next((r.trust.place for r in result.rows if r.name == structure), None)
    if flagged and about is not None:
        views.bring_into_view(views.in_world(result.segmentation, about))
        return
    segment = segments.GetSegmentIdBySegmentName(structure or largest)
    place = views.middle_of(result.segmentation, segment)
    if place is not None:
        views.bring_into_view(place)


def hide_result(result: Result) -> None:
    """Take a result off all views; its nodes stay."""
    show_uncertainty(result, False)
    for node in (result.segmentation, result.unrefined):
        if node is not None and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility(False)


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


def is_in_3d(result: Result) -> bool:
    """Whether a result's surfaces are made and shown."""
    node = result.segmentation
    display = node.GetDisplayNode() if node is not None else None
    if display is None or not display.GetVisibility():
        return False
    # A node is visible in 3D from the first; something shows once it has surfaces.
    made = node.GetSegmentation().ContainsRepresentation(SURFACE)
    return bool(made and display.GetVisibility3D())


def surface_steps(segmentation: Any) -> Iterator[None]:
    """Make the surface of one segment after the other, of those that have none yet."""
    segments = segmentation.GetSegmentation()
    for info in list_segments(segmentation):
        segment = segments.GetSegment(info.id)
        if segment is None or segment.GetRepresentation(SURFACE) is not None:
            continue
        part = slicer.vtkSegmentation()
        part.SetSourceRepresentationName(BINARY)
        part.CopySegmentFromSegmentation(segments, info.id)
        part.CreateRepresentation(SURFACE)
        surface = part.GetSegment(info.id).GetRepresentation(SURFACE)
        if surface is not None:
            segment.AddRepresentation(SURFACE, surface)
        yield


def show_3d(result: Result, visible: bool) -> None:
    """Show the refined segments in the 3D views, in the box of their volume; or hide them.

    What :func:`surface_steps` has not made is made now.
    """
    node = result.segmentation
    if node is None or node.GetScene() is None:
        return
    if visible:
        node.CreateClosedSurfaceRepresentation()
    node.GetDisplayNode().SetVisibility3D(bool(visible))
    views.show_outline(result.query if visible else None)
    if visible:
        views.centre_3d()
