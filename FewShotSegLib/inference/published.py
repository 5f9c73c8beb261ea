"""What a foundation model's own head says of a volume, before anything is trained.

For the classes that the model knows as they are, and for comparison with its makers' software: a
model that was added from nnU-Net's files gives the scores of nnU-Net's own predictor (without
mirroring), window by window.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import InputError
from ..core.geometry import Volume, three
from ..features.sliding_window import Windows, blend_windows, place_windows
from ..models.backbones.base import Backbone
from ..models.preprocessing import Placement
from ..models.registry import Model
from ..models.resampling import as_nnunet, thick_axis

STEP = 0.5
"""Of nnU-Net's windows: how far they are apart at most, in parts of one."""
NNUNET = "nnunet"
"""Of the preprocessing's ``resampling``: such a model's windows are placed as nnU-Net does too."""


@torch.inference_mode()
def published_scores(
    model: Model,
    volume: Volume,
    modality: str,
    device: torch.device | str = "cpu",
    check: Callable[[], None] = lambda: None,
) -> Tensor:
    """Scores of the model's own head, before the softmax or sigmoid.

    Args:
        modality: ``"CT"`` or ``"MR"``, one that the model has preprocessing for.
        check: called before each window; raises to stop.

    Returns:
        (rows, i, j, k) on the volume's grid, float32 on the CPU. What the model does not see (it
        may crop zeros around the body) is background: 0, and in its row, if it has one, 1.

    Raises:
        InputError: the model has no preprocessing for the modality. ModelError: see ``backbone``.
    """
    preprocessing = model.entry.preprocessing.get(modality)
    if preprocessing is None:
        known = " and ".join(model.entry.preprocessing)
        raise InputError(f"The model '{model.entry.id}' is for {known}, not for {modality}.")
    image, placement = preprocessing(volume)
    backbone = model.backbone.to(device)
    weights, biases = (part.to(device) for part in backbone.head_weights())

    def predict(window: Tensor) -> Tensor:
        check()
        finest = backbone.features(window.to(device))[0]
        return F.conv3d(finest, weights[:, :, None, None, None], biases)

    if preprocessing.resampling == NNUNET:
        scores = _as_nnunet(image, model.entry.window, predict)
        thick = thick_axis(preprocessing.spacing, placement.spacing)
        rows = [as_nnunet(_inner(row, placement), placement.seen, thick, 1) for row in scores]
    else:
        scores = _blended(image, model, backbone, predict)
        rows = [row for row in scores]
    return _on_volume(rows, placement, preprocessing.resampling, model.entry.background)


def _on_volume(
    rows: list[Tensor], placement: Placement, resampling: str | None, background: int | None
) -> Tensor:
    result = torch.zeros(len(rows), *placement.grid.shape)
    if background is not None:
        result[background] = 1
    for number, row in enumerate(rows):
        if resampling == NNUNET:
            flipped = [axis for axis, flip in enumerate(placement.flips) if flip]
            back = tuple(int(axis) for axis in np.argsort(placement.sources))
            place, part = placement.box, row.flip(flipped).permute(back)
        else:
            whole = three(slice(0, n) for n in placement.shape)
            place, part = placement.part_to_original(row, whole, "linear")
        result[(number, *place)] = part
    return result


def _inner(row: Tensor, placement: Placement) -> Tensor:
    """What spans the volume, without the zeros around it."""
    pairs = zip(placement.before, placement.inner, strict=True)
    return row[three(slice(before, before + n) for before, n in pairs)]


def _blended(
    image: Tensor, model: Model, backbone: Backbone, predict: Callable[[Tensor], Tensor]
) -> Tensor:
    """Scores (rows, i, j, k) on the model's grid, of windows placed as for features."""
    entry, shape = model.entry, image.shape[2:]
    windows: Windows = place_windows(shape, entry.window, entry.overlap, backbone.largest_stride)
    beyond = [whole - size for size, whole in zip(shape, windows.padded, strict=True)]
    image = F.pad(image, [n for m in reversed(beyond) for n in (0, m)], mode="replicate")
    planes: list[Tensor] = []
    blend_windows(
        image,
        windows,
        lambda window: [predict(window)],
        lambda number, first, part: planes.append(part.clone()),
    )
    i, j, k = shape
    return torch.cat(planes, 1)[:, :i, :j, :k]


def _as_nnunet(
    image: Tensor, window: tuple[int, int, int], predict: Callable[[Tensor], Tensor]
) -> Tensor:
    """Scores (rows, i, j, k) as nnU-Net's predictor blends them: windows evenly spread, weighted
    by a Gaussian of an eighth of their sides."""
    shape = image.shape[2:]
    starts = [_spread(n, w, STEP) for n, w in zip(shape, window, strict=True)]
    importance = _importance(window)
    total: Tensor | None = None
    weights = torch.zeros(shape)
    for place in itertools.product(*starts):
        part = three(slice(a, a + w) for a, w in zip(place, window, strict=True))
        scores = predict(image[(..., *part)])[0].float().cpu()
        total = torch.zeros(len(scores), *shape) if total is None else total
        total[(slice(None), *part)] += scores * importance
        weights[part] += importance
    assert total is not None  # no image is empty
    return total / weights


def _spread(size: int, window: int, step: float) -> list[int]:
    """Where windows begin along an axis: the fewest that are ``step`` of a window apart at most."""
    count = int(np.ceil((size - window) / (window * step))) + 1
    apart = (size - window) / (count - 1) if count > 1 else 0.0
    return [round(apart * number) for number in range(count)]


def _importance(window: tuple[int, int, int]) -> Tensor:
    from scipy.ndimage import gaussian_filter

    point = np.zeros(window)
    point[tuple(n // 2 for n in window)] = 1
    weights = gaussian_filter(point, [n / 8 for n in window], mode="constant")
    # In half precision, as nnU-Net keeps it, with nowhere a 0.
    result = torch.from_numpy(weights / weights.max() * 10).half()
    result[result == 0] = result[result > 0].min()
    return result.float()
