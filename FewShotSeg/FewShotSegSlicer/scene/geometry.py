"""Where MRML's voxels lie in the world: affines with every parent transform in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from FewShotSegLib.core.errors import InputError

MAX_SKEW = 1e-3
"""As the engine's own reading of files: columns of the directions that are not at right angles."""


def parent_matrix(node: Any) -> np.ndarray:
    """4x4 from a node's own coordinates to the world, RAS mm.

    Raises:
        InputError: a parent transform is not linear.
    """
    transform = node.GetParentTransformNode()
    matrix = vtk.vtkMatrix4x4()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise InputError(
            _(
                "«{name}» is under the transform «{transform}», which is not linear. Harden the "
                "transform (Data module, right click on it, Harden transform), and try again."
            ).format(name=node.GetName(), transform=transform.GetName())
        )
    transform.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def volume_affine(volume: Any) -> np.ndarray:
    """4x4 from a volume's voxel indices (i, j, k) to the world, RAS mm.

    Raises:
        InputError: a parent transform is not linear, or shears the volume.
    """
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    affine = parent_matrix(volume) @ slicer.util.arrayFromVTKMatrix(matrix)
    columns = affine[:3, :3] / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-12)
    if np.abs(columns.T @ columns - np.eye(3)).max() > MAX_SKEW:
        raise InputError(
            _(
                "«{name}» is sheared or flattened (by its transform, or a tilted gantry), so that "
                "its axes are not at right angles. Resample it (module Resample Scalar/Vector/DWI "
                "Volume), and use the result."
            ).format(name=volume.GetName())
        )
    return affine


def labelmap_affine(labelmap: Any, segmentation: Any) -> np.ndarray:
    """4x4 from the indices of a segment's cropped array to the world, RAS mm.

    Args:
        labelmap: the vtkOrientedImageData. segmentation: the node that it belongs to.

    Raises:
        InputError: a parent transform is not linear.
    """
    matrix = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(matrix)
    shift = np.eye(4)
    shift[:3, 3] = labelmap.GetExtent()[0::2]  # the array starts at the extent, not at (0, 0, 0)
    return parent_matrix(segmentation) @ slicer.util.arrayFromVTKMatrix(matrix) @ shift


def labelmap_array(labelmap: Any) -> np.ndarray | None:
    """A view (i, j, k) of a vtkOrientedImageData's voxels; None where it has none.

    It must not be kept: VTK may move the voxels whenever a user draws.
    """
    extent = labelmap.GetExtent()
    shape = tuple(extent[2 * a + 1] - extent[2 * a] + 1 for a in range(3))
    scalars = labelmap.GetPointData().GetScalars()
    if scalars is None or min(shape) < 1:
        return None
    return vtk_to_numpy(scalars).reshape(shape[::-1]).T


def volume_array(volume: Any) -> np.ndarray:
    """A view (i, j, k) of a volume's voxels; not to be kept either.

    Raises:
        InputError: it has none, several values a voxel, or is a label map.
    """
    image = volume.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise InputError(_("«{name}» has no voxels. Load it again.").format(name=volume.GetName()))
    if volume.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(
            _("«{name}» is a label map, not an image. Choose the image.").format(
                name=volume.GetName()
            )
        )
    if image.GetNumberOfScalarComponents() > 1:
        raise InputError(
            _(
                "«{name}» has {count} values a voxel (a colour or vector image). Choose an image "
                "with one."
            ).format(name=volume.GetName(), count=image.GetNumberOfScalarComponents())
        )
    if min(image.GetDimensions()) < 2:
        raise InputError(
            _("«{name}» is a single slice. Choose a volume.").format(name=volume.GetName())
        )
    return slicer.util.arrayFromVolume(volume).T
