"""Reading and checking the description of an assembly.

Its fields are listed in Documentation/reference/pretraining-fields.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from ..core.architecture_catalog import network_arguments
from ..core.errors import FewShotSegError, InputError
from ..core.json_fields import json_object, load_json
from ..core.json_schema import Check, from_json
from ..core.modality import MODALITIES
from ..core.model_entry import Label, Line, Text, fault_of_weights_name
from ..core.plain_text import sentence
from ..models.preprocessing import Preprocessing
from ..models.registry import same_class
from .data_sets import DataSet, Source, annotated_counts, read_data_set
from .landmarks import FROM_HU
from .settings import Augmentation, Targets, TrainingPlan

MAX_CLASSES = 255
RESERVED_IDS = ("checkpoint", "pretraining")
"""A model of this name would have the files of a run's state or record."""


@dataclass(frozen=True)
class Assembly:
    """Data sets, the universal class template, and how to train on them.

    Attributes:
        model: what the registry entry will say: id, title, ...
        classes: the template; a class's place is its row in the head.
        start_from: a model whose weights come before the first step, or None for random ones.
    """

    model: dict[str, str]
    classes: tuple[str, ...]
    preprocessing: dict[str, Preprocessing]
    architecture: dict[str, Any]
    data: tuple[DataSet, ...]
    targets: Targets
    augmentation: Augmentation
    training: TrainingPlan
    start_from: str | None = None

    def to_json(self, with_cases: bool) -> dict[str, Any]:
        """All that the result depends on except the files' contents; for records and hashes.

        Folders are left out: they are nobody else's business, and may move.

        Args:
            with_cases: name the cases; without, they are only counted, as for files that are
                given away.
        """
        data = []
        for d in self.data:
            part: dict[str, Any] = {
                "name": d.name,
                "modality": d.modality,
                "labels": {str(value): name for value, name in d.labels.items()},
                "weight": d.weight,
                "synthesis": d.synthesis,
                "grey": dict(d.grey),
                "annotated": d.annotated,
                "cases": [source.name for source in d.sources],
                "held_out": [source.name for source in d.held_out],
            }
            if not with_cases:
                part |= {"cases": len(d.sources), "held_out": len(d.held_out)}
                if not isinstance(d.annotated, str):
                    part["annotated"] = annotated_counts(d)
            data.append(part)
        return {
            "model": self.model,
            "classes": list(self.classes),
            "preprocessing": {k: p.to_json() for k, p in self.preprocessing.items()},
            "architecture": self.architecture,
            "data": data,
            "targets": asdict(self.targets),
            "augmentation": asdict(self.augmentation),
            "training": asdict(self.training),
            "start_from": self.start_from and Path(self.start_from).name,
        }


def read_assembly(
    path: str | os.PathLike[str],
    steps: int | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Assembly:
    """Read an assembly's description.

    Args:
        path: a JSON file. steps: in place of the file's.
        folder: what the folders in it are relative to; by default where the file is.

    Raises:
        InputError: it can't be read, a field is missing, unknown or out of range, or the data
            aren't there. One sentence says which.
    """
    path = Path(path)
    data = load_json(path, "assembly")
    try:
        return _assembly(data, path.parent if folder is None else Path(folder), steps)
    except FewShotSegError as error:
        raise InputError(f"The assembly {path}: {sentence(error)}.") from error


def _assembly(data: Any, folder: Path, steps: int | None) -> Assembly:
    data = json_object(
        data,
        "it",
        ("model", "classes", "preprocessing", "architecture", "data"),
        ("targets", "augmentation", "training", "start_from"),
    )
    model = read_model(data["model"])
    classes = _classes(data["classes"])
    preprocessing = _preprocessing(data["preprocessing"])
    architecture = _architecture(data["architecture"], classes)
    sets = _data_sets(data["data"], folder, classes, preprocessing)
    targets = _targets(data.get("targets", {}), classes)
    plan = from_json(TrainingPlan, data.get("training", {}), "'training'")
    if steps is not None:
        plan = replace(plan, steps=steps)
    start = _start_from(data.get("start_from"), folder)
    augmentation = from_json(Augmentation, data.get("augmentation", {}), "'augmentation'")
    return Assembly(
        model, classes, preprocessing, architecture, sets, targets, augmentation, plan, start
    )


@dataclass(frozen=True)
class _ModelFields:
    """What is said of a model that is to be: the same as its registry entry will have to say."""

    id: Annotated[
        str,
        Check(
            "letters, digits, '.', '_' and '-', up to 100 of them, the first a letter or digit",
            lambda text: bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text)),
        ),
    ]
    title: Label
    description: Text = ""
    licence: Line = ""
    citation: Text = ""
    source_url: Text = ""

    def __post_init__(self) -> None:
        fault = fault_of_weights_name(f"{self.id}.safetensors")
        if self.id.casefold() in RESERVED_IDS or self.id.endswith(".json"):
            fault = "a file of the run itself has that name"
        if fault:
            raise InputError(f"the id can't be '{self.id}': {fault}")


