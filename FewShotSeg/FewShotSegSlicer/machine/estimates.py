"""What a task will take, from the volumes' sizes, the model's entry and earlier runs here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import qt
from slicer.i18n import tr as _

from FewShotSegLib.core.architecture_catalog import ARCHITECTURES, NetworkCost
from FewShotSegLib.core.method_catalog import METHODS
from FewShotSegLib.core.options import COMPANION_METHOD
from FewShotSegLib.core.quantities import duration_text

from ..interface.rows import Estimate
from .memory import total_memory
from .methods import AUTO

BASE_BYTES = 700 * 2**20
"""A process with torch and a model that has done nothing yet."""
LEVELS = 1.4
"""All feature levels together hold so many times the finest one's voxels."""
SLAB = 1.6
"""What is kept of a slab of features in float32, with its weights and its planes being written."""
SPEED = "FewShotSeg/Speed"
START, FEATURES, EPOCH = 6.0, 2.7, 0.45
"""Seconds that a start, a million model voxels in overlapping windows, and an epoch on stored
features take on two CPU cores, with the model that comes with FewShotSeg."""
ON_IMAGES = 0.15
"""Running the network on a million voxels of crops, to features in windows, which overlap."""
BACKWARD = 2.7
"""Training through the network, to running it."""
GRAPHICS_CARD = 20.0
"""How many times faster one is than two CPU cores, until something has run on it."""


@dataclass(frozen=True)
class Training:
    """What a training's time depends on. ``epochs`` 0 are the method's own."""

    method: str
    decoder: str = AUTO
    preset: str = "own"
    epochs: int = 0
    effort: str = "default"

    @property
    def second(self) -> Training | None:
        """The training of a second network after it."""
        return Training(COMPANION_METHOD) if self.effort == "best" else None

    @property
    def on_images(self) -> bool:
        """Whether the network runs on crops in every step, in place of stored features."""
        return METHODS[self.method].runs_on_images(self.preset)

    @property
    def speed_key(self) -> str:
        """Under what its speed is kept."""
        return f"crops-{self.method}-{self.decoder}-{self.preset}" if self.on_images else "epoch"

    def speed_unit(self, supports: int) -> float:
        """What its speed counts in all of its epochs: millions of crops' voxels, or epochs."""
        schedule = METHODS[self.method].schedule(self.preset)
        epochs = self.epochs or schedule.epochs
        if not self.on_images:
            return float(epochs)
        return epochs * schedule.epoch_voxels(supports, self.preset) / 1e6


def model_voxels(
    shape: Sequence[int], affine: np.ndarray, entry: Mapping[str, Any], modality: str
) -> int:
    """Voxels of a volume on the model's grid."""
    parts = entry["preprocessing"]
    part = parts.get(modality) or next(iter(parts.values()))
    extent = np.linalg.norm(affine[:3, :3], axis=0) * np.asarray(shape, float)
    sides = np.maximum(extent / part["spacing"], 1)
    # Which of them is which axis of the volume is not known here; a patch is much the same in all.
    sides = np.maximum(np.sort(sides), np.sort(part.get("least") or sides))
    voxels = int(np.prod(sides))
    return min(voxels, part.get("most_voxels") or voxels)


def estimate(
    shapes: Sequence[tuple[Sequence[int], np.ndarray]],
    entry: Mapping[str, Any],
    modality: str,
    structures: int,
    device: str,
    training: Training | None = None,
    graphics_card: bool = False,
) -> Estimate | None:
    """Memory of the background process at its most, and seconds from pressing to the end.

    Args:
        shapes: shape and affine of each volume that is read.
        training: None for a segmentation.
        graphics_card: whether ``device`` is one.

    Returns:
        None for a method that is not known here.
    """
    if training is not None and training.method not in METHODS:
        return None
    voxels = [model_voxels(shape, affine, entry, modality) for shape, affine in shapes]
    originals = [math.prod(shape) for shape, _affine in shapes]
    cost = ARCHITECTURES[entry["architecture"]["name"]].cost
    kept = sum(voxels) * structures * 2 + max(originals) * (8 + 2 * structures)
    on_images = training is not None and training.on_images
    if on_images:
        memory = _crop_bytes(training, cost) + sum(voxels) * 4
    else:
        channels = (entry["architecture"].get("filters") or [cost.channels])[0]
        # A slab of one volume's features is gathered in float32; what is complete goes to the disk.
        slab = min(max(voxels), entry["window"][0] * max(voxels) ** (2 / 3))
        memory = slab * channels * LEVELS * 4 * SLAB
        memory += math.prod(entry["window"]) * cost.run_bytes
        if training is not None and training.second is not None:
            memory = max(memory, _crop_bytes(training.second, cost) + sum(voxels) * 4)
    memory = int(BASE_BYTES + memory + kept)
    seconds, measured = _seconds(
        entry["id"], device, cost.time, sum(voxels), len(shapes), training, graphics_card
    )
    total = total_memory()
    enough = graphics_card or total is None or memory < total * 0.9
    text = _("about {memory:.1f} GB of memory and {time}").format(
        memory=memory / 2**30, time=duration_text(max(5, seconds), rough=True)
    )
    if not measured:
        text += _(" (a guess: nothing has run here yet)")
    if total is not None and not enough:
        text += _("; this computer has {total:.0f} GB").format(total=total / 2**30)
    if total is None and not graphics_card:
        text += _("; how much this computer has is known once the packages are installed")
    return Estimate(memory, seconds, measured, text, enough)


def _seconds(
    model: str,
    device: str,
    network: float,
    voxels: int,
    supports: int,
    training: Training | None,
    graphics_card: bool,
) -> tuple[float, bool]:
    """Seconds in all, and whether the largest part of them was measured here."""
    faster = GRAPHICS_CARD if graphics_card else 1.0

    def part(key: str, amount: float, guess: float) -> tuple[float, bool]:
        known = speed(model, device, key)
        return amount * (guess / faster if known is None else known), known is not None

    features = FEATURES * network
    parts = [(START, False)]
    if training is None or not training.on_images:
        parts.append(part("features", voxels / 1e6, features))
    if training is not None:
        method = METHODS[training.method]
        guess = EPOCH
        if training.on_images:
            guess = features * ON_IMAGES * (BACKWARD if method.trains_backbone else 1.0)
        guess *= method.cost
        parts.append(part(training.speed_key, training.speed_unit(supports), guess))
        if (second := training.second) is not None:
            guess = features * ON_IMAGES * BACKWARD * METHODS[second.method].cost
            parts.append(part(second.speed_key, second.speed_unit(supports), guess))
    return sum(seconds for seconds, _m in parts), max(parts[1:])[1]


def _crop_bytes(training: Training, cost: NetworkCost) -> float:
    """Memory of a step on crops."""
    method = METHODS[training.method]
    each = cost.train_bytes if method.trains_backbone else cost.run_bytes
    precision = 2 if training.preset == "published" else 1  # of four bytes, not two
    return method.schedule(training.preset).step_voxels() * each * precision


def speed(model: str, device: str, key: str) -> float | None:
    """Seconds for one of what ``key`` counts, where that was measured here."""
    value = qt.QSettings().value(_place(model, device, key), None)
    return None if value is None else float(value)


def remember(model: str, device: str, key: str, seconds: float) -> None:
    """Keep what a run took, for the next estimate."""
    qt.QSettings().setValue(_place(model, device, key), float(seconds))


def _place(model: str, device: str, key: str) -> str:
    return f"{SPEED}/{model}/{device.replace(':', '')}/{key}"
