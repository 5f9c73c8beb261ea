"""A job's raw arrays as the engine takes them: volumes, and masks on their volume's own grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from ..core.annotation import Annotation, Structure
from ..core.errors import InputError
from ..core.geometry import Grid, Volume
from ..core.job_protocol import ArrayFile, SupportFiles, read_array
from ..io.annotation_grid import MOSTLY
from ..io.volumes import usable_volume
from ..training.support_set import Support


def read_volume(folder: Path, source: ArrayFile, name: str) -> Volume:
    """A volume of a job. ``name`` is what messages call it ("Support 2").

    Raises:
        InputError: the array is missing, or can't be used as an image.
    """
    array = read_array(folder, source.file)
    if array.ndim != 3:
        raise InputError(f"{name} is not 3-D.")
    return usable_volume(array, _grid(array.shape, source, name), source.modality, name)


def read_support(
    folder: Path, source: SupportFiles, structures: list[Structure], name: str
) -> Support:
    """An annotated volume of a job, its masks on the volume's grid.

    Raises:
        InputError: an array can't be used, or nothing is annotated inside the volume.
    """
    volume = read_volume(folder, source.volume, name)
    masks: dict[str, np.ndarray] = {}
    layers: dict[str, np.ndarray] = {}
    annotated_inside = annotated_in_all = 0.0
    for mask in source.masks:
        if mask.labels.file not in layers:
            layers[mask.labels.file] = np.asarray(read_array(folder, mask.labels.file))
        layer = layers[mask.labels.file]
        own, inked = _grid(layer.shape, mask.labels, name), layer == mask.value
        placed = on_grid(inked, own, volume.grid)
        inside, total = _counted(inked, own, volume.grid)
        annotated_inside += inside
        annotated_in_all += total
        if placed.any():
            known = masks.get(mask.structure)
            masks[mask.structure] = placed if known is None else known | placed
    if not masks:
        raise InputError(
            f"{name} has nothing annotated inside its image. Check that its segmentation lies on "
            "it, or leave it out."
        )
    if annotated_inside < (1 - MOSTLY) * annotated_in_all:
        percent = 100 - 100 * annotated_inside / annotated_in_all
        raise InputError(
            f"{name}: {percent:.0f} % of its annotation lies outside its image. Check that they "
            "belong together, or leave it out."
        )
    annotated = [structure for structure in structures if structure.name in masks]
    return Support(volume, Annotation(masks, annotated), name)


def _counted(mask: np.ndarray, own: Grid, grid: Grid) -> tuple[float, float]:
    """mm^3 of a mask (i, j, k) on ``own``: of voxels with their centre inside ``grid``, of all."""
    to_grid = np.linalg.inv(grid.affine) @ own.affine
    inside = total = 0
    for k in range(mask.shape[2]):  # plane by plane: indices take 24 bytes a voxel
        voxels = np.argwhere(mask[..., k])
        places = voxels @ to_grid[:3, :2].T + to_grid[:3, 2] * k + to_grid[:3, 3]
        within = (places > -0.5) & (places < np.asarray(grid.shape) - 0.5)
        inside, total = inside + int(within.all(axis=1).sum()), total + len(voxels)
    return inside * own.voxel_volume, total * own.voxel_volume


def on_grid(mask: np.ndarray, own: Grid, grid: Grid) -> np.ndarray:
    """A boolean mask (i, j, k) on another grid: each voxel there is what the mask says at its
    centre. Where both share one lattice, that is a copy of the voxels.

    Args:
        mask: on the grid ``own``. grid: the one wanted; they need not overlap.
    """
    result = np.zeros(grid.shape, bool, order="F")
    box = ndimage.find_objects(mask.astype(np.uint8), 1)
    if not box or box[0] is None:
        return result
    box = box[0]
    offset = own.offset_in(grid)
    if offset is not None:
        start = [part.start + o for part, o in zip(box, offset, strict=True)]
        stop = [part.stop + o for part, o in zip(box, offset, strict=True)]
        there = tuple(
            slice(max(0, a), min(n, b)) for a, b, n in zip(start, stop, grid.shape, strict=True)
        )
        if all(part.start < part.stop for part in there):
            here = tuple(
                slice(part.start - o, part.stop - o) for part, o in zip(there, offset, strict=True)
            )
            result[there] = mask[here]
        return result
    # Voxel indices of the wanted grid into those of the mask; only the part that can hold it.
    to_own = np.linalg.inv(own.affine) @ grid.affine
    low, high = np.array([(p.start - 0.5, p.stop - 0.5) for p in box]).T
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1)
    back = np.linalg.inv(to_own)
    found = back[:3, :3] @ corners + back[:3, 3:]
    first = np.clip(np.floor(found.min(1)).astype(int), 0, grid.shape)
    last = np.clip(np.ceil(found.max(1)).astype(int) + 1, 0, grid.shape)
    if (first >= last).any():
        return result
    there = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    result[there] = ndimage.affine_transform(
        mask.astype(np.uint8),
        to_own[:3, :3],
        to_own[:3, :3] @ first + to_own[:3, 3],
        output_shape=tuple(int(n) for n in last - first),
        order=0,
        mode="grid-constant",  # a voxel reaches half a voxel beyond its centre at the edge too
    )
    return result


def _grid(shape: tuple[int, ...], source: ArrayFile, name: str) -> Grid:
    try:
        return Grid.from_affine(shape, np.array(source.affine, np.float64))
    except ValueError as error:
        raise InputError(f"{name} has no usable place in space: {error}.") from error
