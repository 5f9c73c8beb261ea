"""The data sets of an assembly: which cases, and what is annotated in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from ..core.annotation import MAX_VALUE
from ..core.errors import InputError
from ..core.json_fields import is_number, json_object, load_json, shown
from ..core.json_schema import Check, from_json
from ..core.model_entry import Label
from ..core.ranges import SHARE
from ..io.pairs import find_pairs
from ..io.volumes import extension_of
from ..models.preprocessing import Preprocessing

Folder = Annotated[str, Check("the path of a folder", bool)]


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
        synthesis: there are label maps only; images are synthesised.
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


def read_data_set(
    data: Any, folder: Path, classes: tuple[str, ...], preprocessing: Mapping[str, Preprocessing]
) -> DataSet:
    """One entry of an assembly's ``data``, checked, with the files that it stands for.

    Args:
        folder: what the folders in it are relative to. classes: the assembly's template.
        preprocessing: the assembly's, by modality.

    Raises:
        InputError: a field is missing, unknown or out of range, or files aren't there.
    """
    where = "a data set"
    if isinstance(data, dict) and isinstance(data.get("name"), str):
        where = f"the data set '{data['name']}'"
    data = json_object(
        data,
        where,
        ("name", "folder", "modality", "labels"),
        ("annotated", "weight", "cases", "exclude", "held_out", "synthesis", "grey"),
    )
    from_json(Label, data["name"], f"{where}: 'name'")
    from_json(Folder, data["folder"], f"{where}: 'folder'")
    if not isinstance(data["modality"], str) or data["modality"] not in preprocessing:
        raise InputError(f"{where}: its modality has no part in 'preprocessing'")
    labels = _labels(data["labels"], where, classes)
    synthesis = data.get("synthesis", False)
    if not isinstance(synthesis, bool):
        raise InputError(f"{where}: synthesis is true or false")
    grey = _grey(data.get("grey", {}), where, labels, synthesis)
    weight = data.get("weight", 1)
    if not is_number(weight) or not SHARE[0] <= weight <= SHARE[1]:
        raise InputError(f"{where}: weight is a number above 0, from {SHARE[0]:g} to {SHARE[1]:g}")
    sources = _selected(_sources(folder / data["folder"], synthesis, where), data, where)
    sources, held_out = _split(sources, data.get("held_out", 0), where)
    annotated = _annotated(data.get("annotated", "all" if synthesis else "present"), folder, where)
    if isinstance(annotated, dict):
        annotated = _of_cases(annotated, (*sources, *held_out), where)
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


def _grey(data: Any, where: str, labels: Mapping[int, str], synthesis: bool) -> dict[str, float]:
    """The usual grey values of classes, by name."""
    grey = json_object(data, f"'grey' of {where}", (), None)
    for name, value in grey.items():
        if name not in labels.values():
            raise InputError(f"{where}: 'grey' names '{name}', which is not one of its labels")
        if not is_number(value) or not 0 <= value <= 1:
            raise InputError(f"{where}: the grey value of '{name}' is not within 0 to 1")
    if grey and not synthesis:
        raise InputError(f"{where}: 'grey' is for synthetic images; leave it out, or set synthesis")
    return grey


def _sources(root: Path, synthesis: bool, where: str) -> list[Source]:
    """All cases of a folder."""
    try:
        return _label_maps(root) if synthesis else _pairs(root)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _of_cases(
    annotated: Mapping[str, tuple[int, ...]], cases: Sequence[Source], where: str
) -> dict[str, tuple[int, ...]]:
    """What is annotated in each of these cases: only what is used belongs to the recipe."""
    for source in cases:
        if source.name not in annotated:
            raise InputError(f"{where}: the list of what is annotated lacks '{source.name}'")
    return {source.name: annotated[source.name] for source in cases}


def annotated_counts(data_set: DataSet) -> dict[str, int]:
    """In how many cases each label value was annotated."""
    lists = [set(data_set.annotated[s.name]) for s in (*data_set.sources, *data_set.held_out)]
    return {str(value): sum(value in known for known in lists) for value in data_set.labels}


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
        digits = value.isascii() and value.isdigit() and len(value) <= 9
        if not digits or not 1 <= int(value) <= MAX_VALUE:
            raise InputError(
                f"{where}: the label value {shown(value)} is not within 1 to {MAX_VALUE}"
            )
        if name not in classes:
            raise InputError(
                f"{where}: the class {shown(name)} of label {value} is not in 'classes'"
            )
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
        if held_out >= len(sources):
            raise InputError(
                f"{where}: no case is left to train on: held_out is {held_out} of "
                f"{len(sources)} cases"
            )
        step = len(sources) / max(1, held_out)
        chosen = {sources[int(n * step)].name for n in range(held_out)}
    else:
        raise InputError(f"{where}: held_out is a number of cases or a list of their names")
    training = tuple(source for source in sources if source.name not in chosen)
    if not training:
        raise InputError(f"{where}: no case is left to train on")
    return training, tuple(source for source in sources if source.name in chosen)
