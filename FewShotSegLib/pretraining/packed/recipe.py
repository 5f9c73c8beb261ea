"""The recipe of an episodic pre-training: a JSON file.

Its fields are listed in Documentation/reference/pretraining-fields.md.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from ...core.architecture_catalog import network_arguments
from ...core.errors import FewShotSegError, InputError
from ...core.json_fields import json_object, load_json
from ...core.json_schema import from_json
from ...core.modality import MODALITIES
from ...core.plain_text import sentence
from ...core.ranges import (
    COUNT,
    CROP,
    NORM,
    OPTIMISER,
    PART,
    WEIGHT,
    require_within,
)
from ...models.preprocessing import Preprocessing
from ..assembly import read_model, require_whole
from ..state import MOST_BATCH
from .contrast import Contrast
from .views import Deformation


@dataclass(frozen=True)
class Losses:
    """What is learned, as weights; 0 switches off.

    Attributes:
        episode: structures of one view regressed from its features, by ridge regression in closed
            form, are found again in the other view: what an adapter will do, over all feature
            levels.
        template: structures that mean the same in several volumes, each a class of its own.
        contrast: a voxel is distinguished from others by its features in a view of the same place
            in another contrast; pairs of one structure count as alike too, a little.
        place: where a voxel lies in the volume, by the same kind of regression from one view to
            another of the same volume; it needs no labels.
        ridge: where the ridge's strength begins; it is learned.
    """

    episode: float = 1.0
    template: float = 0.0
    contrast: float = 0.0
    place: float = 0.0
    ridge: float = 0.1

    def __post_init__(self) -> None:
        weights = ("episode", "template", "contrast", "place")
        require_within(self, **dict.fromkeys(weights, WEIGHT), ridge=NORM)
        if not any(getattr(self, name) for name in weights):
            raise InputError(f"one of {', '.join(weights)} is above 0")


@dataclass(frozen=True)
class Schedule:
    """How long, how fast, and of what an episode is made.

    Attributes:
        episodes: in all; an episode is two views. batch: episodes an optimiser step.
        crop: voxels of a view. points: voxels of a view that are learned from.
        structures: of an episode, at most.
        same: how often both views have the same deformation, and only contrasts differ.
        recontrast: how often they have different contrasts.
        across: how often the second view is of another volume, where structures mean the same.
        merge, split: how often two structures are taken as one; how often each is cut in two.
        learning_rate, weight_decay, warm_up (steps), clip, average, freeze_statistics: as in
            :class:`~FewShotSegLib.pretraining.settings.TrainingPlan`.
        epoch: episodes between two progress events.
    """

    episodes: int = 20000
    batch: int = 1
    crop: tuple[int, int, int] = (64, 64, 64)
    points: int = 1536
    structures: int = 20
    same: float = 0.25
    recontrast: float = 0.5
    across: float = 0.5
    merge: float = 0.2
    split: float = 0.25
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    warm_up: int = 50
    clip: float = 3.0
    average: float = 0.995
    freeze_statistics: float = 0.5
    epoch: int = 100

    def __post_init__(self) -> None:
        parts = ("same", "recontrast", "across", "merge", "split")
        require_within(
            self,
            episodes=COUNT,
            batch=(1, MOST_BATCH),
            crop=CROP,
            points=(16, 2**20),
            structures=(2, 4096),
            **dict.fromkeys(parts, PART),
            epoch=COUNT,
            **OPTIMISER,
        )


@dataclass(frozen=True)
class Recipe:
    """All that a pre-training depends on, beside its pack and its seed."""

    model: dict[str, str]
    architecture: dict[str, Any]
    preprocessing: dict[str, Preprocessing]
    losses: Losses
    deformation: Deformation
    contrast: Contrast
    training: Schedule

    def to_json(self) -> dict[str, Any]:
        """The form that :func:`read_recipe` reads."""
        data = {
            "model": self.model,
            "architecture": self.architecture,
            "preprocessing": {k: p.to_json() for k, p in self.preprocessing.items()},
            "losses": asdict(self.losses),
            "deformation": asdict(self.deformation),
            "contrast": asdict(self.contrast),
            "training": asdict(self.training),
        }
        return json.loads(json.dumps(data))


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Raises:
        InputError: it can't be read, or a field is missing, unknown or out of range.
    """
    data = load_json(path, "recipe")
    try:
        return parse_recipe(data)
    except FewShotSegError as error:
        raise InputError(f"The recipe {path}: {sentence(error)}.") from error


def parse_recipe(data: Any) -> Recipe:
    """A recipe from its JSON.

    Raises:
        InputError: see :func:`read_recipe`.
    """
    data = json_object(
        data,
        "it",
        ("model", "architecture", "preprocessing"),
        ("losses", "deformation", "contrast", "training"),
    )
    model = read_model(data["model"])
    architecture = json_object(data["architecture"], "'architecture'", ("name",), None)
    if "out_channels" in architecture:
        raise InputError("leave out_channels out of 'architecture'")
    network_arguments({**architecture, "out_channels": 1})
    parts = json_object(data["preprocessing"], "'preprocessing'", (), None)
    if not parts or not set(parts) <= set(MODALITIES):
        raise InputError("'preprocessing' has a part for each of the modalities CT and MR in use")
    preprocessing = {
        modality: Preprocessing.from_json(
            json_object(part, f"'preprocessing' of {modality}", (), None)
        )
        for modality, part in parts.items()
    }
    for part in preprocessing.values():
        require_whole(part)
    return Recipe(
        model,
        dict(architecture),
        preprocessing,
        from_json(Losses, data.get("losses", {}), "'losses'"),
        from_json(Deformation, data.get("deformation", {}), "'deformation'"),
        from_json(Contrast, data.get("contrast", {}), "'contrast'"),
        from_json(Schedule, data.get("training", {}), "'training'"),
    )
