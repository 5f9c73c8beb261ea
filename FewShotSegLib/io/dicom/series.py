"""The slices of a DICOM series as one volume on a regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ...core.errors import InputError
from ...core.geometry import Grid
from ...core.modality import MODALITIES
from ..image_files import quiet
from ..slice_stack import Stack, StackError, described, regular_grid, resample, stack_of
from .files import one_series
from .headers import DicomError, Source
from .pixels import common_type, values

MAX_TURN = 1e-3
"""How far the direction cosines of two slices may differ."""

MIN_COSINE = 1e-10
"""What is less is nothing: ITK warns of directions with numbers next to it."""


def read_series(folder: Path, uid: str | None = None) -> tuple[sitk.Image, str | None, str]:
    """The one image series of a folder, or the one with this UID.

    Returns:
        The image, scalar and 3-D; ``"CT"``, ``"MR"`` or None; and what was resampled, in a
        sentence that is empty where nothing was.

    Raises:
        InputError: there is no series or more than one, or its slices don't make a volume.
    """
    sources = one_series(folder, uid)
    try:
        stack = _stack(sources)
        image, note = _image(folder, sources, stack)
    except (DicomError, StackError) as error:
        raise InputError(f"The DICOM series in {folder} {error}.") from None
    modality = next((source.modality for source in sources if source.modality), "")
    return image, modality if modality in MODALITIES else None, note


def _image(folder: Path, sources: Sequence[Source], stack: Stack) -> tuple[sitk.Image, str]:
    slices = _values(folder, sources, stack)
    shape = slices.shape[:2]
    if not (stack.even and stack.straight):
        grid = regular_grid(stack, shape)
        return _placed(resample(slices, stack, grid), grid), (
            f"The DICOM series {described(stack, grid)}."
        )
    count = len(stack.along)
    direction, origin = stack.axes.copy(), stack.origin
    if len(sources) == 1 and stack.order == tuple(range(count))[::-1]:
        # A file whose frames descend stays in its order, as other programs read it.
        slices, direction[:, 2] = slices[..., ::-1], -stack.axes[:, 2]
        origin = np.asarray(sources[0].frames[0].position)
    grid = Grid(
        (*shape, count),
        (*stack.spacing, float(stack.along[-1]) / (count - 1)),
        tuple(origin.tolist()),
        tuple(direction.ravel().tolist()),
    )
    return _placed(slices, grid), ""


def _placed(array: np.ndarray, grid: Grid) -> sitk.Image:
    """The image of an array (i, j, k)."""
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def _values(folder: Path, sources: Sequence[Source], stack: Stack) -> np.ndarray:
    """(i, j, slice), in the stack's order."""
    kind = common_type(sources)
    places = np.empty(len(stack.order), int)
    places[list(stack.order)] = range(len(stack.order))
    volume = np.empty((len(places), *sources[0].storage.shape[1:]), kind)
    first = 0
    for source in sources:
        last = first + len(source.frames)
        try:
            with quiet():
                volume[places[first:last]] = values(source, kind)
        except DicomError as error:
            raise InputError(f"The DICOM slice {source.path.name} in {folder} {error}.") from None
        except RuntimeError as error:
            raise InputError(
                f"The DICOM slice {source.path.name} in {folder} is damaged, or compressed in a way"
                " that can't be read here; export the series again, uncompressed."
            ) from error
        first = last
    return volume.transpose(2, 1, 0)


def _stack(sources: Sequence[Source]) -> Stack:
    """Where the slices lie.

    Raises:
        DicomError, StackError: they make no volume.
    """
    frames = [frame for source in sources for frame in source.frames]
    if len(frames) == 1:
        raise DicomError("has a single slice; give one with a whole series")
    if len({source.storage.shape[1:] for source in sources}) > 1:
        raise DicomError("has slices of different sizes; give a folder with one series only")
    cosines = np.array([frame.cosines for frame in frames])
    if np.ptp(cosines, axis=0).max() > MAX_TURN:
        raise DicomError(
            "has slices in different directions (such as a localiser); give a folder with parallel"
            " slices only"
        )
    axes = cosines[0].reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > MAX_TURN:
        raise DicomError(
            "has rows and columns that are not at right angles, or not of length 1; export it again"
        )
    spacings = np.array([frame.spacing for frame in frames])
    if np.ptp(spacings, axis=0).max() > MAX_TURN * spacings.min():
        raise DicomError(
            "has slices of different pixel spacings; give a folder with one series only"
        )
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    axes[np.abs(axes) < MIN_COSINE] = 0
    positions = np.array([frame.position for frame in frames])
    return stack_of(positions, axes.ravel(), tuple(spacings[0].tolist()))
