"""A job's result as MRML nodes in exactly the query's place, and the table beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import get_vtk_array_type, numpy_to_vtk, vtk_to_numpy

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.job_protocol import (
    FORMAT,
    RESULT,
    RESULTS,
    SegmentFiles,
    read_array,
    read_segments,
)
from FewShotSegLib.core.json_fields import load_json

from ..scene.exporting import SCALARS, mark_as_found, put_beside
from ..scene.geometry import volume_affine
from ..scene.results import hide_result, list_results
from ..scene.segments import BINARY
from ..scene.state import QUERY, REFINED, UNCERTAINTY, UNREFINED, SceneState, new_id
from ..scene.supports import place_on

PLANES_A_STEP = 4 * 2**20


def read_result(folder: Path) -> dict[str, Any]:
    """The ``result.json`` of a finished job.

    Raises:
        InputError: there is none, or another version wrote it.
    """
    try:
        data = load_json(folder / RESULTS / RESULT, "result")
        if data["format"] != FORMAT:
            raise ValueError("another format")
        return data
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            _("The background process left no result that can be read ({error}).").format(
                error=error
            )
        ) from error


def load_steps(
    folder: Path, query: Any, state: SceneState, adapter_id: str, into: list[str]
) -> Iterator[None]:
    """Put a segmentation's result into the scene; the new row's id is appended to ``into``.

    Raises:
        InputError: a file can't be read. Nothing has been added to the scene.
    """
    data = read_result(folder)
    files = read_segments(data["segments"])
    folder = folder / RESULTS
    refined: list[Any] = []
    unrefined: list[Any] = []
    for part in files:
        refined.append(_segment(folder, part, part.file, part.offset, query))
        yield
        same = part.same
        file, offset = (part.file, part.offset) if same else (part.unrefined, part.unrefined_offset)
        unrefined.append(_segment(folder, part, file, offset, query))
        yield
    changed = data["report"]["transductive"] and not all(part.same for part in files)
    map_node = None
    if data["uncertainty"] is not None:
        map_node = slicer.vtkMRMLScalarVolumeNode()
        yield from _uncertainty_steps(folder, data["uncertainty"], query, map_node)
    # Everything is read: from here nothing can fail half way.
    name = query.GetName()
    row_id = new_id()
    state.refer(QUERY, row_id, query)
    node = _add_segmentation(_("{volume} FewShotSeg").format(volume=name), refined, files, query)
    state.refer(REFINED, row_id, node)
    yield
    if changed:
        before = _add_segmentation(
            _("{volume} FewShotSeg, unrefined").format(volume=name), unrefined, files, query
        )
        before.GetDisplayNode().SetVisibility(False)
        state.refer(UNREFINED, row_id, before)
        yield
    if map_node is not None:
        _add_uncertainty(_("{volume} FewShotSeg, uncertainty").format(volume=name), map_node, query)
        state.refer(UNCERTAINTY, row_id, map_node)
        yield
    for older in list_results(state):
        if older.query is query:
            hide_result(older)  # nothing of a person's is removed
    rows = state.read()
    rows["results"].insert(0, _row(row_id, data, files, adapter_id, query))
    state.write(rows)
    into.append(row_id)


def _row(
    row_id: str, data: Mapping[str, Any], files: list[SegmentFiles], adapter_id: str, query: Any
) -> dict[str, Any]:
    """What the tables need of a report, as the scene keeps it."""
    report = data["report"]
    table = []
    for part in files:
        structure = report["structures"][part.structure.name]
        before = (structure["transduction"] or {}).get("volume_before_ml", structure["volume_ml"])
        table.append(
            {
                "name": part.structure.name,
                "color": list(part.structure.color or (0.5, 0.5, 0.5)),
                "volume_ml": structure["volume_ml"],
                "unrefined_ml": before,
                "prior": structure["prior"],
                "within": structure.get("as_expected", structure["within_prior"]),
                "note": "\n".join(structure.get("warnings", ())),
                "brief": _brief(structure.get("remarks", ())),
                "trust": _placed(structure.get("trust"), query),
            }
        )
    return {
        "id": row_id,
        "table": table,
        "warnings": report["warnings"],
        "seconds": data["seconds"],
        "adapter": adapter_id,
        "created": datetime.now().isoformat(" ", "seconds"),
    }


def _placed(trust: Mapping[str, Any] | None, query: Any) -> Mapping[str, Any] | None:
    """A verdict with its place under the query's transform, and no longer in the world: the result
    lies there, too, and moves with it."""
    if trust is None or trust.get("place_mm") is None:
        return trust
    matrix = vtk.vtkMatrix4x4()
    query.GetIJKToRASMatrix(matrix)
    own = slicer.util.arrayFromVTKMatrix(matrix) @ np.linalg.inv(volume_affine(query))
    place = own @ [*trust["place_mm"], 1.0]
    return {**trust, "place_mm": [float(x) for x in place[:3]]}


def _brief(remarks: Sequence[str]) -> list[str]:
    """The remarks for the table, which says of a transduction itself what it changed."""
    return [text for text in remarks if not text.startswith("transduction")]


def _segment(
    folder: Path, part: SegmentFiles, file: str | None, offset: tuple[int, int, int], query: Any
) -> Any:
    """A vtkSegment on the query's lattice, cropped to what it holds."""
    segment = slicer.vtkSegment()
    segment.SetName(part.structure.name)
    segment.SetColor(*(part.structure.color or (0.5, 0.5, 0.5)))
    mark_as_found(segment, part.structure.terminology)
    image = slicer.vtkOrientedImageData()
    matrix = vtk.vtkMatrix4x4()
    query.GetIJKToRASMatrix(matrix)
    if file is None:
        image.SetExtent(0, -1, 0, -1, 0, -1)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    else:
        array = np.asarray(read_array(folder, file))
        ends = zip(offset, array.shape, strict=True)
        image.SetExtent(*(n for start, size in ends for n in (start, start + size - 1)))
        scalars = numpy_to_vtk(array.ravel(order="F"), deep=True, array_type=vtk.VTK_UNSIGNED_CHAR)
        scalars.SetName(SCALARS)
        image.GetPointData().SetScalars(scalars)
    image.SetImageToWorldMatrix(matrix)
    segment.AddRepresentation(BINARY, image)
    segment.SetLabelValue(1)
    return segment


