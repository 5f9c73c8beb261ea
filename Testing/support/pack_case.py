"""Small packs, their volumes and their recipes."""

from __future__ import annotations

import numpy as np
import torch

from FewShotSegLib.pretraining.packed.pack import (
    Group,
    Pack,
    PackedVolume,
    find_places,
)
from FewShotSegLib.pretraining.packed.recipe import Recipe, parse_recipe
from FewShotSegLib.pretraining.packed.views import Deformation

CPU = torch.device("cpu")
STILL = Deformation(rotation=0, stretch=0, shear=0, bend=0, ripple=0, jitter=0)


def make_volume(group: int = 0, seed: int = 0, image: bool = False, own: int = 0) -> PackedVolume:
    """Eight blocks of 8 voxels a side, labelled 1 to 8, or ``own`` more; label 7 is hidden."""
    labels = np.arange(1, 9, dtype=np.uint8).reshape(2, 2, 2).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    labels[labels > 3] += own
    picture = torch.from_numpy((labels * 20).astype(np.uint8)) if image else None
    places = find_places(labels, (7,), seed)
    spacing = (1.0, 1.0, 2.0)
    return PackedVolume(
        f"v{group}{seed}", group, spacing, torch.from_numpy(labels), picture, places
    )


def make_pack() -> Pack:
    """Two label maps whose labels mean the same, and two images where only 1 to 3 do."""
    groups = (
        Group("maps", "MR", 8, (7,), (0.8, 1.2), 2.0),
        Group("images", "CT", 3, (7,), (0.8, 1.2), 1.0),
    )
    volumes = [make_volume(0, 0), make_volume(0, 1)]
    volumes += [make_volume(1, 0, True), make_volume(1, 1, True, own=5)]
    return Pack(groups, tuple(volumes), "hash")


def make_recipe(norm: str = "batch", **losses: float) -> Recipe:
    window = {"orientation": "RAS", "spacing": [1, 1, 1], "intensity": "window"}
    return parse_recipe(
        {
            "model": {"id": "tiny-episodes", "title": "Tiny"},
            "architecture": {"name": "DynamicUNet", "filters": [4, 6, 8], "norm": norm},
            "preprocessing": {
                "CT": {**window, "low": 0, "high": 1},
                "MR": {**window, "intensity": "percentiles", "low": 1, "high": 99},
            },
            "losses": losses or {"episode": 1.0},
            "training": {
                **{"episodes": 8, "crop": [16, 16, 16], "points": 64, "epoch": 3, "warm_up": 2},
                **{"freeze_statistics": 0.5},
            },
        }
    )
