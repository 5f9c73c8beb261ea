"""Which volume each annotation of the scene was drawn on; read only.

By the annotation's reference volume where it has one. Files have none: there the geometry tells,
and names where several volumes fit. What stays open is for a person to choose, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer
import vtk

from FewShotSegLib.core.errors import InputError
from FewShotSegLib.core.geometry import Grid

from .annotations import is_label_map, is_surface_model, sources_of
from .case_names import ANOTHER, SAME, UNKNOWN, name_fit
from .geometry import labelmap_affine, parent_matrix, volume_affine, volume_array
from .segments import labelmap_of, list_segments
from .state import REFINED, SEGMENTATION, UNCERTAINTY, UNREFINED, VOLUME, SceneState

LATTICE, INSIDE, OVERLAPS, APART = 3, 2, 1, 0
"""How an annotation lies in a volume: on its voxels, within its edges, partly within, elsewhere."""
MOSTLY = 0.5
"""Part of an annotation's bounding box that lies in a volume which it overlaps."""

Sources = tuple[Any, ...]
"""An annotation: one segmentation or label map, or the models of one volume."""


@dataclass
class Pairing:
    """What was found.

    Attributes:
        pairs: volume and annotation that belong together.
        open: volumes of which more than one annotation, or that more than one volume, could be.
    """

    pairs: list[tuple[Any, Sources]] = field(default_factory=list)
    open: list[Any] = field(default_factory=list)


def find_pairs(state: SceneState) -> Pairing:
    """Every annotated volume of the scene that has no row yet."""
    scene = _Scene(state)
    found = Pairing()
    taken: set[str] = set()  # volumes whose annotation is known
    for segmentation in scene.segmentations:
        volume = reference_of(segmentation)
        if volume is not None:
            taken.add(volume.GetID())
            if segmentation not in scene.used:
                found.pairs.append((volume, (segmentation,)))
    free = [v for v in scene.volumes if v.GetID() not in taken | scene.annotated]
    by_volume: dict[str, list[Any]] = {}
    unsure: set[str] = set()
    for annotation in scene.unreferenced():
        candidates = scene.candidates(annotation, free)
        if len(candidates) == 1:
            by_volume.setdefault(candidates[0].GetID(), []).append(annotation)
        unsure.update(v.GetID() for v in candidates if len(candidates) > 1)
    for volume in free:
        sources = _only(volume, by_volume.get(volume.GetID(), []))
        if sources:
            found.pairs.append((volume, sources))
        elif by_volume.get(volume.GetID()) or volume.GetID() in unsure:
            found.open.append(volume)
    return found


def choices_for(state: SceneState, volume: Any) -> list[Sources]:
    """The annotations that could be a volume's, best first; those of a row are left out."""
    scene = _Scene(state)
    found: list[tuple[int, int, Sources]] = []
    models: list[Any] = []
    for annotation in scene.unreferenced():
        level = geometry_fit(annotation, volume)
        name = name_fit(volume.GetName(), annotation.GetName())
        if level == APART or (level == OVERLAPS and name <= UNKNOWN):
            continue
        if annotation.IsA("vtkMRMLModelNode"):
            models.append(annotation)
        else:
            found.append((level, name, (annotation,)))
    if models:
        found.append((INSIDE, UNKNOWN, tuple(models)))
    return [sources for _level, _name, sources in sorted(found, key=lambda f: (-f[1], -f[0]))]


def annotation_of(state: SceneState, volume: Any) -> Sources:
    """The one annotation that was drawn on a volume; empty where there is none, or several could
    be."""
    ours = result_nodes(state)
    for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode"):
        if reference_of(segmentation) is volume and segmentation not in ours:
            return (segmentation,)
    pairs = find_pairs(state).pairs
    return next((sources for found, sources in pairs if found is volume), ())


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


def image_volumes(state: SceneState) -> list[Any]:
    """The volumes of the scene that are images: no label map, none of the maps of uncertainty."""
    maps = [state.node_of(UNCERTAINTY, row["id"]) for row in state.read()["results"]]
    found = []
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node in maps or node.GetHideFromEditors() or is_label_map(node):
            continue
        try:
            volume_array(node)
            volume_affine(node)
        except InputError:
            continue
        found.append(node)
    return found


def geometry_fit(annotation: Any, volume: Any) -> int:
    """How an annotation lies in a volume: ``LATTICE``, ``INSIDE``, ``OVERLAPS`` or ``APART``."""
    try:
        affine = volume_affine(volume)
        grid = Grid.from_affine(volume_array(volume).shape, affine)
        own = _grid_of(annotation)
        if own is not None:
            offset = own.offset_in(grid)
            if offset is not None and all(
                0 <= o and o + n <= size
                for o, n, size in zip(offset, own.shape, grid.shape, strict=True)
            ):
                return LATTICE
        corners = _corners(annotation)
    except (InputError, ValueError):
        return APART
    if corners is None:
        return APART
    return _bounds_fit(corners, grid)