def _add_segmentation(name: str, segments: list[Any], files: list[SegmentFiles], query: Any) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLSegmentationNode", slicer.mrmlScene.GenerateUniqueName(name)
    )
    node.CreateDefaultDisplayNodes()
    place_on(node, query)
    put_beside(node, query)
    for segment, part in zip(segments, files, strict=True):
        node.GetSegmentation().AddSegment(segment, f"Segment_{part.structure.value}")
    display = node.GetDisplayNode()
    display.SetVisibility2DFill(True)
    display.SetVisibility2DOutline(True)
    display.SetOpacity2DFill(0.3)
    return node


def _uncertainty_steps(
    folder: Path, found: Mapping[str, Any], query: Any, node: Any
) -> Iterator[None]:
    """Fill a volume node with the map's voxels, cropped to where anything is uncertain."""
    array = read_array(folder, found["file"])
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape)
    image.AllocateScalars(get_vtk_array_type(array.dtype), 1)
    target = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(array.shape[::-1]).T
    step = max(1, PLANES_A_STEP // max(1, array.shape[0] * array.shape[1]))
    for start in range(0, array.shape[2], step):
        target[..., start : start + step] = array[..., start : start + step]
        yield
    shift = np.eye(4)
    shift[:3, 3] = found["offset"]
    matrix = vtk.vtkMatrix4x4()
    query.GetIJKToRASMatrix(matrix)
    placed = slicer.util.arrayFromVTKMatrix(matrix) @ shift
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(placed))
    node.SetAndObserveImageData(image)


def _add_uncertainty(name: str, node: Any, query: Any) -> None:
    node.SetName(slicer.mrmlScene.GenerateUniqueName(name))
    slicer.mrmlScene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(query.GetTransformNodeID())
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeFileColdToHotRainbow.txt")
    if display.GetColorNode() is None:
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeRainbow")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0, 100)
    display.SetApplyThreshold(True)
    display.SetThreshold(1, 100)
