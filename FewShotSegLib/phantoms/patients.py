"""Synthetic CT volumes with exact annotations, difficult in the ways that real ones are.

A phantom is the trunk between the heart and the hips: skin, fat, muscle, ribs, a bony column, two
lungs, large and small organs, gut with gas. Three organs are annotated; each touches something of
nearly the same attenuation, and the two glands differ by nothing but the side they lie on. Every
seed has its own anatomy, habitus, pose, noise and, if wanted, voxel grid.

Anatomy is a set of implicit shapes in millimetres (RAS: x grows to the patient's right, y to the
front, z upwards), so that the same seed is the same patient on every grid.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.annotation import Annotation, Structure
from ..core.atomic import replacing, write_json
from ..core.errors import StorageError
from ..core.geometry import Grid, Volume, three
from . import anatomy
from .shapes import Canvas, rotation

ORGANS = (
    Structure("gland_right", anatomy.GLAND_RIGHT, (0.20, 0.78, 0.74)),
    Structure("gland_left", anatomy.GLAND_LEFT, (0.98, 0.65, 0.26)),
    Structure("pouch", anatomy.POUCH, (0.72, 0.55, 0.98)),
)
"""What is annotated in a phantom, with the label values of its label map."""

SURROUNDINGS = tuple(
    Structure(name, getattr(anatomy, name.upper()))
    for name in (
        *("liver", "spleen", "stomach", "colon", "small_bowel", "heart", "aorta"),
        *("inferior_vena_cava", "vertebrae", "spinal_cord", "autochthon", "iliopsoas"),
    )
)
"""What else of the synthetic body can be annotated: what foundation models commonly know."""

FIELD_OF_VIEW = (288.0, 288.0, 240.0)
"""mm that a phantom covers where no shape is asked for, right to left, back to front, upwards."""


def make_phantom(
    seed: int,
    spacing: tuple[float, float, float] | None = None,
    shape: tuple[int, int, int] | None = None,
    *,
    varied_grid: bool = False,
    surroundings: bool = False,
) -> tuple[Volume, Annotation]:
    """A synthetic patient.

    Args:
        seed: the patient. The same seed is the same anatomy on every grid, and bit-identical on
            the same grid.
        spacing: mm along i, j, k; 3 mm each, or of the seed's choice with ``varied_grid``.
        shape: voxels along i, j, k; as many as cover ``FIELD_OF_VIEW`` where not given. The grid is
            centred on the body, so that a smaller shape shows its middle.
        varied_grid: give the seed its own grid: anisotropic, with axes in another order or turned
            around, and sometimes oblique. Otherwise the axes point right, to the front and up.
        surroundings: annotate ``SURROUNDINGS`` in place of ``ORGANS``.

    Returns:
        The volume (int16 HU, (i, j, k), modality CT) and the exact annotation of ``ORGANS``, whose
        masks do not overlap.

    Raises:
        ValueError: a negative seed, or a spacing or shape that is not positive.
    """
    if seed < 0:
        raise ValueError("a phantom's seed is 0 or more")
    grid = _make_grid(seed, spacing, shape, varied_grid)
    canvas = Canvas(grid, np.random.default_rng([seed, 0]))
    labels = anatomy.draw_patient(canvas, np.random.default_rng([seed, 1]))
    array = _scan(canvas, np.random.default_rng([seed, 2]))
    wanted = SURROUNDINGS if surroundings else ORGANS
    masks = {organ.name: labels == organ.value for organ in wanted}
    return Volume(array, grid, "CT"), Annotation(masks, list(wanted))


def write_phantoms(
    folder: str | Path,
    count: int,
    seed: int = 0,
    *,
    varied_grid: bool = False,
    surroundings: bool = False,
    on_patient: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[Path, Path]]:
    """Write ``phantom_01_ct.nii.gz``, ``phantom_01_seg.nii.gz``, ... and ``labels.json``.

    Args:
        folder: made where it does not exist.
        count: how many patients.
        seed: of the first patient; the others follow.
        varied_grid, surroundings: as in ``make_phantom``.
        on_patient: called with patients done and in all; may raise to stop.

    Returns:
        The image and the label map of every patient, in order.

    Raises:
        ValueError: as ``make_phantom``.
        StorageError: the folder can't be written to.
    """
    folder = Path(folder)
    pairs = []
    for number in range(1, count + 1):
        on_patient(number - 1, count)
        volume, annotation = make_phantom(
            seed + number - 1, varied_grid=varied_grid, surroundings=surroundings
        )
        labels = np.zeros(volume.grid.shape, np.uint8)
        for organ in annotation.structures:
            labels[annotation.masks[organ.name]] = organ.value
        image_path = folder / f"phantom_{number:02d}_ct.nii.gz"
        labels_path = folder / f"phantom_{number:02d}_seg.nii.gz"
        _write(image_path, volume.array, volume.grid)
        _write(labels_path, labels, volume.grid)
        pairs.append((image_path, labels_path))
    wanted = SURROUNDINGS if surroundings else ORGANS
    write_json(folder / "labels.json", {str(organ.value): organ.name for organ in wanted})
    return pairs


def _write(path: Path, array: np.ndarray, grid: Grid) -> None:
    """Write an (i, j, k) array and its grid."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    with replacing(path) as temporary:
        try:
            sitk.WriteImage(image, str(temporary), True)
        except RuntimeError as error:
            raise StorageError(
                f"Cannot write {path}; choose a folder that can be written to, on a disk with "
                "space left."
            ) from error


