"""What a task will take, from the volumes' sizes, the model's entry and earlier runs here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from slicer.i18n import tr as _

from FewShotSegLib.core.architecture_catalog import ARCHITECTURES, NetworkCost
from FewShotSegLib.core.method_catalog import COMPANION_METHOD, METHODS
from FewShotSegLib.core.quantities import duration_text

from ..interface.rows import Estimate
from .memory import total_memory
from .methods import AUTO
from .timing import GUESS, Part, Workload, part, start_part

BASE_BYTES = 700 * 2**20
"""A process with torch and a model that has done nothing yet."""
LEVELS = 1.4
"""All feature levels together hold so many times the finest one's voxels."""
SLAB = 1.6
"""What is kept of a slab of features in float32, with its weights and its planes being written."""
ON_IMAGES = 0.15
"""Running the network on a million voxels of crops, to features in windows, which overlap."""
REFINED = 0.6
"""Whether a result needs refinement is known once it is there: it counts as this part of one."""
NEAR = 0.5
"""Larger volumes hold more that is no structure: millions of voxels to this power are near one."""
CROPS = 2.7
"""Seconds that the network takes for a million voxels of crops, before :data:`ON_IMAGES`."""
BACKWARD = 2.7
"""Training through the network, to running it."""


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


def model_size(
    shape: Sequence[int], affine: np.ndarray, entry: Mapping[str, Any], modality: str
) -> np.ndarray:
    """Voxels of a volume on the model's grid along each of its axes, not rounded."""
    parts = entry["preprocessing"]
    part = parts.get(modality) or next(iter(parts.values()))
    extent = np.linalg.norm(affine[:3, :3], axis=0) * np.asarray(shape, float)
    size = np.maximum(extent / np.asarray(part["spacing"], float), 1.0)
    if part.get("least"):
        # Which of them is which axis of the volume is not known here; a patch is much the same.
        order = np.argsort(size)
        size[order] = np.maximum(size[order], np.sort(part["least"]))
    most = part.get("most_voxels")
    return size * min(1.0, (most / np.prod(size)) ** (1 / 3)) if most else size


def model_voxels(
    shape: Sequence[int], affine: np.ndarray, entry: Mapping[str, Any], modality: str
) -> int:
    """Voxels of a volume on the model's grid."""
    return int(np.prod(model_size(shape, affine, entry, modality)) + 1e-6)


@dataclass(frozen=True)
class Plan:
    """What is about to be run, as far as its time and memory depend on it.

    Attributes:
        shapes: shape and affine of each volume that is read.
        entry: of the model. modality: of the volumes. structures: how many there are.
        device: where it runs. training: None for a segmentation.
        graphics_card: whether ``device`` is one. warm: whether a background process waits.
        refined: whether a segmentation is refined.
    """

    shapes: Sequence[tuple[Sequence[int], np.ndarray]]
    entry: Mapping[str, Any]
    modality: str
    structures: int
    device: str
    training: Training | None = None
    graphics_card: bool = False
    warm: bool = False
    refined: bool = True

    def voxels(self) -> list[int]:
        """Of each volume on the model's grid."""
        return [
            model_voxels(shape, affine, self.entry, self.modality) for shape, affine in self.shapes
        ]

    def window_voxels(self) -> list[float]:
        """Of each volume, those of all windows that the network runs on, which overlap."""
        window = np.asarray(self.entry["window"], float)
        step = window * (1 - self.entry["overlap"])
        found = []
        for shape, affine in self.shapes:
            size = model_size(shape, affine, self.entry, self.modality)
            counts = 1 + np.ceil(np.maximum(size - window, 0) / step)
            found.append(float(np.prod(counts) * np.prod(window)))
        return found


def estimate(plan: Plan) -> Estimate | None:
    """Memory of the background process at its most, and seconds from pressing to the end.

    Returns:
        None for a method that is not known here.
    """
    shapes, entry, training = plan.shapes, plan.entry, plan.training
    graphics_card = plan.graphics_card
    if training is not None and training.method not in METHODS:
        return None
    voxels = plan.voxels()
    originals = [math.prod(shape) for shape, _affine in shapes]
    cost = ARCHITECTURES[entry["architecture"]["name"]].cost
    kept = sum(voxels) * plan.structures * 2 + max(originals) * (8 + 2 * plan.structures)
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
    seconds, measured = workload(plan).seconds()
    total = total_memory()
    enough = graphics_card or total is None or memory < total * 0.9
    text = _("about {memory:.1f} GB of memory and {time}").format(
        memory=memory / 2**30, time=duration_text(seconds, rough=True)
    )
    if not measured:
        text += _(" (a guess: nothing has run here yet)")
    if total is not None and not enough:
        text += _("; this computer has {total:.0f} GB").format(total=total / 2**30)
    if total is None and not graphics_card:
        text += _("; how much this computer has is known once the packages are installed")
    return Estimate(memory, seconds, measured, text, enough)


def workload(plan: Plan) -> Workload:
    """The phases of a plan, with what there is to do in each."""
    entry, training = plan.entry, plan.training
    network = ARCHITECTURES[entry["architecture"]["name"]].cost.time
    original = sum(math.prod(shape) for shape, _affine in plan.shapes) / 1e6
    inside = sum(plan.voxels()) / 1e6
    parts = [start_part(plan.warm), part("hand over", original), part("read", original)]
    if training is None or not training.on_images:
        parts.append(part("features", sum(plan.window_voxels()) / 1e6, network))
    if training is None:
        # Only the part of the volume where a structure may be is computed on its own grid.
        near = original**NEAR * plan.structures
        parts.append(part("segment", near))
        if plan.refined:
            parts.append(part("refine", inside * plan.structures * REFINED))
        parts += [part(phase, near) for phase in ("judge", "load")]
    else:
        parts += _training_parts(training, len(plan.shapes), network)
    return Workload(entry["id"], plan.device, parts, plan.graphics_card)


def _training_parts(training: Training, supports: int, network: float) -> list[Part]:
    method = METHODS[training.method]
    guess = GUESS["epoch"]
    if training.on_images:
        guess = CROPS * network * ON_IMAGES * (BACKWARD if method.trains_backbone else 1.0)
    guess *= method.cost
    amount = training.speed_unit(supports)
    parts = [Part("train", training.speed_key, amount, guess)]
    if not training.on_images and supports > 1:  # others are not measured on supports held out
        held_out = Part("validate", "validate", amount, guess * GUESS["validate"])
        parts.append(held_out)
    if (second := training.second) is not None:
        guess = CROPS * network * ON_IMAGES * BACKWARD * METHODS[second.method].cost
        amount = second.speed_unit(supports)
        parts.append(Part("companion", second.speed_key, amount, guess))
    return parts


def _crop_bytes(training: Training, cost: NetworkCost) -> float:
    """Memory of a step on crops."""
    method = METHODS[training.method]
    each = cost.train_bytes if method.trains_backbone else cost.run_bytes
    precision = 2 if training.preset == "published" else 1  # of four bytes, not two
    return method.schedule(training.preset).step_voxels() * each * precision
