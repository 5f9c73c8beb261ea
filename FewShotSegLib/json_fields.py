"""Reading what people write as JSON: every field known and of its kind, else named."""

from __future__ import annotations

import json
import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError

_T = TypeVar("_T")


def json_file(path: str | os.PathLike[str], what: str) -> Any:
    """What a JSON file holds.

    Args:
        what: the file is, for the message, such as ``assembly``.

    Raises:
        InputError: it can't be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"There is no {what} at {path} ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"The {what} {path} is not JSON: {error}.") from error


def json_object(
    data: Any, where: str, required: tuple[str, ...], optional: tuple[str, ...] | None
) -> dict[str, Any]:
    """An object with these fields.

    Args:
        where: what it is, for the message. optional: None allows any more.

    Raises:
        InputError: it is something else, lacks a field or has an unknown one.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where} is no object {{...}}")
    for key in required:
        if key not in data:
            raise InputError(f"{where} lacks the field '{key}'")
    if optional is not None:
        unknown = [key for key in data if key not in required + optional]
        if unknown:
            known = ", ".join(required + optional)
            raise InputError(f"{where} has the unknown field '{unknown[0]}'; known are {known}")
    return data


def json_settings(cls: type[_T], data: Any, name: str) -> _T:
    """A dataclass of numbers (or lists of numbers or texts), each of its default's kind.

    Raises:
        InputError: a field is unknown, of another kind or out of its range.
    """
    defaults = {field.name: field.default for field in fields(cls)}
    given = dict(json_object(data, f"'{name}'", (), tuple(defaults)))
    for key, value in given.items():
        default = defaults[key]
        if isinstance(default, tuple):
            kind = type(default[0]) if default else str
            fits = isinstance(value, list) and all(_is_a(kind, item) for item in value)
            if not fits or (default and len(value) != len(default)):
                raise InputError(f"'{name}': {key} is a list such as {list(default)}")
            given[key] = tuple(kind(item) for item in value)
        elif not _is_a(type(default), value):
            raise InputError(f"'{name}': {key} is a number such as {default}")
        else:
            given[key] = type(default)(value)
    try:
        return cls(**given)
    except InputError as error:
        raise InputError(f"'{name}': {error}") from error


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no yes or no."""
    return type(value) in (int, float) and math.isfinite(value)


def _is_a(kind: type, value: Any) -> bool:
    if kind is float:
        return is_number(value)
    return type(value) is kind
