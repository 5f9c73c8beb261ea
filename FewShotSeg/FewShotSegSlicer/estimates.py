"""What a task will take, from the volumes' sizes, the model's entry and earlier runs here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import qt
from slicer.i18n import tr as _

from .logic_protocol import Estimate
from .task_words import total_memory

BASE_BYTES = 700 * 2**20
"""A process with torch and a model that has done nothing yet."""
LEVELS = 1.4
"""All feature levels together hold so many times the finest one's voxels."""
SLAB = 1.6
"""What is kept of a slab of features in float32, with its weights and its planes being written."""
SPEED = "FewShotSeg/Speed"
GUESS = {"features": 4.0, "epoch": 0.8, "start": 6.0}
"""Seconds a million model voxels, an epoch, and a start take on two CPU cores."""


@dataclass(frozen=True)
class Network:
    """An architecture's cost, measured on two CPU cores.

    Attributes:
        channels: of the finest level. window_bytes: of one window on its way through.
        seconds: for a million model voxels.
    """

    channels: int
    window_bytes: float
    seconds: float


NETWORKS = {
    "SwinUNETR": Network(48, 1.6 * 2**30, 34.0),
    "GenesisUNet": Network(64, 0.9 * 2**30, 16.0),
    "VISTA3D": Network(48, 2.0 * 2**30, 27.0),
}
SMALL = Network(32, 0.2 * 2**30, GUESS["features"])


def model_voxels(
    shape: Sequence[int], affine: np.ndarray, entry: Mapping[str, Any], modality: str
) -> int:
    """Voxels of a volume on the model's grid."""
    parts = entry["preprocessing"]
    spacing = (parts.get(modality) or next(iter(parts.values())))["spacing"]
    extent = np.linalg.norm(affine[:3, :3], axis=0) * np.asarray(shape, float)
    return int(np.prod(extent) / np.prod(spacing))


def estimate(
    kind: str,
    shapes: Sequence[tuple[Sequence[int], np.ndarray]],
    entry: Mapping[str, Any],
    modality: str,
    epochs: int,
    structures: int,
    device: str,
) -> Estimate:
    """Memory of the background process at its most, and seconds from pressing to the end.

    Args:
        shapes: shape and affine of each volume that is read.
    """
    voxels = [model_voxels(shape, affine, entry, modality) for shape, affine in shapes]
    originals = [math.prod(shape) for shape, _affine in shapes]
    architecture = entry["architecture"]
    network = NETWORKS.get(architecture["name"], SMALL)
    channels = (architecture.get("filters") or [architecture.get("feature_size")])[0]
    # A slab of one volume's features is gathered in float32; what is complete goes to the disk.
    slab = min(max(voxels), entry["window"][0] * max(voxels) ** (2 / 3))
    features = slab * (channels or network.channels) * LEVELS * 4 * SLAB
    kept = sum(voxels) * structures * 2 + max(originals) * (8 + 2 * structures)
    memory = int(BASE_BYTES + network.window_bytes + features + kept)
    speed, measured = speeds(entry["id"], device)
    if not measured and not device.startswith("cuda"):
        speed["features"] = network.seconds
    seconds = speed["start"] + speed["features"] * sum(voxels) / 1e6
    if kind == "train":
        seconds += speed["epoch"] * epochs
    total = total_memory()
    enough = total is None or memory < total * 0.9
    text = _("about {memory:.1f} GB of memory and {time}").format(
        memory=memory / 2**30, time=_duration(seconds)
    )
    if not measured:
        text += _(" (a guess: nothing has run here yet)")
    if not enough:
        text += _("; this computer has {total:.0f} GB").format(total=total / 2**30)
    return Estimate(memory, seconds, measured, text, enough)


def speeds(model: str, device: str) -> tuple[dict[str, float], bool]:
    """Seconds as in :data:`GUESS`, and whether they were measured here."""
    settings = qt.QSettings()
    found = dict(GUESS)
    measured = False
    for key in GUESS:
        value = settings.value(f"{SPEED}/{model}/{device.replace(':', '')}/{key}", None)
        if value is not None:
            found[key], measured = float(value), True
    return found, measured


def remember(model: str, device: str, **seconds: float) -> None:
    """Keep what a run took, for the next estimate."""
    settings = qt.QSettings()
    for key, value in seconds.items():
        if key not in GUESS:
            raise KeyError(key)
        settings.setValue(f"{SPEED}/{model}/{device.replace(':', '')}/{key}", float(value))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return _("{n} seconds").format(n=max(5, int(round(seconds / 5) * 5)))
    return _("{n} minutes").format(n=int(round(seconds / 60)))
