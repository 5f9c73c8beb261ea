"""How well a segmentation matches a reference: overlap, surface distances and size.

Everything is computed on the original grid, in mm and ml, one structure at a time. Structures may
overlap. What was not annotated is unknown, never background, so it is listed and not scored.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.annotation import Annotation, Structure, dice, name_key, require_mask
from ..core.errors import InputError
from ..core.geometry import Grid
from ..core.limits import TOLERANCE_MM as TOLERANCE_MM_RANGE
from ..core.tables import text_table
from ..io.annotation_grid import union
from ..io.annotations import annotation_grid, mask_files, mask_name, read_annotation
from ..io.image_headers import require_usable_grid

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE_MM = 2.0
"""How far apart two surfaces may lie and still agree, in mm; best set from the raters' spread."""
_NAN = math.nan


@dataclass(frozen=True)
class Scores:
    """How one structure of a prediction compares with the reference.

    A score that is not defined is NaN, or an infinite distance; both are ``null`` in JSON. NaN is
    left out of means. The cases:

    ===================================  ========  =========  ============  ====================
    case                                 ``dice``  ``hd95_``  ``surface_``  volumes
    ===================================  ========  =========  ============  ====================
    one of the two is not given          NaN       NaN        NaN           NaN where not given
    both are empty                       NaN       NaN        NaN           0
    the reference alone has voxels       0         infinite   0             error is -100 %
    the prediction alone has voxels      0         infinite   0             percentage is NaN
    ===================================  ========  =========  ============  ====================

    Both empty is a right answer, yet there is no overlap to measure: 1 would let structures that
    aren't there raise a mean (Maier-Hein, Reinke et al., Nature Methods 21, 2024).

    Attributes:
        dice: 2 |A & B| / (|A| + |B|), in [0, 1].
        hd95_mm: the larger of the two directed 95th percentiles of the distance from one surface
            to the other, mm. Surfaces are voxel centres at the border of the mask.
        surface_dice: part of both surfaces' area, in [0, 1], that lies within the tolerance of the
            other (Nikolov et al., JMIR 23(7), 2021). By that definition surface elements are as
            thick as a voxel, so that surfaces count as up to half a voxel closer than they are.
        volume_ml, reference_ml: size of the prediction and of the reference.
        volume_error_ml: prediction less reference.
        volume_error_percent: the same in percent of the reference.
    """

    dice: float = _NAN
    hd95_mm: float = _NAN
    surface_dice: float = _NAN
    volume_ml: float = _NAN
    reference_ml: float = _NAN
    volume_error_ml: float = _NAN
    volume_error_percent: float = _NAN

    @property
    def scored(self) -> bool:
        """Whether there was something to compare."""
        return not math.isnan(self.dice)

    @property
    def note(self) -> str:
        """What a reader should know about a special case, or an empty text."""
        if math.isnan(self.reference_ml):
            return "not annotated"
        if math.isnan(self.volume_ml):
            return "not predicted"
        if self.reference_ml == 0:
            return "rightly empty" if self.volume_ml == 0 else "reference is empty"
        return "missed" if self.volume_ml == 0 else ""

    def to_json(self) -> dict[str, float | None]:
        """By attribute name; None for what is not defined. Numbers have four decimals."""
        return {
            name: round(value, 4) if math.isfinite(value) else None
            for name, value in asdict(self).items()
        }


