"""A published model becomes one of the user's own: an entry, and its weights beside it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...core import model_folders
from ...core.errors import InputError, ModelError, StorageError
from ...core.json_fields import load_json
from ...core.limits import StrPath, require_path
from ...core.model_answers import Answers, flag
from ...core.model_entry import entry_fields
from ..registry import find_model
from .base import Format, Found, Open, Question
from .known import FORMATS
from .naming import file_stem

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Added:
    """A model that can now be used.

    Attributes:
        id: for ``adapt(model=...)`` and ``--model``.
        path: of its registry entry, in the user's model folder.
        facts: what was found in its files, a sentence each.
    """

    id: str
    path: Path
    facts: tuple[str, ...]


class Unanswered(InputError):
    """Something about a model can't be known from its files.

    Attributes:
        facts: what was found, a sentence each. questions: what is asked for.
    """

    def __init__(self, questions: tuple[Question, ...], facts: tuple[str, ...]) -> None:
        super().__init__(" ".join(str(question) for question in questions))
        self.questions, self.facts = questions, facts


def add_model(path: StrPath, **answers: str | None) -> Added:
    """Make a published model usable under an id of its own.

    The files are only read. Their tensors go into one safetensors file in the user's model folder,
    with a registry entry beside it, so that what was added stays what it was.

    Args:
        path: a folder or a file as its makers publish it, or a registry entry (``.json``) of this
            project's own beside its weights.
        answers: what the files don't tell: see :class:`core.model_answers.Answers`.

    Raises:
        ModelError: the format is not known, the files can't be used, or the id is taken.
        InputError: something can't be known from the files; the message asks for it.
        StorageError: the user's model folder can't be written to.
    """
    path = Path(require_path(path))
    try:
        given = Answers(**answers)
    except TypeError as error:
        raise InputError(
            f"What can be said of a model is {', '.join(Answers.__dataclass_fields__)}."
        ) from error
    if not path.exists():
        raise ModelError(f"There is no file or folder {path}.")
    if _is_entry(path):
        return _add_entry(path, given)
    kind = format_of(path)
    found = kind.read(path, given)
    facts = (f"This is {kind.NAME}.", *found.facts)
    if isinstance(found, Open):
        raise Unanswered(found.questions, facts)
    return install(found, given, facts)


def format_of(path: Path) -> Format:
    """The format of a path that exists.

    Raises:
        ModelError: it is none that is known.
    """
    for kind in FORMATS:
        if kind.recognise(path):
            return kind
    known = "; ".join(kind.NAME for kind in FORMATS)
    raise ModelError(
        f"{path} is of no format that is known. Known are: {known}; and a registry entry (.json) "
        "as Resources/Models/README.md describes it."
    )


def _is_entry(path: Path) -> bool:
    """Whether a file means to be a registry entry of ours."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        data = load_json(path, "file")
    except InputError:
        return not any(kind.recognise(path) for kind in FORMATS)  # its own reader says what's wrong
    return isinstance(data, dict) and {"architecture", "weights"} <= set(data)


def _add_entry(path: Path, answers: Answers) -> Added:
    said = [flag(name) for name, value in vars(answers).items() if value is not None]
    if said:
        raise InputError(f"{path.name} is an entry, which says all itself: leave out {said[0]}.")
    model_id = model_folders.add_model(path)
    return Added(model_id, _path_of(model_id), (f"This is a registry entry, '{model_id}'.",))


def install(found: Found, answers: Answers, facts: tuple[str, ...]) -> Added:
    """Write, load once, and put into place.

    Raises:
        ModelError: the entry or the weights can't be used; nothing was added.
    """
    entry = {**found.entry, "id": answers.name or found.entry["id"]}
    if answers.title:
        entry["title"] = answers.title
    if answers.licence:
        entry["licence"] = answers.licence
    name = file_stem(entry["id"])
    if any(known == entry["id"] for known in _known_ids()):
        raise ModelError(
            f"There is a model '{entry['id']}' already. Give this one another id with --name, or "
            "remove that one first."
        )
    try:
        with tempfile.TemporaryDirectory(
            prefix=".adding-", dir=model_folders.own_folder("models")
        ) as folder:
            weights = Path(folder, f"{name}.safetensors")
            save_file(_plain(found.state), weights)
            entry |= {
                "weights": weights.name,
                "sha256": model_folders.file_sha256(weights),
                "size": weights.stat().st_size,
            }
            written = Path(folder, f"{name}.json")
            entry_fields(entry, written.name)
            written.write_text(json.dumps(entry, indent=2), encoding="utf-8")
            _ = find_model(written).backbone
            model_id = model_folders.add_model(written)
    except OSError as error:
        raise StorageError(
            f"The model can't be written to {model_folders.user_folder()} "
            f"({error.strerror or error}). Free some space, or choose another folder with the "
            "environment variable FEWSHOTSEG_HOME. Nothing was added."
        ) from error
    return Added(model_id, _path_of(model_id), facts)


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as a safetensors file takes them: whole, apart, half precision as float32."""
    return {
        name: (tensor.float() if tensor.dtype in FLOATS else tensor).detach().clone().contiguous()
        for name, tensor in state.items()
    }


def _known_ids() -> list[str]:
    return [entry["id"] for _, entry in model_folders.usable_entries()[0]]


def _path_of(model_id: str) -> Path:
    return next(path for path, e in model_folders.usable_entries()[0] if e["id"] == model_id)
