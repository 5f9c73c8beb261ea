"""Reading and checking the description of an assembly. Documentation/pretraining.md lists it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..core.errors import FewShotSegError, InputError
from ..core.json_fields import is_number, json_object, load_json
from ..core.json_schema import from_json
from ..core.modality import MODALITIES
from ..core.network_arguments import network_arguments
from ..core.plain_text import printable
from ..io.pairs import find_pairs
from ..io.volumes import extension_of
from ..models.preprocessing import Preprocessing
from ..models.registry import same_class
from .landmarks import FROM_HU
from .settings import Augmentation, Targets, TrainingPlan

MAX_CLASSES = 255
RESERVED_IDS = ("checkpoint", "pretraining")
"""A model of this name would have the files of a run's state or record."""
_MODEL_FIELDS = ("id", "title", "description", "licence", "citation", "source_url")


@dataclass(frozen=True)
class Source:
    """The files of one case; no image where it is to be synthesised."""

    name: str
    image: Path | None
    segmentation: Path


@dataclass(frozen=True)
class DataSet:
    """One data set of the assembly.

    Attributes:
        modality: which preprocessing its images need.
        labels: the template's class of each label value; several values may be one class.
        annotated: ``"present"``: a case annotates the classes that have voxels; ``"all"``: every
            class of ``labels``, an absent one is really not there; or by case name the label values
            that were annotated.
        weight: how often it is drawn from, relative to the others.
        sources: the cases to train on. held_out: those for validation alone.
        synthesis: there are label maps only; images are made up.
        grey: the usual grey value in [0, 1] of classes in these images, by name.
    """

    name: str
    modality: str
    labels: dict[int, str]
    annotated: str | dict[str, tuple[int, ...]]
    weight: float
    sources: tuple[Source, ...]
    held_out: tuple[Source, ...]
    synthesis: bool = False
    grey: Mapping[str, float] = field(default_factory=dict)


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
                    part["annotated"] = _counts(d)
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
        text = printable(str(error).rstrip("."), lines=False)
        raise InputError(f"The assembly {path}: {text}.") from error


def _assembly(data: Any, folder: Path, steps: int | None) -> Assembly:
    data = json_object(
        data,
        "it",
        ("model", "classes", "preprocessing", "architecture", "data"),
        ("targets", "augmentation", "training", "start_from"),
    )
    model = json_object(data["model"], "'model'", ("id", "title"), _MODEL_FIELDS[2:])
    if not all(isinstance(value, str) for value in model.values()):
        raise InputError("the fields of 'model' are texts")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model["id"]):
        raise InputError("the id in 'model' is letters, digits, '.', '_' and '-'")
    if model["id"].casefold() in RESERVED_IDS:
        raise InputError(f"the id in 'model' can't be '{model['id']}', a file of the run itself")
    classes = _classes(data["classes"])
    preprocessing = {
        modality: Preprocessing.from_json(
            json_object(part, f"'preprocessing' of {modality}", (), None)
        )
        for modality, part in json_object(
            data["preprocessing"], "'preprocessing'", (), None
        ).items()
    }
    if not preprocessing or not set(preprocessing) <= set(MODALITIES):
        raise InputError("'preprocessing' has a part for each of the modalities CT and MR in use")
    if any(part.intensity == "identity" for part in preprocessing.values()):
        raise InputError("augmentation needs intensities in 0..1; use window or percentiles")
    architecture = json_object(data["architecture"], "'architecture'", ("name",), None)
    if "out_channels" in architecture:
        raise InputError("leave out_channels out of 'architecture'; it follows from 'classes'")
    network_arguments({**architecture, "out_channels": len(classes)})
    if not isinstance(data["data"], list) or not data["data"]:
        raise InputError("'data' is a list of one or more data sets")
    sets = tuple(_data_set(part, folder, classes, preprocessing) for part in data["data"])
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
    targets = from_json(Targets, data.get("targets", {}), "'targets'")
    for anchor in targets.anchors:
        if anchor not in classes:
            raise InputError(f"the anchor '{anchor}' in 'targets' is not one of 'classes'")
    for landmark in targets.landmarks:
        if landmark not in (*classes, *FROM_HU):
            raise InputError(
                f"the landmark '{landmark}' in 'targets' is not one of 'classes', skin or bone"
            )
    plan = from_json(TrainingPlan, data.get("training", {}), "'training'")
    if steps is not None:
        plan = replace(plan, steps=steps)
    start = data.get("start_from")
    if start is not None and not isinstance(start, str):
        raise InputError("'start_from' is a model's id, or the path of its entry")
    if start is not None and start.endswith(".json"):
        start = str(folder / start)
    augmentation = from_json(Augmentation, data.get("augmentation", {}), "'augmentation'")
    return Assembly(
        {"description": "", "licence": "", "citation": "", "source_url": "", **model},
        classes,
        preprocessing,
        dict(architecture),
        sets,
        targets,
        augmentation,
        plan,
        start,
    )


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


def _counts(data_set: DataSet) -> dict[str, int]:
    """In how many cases each label value was annotated."""
    lists = [set(data_set.annotated[s.name]) for s in (*data_set.sources, *data_set.held_out)]
    return {str(value): sum(value in known for known in lists) for value in data_set.labels}