def _bounds_fit(corners: np.ndarray, grid: Grid) -> int:
    """Of the box of an annotation, by its corners (8, 3) in RAS mm."""
    index = np.linalg.inv(grid.affine)
    places = corners @ index[:3, :3].T + index[:3, 3]
    low, high = places.min(0), places.max(0)
    sizes = np.asarray(grid.shape, float)
    if (low > -1.0).all() and (high < sizes).all():  # half a voxel beyond the outermost voxels
        return INSIDE
    inside = np.minimum(high, sizes - 0.5) - np.maximum(low, -0.5)
    if (inside <= 0).any():
        return APART
    part = float(np.prod(inside / np.maximum(high - low, 1e-6)))
    return OVERLAPS if part >= MOSTLY else APART


def _grid_of(annotation: Any) -> Grid | None:
    """The voxels that an annotation was drawn on, None where it has none."""
    if annotation.IsA("vtkMRMLModelNode"):
        return None
    if annotation.IsA("vtkMRMLScalarVolumeNode"):
        shape = annotation.GetImageData().GetDimensions()
        matrix = vtk.vtkMatrix4x4()
        annotation.GetIJKToRASMatrix(matrix)
        affine = parent_matrix(annotation) @ slicer.util.arrayFromVTKMatrix(matrix)
        return Grid.from_affine(shape, affine)
    stated = _stated_grid(annotation)
    if stated is not None:
        return stated
    for info in list_segments(annotation):
        found = labelmap_of(annotation, info.id)
        if found is not None:
            image = found[0]
            extent = image.GetExtent()
            shape = tuple(extent[2 * a + 1] - extent[2 * a] + 1 for a in range(3))
            return Grid.from_affine(shape, labelmap_affine(image, annotation))
    return None


def _stated_grid(segmentation: Any) -> Grid | None:
    """The geometry that a segmentation's file had, which may be larger than its segments."""
    converter = slicer.vtkSegmentationConverter
    text = segmentation.GetSegmentation().GetConversionParameter(
        converter.GetReferenceImageGeometryParameterName()
    )
    image = slicer.vtkOrientedImageData()
    if not text or not converter.DeserializeImageGeometry(text, image, False):
        return None
    extent = image.GetExtent()
    shape = tuple(extent[2 * a + 1] - extent[2 * a] + 1 for a in range(3))
    return Grid.from_affine(shape, labelmap_affine(image, segmentation))


def _corners(annotation: Any) -> np.ndarray | None:
    """The corners (8, 3) of what is drawn, in RAS mm; None where nothing is."""
    bounds = [1.0, -1.0] * 3
    annotation.GetRASBounds(bounds)
    if bounds[0] > bounds[1]:
        return None
    axes = [bounds[2 * axis : 2 * axis + 2] for axis in range(3)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(8, 3)


def _only(volume: Any, annotations: Sequence[Any]) -> Sources:
    """Of the annotations that fit this volume alone, the one to take; empty where that is open."""
    drawn = [node for node in annotations if not node.IsA("vtkMRMLModelNode")]
    if not drawn:
        return tuple(annotations)
    if len(drawn) == 1:
        return (drawn[0],)
    same = [n for n in drawn if name_fit(volume.GetName(), n.GetName()) == SAME]
    return (same[0],) if len(same) == 1 else ()


class _Scene:
    """What there is to pair."""

    def __init__(self, state: SceneState) -> None:
        ours = result_nodes(state)
        rows = state.read()["supports"]
        used = [state.node_of(SEGMENTATION, row["id"]) for row in rows]
        self.used = [node for node in used if node is not None]
        self.annotated = {
            volume.GetID()
            for row in rows
            if (volume := state.node_of(VOLUME, row["id"])) is not None
            and state.node_of(SEGMENTATION, row["id"]) is not None
        }
        self.query = state.parameters.queryVolume
        self.volumes = image_volumes(state)
        self.segmentations = [
            node
            for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
            if node not in ours and list_segments(node)
        ]
        self._copied = {
            source.GetID() for node in self.segmentations for source in sources_of(node)
        }

    def unreferenced(self) -> list[Any]:
        """Annotations of which nothing says what they were drawn on."""
        return [
            *(n for n in self.segmentations if reference_of(n) is None and n not in self.used),
            *self._others("vtkMRMLScalarVolumeNode", is_label_map),
            *self._others("vtkMRMLModelNode", is_surface_model),
        ]

    def _others(self, kind: str, wanted: Any) -> Iterable[Any]:
        for node in slicer.util.getNodesByClass(kind):
            if node.GetID() not in self._copied and wanted(node):
                yield node

    def candidates(self, annotation: Any, volumes: Sequence[Any]) -> list[Any]:
        """The volumes that an annotation can have been drawn on, as few as possible."""
        fits = {v.GetID(): geometry_fit(annotation, v) for v in volumes}
        names = {v.GetID(): name_fit(v.GetName(), annotation.GetName()) for v in volumes}
        possible = [
            v
            for v in volumes
            if fits[v.GetID()] >= (INSIDE if names[v.GetID()] <= UNKNOWN else OVERLAPS)
            and names[v.GetID()] != ANOTHER
        ]
        found = _best(_best(possible, fits), names)
        if len(found) > 1:
            found = [v for v in found if v is not self.query] or found
        return found


def _best(volumes: Sequence[Any], scores: Mapping[str, int]) -> list[Any]:
    most = max((scores[v.GetID()] for v in volumes), default=0)
    return [v for v in volumes if scores[v.GetID()] == most]