# --- the grid ---------------------------------------------------------------------------------


def _make_grid(
    seed: int,
    spacing: tuple[float, float, float] | None,
    shape: tuple[int, int, int] | None,
    varied: bool,
) -> Grid:
    """The seed's grid, centred on the origin of the patient's coordinates."""
    rng = np.random.default_rng([seed, 3])
    order: tuple[int, ...] = (0, 1, 2)
    signs, tilt = np.ones(3), np.eye(3)
    chosen = (3.0, 3.0, 3.0)
    if varied:
        in_plane, between = rng.choice([[2.5, 4.0], [3.0, 3.0], [2.7, 5.0], [3.4, 2.5]])
        chosen = (in_plane, in_plane, between)
        # Slices are axial in three patients of four, as they are in a clinic.
        if rng.random() < 0.25:
            order = list(permutations(range(3)))[rng.integers(1, 6)]
        signs = rng.choice([-1.0, 1.0], 3)
        if rng.random() < 0.5:
            tilt = rotation(np.radians(rng.uniform(-12, 12, 3)))
    steps = [float(mm) for mm in (chosen if spacing is None else spacing)]
    if len(steps) != 3 or not all(mm > 0 for mm in steps):
        raise ValueError("a phantom's spacing is three positive numbers of mm")
    if shape is None:
        shape = three(
            round(FIELD_OF_VIEW[axis] / mm) for axis, mm in zip(order, steps, strict=True)
        )
    if len(shape) != 3 or not all(n > 0 for n in shape):
        raise ValueError("a phantom's shape is three positive numbers of voxels")
    axes = np.zeros((3, 3))
    for column, axis in enumerate(order):
        axes[axis, column] = signs[column]
    affine = np.eye(4)
    affine[:3, :3] = tilt @ axes * steps
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid.from_affine(shape, affine)


# --- the scanner ------------------------------------------------------------------------------


def _scan(canvas: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Blur, cupping, streaks across the body and correlated noise; (i, j, k) int16 HU."""
    grid = canvas.grid
    hu = ndimage.gaussian_filter(canvas.hu, 0.9 / np.asarray(grid.spacing))
    body = ndimage.gaussian_filter((canvas.hu > -400).astype(np.float32), 1.0)
    cupping = (canvas.across / 140) ** 2 + (canvas.height / 110) ** 2
    hu += body * (rng.uniform(-3, 3) + rng.uniform(2, 8) * (np.clip(cupping, 0, 1.5) - 0.5))
    noise = rng.standard_normal(grid.shape, np.float32)
    noise = ndimage.gaussian_filter(noise, 1.6 / np.asarray(grid.spacing), mode="wrap")
    noise /= noise.std()
    # Few photons come through the long way across, from side to side: noise is drawn out there.
    across = int(np.abs(grid.affine[0, :3]).argmax())
    streaks = ndimage.gaussian_filter1d(
        rng.standard_normal(grid.shape, np.float32), 45 / grid.spacing[across], axis=across
    )
    streaks /= streaks.std()
    depth = np.clip(1.15 - 0.5 * cupping, 0.45, None)
    hu += (0.25 + 0.75 * body) * depth * (rng.uniform(10, 17) * noise + rng.uniform(2, 5) * streaks)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