def _classes(names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise InputError("'classes' is a list of names")
    if not 1 <= len(names) <= MAX_CLASSES:
        raise InputError(f"'classes' has 1 to {MAX_CLASSES} names, not {len(names)}")
    for number, name in enumerate(names):
        for other in names[:number]:
            if same_class(name, other):
                raise InputError(f"the classes '{other}' and '{name}' have the same name")
    return tuple(names)


def _data_set(
    data: Any, folder: Path, classes: tuple[str, ...], preprocessing: Mapping[str, Preprocessing]
) -> DataSet:
    where = "a data set"
    if isinstance(data, dict) and isinstance(data.get("name"), str):
        where = f"the data set '{data['name']}'"
    data = json_object(
        data,
        where,
        ("name", "folder", "modality", "labels"),
        ("annotated", "weight", "cases", "exclude", "held_out", "synthesis", "grey"),
    )
    if not all(isinstance(data[key], str) and data[key] for key in ("name", "folder")):
        raise InputError(f"{where}: name and folder are texts")
    if not isinstance(data["modality"], str) or data["modality"] not in preprocessing:
        raise InputError(f"{where}: its modality has no part in 'preprocessing'")
    labels = _labels(data["labels"], where, classes)
    synthesis = data.get("synthesis", False)
    if not isinstance(synthesis, bool):
        raise InputError(f"{where}: synthesis is true or false")
    grey = json_object(data.get("grey", {}), f"'grey' of {where}", (), None)
    for name, value in grey.items():
        if name not in labels.values():
            raise InputError(f"{where}: 'grey' names '{name}', which is not one of its labels")
        if not is_number(value) or not 0 <= value <= 1:
            raise InputError(f"{where}: the grey value of '{name}' is not within 0 to 1")
    if grey and not synthesis:
        raise InputError(f"{where}: 'grey' is for made-up images; leave it out, or set synthesis")
    weight = data.get("weight", 1)
    if not is_number(weight) or weight <= 0:
        raise InputError(f"{where}: weight is a number above 0")
    root = folder / data["folder"]
    try:
        sources = _label_maps(root) if synthesis else _pairs(root)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    sources = _selected(sources, data, where)
    sources, held_out = _split(sources, data.get("held_out", 0), where)
    annotated = _annotated(data.get("annotated", "all" if synthesis else "present"), folder, where)
    if isinstance(annotated, dict):
        for source in (*sources, *held_out):
            if source.name not in annotated:
                raise InputError(f"{where}: the list of what is annotated lacks '{source.name}'")
        # Only what is used belongs to the recipe.
        annotated = {s.name: annotated[s.name] for s in (*sources, *held_out)}
    return DataSet(
        data["name"],
        data["modality"],
        labels,
        annotated,
        float(weight),
        sources,
        held_out,
        synthesis,
        grey,
    )


def _pairs(root: Path) -> list[Source]:
    return [Source(pair.name, pair.image, pair.segmentation) for pair in find_pairs(root)]


def _label_maps(root: Path) -> list[Source]:
    if not root.is_dir():
        raise InputError(f"There is no folder {root}; check the path.")
    found = []
    for file in sorted(root.iterdir()):
        extension = extension_of(file)
        if file.is_file() and extension and not file.name.startswith("."):
            found.append(Source(file.name[: -len(extension)], None, file))
    if not found:
        raise InputError(f"There are no label maps in {root}.")
    return found


def _labels(data: Any, where: str, classes: tuple[str, ...]) -> dict[int, str]:
    labels = {}
    for value, name in json_object(data, f"'labels' of {where}", (), None).items():
        if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 65535):
            raise InputError(f"{where}: the label value '{value}' is not within 1 to 65535")
        if name not in classes:
            raise InputError(f"{where}: the class {name!r} of label {value} is not in 'classes'")
        if int(value) in labels:
            raise InputError(f"{where}: the label value {int(value)} comes twice")
        labels[int(value)] = name
    if not labels:
        raise InputError(f"{where}: 'labels' is empty")
    return labels


def _annotated(data: Any, folder: Path, where: str) -> str | dict[str, tuple[int, ...]]:
    if data in ("present", "all"):
        return data
    if not isinstance(data, dict):
        raise InputError(f'{where}: annotated is "present", "all", or names a file')
    data = json_object(data, f"'annotated' of {where}", ("file",), ("part",))
    file = folder / str(data["file"])
    try:
        index = load_json(file, "list")
        index = index[data["part"]] if "part" in data else index
        lists = {case: tuple(values) for case, values in index.items()}
        if not all(type(value) is int for values in lists.values() for value in values):
            raise ValueError("a label value is no integer")
    except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{where}: {file} is no list of label values by case such as {{"pt_1": [1, 3]}} '
            f"({type(error).__name__}: {error})"
        ) from error
    return lists


def _selected(sources: list[Source], data: Mapping[str, Any], where: str) -> list[Source]:
    """The cases that are to be used at all."""
    known = {source.name for source in sources}
    for key in ("cases", "exclude"):
        names = data.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{where}: {key} is a list of case names")
        missing = [name for name in names if name not in known]
        if missing:
            raise InputError(f"{where}: there is no case '{missing[0]}', which {key} names")
    wanted = set(data.get("cases", known)) - set(data.get("exclude", []))
    return [source for source in sources if source.name in wanted]


def _split(
    sources: list[Source], held_out: Any, where: str
) -> tuple[tuple[Source, ...], tuple[Source, ...]]:
    """Training and held-out cases; a number holds out so many, evenly over the data set."""
    if isinstance(held_out, list) and all(isinstance(name, str) for name in held_out):
        missing = [n for n in held_out if n not in {source.name for source in sources}]
        if missing:
            raise InputError(f"{where}: there is no case '{missing[0]}' to hold out")
        chosen = set(held_out)
    elif type(held_out) is int and held_out >= 0:
        step = len(sources) / max(1, held_out)
        chosen = {sources[int(n * step)].name for n in range(min(held_out, len(sources)))}
    else:
        raise InputError(f"{where}: held_out is a number of cases or a list of their names")
    training = tuple(source for source in sources if source.name not in chosen)
    if not training:
        raise InputError(f"{where}: no case is left to train on")
    return training, tuple(source for source in sources if source.name in chosen)
