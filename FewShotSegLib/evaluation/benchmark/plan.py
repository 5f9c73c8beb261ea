"""The plan of a benchmark: what is run on which cases.

Its fields are listed in Documentation/how-to/compare-methods.md.

Supports and queries are named one by one, so that what two people ran can be compared.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from ...core.annotation import Structure, parse_structures
from ...core.errors import FewShotSegError, InputError
from ...core.json_fields import json_object, load_json
from ...core.json_schema import Check, from_json
from ...core.model_entry import Label
from ...core.model_folders import DEFAULT_MODEL
from ...core.options import AdaptOptions, shared_fields
from ...core.plain_text import sentence
from ...core.settings import TrainingSettings
from ...io.pairs import Pair, find_pairs, read_names
from ...io.volumes import read_image
from ...models.seen import seen_by
from ...pipeline.adapter_file import content_hash
from ...pipeline.inputs import default_model

ALL = "all"
"""In place of a number of shots: every support of a draw."""
DEFAULT_SHOTS = (1, 5, 10, ALL)
LEAST_CASES, LEAST_QUERIES = 4, 5
"""Cases that a new plan needs; queries of a draw below which all cases take turns."""
DEFAULT_METHODS = ("linear-probe", "adapter-1x1", "ft-last", "ft", "scratch")
"""After the adapter; those that take longest come last."""


@dataclass(frozen=True)
class Method:
    """One line of the table.

    Attributes:
        name: what the table calls it.
        method, decoder, preset, features, effort: as of :func:`pipeline.adapt`.
        model: foundation model. untrained: its network with random weights in place of its own.
        refine: segment with transduction as well, which gives a second line, NAME + TI.
        shots: run for these alone; None is all of the plan's.
        epochs, learning_rate: in place of the method's own.
    """

    name: Label
    method: str
    decoder: str | None = None
    preset: str = "own"
    features: Literal["multi", "last"] | None = None
    effort: Literal["default", "best"] = "default"
    model: str = DEFAULT_MODEL
    untrained: bool = False
    refine: bool = False
    shots: tuple[int | str, ...] | None = None
    epochs: int | None = None
    learning_rate: (
        Annotated[float, Check("a number above 0, at most 10", lambda rate: 0 < rate <= 10)] | None
    ) = None

    @property
    def options(self) -> AdaptOptions:
        """What it is trained with; structures and seed are a task's and a draw's.

        Raises:
            InputError: a number is out of range, or there is no such method or choice.
        """
        settings = shared_fields(TrainingSettings, self)
        return AdaptOptions.of(**shared_fields(AdaptOptions, self), **settings)


@dataclass(frozen=True)
class Draw:
    """One choice of cases, by name. The first K supports are those of K shots."""

    seed: Annotated[int, Check("a number from 0 on", lambda n: 0 <= n < 2**63)]
    supports: tuple[str, ...]
    queries: tuple[str, ...]

    def shots(self, shots: int | str) -> int:
        """How many supports these shots are."""
        return len(self.supports) if shots == ALL else int(shots)


@dataclass(frozen=True)
class Task:
    """Structures on a data set.

    Attributes:
        folder: as :func:`pairs.find_pairs` reads it.
        structures: learned together.
        groups: names of structures by the name of the table that they share; by default all have
            one, called as the task is.
    """

    name: str
    folder: Path
    structures: tuple[Structure, ...]
    groups: dict[str, tuple[str, ...]]
    draws: tuple[Draw, ...]


@dataclass(frozen=True)
class Plan:
    """A whole benchmark: every task, number of shots, method and draw."""

    title: str
    shots: tuple[int | str, ...]
    methods: tuple[Method, ...]
    tasks: tuple[Task, ...]


def read_plan(path: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> Plan:
    """Read a plan, without a look at the data.

    Args:
        data: what the folders in it are relative to; by default where the file is.

    Raises:
        InputError: it can't be read, or a field is missing, unknown or wrong.
    """
    path = Path(path)
    fields = load_json(path, "plan")
    try:
        return _plan(fields, path.parent if data is None else Path(data))
    except FewShotSegError as error:
        raise InputError(f"The plan {path}: {sentence(error)}.") from error


def part_of(
    plan: Plan,
    methods: Sequence[str] = (),
    shots: Sequence[int | str] = (),
    tasks: Sequence[str] = (),
) -> Plan:
    """The plan with some of its methods and tasks, by name, and numbers of shots; empty means all.

    Raises:
        InputError: the plan has no such method, task or number.
    """
    for chosen, known, what in (
        (methods, [method.name for method in plan.methods], "method"),
        (tasks, [task.name for task in plan.tasks], "task"),
        (shots, plan.shots, "number of shots"),
    ):
        for item in chosen:
            if item not in known:
                raise InputError(
                    f"The plan has no {what} '{item}'; it has {', '.join(map(str, known))}."
                )
    return replace(
        plan,
        shots=tuple(shots) or plan.shots,
        methods=tuple(m for m in plan.methods if not methods or m.name in methods),
        tasks=tuple(t for t in plan.tasks if not tasks or t.name in tasks),
    )


@dataclass(frozen=True)
class NewPlan:
    """A plan as JSON, and how it was drawn.

    Attributes:
        notes: a sentence on each thing that a person should know.
    """

    plan: dict[str, Any]
    notes: tuple[str, ...]


def draw_plan(
    folder: str | os.PathLike[str],
    structures: str | None = None,
    *,
    model: str | None = None,
    shots: tuple[int | str, ...] = DEFAULT_SHOTS,
    draws: int = 3,
    queries: int = 10,
    seed: int = 2024,
) -> NewPlan:
    """A plan for a folder of annotated volumes: cases are drawn, the usual methods named.

    What the model was pre-trained on is left out, by the voxels. For each draw the cases are
    shuffled; the last of them are the queries, the others supports. Where that leaves too few
    queries, every case is the query of one draw, and the others are its supports (leave-one-out).

    Args:
        structures: as ``"4=parotid_right,5=parotid_left"``; None takes the folder's own list.
        model: None is the embedded one for the first image's modality.

    Raises:
        InputError: an image can't be read, the folder has no list of structures, or fewer than
            four cases that are new to the model.
    """
    pairs = find_pairs(folder)
    structures = structures or read_names(folder)
    if structures is None:
        raise InputError(
            f"{folder} has no labels.json; say which structures to segment, such as "
            "--structures 1=NAME,2=NAME."
        )
    parse_structures(structures)
    model = model or default_model(pairs[0].image)
    names, notes = _new_to(model, pairs)
    if len(names) < LEAST_CASES:
        raise InputError(
            f"{folder} has {len(names)} of {len(pairs)} cases that the model was not pre-trained "
            f"on; {LEAST_CASES} are needed."
        )
    kept, drawn, note = _drawn(names, shots, draws, queries, seed)
    plan = {
        "title": f"{model} on {Path(folder).name}",
        "model": model,
        "shots": kept,
        "methods": [{"method": "adapter", "refine": True}, *DEFAULT_METHODS],
        "tasks": [
            {
                "name": Path(folder).name,
                "data": os.path.abspath(folder),
                "structures": structures,
                "draws": drawn,
            }
        ],
    }
    return NewPlan(plan, tuple(filter(None, (*notes, note))))


def _new_to(model: str, pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    """The names of the cases that a model has not seen, and what is to be said of it."""
    seen = seen_by(model)
    if seen is None:
        note = (
            f"What {model} was pre-trained on is not recorded; its card may name it. Leave those "
            "cases out."
        )
        return [pair.name for pair in pairs], [note]
    if not seen:
        return [pair.name for pair in pairs], []
    new = [pair.name for pair in pairs if content_hash(read_image(pair.image)) not in seen]
    left = len(pairs) - len(new)
    note = f"{left} of {len(pairs)} cases were left out: {model} was pre-trained on them."
    return new, [note] if left else []


def _drawn(
    names: Sequence[str], shots: Sequence[int | str], draws: int, queries: int, seed: int
) -> tuple[list[int | str], list[dict[str, Any]], str]:
    """Numbers of shots that these cases allow, the draws, and a note where all take turns."""
    least = max(1 if count == ALL else int(count) for count in shots)
    if len(names) >= least + LEAST_QUERIES:
        count = min(queries, len(names) - least)
        drawn = []
        for number in range(draws):
            order = np.random.default_rng([seed, number]).permutation(len(names))
            cases = [names[index] for index in order]
            supports, asked = cases[:-count], cases[len(cases) - count :]
            drawn.append({"seed": number, "supports": supports, "queries": asked})
        return list(shots), drawn, ""
    drawn = []
    for number, name in enumerate(names):
        order = np.random.default_rng([seed, number]).permutation(len(names))
        supports = [names[index] for index in order if names[index] != name]
        drawn.append({"seed": number, "supports": supports, "queries": [name]})
    kept = [count for count in shots if count == ALL or int(count) < len(names) - 1]
    note = (
        f"{len(names)} cases are few: each is the query of one draw, and the others are its "
        "supports. So the spread over draws is of the queries, too."
    )
    return kept, drawn, note


def _plan(data: Any, folder: Path) -> Plan:
    data = json_object(data, "it", ("title", "shots", "methods", "tasks"), ("model",))
    model = data.get("model", DEFAULT_MODEL)
    for key, text in (("title", data["title"]), ("model", model)):
        from_json(Label, text, f"'{key}'")
    methods = [_method(item, model) for item in _list(data["methods"], "'methods'")]
    _require_apart([method.name for method in methods], "methods")
    tasks = [_task(item, folder) for item in _list(data["tasks"], "'tasks'")]
    _require_apart([task.name for task in tasks], "tasks")
    plan = Plan(data["title"], _shots(data["shots"], "'shots'"), tuple(methods), tuple(tasks))
    for task in tasks:
        for draw in task.draws:
            most = max(draw.shots(shots) for shots in plan.shots)
            if most > len(draw.supports):
                raise InputError(
                    f"a draw of '{task.name}' has {len(draw.supports)} supports for {most} shots"
                )
    return plan


def _method(data: Any, model: str) -> Method:
    data = {"method": data} if isinstance(data, str) else data
    data = json_object(data, "a method", ("method",), None)
    method = from_json(Method, {"name": data["method"], "model": model, **data}, "a method")
    if method.shots is not None:
        _shots(list(method.shots), "'shots' of a method")
    _ = method.options  # refuses what can't be
    return method


def _task(data: Any, folder: Path) -> Task:
    data = json_object(data, "a task", ("name", "data", "structures", "draws"), ("groups",))
    for key, kind in (("name", Label), ("data", str), ("structures", str)):
        from_json(kind, data[key], f"'{key}' of a task")
    draws = tuple(_draw(item, data["name"]) for item in _list(data["draws"], "'draws'"))
    structures = tuple(parse_structures(data["structures"]))
    names = [structure.name for structure in structures]
    groups = json_object(
        data.get("groups", {data["name"]: names}), f"'groups' of '{data['name']}'", (), None
    )
    for group, members in groups.items():
        from_json(Label, group, f"a name in 'groups' of '{data['name']}'")
        for name in _list(members, f"the group '{group}'"):
            if name not in names:
                raise InputError(f"the group '{group}' has '{name}', which is no structure")
    groups = {group: tuple(members) for group, members in groups.items()}
    return Task(data["name"], folder / data["data"], structures, groups, draws)


def _draw(data: Any, task: str) -> Draw:
    where = f"a draw of '{task}'"
    draw = from_json(Draw, data, where)
    for names, key in ((draw.supports, "supports"), (draw.queries, "queries")):
        _list(list(names), f"'{key}' of {where}")
    _require_apart([*draw.supports, *draw.queries], f"cases of {where}")
    return draw


def _shots(data: Any, where: str) -> tuple[int | str, ...]:
    for item in _list(data, where):
        if item != ALL and (type(item) is not int or item < 1):
            raise InputError(f'{where} are numbers from 1 on, or "{ALL}"')
    _require_apart([str(item) for item in data], where)
    return tuple(data)


def _list(data: Any, where: str) -> list[Any]:
    if not isinstance(data, list) or not data:
        raise InputError(f"{where} is a list of one or more")
    return data


def _require_apart(names: list[str], what: str) -> None:
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    if twice:
        raise InputError(f"'{twice[0]}' comes twice among the {what}")
