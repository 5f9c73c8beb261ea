"""An image synthesised from a label map, in a contrast that changes from crop to crop.

After Billot et al. (SynthSeg, Medical Image Analysis 86, 2023): a network that has seen every
contrast relies on none. That takes long to learn; where the usual contrast is known, most crops
have it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

JITTER = 0.04
SPREAD = (0.01, 0.08)
DARKEST = 0.1
USUAL, INVERTED = 0.7, 0.2
"""How often the given grey values are used; and how often of these dark and bright change places,
as T1 and T2 roughly do."""
GREY_JITTER = 0.06


def synthesise(
    rng: np.random.Generator, classes: Tensor, detail: Tensor, grey: np.ndarray | None = None
) -> Tensor:
    """Each class gets a mean grey value, and each label value within it one close to that.

    Label values that are no class get grey values of their own; where the label map is 0, it is
    dark.

    Args:
        classes: (I, J, K) int64, classes from 1. detail: (I, J, K) int64 in 0..255, label values.
        grey: (classes,) the usual mean of each in [0, 1], NaN where none is known.

    Returns:
        (I, J, K) float32, roughly within [0, 1].
    """
    count = int(classes.max()) + 1
    means = rng.uniform(0, 1, 256).astype(np.float32)
    if grey is not None and rng.random() < USUAL:
        usual = grey + rng.normal(0, GREY_JITTER, len(grey))
        usual = 1 - usual if rng.random() < INVERTED else usual
        means[1 : len(grey) + 1] = np.where(np.isnan(usual), means[1 : len(grey) + 1], usual)
    table = means[:count, None] + rng.normal(0, JITTER, 256).astype(np.float32)
    table[0] = rng.uniform(0, 1, 256)
    table[0, 0] = rng.uniform(0, DARKEST)
    image = torch.from_numpy(table)[classes, detail]
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), np.float32))
    image = image + noise * rng.uniform(*SPREAD)
    # A scanner's voxels hold a little of their neighbours.
    padded = F.pad(image[None, None], [1] * 6, mode="replicate")
    return F.avg_pool3d(padded, 3, 1)[0, 0]


def stretch(image: Tensor, low: float, high: float) -> Tensor:
    """Between two percentiles to [0, 1], as the preprocessing of MR does with a volume."""
    # A sample is enough, and torch.quantile takes no more than 16 million values.
    ends = torch.tensor([low / 100, high / 100])
    bottom, top = torch.quantile(image.flatten()[:: max(1, image.numel() // 20_000)], ends)
    return ((image - bottom) / (top - bottom).clamp(min=1e-3)).clamp(0, 1)
