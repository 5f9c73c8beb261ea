"""Rotations and affines for grids of any orientation."""

from __future__ import annotations

import numpy as np


def rotation(*angles: float) -> np.ndarray:
    """A 3x3 rotation by angles in radians about the three axes, one after the other."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[b, a] = np.sin(angle)
        turn[a, b] = -np.sin(angle)
        result = turn @ result
    return result


def affine_of(columns: np.ndarray, spacing: tuple[float, ...], origin: tuple[float, ...]):
    """4x4 RAS affine with these directions as columns."""
    affine = np.eye(4)
    affine[:3, :3] = columns * np.asarray(spacing)
    affine[:3, 3] = origin
    return affine
