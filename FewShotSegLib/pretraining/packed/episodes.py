"""Episodes: two views that show the same structures, and the voxels that are learned from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.errors import InputError
from .contrast import field_of_view, make_image
from .pack import Pack, PackedVolume
from .recipe import Recipe
from .views import View, crop_places, look_up

LEAST_VOXELS = 12
"""A structure with fewer voxels in a view is not asked for there."""
UNIFORM = 0.25
"""The part of the points that lie anywhere; the others are shared evenly among the structures."""
SAME_SIZE = 0.12
"""How far the voxels of an episode's views differ in size."""


@dataclass(frozen=True)
class Episode:
    """Two views.

    Attributes:
        images: (2, 1, I, J, K) float32 in [0, 1].
        points: (2, N) int64, places in a flattened view.
        tasks: (2, N) int64, the structure of each point in this episode; 0 is none of them.
        labels: (2, N) int64, the label of each point in its group's volumes.
        places: (2, N, 3) float32, where the points lie in their volumes, in mm.
        group: the number of the volumes' group.
        one: both views are of one volume.
        same: the views show the same places, so that equal points correspond.
    """

    images: Tensor
    points: Tensor
    tasks: Tensor
    labels: Tensor
    places: Tensor
    group: int
    one: bool
    same: bool


class Episodes:
    """Random episodes as a pure function of the seed and the episode's number (and the device).

    Args:
        pack: on the device that the episodes are to be on.
    """

    def __init__(self, pack: Pack, recipe: Recipe, seed: int, device: torch.device) -> None:
        self.pack, self.recipe, self.seed, self.device = pack, recipe, seed, device
        self.by_group = [
            [volume for volume in pack.volumes if volume.group == number]
            for number in range(len(pack.groups))
        ]
        weights = [g.weight if m else 0.0 for g, m in zip(pack.groups, self.by_group, strict=True)]
        self.parts = np.array(weights) / np.sum(weights)
        self.tops = [max(int(v.labels.max()) for v in m) if m else 0 for m in self.by_group]

    def draw(self, number: int) -> Episode:
        """The episode with a number, from 0. One that shows no two structures is drawn again."""
        for attempt in range(20):
            rng = np.random.default_rng([self.seed, number, attempt])
            noise = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
            episode = self._draw(rng, noise)
            if episode is not None:
                return episode
        raise InputError(
            "The packed volumes show no two structures in a crop. Pack other data, or take larger "
            "crops."
        )

    def _draw(self, rng: np.random.Generator, noise: torch.Generator) -> Episode | None:
        plan, device = self.recipe.training, self.device
        which = int(rng.choice(len(self.parts), p=self.parts))
        group, members = self.pack.groups[which], self.by_group[which]
        volumes, centres = self._volumes(rng, members, group.shared)
        size = float(np.exp(rng.uniform(*np.log(group.zoom))))
        same = volumes[0] is volumes[1] and rng.random() < plan.same
        places: list[Tensor] = []
        for volume, centre in zip(volumes, centres, strict=True):
            if same and places:
                places.append(places[0])
                continue
            mm = float(np.prod(volume.spacing)) ** (1 / 3)
            voxel = mm * size * float(np.exp(rng.uniform(-1, 1) * SAME_SIZE))
            places.append(
                crop_places(
                    *(rng, self.recipe.deformation, plan.crop, centre),
                    *(volume.spacing, voxel, device),
                )
            )
        views = [look_up(v, place) for v, place in zip(volumes, places, strict=True)]
        seen = [field_of_view(rng, self.recipe.contrast, tuple(plan.crop), device) for _ in volumes]
        images = self._images(rng, noise, views, seen, self.tops[which], group.modality == "CT")
        across = volumes[0] is not volumes[1]
        limit = group.shared if across else max(self.tops[which], 1)
        marked = self._tasks(rng, views, seen, limit, group.hidden, across)
        if marked is None:
            return None
        tasks, chance = marked
        if same:
            chance = [torch.minimum(*chance)] * 2
            points = torch.multinomial(chance[0], plan.points, True, generator=noise).expand(2, -1)
        else:
            drawn = [torch.multinomial(c, plan.points, True, generator=noise) for c in chance]
            points = torch.stack(drawn)
        return Episode(
            images,
            points,
            torch.stack([t.flatten()[p] for t, p in zip(tasks, points, strict=True)]),
            torch.stack([v.labels.flatten()[p] for v, p in zip(views, points, strict=True)]),
            torch.stack(
                [
                    view.place.flatten(0, 2)[p] * torch.tensor(volume.spacing, device=device)
                    for view, volume, p in zip(views, volumes, points, strict=True)
                ]
            ),
            which,
            not across,
            same,
        )

    def _volumes(
        self, rng: np.random.Generator, members: list[PackedVolume], shared: int
    ) -> tuple[list[PackedVolume], list[np.ndarray]]:
        """The volumes of both views, and around which voxels these lie."""
        first = members[rng.integers(len(members))]
        rows = first.places.numpy()
        if shared and len(members) > 1 and rng.random() < self.recipe.training.across:
            second = members[rng.integers(len(members))]
            others = second.places.numpy()
            both = np.intersect1d(rows[:, 0], others[:, 0])
            both = both[both <= shared]
            if second is not first and len(both):
                label = both[rng.integers(len(both))]
                picked = [r[r[:, 0] == label] for r in (rows, others)]
                return [first, second], [p[rng.integers(len(p)), 1:] for p in picked]
        labels = np.unique(rows[:, 0])
        row = rows[rows[:, 0] == labels[rng.integers(len(labels))]]
        centre = row[rng.integers(len(row)), 1:]
        return [first, first], [centre, centre]

    def _images(
        self,
        rng: np.random.Generator,
        noise: torch.Generator,
        views: list[View],
        seen: list[Tensor],
        top: int,
        window: bool,
    ) -> Tensor:
        """Both images; with one contrast where the episode has one (a real one, or one seed)."""
        seeds = rng.integers(2**62, size=2)
        if rng.random() >= self.recipe.training.recontrast:
            seeds[1] = seeds[0]
        images = []
        for view, part, seed in zip(views, seen, seeds, strict=True):
            own = np.random.default_rng(seed)
            image = make_image(
                *(own, noise, self.recipe.contrast, view.labels, view.image, top, window)
            )
            images.append(torch.where(part, image, 0.0)[None])
        return torch.stack(images)

    def _tasks(
        self,
        rng: np.random.Generator,
        views: list[View],
        seen: list[Tensor],
        limit: int,
        hidden: tuple[int, ...],
        across: bool,
    ) -> tuple[list[Tensor], list[Tensor]] | None:
        """The episode's structures in both views (I, J, K), and the chance of each voxel to be a
        point (flat, float32); None where there are fewer than two structures."""
        plan, length = self.recipe.training, max(int(v.labels.max()) for v in views) + 1
        counts = torch.stack(
            [
                torch.bincount(v.labels[part], minlength=length)
                for v, part in zip(views, seen, strict=True)
            ]
        )
        there = (counts >= LEAST_VOXELS).all(0).cpu().numpy()
        there[[0, *(value for value in hidden if value < length)]] = False
        there[limit + 1 :] = False
        labels = np.flatnonzero(there)
        if len(labels) < 2:
            return None
        labels = rng.permutation(labels)[: plan.structures]
        # Twice as many numbers as structures: the upper half is for what is cut off from them.
        number = np.arange(1, len(labels) + 1)
        if len(labels) > 2 and rng.random() < plan.merge:
            number[-1] = 1
        table = np.zeros(length, np.int64)
        table[labels] = number
        unknown = np.zeros(length, bool)
        unknown[[value for value in hidden if value < length]] = True
        if across:
            unknown[limit + 1 :] = True  # another volume's own: neither this structure nor that
        tasks = [torch.from_numpy(table).to(v.labels.device)[v.labels] for v in views]
        if not across:
            tasks = self._split(rng, views, tasks, len(labels))
        chances = []
        for view, task, part in zip(views, tasks, seen, strict=True):
            sizes = torch.bincount(task[part], minlength=2 * len(labels) + 1).float()
            share = (1 - UNIFORM) / sizes.clamp(min=1) / (sizes > 0).sum() + UNIFORM / sizes.sum()
            known = ~torch.from_numpy(unknown).to(task.device)[view.labels]
            chances.append(torch.where(part & known, share[task], 0.0).flatten())
        return tasks, chances

    def _split(
        self, rng: np.random.Generator, views: list[View], tasks: list[Tensor], count: int
    ) -> list[Tensor]:
        """Some structures are cut in two by a plane in the volume, alike in both views."""
        cut = np.flatnonzero(rng.random(count) < self.recipe.training.split) + 1
        normals = rng.normal(size=(count + 1, 3)).astype(np.float32)
        tasks = [task.clone() for task in tasks]
        for number in cut.tolist():
            normal = torch.from_numpy(normals[number]).to(self.device)
            along = [
                view.place[task == number] @ normal for view, task in zip(views, tasks, strict=True)
            ]
            if not all(len(a) for a in along):
                continue
            middle = along[0].median()
            for task, values in zip(tasks, along, strict=True):
                task[task == number] = torch.where(values > middle, number + count, number)
        return tasks
