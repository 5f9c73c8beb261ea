"""Supervoxels that mean the same in all images of a group: drawn on their mean, carried over.

Images are registered to one another, by what is labelled in them and then by their intensities
(diffeomorphic demons: Vercauteren et al., NeuroImage 45, 2009). What lies at one place of the mean
image has one number in every volume, so that an episode can ask for it across patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

LEAST_VOXELS = 20
"""A labelled structure with fewer voxels is no landmark."""
MOST_AVERAGED = 40
"""Images that the mean is made of, at most."""
COVERED = 0.25
"""The part of the averaged images that show a place, for it to be part of the mean."""
DEMONS = ((2, 30), (1, 20))
"""How much coarser than the images each pass is, and its iterations."""
SMOOTH = 1.5
"""Of the displacements, in voxels, after each iteration."""
BODY = 8.0
"""Intensity (of 255) above which a voxel counts for the alignment."""


@dataclass(frozen=True)
class _Member:
    """An image, where it shows something (uint8), its landmarks' centres in mm, its voxels of the
    body."""

    image: sitk.Image
    shown: sitk.Image
    landmarks: dict[int, np.ndarray]
    size: int


def registered_supervoxels(
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    spacing: Sequence[float],
    draw: Callable[[np.ndarray], np.ndarray],
    say: Callable[[str], None] = lambda line: None,
) -> list[np.ndarray | None]:
    """Numbers of supervoxels on every image's grid, alike in all.

    Args:
        images: (i, j, k) uint8 each, axes along R, A and S. labels: the same shapes, 0 where
            nothing is labelled; equal values are equal structures, whose centres are where the
            registrations begin.
        spacing: mm. draw: the supervoxels of an image, from 1, 0 where there are none.

    Returns:
        for each image (i, j, k) int16, 0 where the mean shows nothing; None where an image has no
        labelled structure in common with the one that the mean is on the grid of.
    """
    members = [_member(i, n, spacing) for i, n in zip(images, labels, strict=True)]
    # The mean is on the grid of the largest image among those with the most landmarks.
    chosen = max(range(len(members)), key=lambda n: (len(members[n].landmarks), members[n].size))
    reference = members[chosen]
    warped: list[np.ndarray] = []
    for member in members:
        if len(warped) < MOST_AVERAGED:
            found = register(reference, member)
            if found is not None:
                warped.append(_warp(member.image, reference.image, found))
    mean, shown = _mean(warped)
    say(f"the mean of {len(warped)} images")
    drawn = np.where(shown, draw(mean), 0).astype(np.int16)
    template = replace(
        reference, image=_image(mean, spacing), shown=_image(shown.astype(np.uint8), spacing)
    )
    cells = _image(drawn, spacing)
    numbers: list[np.ndarray | None] = []
    for member in members:
        found = register(member, template)
        if found is None:
            numbers.append(None)
            continue
        carried = sitk.Resample(cells, member.image, found, sitk.sitkNearestNeighbor)
        numbers.append(_array(carried).astype(np.int16))
    return numbers


def register(fixed: _Member, moving: _Member) -> sitk.Transform | None:
    """From places of one image to those of another; None where they share no landmark."""
    common = sorted(fixed.landmarks.keys() & moving.landmarks.keys())
    if not common:
        return None
    start, end = (np.mean([m.landmarks[k] for k in common], axis=0) for m in (fixed, moving))
    similar = sitk.Similarity3DTransform()
    similar.SetCenter(start.tolist())
    similar.SetTranslation((end - start).tolist())
    similar = sitk.Similarity3DTransform(_align(fixed, moving, similar))
    affine = sitk.AffineTransform(3)
    affine.SetCenter(similar.GetCenter())
    affine.SetMatrix(similar.GetMatrix())
    affine.SetTranslation(similar.GetTranslation())
    affine = _align(fixed, moving, affine)
    # Where one shows nothing, the other must not be pulled: there both are alike.
    aligned = sitk.Resample(moving.image, fixed.image, affine)
    shown = sitk.Resample(moving.shown, fixed.image, affine, sitk.sitkNearestNeighbor)
    aligned = sitk.Mask(aligned, shown) + sitk.MaskNegated(fixed.image, shown)
    return sitk.CompositeTransform([affine, _bend(fixed.image, aligned)])


def _align(fixed: _Member, moving: _Member, start: sitk.Transform) -> sitk.Transform:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.15, 1)
    method.SetMetricFixedMask(sitk.BinaryDilate(fixed.image > BODY, [2, 2, 2]))
    method.SetMetricMovingMask(moving.shown)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 80)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SetInitialTransform(start)
    found = method.Execute(fixed.image, moving.image)
    while isinstance(found, sitk.CompositeTransform):
        found = found.GetNthTransform(0)
    return found


def _bend(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    """Displacements by demons, coarse to fine; ``moving`` is on the grid of ``fixed``."""
    field = None
    for shrink, iterations in DEMONS:
        pair = [fixed, moving]
        if shrink > 1:
            sigma = 0.6 * shrink * min(fixed.GetSpacing())
            pair = [
                sitk.Shrink(sitk.SmoothingRecursiveGaussian(p, sigma), [shrink] * 3) for p in pair
            ]
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(SMOOTH)
        begun = () if field is None else (sitk.Resample(field, pair[0]),)
        field = demons.Execute(*pair, *begun)
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def _member(image: np.ndarray, labels: np.ndarray, spacing: Sequence[float]) -> _Member:
    landmarks = {}
    for value in np.unique(labels[labels > 0]).tolist():
        voxels = np.argwhere(labels == value)
        if len(voxels) >= LEAST_VOXELS:
            landmarks[value] = voxels.mean(0) * np.asarray(spacing)
    everywhere = _image(np.ones_like(image), spacing)
    return _Member(
        _image(image.astype(np.float32), spacing), everywhere, landmarks, int((image > BODY).sum())
    )


def _warp(image: sitk.Image, onto: sitk.Image, found: sitk.Transform) -> np.ndarray:
    """(i, j, k) float32; -1 where the image shows nothing."""
    return _array(sitk.Resample(image, onto, found, sitk.sitkLinear, -1.0))


def _mean(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The mean where images show something (float32), and where enough of them do."""
    shown = np.stack([image >= 0 for image in images]).sum(0)
    total = np.stack([image.clip(min=0) for image in images]).sum(0)
    return (total / shown.clip(min=1)).astype(np.float32), shown >= COVERED * len(images)


def _image(array: np.ndarray, spacing: Sequence[float]) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing([float(mm) for mm in spacing])
    return image


def _array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)
