"""The numbers of a pre-training, with defaults and limits: training, targets, augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import InputError
from ..core.ranges import (
    COARSEST,
    COUNT,
    CROP,
    OPTIMISER,
    PART,
    SPREAD,
    WEIGHT,
    require_within,
)


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast.

    Attributes:
        steps: optimiser steps. crop: model voxels of a crop. crops: crops a step and process.
        learning_rate: of AdamW after ``warm_up`` steps; a half cosine leads it to 1 % of that.
        clip: the largest norm of the gradient.
        average: decay of the running average of the weights, which is what is exported.
        freeze_statistics: the part of the steps after which batch statistics stay as they are:
            with few crops a step they wander, and a frozen backbone can't follow them.
        foreground: the part of the crops that lie around a class's voxels; the others lie anywhere.
        epoch_steps: steps between two progress events.
        validate_every: epochs between two validations on the held-out cases.
    """

    steps: int = 5000
    crop: tuple[int, int, int] = (80, 80, 64)
    crops: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warm_up: int = 50
    clip: float = 5.0
    average: float = 0.995
    freeze_statistics: float = 0.3
    foreground: float = 0.6
    epoch_steps: int = 100
    validate_every: int = 5

    def __post_init__(self) -> None:
        require_within(
            self,
            steps=COUNT,
            crop=CROP,
            crops=(1, 256),
            foreground=PART,
            epoch_steps=COUNT,
            validate_every=COUNT,
            **OPTIMISER,
        )


@dataclass(frozen=True)
class Targets:
    """What is learned beside the classes, as weights in the loss; 0 switches a target off.

    Attributes:
        cross_entropy: the weight of the classes' cross-entropy beside soft Dice, whose is 1.
        least_part: a class's cross-entropy is shared among its voxels in the crop, or this part of
            the crop if that is more. About the part that classes fill where they are: the smaller,
            the dearer is a voxel that is taken for a class which the crop does not show, and below
            that, large classes end up nowhere.
        voxels: the weight of each voxel's cross-entropy among the annotated classes and none.
        deep: the weight of the same losses on the coarser feature levels, so that these become
            features worth adapting too.
        tissue: air, lung, fat, soft tissue and bone, derived from HU; on CT alone.
        position: where a voxel lies from the centre of each class in ``anchors``, in 100 mm.
        distance: how far a voxel is from each of ``landmarks``, in 30 mm, up to 60 mm: classes, or
            ``"skin"`` and ``"bone"``, which are derived from HU; on CT alone.
        clean: the image as it was before its intensities were disturbed.
    """

    cross_entropy: float = 0.5
    least_part: float = 0.0025
    voxels: float = 0.0
    deep: float = 0.3
    tissue: float = 0.0
    position: float = 0.0
    anchors: tuple[str, ...] = ()
    distance: float = 0.0
    landmarks: tuple[str, ...] = ()
    clean: float = 0.0

    def __post_init__(self) -> None:
        names = ("cross_entropy", "voxels", "deep", "tissue", "position", "distance", "clean")
        require_within(self, **dict.fromkeys(names, WEIGHT), least_part=(1e-6, 1))
        if (self.distance > 0) != bool(self.landmarks):
            raise InputError("distance and landmarks (class names, skin, bone) are given together")
        if (self.position > 0) != bool(self.anchors):
            raise InputError("position and anchors (class names) are given together")


@dataclass(frozen=True)
class Augmentation:
    """How far crops are changed. There are no flips: left and right are different classes.

    Attributes:
        rotation: degrees about each axis, at most, either way; small, so that sides stay sides.
        zoom: the least and the most that a crop is shrunk or grown by.
        stretch: the part by which axes differ in that, at most.
        gain, shift: of the intensities in [0, 1]: ``image * (1 +- gain) +- shift``.
        gamma: the spread of the logarithm of an exponent.
        noise: standard deviation, at most.
        bias: the spread of the logarithm of a smooth field over the crop.
        coarsest: how many times coarser the image may become along an axis (thick slices).
        contrast: how often grey values are remapped at random, to contrasts that no CT has.
        narrow: how often only a box within the crop is imaged, as where a scan shows one organ.
    """

    rotation: float = 12.0
    zoom: tuple[float, float] = (0.75, 1.35)
    stretch: float = 0.1
    gain: float = 0.1
    shift: float = 0.05
    gamma: float = 0.25
    noise: float = 0.06
    bias: float = 0.15
    coarsest: float = 3.0
    contrast: float = 0.0
    narrow: float = 0.0

    def __post_init__(self) -> None:
        require_within(
            self,
            rotation=(0, 45),
            zoom=(0.1, 10),
            stretch=(0, 0.95),
            gain=PART,
            shift=PART,
            gamma=SPREAD,
            noise=PART,
            bias=SPREAD,
            coarsest=COARSEST,
            contrast=PART,
            narrow=PART,
        )
        if self.zoom[0] > self.zoom[1]:
            raise InputError("zoom is two numbers, the smaller first")