def evaluate(
    reference: Mapping[str, np.ndarray],
    prediction: Mapping[str, np.ndarray],
    grid: Grid,
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, Scores]:
    """Compare two sets of masks, structure by structure.

    A structure that one side lacks is not scored. An *empty* mask is different: it states that
    the structure isn't there.

    Args:
        reference: boolean arrays (i, j, k) on ``grid`` of what was annotated, by structure.
        prediction: the same for what was predicted. Names are compared ignoring case.
        grid: the grid of all arrays; its axes are taken to be at right angles.
        tolerance_mm: for surface Dice, in mm, not negative.

    Returns:
        the reference's structures in its order and spelling, then those of the prediction alone.

    Raises:
        InputError: a mask isn't on the grid or is no mask, a name occurs twice, or the tolerance
            is out of range.
    """
    TOLERANCE_MM_RANGE.check(tolerance_mm)
    if not isinstance(grid, Grid):
        raise InputError(f"A grid is a Grid, not a {type(grid).__name__}.")
    require_usable_grid("The grid of the masks", grid)
    pairs: dict[str, list[np.ndarray | None]] = {}
    spelling: dict[str, str] = {}
    for side, (word, masks) in enumerate([("reference", reference), ("prediction", prediction)]):
        if not isinstance(masks, Mapping):
            raise InputError(f"The masks of the {word} are no dictionary by structure name.")
        for name, mask in masks.items():
            mask = require_mask(mask, grid.shape, f"The mask of '{name}' in the {word}")
            key = name_key(name)
            spelling.setdefault(key, name)
            pair = pairs.setdefault(key, [None, None])
            if pair[side] is not None:
                raise InputError(f"The {word} has '{name}' twice. Rename one of the two.")
            pair[side] = mask
    return {
        spelling[key]: _scores(truth, found, grid, tolerance_mm)
        for key, (truth, found) in pairs.items()
    }


def evaluate_files(
    reference: str | Path,
    prediction: str | Path,
    structures: Sequence[Structure] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
) -> dict[str, Scores]:
    """Compare two segmentation files on one grid.

    Both have to have it. A Slicer segmentation may be cropped: what it says of its place counts.
    Label maps are compared by label value, segments by name. What the reference does not hold was
    not annotated; what the prediction does not hold was found to be absent.

    Args:
        structures: which to score; None for all that either file holds.

    Raises:
        InputError: a file can't be read, the grids differ, the reference is empty, or the
            prediction is a folder without a mask of any of the structures.
    """
    TOLERANCE_MM_RANGE.check(tolerance_mm)
    grid, owner = _common_grid(Path(reference), Path(prediction))
    truth = read_annotation(
        reference, grid, structures, what="reference", owner=owner, may_be_outside=False
    )
    found = read_annotation(
        prediction,
        grid,
        structures,
        may_be_empty=True,
        what="prediction",
        owner="reference",
        may_be_outside=False,
    )
    if Path(prediction).is_dir() and not found.masks:
        _require_named_masks(Path(prediction), truth)
    nothing = np.zeros(grid.shape, bool)
    masks = {name_key(name): (name, nothing) for name in truth.masks}
    masks |= {name_key(name): (name, mask) for name, mask in found.masks.items()}
    return evaluate(truth.masks, dict(masks.values()), grid, tolerance_mm)


def _common_grid(reference: Path, prediction: Path) -> tuple[Grid, str]:
    """The grid to compare two files on, and which of them ("reference", "prediction") gives it.

    A plain label map or a folder of masks gives its own. Two Slicer segmentations, either of which
    may be cropped, are compared on the smallest grid that holds both.
    """
    own, may_be_part = annotation_grid(reference)
    if not may_be_part:
        return own, "reference"
    other, may_be_part = annotation_grid(prediction, own)
    if not may_be_part:
        return other, "prediction"
    return union(own, other) or own, "reference"


def _require_named_masks(folder: Path, truth: Annotation) -> None:
    """A folder of several results is no prediction in which everything was missed."""
    names = [mask_name(file) for file in mask_files(folder)]
    if not {name_key(name) for name in names} & {name_key(name) for name in truth.masks}:
        raise InputError(
            f"The prediction {folder} is a folder without a mask of {', '.join(truth.masks)}; it "
            f"has: {', '.join(names)}. If one of these is the prediction, give that file."
        )


def scores_json(scores: Mapping[str, Scores], tolerance_mm: float = TOLERANCE_MM) -> dict[str, Any]:
    """Scores by structure and the mean Dice of those scored, JSON-ready."""
    scored = [s.dice for s in scores.values() if s.scored]
    return {
        "tolerance_mm": tolerance_mm,
        "structures": {name: {**s.to_json(), "note": s.note} for name, s in scores.items()},
        "mean_dice": round(float(np.mean(scored)), 4) if scored else None,
    }


