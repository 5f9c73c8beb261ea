"""Masks of balls on a grid."""

from __future__ import annotations

import numpy as np
from annotation_grids import ball

from FewShotSegLib.core.geometry import Grid

STRAIGHT = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
GRID = Grid((80, 40, 30), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), STRAIGHT)
MAIN = (20, 40, 45)


def islands(*balls: tuple[tuple[float, float, float], float]) -> np.ndarray:
    """Balls (centre in mm, radius) on the grid."""
    mask = np.zeros(GRID.shape, bool)
    for centre, radius in balls:
        mask |= ball(GRID, centre, radius)
    return mask
