"""Scenes for the module's tests: synthetic volumes and segmentations as MRML nodes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import slicer
import slicer_world  # noqa: F401
import vtk

COLOR_STEP = 1 / 65535
"""Colours of segments are rounded to this: the application hands them through a QColor."""


def affine_of(
    spacing: tuple[float, float, float] = (2.0, 2.0, 3.0),
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0),
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """4x4 of a grid that is turned by angles (degrees) around x, y and z."""
    transform = vtk.vtkTransform()
    transform.Translate(*origin)
    for angle, turn in zip(angles, ("RotateX", "RotateY", "RotateZ"), strict=True):
        getattr(transform, turn)(angle)
    matrix = slicer.util.arrayFromVTKMatrix(transform.GetMatrix())
    return matrix @ np.diag([*spacing, 1.0])


def ball(shape: tuple[int, int, int], affine: np.ndarray, centre: Any, radius: float) -> np.ndarray:
    """A boolean ball (i, j, k); centre and radius in mm."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    points = index @ affine[:3, :3].T + affine[:3, 3]
    return np.linalg.norm(points - np.asarray(centre), axis=-1) < radius


def add_volume(array: np.ndarray, affine: np.ndarray, name: str) -> Any:
    """A volume node of an array (i, j, k)."""
    node = slicer.util.addVolumeFromArray(
        np.ascontiguousarray(array.T), slicer.util.vtkMatrixFromArray(affine), name
    )
    return node


def add_segmentation(
    masks: Mapping[str, np.ndarray],
    affine: np.ndarray,
    reference: Any,
    name: str = "Segmentation",
    terminologies: Mapping[str, str] | None = None,
) -> Any:
    """A segmentation node with a segment a mask (i, j, k), which lies where the affine says.

    It gets the reference's geometry, but no transform; each segment has a labelmap of its own.
    """
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    if reference is not None:
        node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    for title, mask in masks.items():
        image = slicer.vtkOrientedImageData()
        image.SetExtent(*(n for size in mask.shape for n in (0, size - 1)))
        from vtk.util.numpy_support import numpy_to_vtk

        values = mask.astype(np.uint8).ravel(order="F")
        image.GetPointData().SetScalars(
            numpy_to_vtk(values, deep=True, array_type=vtk.VTK_UNSIGNED_CHAR)
        )
        image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(affine))
        segment = slicer.vtkSegment()
        segment.SetName(title)
        segment.SetColor(0.2, 0.5, 0.8)
        if terminologies and terminologies.get(title):
            segment.SetTag("TerminologyEntry", terminologies[title])
        segment.AddRepresentation("Binary labelmap", image)
        node.GetSegmentation().AddSegment(segment)
    return node


def add_transform(matrix: np.ndarray, *nodes: Any) -> Any:
    """A linear transform above nodes."""
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    for node in nodes:
        node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def add_patient(seed: int, name: str, affine: np.ndarray | None = None) -> tuple[Any, Any]:
    """A volume and its segmentation: the small patients of the engine's tests, as nodes."""
    from tiny_model import make_grid, make_labels, make_values

    grid = make_grid()
    labels = make_labels(seed, grid)
    where = grid.affine if affine is None else affine
    volume = add_volume(make_values(seed, labels), where, name)
    masks = {"bean": labels == 4, "pea": labels == 5}
    return volume, add_segmentation(masks, where, volume, f"{name} segmentation")


def terminology(code: str, meaning: str) -> str:
    """Slicer's string for an anatomical structure."""
    return (
        "Segmentation category and type - 3D Slicer General Anatomy list"
        f"~SCT^123037004^Anatomical Structure~SCT^{code}^{meaning}~^^"
        "~Anatomic codes - DICOM master list~^^~^^"
    )


def adapter_bytes(structures: tuple[str, ...] = ("bean", "pea"), **metadata: Any) -> bytes:
    """A small file in the format of adapters: its header is whole, its numbers are noise."""
    data = {
        "format": 1,
        "version": "0.1.0",
        "model": {"id": "embedded", "title": "", "weights_sha256": "0" * 64},
        "modality": "CT",
        "preprocessing": {
            **{"orientation": "RAS", "spacing": [3.0, 3.0, 3.0]},
            **{"intensity": "window", "low": -175, "high": 250},
        },
        "method": "adapter",
        "features": "multi",
        "channels": [8, 16, 32],
        "structures": [{"name": name, "value": n} for n, name in enumerate(structures, 1)],
        "exclusive": True,
        "priors": {name: {"mean": 1000.0} for name in structures},
        "training": {},
        "supports": [{"shape": [4, 5, 6], "sizes_mm3": {name: 1000.0 for name in structures}}],
        **metadata,
    }
    numbers = np.random.default_rng(0).bytes(300_000)
    header = json.dumps(
        {
            "__metadata__": {"fewshotseg": json.dumps(data)},
            "x": {"dtype": "U8", "shape": [len(numbers)], "data_offsets": [0, len(numbers)]},
        }
    ).encode()
    return struct.pack("<Q", len(header)) + header + numbers
