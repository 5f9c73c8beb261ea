"""Mappings of a volume's intensities that published models were trained with; without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.errors import InputError
from ..core.model_entry import LANDMARKS

NOTHING_THERE = (
    "This image has the same value almost everywhere; there is nothing to segment. Check that the "
    "right volume was chosen."
)


def squash(image: np.ndarray, how: str) -> np.ndarray:
    """A float32 image through a sigmoid, or through 3 tanh(x / 3); in place."""
    if how == "tanh":
        image /= np.float32(3)
        np.tanh(image, out=image)
        image *= np.float32(3)
        return image
    np.clip(image, -80, 80, out=image)  # beyond, the sigmoid is 0 or 1 in single precision
    np.negative(image, out=image)
    np.exp(image, out=image)
    image += np.float32(1)
    return np.reciprocal(image, out=image)


def above_least(image: np.ndarray) -> np.ndarray:
    """A float32 image less its least value, by its standard deviation (with n - 1); in place.

    Raises:
        InputError: it has one value everywhere.
    """
    std = float(image.std(ddof=1, dtype=np.float64)) if image.size > 1 else 0.0
    if not std > 0:
        raise InputError(NOTHING_THERE)
    image -= image.min()
    image /= np.float32(std)
    return image


def by_landmarks(image: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """NiftyNet's histogram standardisation, then whitening by the voxels above the mean.

    Args:
        image: float32. values: that the percentiles :data:`LANDMARKS` of its voxels above the mean
            become, so that air counts for nothing; between them, and beyond the first and the last
            two, it is a straight line.

    Returns:
        float32, of the same shape.

    Raises:
        InputError: it has one value almost everywhere.
    """
    bright = image[image > image.mean(dtype=np.float64)]
    if not bright.size:
        raise InputError(NOTHING_THERE)
    found = np.percentile(bright, LANDMARKS)
    wanted = np.asarray(values, np.float64)
    widths = np.diff(found)
    # Where percentiles are equal, as of much background of one value, all go to the first's.
    slopes = np.divide(np.diff(wanted), widths, out=np.zeros_like(widths), where=widths > 0)
    starts = wanted[:-1] - slopes * found[:-1]
    piece = np.digitize(image, found[1:-1])
    mapped = (slopes[piece] * image + starts[piece]).astype(np.float32)
    above = mapped[mapped > mapped.mean(dtype=np.float64)]
    std = float(above.std(dtype=np.float64)) if above.size else 0.0
    if not std > 0:
        raise InputError(NOTHING_THERE)
    mapped -= np.float32(above.mean(dtype=np.float64))
    mapped /= np.float32(std)
    return mapped
