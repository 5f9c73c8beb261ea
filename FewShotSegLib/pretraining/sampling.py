"""Which crop a process sees at a step: balanced over the data sets, and over their classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .assembly import Assembly
from .augmentation import crop_index, disturb, field_of_view, remap, warp
from .cases import Case
from .synthesis import stretch, synthesise
from .targets import BODY, Sample, distance_targets, position_targets

_GOLDEN = (5**0.5 - 1) / 2


def data_set_of(number: int, weights: Sequence[float], seed: int = 0) -> int:
    """The data set of the crop with a running number.

    Multiples of the golden ratio fill [0, 1) evenly: after any number of crops each data set has
    had its share to within a few.
    """
    share = np.cumsum(weights) / np.sum(weights)
    place = ((number + 1) * _GOLDEN + seed * 0.37) % 1
    return int(min(np.searchsorted(share, place, side="right"), len(weights) - 1))


class Sampler:
    """Random crops as a pure function of the seed, the step and the process's rank.

    Args:
        cases: for each data set of the assembly, its training cases.
        world: how many processes draw.
    """

    def __init__(
        self, assembly: Assembly, cases: Sequence[Sequence[Case]], seed: int, world: int
    ) -> None:
        self.assembly, self.cases, self.seed, self.world = assembly, cases, seed, world
        self.having = [
            {
                k: [case for case in group if k in case.places]
                for k in sorted({k for case in group for k in case.places})
            }
            for group in cases
        ]

    def draw(self, step: int, rank: int) -> list[Sample]:
        """The crops of one step on one process."""
        crops = self.assembly.training.crops
        weights = [data_set.weight for data_set in self.assembly.data]
        drawn = []
        for number in range(crops):
            rng = np.random.default_rng([self.seed, step, rank, number])
            running = (step * self.world + rank) * crops + number
            which = data_set_of(running, weights, self.seed)
            case, centre = self._place(rng, which)
            drawn.append(make_sample(rng, self.assembly, case, centre))
        return drawn

    def class_parts(self, crops: int = 32) -> Tensor:
        """(K,) the part of the first crops' voxels that each class has, where it is annotated."""
        sums = torch.zeros(2, len(self.assembly.classes))
        for step in range(-(-crops // self.assembly.training.crops)):
            for sample in self.draw(step, 0):
                counts = torch.bincount(sample.labels.flatten(), minlength=sums.shape[1] + 1)[1:]
                part = counts / sample.labels.numel()
                sums += torch.stack([part * sample.annotated, sample.annotated])
        return sums[0] / sums[1].clamp(min=1)

    def _place(self, rng: np.random.Generator, which: int) -> tuple[Case, np.ndarray]:
        """A case of a data set, and where in it the crop lies.

        Classes are drawn before cases, so that a rarely annotated one is seen as often as others.
        """
        plan, having = self.assembly.training, self.having[which]
        if having and rng.random() < plan.foreground:
            number = list(having)[rng.integers(len(having))]
            case = having[number][rng.integers(len(having[number]))]
            voxels = case.places[number]
            # Off-centre, so that a structure's surroundings are learned on every side.
            return case, voxels[rng.integers(len(voxels))] + rng.uniform(-0.3, 0.3, 3) * plan.crop
        case = self.cases[which][rng.integers(len(self.cases[which]))]
        return case, rng.uniform(0.15, 0.85, 3) * case.shape


def make_sample(
    rng: np.random.Generator, assembly: Assembly, case: Case, centre: np.ndarray
) -> Sample:
    """One augmented crop of a case around a voxel, with everything there is to learn from it."""
    preprocessing = assembly.preprocessing[case.modality]
    augmentation, spacing = assembly.augmentation, preprocessing.spacing
    index = crop_index(rng, augmentation, assembly.training.crop, centre, spacing)
    labels = warp(case.labels, index, "nearest").long()
    detail = None if case.detail is None else warp(case.detail, index, "nearest").long()
    tissue = clean = None
    if case.synthetic:
        image = synthesise(rng, labels, detail, case.grey)
        body = detail > 0
    else:
        image = clean = warp(case.image, index, "bilinear")
        tissue = detail
        body = detail > 0 if detail is not None else image > BODY
        if rng.random() < augmentation.contrast:
            image = remap(rng, image)
    image = disturb(rng, augmentation, image)
    view = field_of_view(rng, augmentation, image.shape)
    if case.synthetic and preprocessing.intensity == "percentiles":
        # As the preprocessing does with a volume: it knows no grey values outside of it.
        image[view] = stretch(image[view], preprocessing.low, preprocessing.high)
    position, position_known = position_targets(assembly, case, index)
    distance, distance_known = distance_targets(assembly, case, index)
    # Outside the field of view there is nothing: background, as around a padded volume.
    image, labels, body = (_only(view, part) for part in (image, labels, body))
    tissue, clean = (None if part is None else _only(view, part) for part in (tissue, clean))
    return Sample(
        image[None],
        labels,
        torch.from_numpy(case.annotated),
        tissue,
        clean,
        position,
        position_known,
        distance,
        distance_known,
        body,
    )


def _only(view: tuple[slice, ...], part: Tensor) -> Tensor:
    """What of (I, J, K) is in view, and 0 elsewhere."""
    if part[view].shape == part.shape:
        return part
    kept = torch.zeros_like(part)
    kept[view] = part[view]
    return kept


def whole_image(assembly: Assembly, case: Case) -> Tensor:
    """A case's image (i, j, k) without augmentation; a synthetic one is always the same."""
    if not case.synthetic:
        return torch.from_numpy(np.array(case.image, np.float32))
    preprocessing = assembly.preprocessing[case.modality]
    rng = np.random.default_rng([int(n) for n in case.name.encode()])
    labels, detail = (torch.from_numpy(np.array(a, np.int64)) for a in (case.labels, case.detail))
    image = synthesise(rng, labels, detail, case.grey)
    if preprocessing.intensity == "percentiles":
        image = stretch(image, preprocessing.low, preprocessing.high)
    return image