def read_model(data: Any) -> dict[str, str]:
    """The ``model`` of an assembly or a recipe: what the registry entry will say of it.

    Raises:
        InputError: a field is missing, unknown, or one that no entry or file can have.
    """
    return asdict(from_json(_ModelFields, data, "'model'"))


def _preprocessing(data: Any) -> dict[str, Preprocessing]:
    """By modality."""
    preprocessing = {
        modality: Preprocessing.from_json(
            json_object(part, f"'preprocessing' of {modality}", (), None)
        )
        for modality, part in json_object(data, "'preprocessing'", (), None).items()
    }
    if not preprocessing or not set(preprocessing) <= set(MODALITIES):
        raise InputError("'preprocessing' has a part for each of the modalities CT and MR in use")
    if any(part.intensity not in ("window", "percentiles") for part in preprocessing.values()):
        raise InputError("augmentation needs intensities in 0..1; use window or percentiles")
    for part in preprocessing.values():
        require_whole(part)
    return preprocessing


def require_whole(preprocessing: Preprocessing) -> None:
    """Check that a model to be trained sees whole volumes, resampled as ours are.

    Raises:
        InputError: it has what models that were trained elsewhere need.
    """
    fields = ("crop", "least", "resampling")
    given = [name for name in fields if getattr(preprocessing, name) is not None]
    if given:
        raise InputError(
            f"'{given[0]}' of 'preprocessing' is for models that were trained elsewhere; leave it "
            "out"
        )


def _architecture(data: Any, classes: tuple[str, ...]) -> dict[str, Any]:
    architecture = json_object(data, "'architecture'", ("name",), None)
    if "out_channels" in architecture:
        raise InputError("leave out_channels out of 'architecture'; it follows from 'classes'")
    network_arguments({**architecture, "out_channels": len(classes)})
    return dict(architecture)


def _data_sets(
    data: Any, folder: Path, classes: tuple[str, ...], preprocessing: Mapping[str, Preprocessing]
) -> tuple[DataSet, ...]:
    """All data sets, which together use every modality and annotate every class."""
    if not isinstance(data, list) or not data:
        raise InputError("'data' is a list of one or more data sets")
    sets = tuple(read_data_set(part, folder, classes, preprocessing) for part in data)
    names = [data_set.name for data_set in sets]
    if len(set(names)) < len(names):
        raise InputError(f"two data sets have one name ({', '.join(names)})")
    idle = sorted(set(preprocessing) - {data_set.modality for data_set in sets})
    if idle:
        raise InputError(f"no data set is {idle[0]}; leave it out of 'preprocessing'")
    _require_apart(sets)
    known = {name for data_set in sets for name in data_set.labels.values()}
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise InputError(f"no data set annotates the class '{unknown[0]}'; leave it out")
    return sets


def _targets(data: Any, classes: tuple[str, ...]) -> Targets:
    targets = from_json(Targets, data, "'targets'")
    for anchor in targets.anchors:
        if anchor not in classes:
            raise InputError(f"the anchor '{anchor}' in 'targets' is not one of 'classes'")
    for landmark in targets.landmarks:
        if landmark not in (*classes, *FROM_HU):
            raise InputError(
                f"the landmark '{landmark}' in 'targets' is not one of 'classes', skin or bone"
            )
    return targets


def _start_from(start: Any, folder: Path) -> str | None:
    if start is not None and not isinstance(start, str):
        raise InputError("'start_from' is a model's id, or the path of its entry")
    return str(folder / start) if start is not None and start.endswith(".json") else start


def _require_apart(sets: tuple[DataSet, ...]) -> None:
    """A case that one data set holds out may not be trained on in another."""
    held_out = {_scan(source): data_set.name for data_set in sets for source in data_set.held_out}
    for data_set in sets:
        for source in data_set.sources:
            other = held_out.get(_scan(source))
            if other is not None:
                raise InputError(
                    f"the data set '{data_set.name}' trains on '{source.name}', which '{other}' "
                    "holds out; exclude it"
                )


def _scan(source: Source) -> Path:
    """What tells one patient's files from another's."""
    return (source.image or source.segmentation).resolve()


def _classes(names: Any) -> tuple[str, ...]:
    names = from_json(list[Label], names, "'classes'")
    if not all(name.strip() for name in names):
        raise InputError("'classes' is a list of names")
    if not 1 <= len(names) <= MAX_CLASSES:
        raise InputError(f"'classes' has 1 to {MAX_CLASSES} names, not {len(names)}")
    for number, name in enumerate(names):
        for other in names[:number]:
            if same_class(name, other):
                raise InputError(f"the classes '{other}' and '{name}' have the same name")
    return tuple(names)