def format_table(scores: Mapping[str, Scores]) -> str:
    """A table for a terminal, ASCII but for the structures' names, without a final newline.

    The last line has the mean of what was scored, if that is more than one structure. A structure
    that was missed makes the mean HD95 infinite: without it, a miss would improve the mean.
    """
    header, rows = table_cells(scores)
    scored = [s for s in scores.values() if s.scored]
    return text_table(header, rows, " >>>>>>", footers=1 if len(scored) > 1 else 0)


def table_cells(scores: Mapping[str, Scores]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of :func:`format_table`."""
    header = ["structure", "Dice", "HD95 mm", "surface Dice", "ml", "reference ml", "error", "note"]
    rows = [
        [
            name,
            _text(s.dice, ".3f"),
            _text(s.hd95_mm, ".1f"),
            _text(s.surface_dice, ".3f"),
            _text(s.volume_ml, ".2f"),
            _text(s.reference_ml, ".2f"),
            _text(s.volume_error_percent, "+.1f", " %"),
            s.note,
        ]
        for name, s in scores.items()
    ]
    scored = [s for s in scores.values() if s.scored]
    if len(scored) > 1:
        mean = [f"mean of {len(scored)}"]
        for field, digits in (("dice", ".3f"), ("hd95_mm", ".1f"), ("surface_dice", ".3f")):
            mean.append(_text(sum(getattr(s, field) for s in scored) / len(scored), digits))
        rows.append(mean + [""] * (len(header) - len(mean)))
    return header, rows


def _scores(
    reference: np.ndarray | None, prediction: np.ndarray | None, grid: Grid, tolerance_mm: float
) -> Scores:
    """The scores of one structure; see :class:`Scores` for what is not defined."""
    ml = grid.voxel_volume / 1000
    volume = _NAN if prediction is None else float(np.count_nonzero(prediction) * ml)
    size = _NAN if reference is None else float(np.count_nonzero(reference) * ml)
    if reference is None or prediction is None or volume == size == 0:
        error = volume - size
        return Scores(volume_ml=volume, reference_ml=size, volume_error_ml=error)
    sizes = {
        "volume_ml": volume,
        "reference_ml": size,
        "volume_error_ml": volume - size,
        "volume_error_percent": 100 * (volume - size) / size if size else _NAN,
    }
    if volume == 0 or size == 0:
        return Scores(0.0, math.inf, 0.0, **sizes)
    # Seconds, and needed where there is something to measure alone.
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    with warnings.catch_warnings():
        # MONAI 1.6 warns of an argument that it passes itself.
        warnings.simplefilter("ignore", FutureWarning)
        hd95 = compute_hausdorff_distance(
            *_cut(prediction, reference),
            include_background=True,
            percentile=95,
            spacing=grid.spacing,
        )
        # Gaps wider than the tolerance may shrink to it: no pair of surfaces comes to agree.
        gaps = [int(tolerance_mm / spacing) // 2 + 1 for spacing in grid.spacing]
        surface = compute_surface_dice(
            *_cut(prediction, reference, gaps),
            [tolerance_mm],
            include_background=True,
            spacing=grid.spacing,
            use_subvoxels=True,
        )
    return Scores(dice(reference, prediction), hd95.item(), surface.item(), **sizes)


def _cut(
    a: np.ndarray, b: np.ndarray, margins: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Two masks cut to the box around both, as (1, 1, i, j, k) for MONAI; it pads the border.

    Args:
        margins: if given, planes inside the box stay only where one of the masks is at most so
            many planes away. A far-off speck then costs no more time than a near one.
    """
    import torch
    from scipy.ndimage import binary_dilation

    keep = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        used = np.logical_or(a.any(axis=others), b.any(axis=others))
        if margins is None:
            planes = np.flatnonzero(used)
            used[planes[0] : planes[-1] + 1] = True
        else:
            used = np.asarray(binary_dilation(used, iterations=margins[axis]))
        keep.append(np.flatnonzero(used))
    cut_a, cut_b = (torch.from_numpy(mask[np.ix_(*keep)])[None, None] for mask in (a, b))
    return cut_a, cut_b


def _text(value: float, digits: str, unit: str = "") -> str:
    if math.isnan(value):
        return "-"
    return format(value, digits) + unit if math.isfinite(value) else "inf"
