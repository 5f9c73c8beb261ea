"""What a crop teaches, and which output channel learns what."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from .assembly import Assembly
from .augmentation import warp
from .cases import TISSUE_EDGES, Case
from .landmarks import FARTHEST_MM, STEPS_PER_MM

POSITION_MM = 100.0
"""The unit of position targets."""
DISTANCE_MM = 30.0
"""The unit of distance targets."""
BODY = 0.02
"""Intensity above which a voxel of an MR image belongs to the body."""
TISSUES = len(TISSUE_EDGES) + 1


@dataclass(frozen=True)
class Sample:
    """One crop and its targets; None where a target is unknown for it.

    Attributes:
        image: (1, I, J, K). labels: (I, J, K) int64, classes from 1.
        annotated: (K,) float32, the task mask w of eq. (1).
        tissue: (I, J, K) int64. clean: (I, J, K).
        position: (3 A, I, J, K), from each of the A anchors, in 100 mm. position_known: (A,).
        distance: (L, I, J, K), from each of the L landmarks, in 30 mm. distance_known: (L,).
        body: (I, J, K) bool, where positions and distances are learned.
    """

    image: Tensor
    labels: Tensor
    annotated: Tensor
    tissue: Tensor | None
    clean: Tensor | None
    position: Tensor
    position_known: Tensor
    distance: Tensor
    distance_known: Tensor
    body: Tensor

    def to(self, device: torch.device) -> Sample:
        """The same on a device."""
        values = (getattr(self, field.name) for field in fields(self))
        return Sample(*(None if v is None else v.to(device) for v in values))


def output_channels(assembly: Assembly) -> dict[str, int]:
    """How many channels each target takes, in order; the classes come first."""
    targets = assembly.targets
    return {
        "classes": len(assembly.classes),
        "tissue": TISSUES if targets.tissue else 0,
        "position": 3 * len(targets.anchors),
        "distance": len(targets.landmarks),
        "clean": 1 if targets.clean else 0,
    }


def position_targets(assembly: Assembly, case: Case, index: np.ndarray) -> tuple[Tensor, Tensor]:
    """Where each voxel of a crop lies from the centres of the anchors.

    Args:
        index: (I, J, K, 3), the crop's places in the case.

    Returns:
        (3 A, I, J, K) along the model's axes in 100 mm, 0 where an anchor is unknown; and (A,), 1
        where it is known.
    """
    spacing = np.asarray(assembly.preprocessing[case.modality].spacing, np.float32)
    anchors = assembly.targets.anchors
    position = torch.zeros(3 * len(anchors), *index.shape[:3])
    known = torch.zeros(len(anchors))
    for number, anchor in enumerate(anchors):
        centre = case.centres.get(assembly.classes.index(anchor))
        if centre is not None:
            offset = (index - centre) * (spacing / POSITION_MM)
            position[3 * number : 3 * number + 3] = torch.from_numpy(offset.transpose(3, 0, 1, 2))
            known[number] = 1
    return position, known


def distance_targets(assembly: Assembly, case: Case, index: np.ndarray) -> tuple[Tensor, Tensor]:
    """How far each voxel of a crop is from the landmarks, in the patient's own size.

    Args:
        index: (I, J, K, 3), the crop's places in the case.

    Returns:
        (L, I, J, K) in 30 mm, 0 where a landmark is unknown; and (L,), 1 where it is known.
    """
    landmarks = assembly.targets.landmarks
    distance = torch.zeros(len(landmarks), *index.shape[:3])
    known = torch.zeros(len(landmarks))
    for number, name in enumerate(landmarks):
        if name in case.distances:
            steps = warp(case.distances[name], index, "bilinear", FARTHEST_MM * STEPS_PER_MM)
            distance[number] = steps / (STEPS_PER_MM * DISTANCE_MM)
            known[number] = 1
    return distance, known
